"""Response curves: the prediction as a function of one or two predictors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.at_once import ENCODED_ROWS
from geomiam.checks.settings import check_count
from geomiam.data.sites.draw import random_cells
from geomiam.data.sites.table import read_arrays
from geomiam.errors import SelectionError
from geomiam.explain.response_axes import POINTS, Axis, axis_of, training_limits
from geomiam.geo.dims import SITE
from geomiam.inference.inputs import Data, as_data
from geomiam.inference.members import features_block, member_curves
from geomiam.inference.own_observations import by_visible
from geomiam.inference.slabs import Scale
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.tokens.select import Selector, visible_tokens

Kind = Literal["partial", "alone"]


@dataclass(frozen=True, kw_only=True)
class ResponseOptions:
    """Options of :func:`geomiam.explain.response`.

    Parameters
    ----------
    points : int, optional
        Values of each predictor; default 50 for a curve and 20 by 20 for a surface.
    grid : mapping of str to array_like, optional
        Values of a predictor in its units, in place of evenly spaced ones.
    sites : int
        Most sites over which predictions are averaged; more are sampled at random.
    individual : bool
        Whether to return the curve of each site.
    quantiles : sequence of float
        Quantiles of the predictors at the sites.
    rng : int, numpy.random.Generator or None
        Draws the sites.

    Examples
    --------
    >>> options = gm.explain.ResponseOptions(grid={"bio1": [-1, 0, 1]}, individual=True)
    >>> gm.explain.response(model, sites, "bio1", options=options)["individual"].dims
    ('site', 'species', 'bio1')
    """

    points: int | None = None
    grid: Mapping[str, ArrayLike] | None = None
    sites: int = 500
    individual: bool = False
    quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)
    rng: int | np.random.Generator | None = 0


def response(
    model: Model | str | Path,
    data: Data | None,
    variables: str | Sequence[str],
    *,
    kind: Kind = "partial",
    using: Selector | Sequence[Selector] | None = None,
    species: str | Sequence[str] | None = None,
    scale: Scale = "probability",
    options: ResponseOptions | None = None,
) -> xr.Dataset:
    """Return the response of the prediction to one predictor (a curve) or two (a surface).

    Parameters
    ----------
    model : Model or path
    data : xarray.Dataset, xarray.DataTree, pandas.DataFrame or None
        Sites or a cube, of which cells are sampled. None, with ``kind="alone"`` only: no rug and no
        quantiles.
    variables : str or sequence of str
        One or two predictors with one value per place (scalar, circular or categorical).
    kind : {"partial", "alone"}
        ``"partial"``: partial dependence (Friedman 2001), the mean over the sites of the prediction after
        the predictor was set to each value. All other predictors of a site keep their values, and missing
        ones stay hidden. Sites where nothing is observed are left out. ``"alone"``: the prediction from
        these predictors only. All others are hidden, so the curve has no average over combinations of
        values that do not occur.
    using : selector or sequence of selectors, optional
        Predictors to use for ``"partial"``, as :func:`geomiam.predict`; default all.
    species : str or sequence of str, optional
        Default all.
    scale : {"probability", "logit"}
    options : ResponseOptions, optional
        Values of the predictors, number of sites, and curves of single sites; see
        :class:`geomiam.explain.ResponseOptions`.

    Returns
    -------
    xarray.Dataset
        ``response(species, <variable>, …)``, whose coordinates are values in the units of the predictors or
        codes of classes. ``spread(species, <variable>, …)``: standard deviation over the ensemble members,
        0 for one member. Members share one bias in a model, so each is shifted, on the logit scale, to the
        mean of all over the whole curve: the spread is that of the shape.
        ``individual(site, species, <variable>)``, if requested. ``outside_<variable>(<variable>)``: whether
        a value is outside the training range. ``training_range(variable, bound)`` (NaN for angles, classes
        and models without stored ranges), ``rug(variable, site)`` and ``quantiles(variable, quantile)`` of
        the sites, and their ``presence(site, species)`` if there are labels.

    Raises
    ------
    SelectionError
        If a predictor, a species or an option is unknown, a predictor is not in ``using`` or has several
        values per place.
    MissingVariable, VariableMismatch
        As :func:`geomiam.predict`.

    See Also
    --------
    geomiam.plot.response : plot the curve or the surface.

    References
    ----------
    Friedman (2001), Annals of Statistics 29, 1189-1232; Goldstein et al. (2015), Journal of Computational
    and Graphical Statistics 24, 44-65, for curves of single sites; Elith et al. (2005), Ecological
    Modelling 186,
    280-289, for response curves of species distribution models.

    Examples
    --------
    >>> curve = gm.explain.response(model, sites, "bio1", using=["climate", "terrain"])
    >>> curve["response"].dims
    ('species', 'bio1')
    >>> alone = gm.explain.response(model, None, ["bio1", "bio12"], kind="alone")
    >>> alone["response"].sizes["bio12"]
    20
    """
    options, model = options or ResponseOptions(), as_model(model)
    names = [variables] if isinstance(variables, str) else list(map(str, variables))
    visible = _visible(model, names, kind=kind, using=using, data=data)
    index = model.species_index(species)
    rows = None if data is None else _rows(data, model, visible=visible, options=options)
    visible_names = model.layout.variables_of(visible)
    arrays = {} if rows is None else read_arrays(rows, model.schema, variables=visible_names)
    points = POINTS[len(names)] if options.points is None else options.points
    grids = options.grid or {}
    axes = [axis_of(model, n, arrays.get(n), points=points, grid=grids.get(n)) for n in names]
    base = arrays if kind == "partial" else _nothing(model)
    values, mean, spread = _responses(
        model, base, axes, visible=visible, species=index, scale=scale
    )
    out = _result(mean, spread, axes, model, index)
    if rows is not None:
        out = _with_sites(out, rows, arrays, options.quantiles)
    if options.individual and kind == "partial":
        out["individual"] = _on_axes(values, axes).assign_attrs(out["response"].attrs)
    return out.assign_attrs(
        kind=kind,
        using=json.dumps(sorted(visible_names)),
        scale=scale,
        model_id=model.id,
    )


def _nothing(model: Model) -> dict[str, np.ndarray]:
    """Return one row without an observed predictor, ``(1, *own dims)`` by variable."""
    variables = model.schema.variables.values()
    return {v.name: np.full((1, *v.sizes), np.nan, np.float32) for v in variables}


def _visible(
    model: Model, names: list[str], *, kind: str, using: Any, data: Data | None
) -> np.ndarray:
    """Return the tokens ``(t,)`` that are visible to the model."""
    if kind not in get_args(Kind):
        raise SelectionError(f"kind={kind!r}; use 'partial' or 'alone'")
    if len(set(names)) not in (1, 2) or len(set(names)) < len(names):
        raise SelectionError(f"a response has one or two predictors, found {names}")
    of_names = visible_tokens(model.layout, names)
    for name in names:
        variable = model.schema.variables.get(name)
        if variable is None or variable.dims:
            usable = [n for n, v in model.schema.variables.items() if not v.dims]
            raise SelectionError(
                f"'{name}' is no predictor with one value per place, so it has no axis; choose from {usable}, or "
                "explain it with gm.shapley"
            )
    if kind == "alone":
        if using is not None:
            raise SelectionError("kind='alone' uses the variables only: leave using= out")
        return of_names
    if data is None:
        raise SelectionError("kind='partial' averages over sites: pass data=sites, or kind='alone'")
    visible = visible_tokens(model.layout, using)
    if (of_names & ~visible).any():
        raise SelectionError(f"variables {names} are not all in using={using!r}; widen using=")
    return visible


def _rows(data: Data, model: Model, *, visible: np.ndarray, options: ResponseOptions) -> xr.Dataset:
    """Return at most ``options.sites`` sites that have one of the visible predictors."""
    check_count("sites", options.sites, minimum=1, hint="500 suffices for a curve")
    ds, rng = as_data(data, model), np.random.default_rng(options.rng)
    names = [n for n in ds.data_vars if n in model.layout.variables_of(visible)]
    if SITE not in ds.dims:
        return random_cells(ds[names], n=options.sites, rng=rng)[0] if names else ds[names]
    finite = [ds[n].notnull().any([d for d in ds[n].dims if d != SITE]).values for n in names]
    candidates = np.flatnonzero(np.any(finite, axis=0)) if names else np.arange(ds.sizes[SITE])
    if len(candidates) > options.sites:
        candidates = np.sort(rng.choice(candidates, options.sites, replace=False))
    return ds.isel({SITE: candidates})


def _responses(
    model: Model,
    arrays: Mapping[str, np.ndarray],
    axes: Sequence[Axis],
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale,
) -> tuple[np.ndarray, ...]:
    """Return the results of :func:`_predict`, each species without the observations of itself."""
    parts = by_visible(model, visible=visible, species=species)
    results = [
        _predict(model, arrays, axes, visible=visible_part, species=species[columns], scale=scale)
        for columns, visible_part in parts
    ]
    order = np.argsort(np.concatenate([columns for columns, _ in parts]))
    return tuple(np.concatenate(r, -1)[..., order] for r in zip(*results))


def _predict(
    model: Model,
    arrays: Mapping[str, np.ndarray],
    axes: Sequence[Axis],
    *,
    visible: np.ndarray,
    species: np.ndarray,
    scale: Scale,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predictions ``(n, p, s)`` of n sites at p combinations of values, their mean and spread ``(p, s)``."""
    n = len(next(iter(arrays.values())))
    points = np.stack([g.ravel() for g in np.meshgrid(*(a.values for a in axes), indexing="ij")], 1)
    features = []
    for start in range(0, n * len(points), ENCODED_ROWS):
        number = np.arange(start, min(start + ENCODED_ROWS, n * len(points)))
        row, point = np.divmod(number, len(points))
        values = {k: v[row] for k, v in arrays.items()}
        values |= {a.variable.name: points[point, i].astype(np.float32) for i, a in enumerate(axes)}
        features.append(features_block(model, model.encode(values), visible=visible))
    return member_curves(
        model, np.concatenate(features), (n, len(points)), species=species, scale=scale
    )


def _result(
    mean: np.ndarray, spread: np.ndarray, axes: Sequence[Axis], model: Model, species: np.ndarray
) -> xr.Dataset:
    """Return the mean and the spread ``(p, s)`` with their labels."""
    names = [a.variable.name for a in axes]
    out = xr.Dataset(coords={"species": [model.species[i] for i in species], "variable": names})
    for axis in axes:
        out = out.assign_coords({axis.dim: (axis.dim, axis.values, axis.attrs())})
        meaning = {"long_name": f"{axis.variable.name} is outside the training range"}
        out[f"outside_{axis.dim}"] = (axis.dim, axis.outside, meaning)
    quantity = model.quantity.name if model.quantity else "suitability"
    out["response"] = _on_axes(mean[None], axes)[0].assign_attrs(long_name=quantity, units="1")
    text = f"standard deviation over ensemble members of {quantity}"
    out["spread"] = _on_axes(spread[None], axes)[0].assign_attrs(long_name=text, units="1")
    limits = np.stack([training_limits(model, a.variable) for a in axes])
    out["training_range"] = (("variable", "bound"), limits)
    return out.assign_coords(bound=["least", "greatest"])


def _on_axes(values: np.ndarray, axes: Sequence[Axis]) -> xr.DataArray:
    """Return values ``(n, p, s)`` as ``(site, species, *axes)``."""
    shape = [len(a.values) for a in axes]
    array = np.moveaxis(values.reshape(len(values), *shape, values.shape[-1]), -1, 1)
    return xr.DataArray(array, dims=(SITE, "species", *(a.dim for a in axes)))


def _with_sites(
    out: xr.Dataset, rows: xr.Dataset, arrays: Mapping[str, np.ndarray], levels: Sequence[float]
) -> xr.Dataset:
    """Add the values of the predictors at the sites, their quantiles, and labels if there are any."""
    rug = np.stack([arrays[str(n)].astype(float) for n in out["variable"].values])
    out["rug"] = (("variable", SITE), rug, {"long_name": "values of the predictors at the sites"})
    out["quantiles"] = out["rug"].quantile(list(levels), dim=SITE).transpose("variable", ...)
    if "presence" in rows and set(rows["presence"].dims) == {SITE, "species"}:
        presence = rows["presence"].reset_coords(drop=True).reindex(species=out["species"].values)
        out["presence"] = ((SITE, "species"), presence.transpose(SITE, "species").values)
    return out.assign_attrs(sites=int(rows.sizes[SITE]))
