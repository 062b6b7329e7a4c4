"""Maps of presence and absence from maps of suitability and a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from geomiam.errors import SelectionError, SettingError
from geomiam.metrics.confusion import classes
from geomiam.metrics.thresholds import ThresholdKind
from geomiam.model.model import Model
from geomiam.model.saved_model import load_model

Thresholds = Model | str | Path | xr.Dataset | xr.DataArray | Mapping[str, float] | float
"""Where the thresholds come from."""


def classify(
    maps: xr.Dataset, thresholds: Thresholds, *, kind: ThresholdKind = "max-tss"
) -> xr.Dataset:
    """Turn suitability into presence and absence, species by species.

    Parameters
    ----------
    maps : xarray.Dataset
        With ``suitability(species, ...)`` as probability: a map or sites of :func:`geomiam.predict`
        or :func:`geomiam.write_map`. numpy in, numpy out; dask in, dask out.
    thresholds : Model, path, Dataset, DataArray, mapping or float
        A model with thresholds or the path of one; the result of
        :func:`geomiam.evaluation.thresholds`; one number per species by name; or one number for all.
    kind : str
        Kind of the threshold, as in :func:`geomiam.metrics.threshold`. Numbers of yours have none.

    Returns
    -------
    xarray.Dataset
        ``presence``, with the dims of the suitability, float32: 1 where suitability ≥ threshold, 0
        elsewhere, NaN where the suitability or the threshold of the species is NaN. The coordinate
        ``threshold(species)`` holds the value, the attribute ``threshold_kind`` its kind, and
        ``threshold_source`` the predictions that it was chosen on.

    Raises
    ------
    SettingError
        If the maps have no suitability, or log-odds.
    SelectionError
        If there is no threshold of the kind, or a species has no threshold by name.

    See Also
    --------
    geomiam.evaluation.thresholds : thresholds from predictions of held-out sites.
    geomiam.metrics.threshold : thresholds of your labels and scores.
    geomiam.ranges.change : compare two maps of presence.

    Examples
    --------
    >>> maps = gm.predict(cube, model)
    >>> classes = gm.classify(maps, {str(s): 0.5 for s in maps["species"].values})
    >>> classes["presence"].dims == maps["suitability"].dims
    True
    >>> bool(maps["suitability"].where(classes["presence"] == 1).min() >= 0.5)
    True
    """
    if "suitability" not in getattr(maps, "data_vars", ()):
        raise SettingError("maps need the variable 'suitability'; pass the maps of gm.predict")
    suitability = maps["suitability"]
    if suitability.attrs.get("scale") == "logit":
        raise SettingError(
            "the suitability is on the scale of log-odds and thresholds are probabilities: predict with "
            "scale='probability'"
        )
    values, attrs = _by_species(thresholds, kind, [str(s) for s in maps["species"].values])
    threshold = xr.DataArray(
        values,
        dims="species",
        coords={"species": maps["species"]},
        attrs={"long_name": f"threshold of suitability, {attrs['threshold_kind']}", "units": "1"},
    )
    presence = classes(suitability, threshold).transpose(*suitability.dims).astype(np.float32)
    presence.attrs = {
        "long_name": "presence",
        "flag_values": [0, 1],
        "flag_meanings": "absent present",
        **attrs,
    }
    presence.encoding = {
        k: v for k, v in suitability.encoding.items() if k in ("grid_mapping", "chunks")
    }
    attrs_of_map = {
        k: v for k, v in maps.attrs.items() if k in ("model_id", "title", "Conventions", "crs")
    }
    result = xr.Dataset({"presence": presence}, attrs=attrs_of_map)
    return result.assign_coords(
        {k: v for k, v in maps.coords.items() if k not in result.coords}
    ).assign_coords(threshold=threshold)


def _by_species(
    thresholds: Thresholds, kind: str, names: list[str]
) -> tuple[np.ndarray, dict[str, str]]:
    """Return the threshold of each species ``(S,)``, and its kind and source."""
    if isinstance(thresholds, (str, Path)):
        thresholds = load_model(thresholds)
    if isinstance(thresholds, Model):
        thresholds = thresholds.thresholds
    if isinstance(thresholds, xr.Dataset):
        source = thresholds.attrs.get("source", "")
        thresholds = thresholds["threshold"].assign_attrs(source=source)
    if isinstance(thresholds, xr.DataArray):
        attrs = {"threshold_kind": "as set"}
        if "kind" in thresholds.dims:
            if kind not in thresholds["kind"].values:
                kinds = [str(k) for k in thresholds["kind"].values]
                raise SelectionError(
                    f"there is no threshold {kind!r}; choose from {kinds}"
                    if kinds
                    else "the model has no thresholds, since no site was held out of its training: choose them with "
                    "gm.evaluation.thresholds(table), from the table of gm.cross_validate, and store them with "
                    "model.with_thresholds(...); or fit with validation sites, as by default"
                )
            thresholds = thresholds.sel(kind=kind)
            attrs = {"threshold_kind": kind}
        if source := thresholds.attrs.get("source"):
            attrs["threshold_source"] = str(source)
        numbers = dict(zip(map(str, thresholds["species"].values), thresholds.values.tolist()))
    else:
        attrs = {"threshold_kind": "as set"}
        is_mapping = isinstance(thresholds, Mapping)
        numbers = dict(thresholds) if is_mapping else dict.fromkeys(names, thresholds)  # type: ignore[arg-type]  # a number
    if absent := [n for n in names if n not in numbers]:
        raise SelectionError(
            f"there is no threshold of {len(absent)} of {len(names)} species ({', '.join(absent[:3])}); "
            "leave them out with maps.sel(species=[...])"
        )
    return np.array([float(numbers[n]) for n in names]), attrs
