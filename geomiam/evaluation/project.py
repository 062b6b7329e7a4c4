"""Projection of a model to other times and places, with the skill that the available predictors leave."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomiam.checks.names import check_folder, list_names
from geomiam.data.dataset import as_dataset
from geomiam.data.predictors import misspelt
from geomiam.errors import MissingModality, MissingVariable, SelectionError
from geomiam.evaluation.evaluate import evaluate
from geomiam.evaluation.projection import Projection, scenario_table
from geomiam.inference.options import PredictOptions
from geomiam.inference.predict import predict
from geomiam.model.model import Model
from geomiam.model.saved_model import as_model
from geomiam.progress import progress_bar, with_progress
from geomiam.tokens.select import Selector, visible_tokens

Scenarios = xr.DataTree | Mapping[str, Any]


@with_progress
def project(
    model: Model | str | Path,
    scenarios: Scenarios,
    *,
    using: Selector | Sequence[Selector] | None = None,
    species: str | Sequence[str] | None = None,
    sites: xr.Dataset | None = None,
    metric: str = "auc",
    options: PredictOptions | None = None,
    progress: bool | None = None,
) -> Projection:
    """Predict scenarios, such as climates of the future, from the predictors that each of them has.

    Predictors that a scenario lacks, such as satellite images in 2070, are hidden from the model and
    listed. The table states the skill of the model without them.

    Parameters
    ----------
    model : Model or path
    scenarios : xarray.DataTree or mapping of str to data
        One cube per scenario: the leaves of a tree, such as ``/ssp585/2041-2070/GFDL-ESM4``, or a mapping,
        which may be nested, of names to whatever :func:`geomiam.predict` accepts. Variables of an inner
        node of a tree, such as soil, hold for all scenarios below it that lack them.
    using : selector or sequence of selectors, optional
        Predictors to use, as :func:`geomiam.predict`; default: all that a scenario has.
    species, options, progress
        As :func:`geomiam.predict`.
    sites : xarray.Dataset, optional
        Labelled sites that did not train the model, on which the skill is computed. Without them, it is the
        validation AUC that the model stores for all predictors and for single modalities, and NaN for other
        subsets.
    metric : str
        Of ``geomiam.metrics.METRICS``, for the skill on ``sites``.

    Returns
    -------
    Projection
        ``maps``: a tree of the maps; ``table``: per scenario ``left_out``, ``skill``, ``skill_all``,
        ``skill_loss`` (skill of all predictors of ``using`` minus that of the available ones),
        ``skill_from`` and ``outside_range``, the mean of that layer, NaN for lazy maps.

    Raises
    ------
    MissingVariable
        If a scenario has none of the predictors, or has a variable whose name is nearly that of a missing
        one.
    SelectionError
        If there is no scenario, or ``using`` selects a part of variables of which a scenario has some.
    NameRefused
        If the name of a scenario cannot be the name of a folder.
    VariableMismatch, MemoryRefused, LabelError
        As :func:`geomiam.predict` and :func:`geomiam.evaluate`.

    Warns
    -----
    OutsideTrainingRange, FewGroups
        As :func:`geomiam.predict`.
    TrainedOnTheseSites
        If the model was trained on some of ``sites``.

    See Also
    --------
    geomiam.ranges.change : gain, loss and stable parts of a range between two maps.
    geomiam.ranges.agreement : agreement of maps of several climate models.

    Examples
    --------
    >>> projection = gm.project(model, {"2070": cube.drop_vars(["landsat", "chip"])}, sites=sites)
    >>> sorted(projection.table.columns)
    ['left_out', 'outside_range', 'skill', 'skill_all', 'skill_from', 'skill_loss']
    """
    model = as_model(model)
    cubes = dict(_cubes(scenarios))
    if not cubes:
        raise SelectionError(
            "there is no scenario: pass a tree with cubes as leaves, or {'2070': cube}"
        )
    data = {n: as_dataset(c) for n, c in cubes.items()}
    missing_names = {n: _missing(ds, model, n) for n, ds in data.items()}
    subsets = {n: _available(model, using, missing, n) for n, missing in missing_names.items()}
    skills = _skills(model, using, subsets, sites, metric)
    maps: dict[str, xr.Dataset] = {}
    for name, ds in progress_bar(data.items(), desc="scenarios", leave=False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MissingModality)  # the table lists what is missing
            result = predict(ds, model, using=subsets[name], species=species, options=options)
        left_out = missing_names[name]
        attributes = {**skills[name], "left_out": json.dumps(left_out)}
        maps[name] = result.assign_attrs({k: v for k, v in attributes.items() if v == v})
    return Projection(xr.DataTree.from_dict(maps), scenario_table(maps))


def _cubes(scenarios: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the cube of each scenario."""
    if isinstance(scenarios, xr.DataTree):
        yield from _leaves(scenarios)
    elif isinstance(scenarios, Mapping) and not isinstance(scenarios, xr.Dataset):
        for name, value in scenarios.items():
            for part in str(name).split("/"):  # each is the folder of a group
                check_folder(part, "scenario")
            inner = f"{path}/{name}" if path else str(name)
            if isinstance(value, Mapping) and not isinstance(value, (xr.Dataset, xr.DataTree)):
                yield from _cubes(value, inner)
            else:
                yield inner, value
    else:
        raise SelectionError(
            f"scenarios are a DataTree or a mapping of names to cubes, found {type(scenarios).__name__}: pass "
            "{'2070': cube}"
        )


def _leaves(tree: xr.DataTree) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the leaves of a tree, with the variables of the nodes above that they lack."""
    root = tree.path.rstrip("/")
    for leaf in tree.leaves:
        parts = [leaf.to_dataset()]
        if not parts[0].data_vars:
            continue
        for node in leaf.parents if leaf is not tree else ():
            above, names = node.to_dataset(), {str(n) for p in parts for n in p.data_vars}
            if further_names := [n for n in above.data_vars if n not in names]:
                parts.append(above[further_names])
            if node is tree:
                break
        yield leaf.path.removeprefix(root).strip("/") or leaf.name or "scenario", as_dataset(parts)


def _missing(ds: xr.Dataset, model: Model, name: str) -> list[str]:
    """Return the predictors that a scenario lacks, or that are NaN everywhere in memory."""
    variables = model.schema.variables
    absent = [v for v in variables if v not in ds.data_vars]
    if similar := misspelt(ds, model.schema, absent):
        raise MissingVariable(
            f"scenario '{name}' lacks {list(similar)}, but has variables of nearly the same name: rename with "
            f"ds.rename({ {v: k for k, v in similar.items()} }), or drop them with ds.drop_vars({[*similar.values()]})"
        )
    empty = [
        v
        for v in variables
        if v not in absent and ds[v].chunks is None and not ds[v].notnull().any()
    ]
    missing = [v for v in variables if v in (*absent, *empty)]
    if len(missing) == len(variables):
        raise MissingVariable(
            f"scenario '{name}' has none of the predictors; expected {list_names(variables)}, found "
            f"{list_names(ds.data_vars)}"
        )
    return missing


def _available(
    model: Model, using: Any, missing: Sequence[str], scenario: str
) -> list[Selector] | None:
    """Return the selectors of the predictors of ``using`` that are not missing; None for all."""
    if not missing and using is None:
        return None
    layout = model.layout
    selectors: list[Selector] = (
        list(model.schema.variables)
        if using is None
        else [using]
        if isinstance(using, (str, Mapping))
        else list(using)
    )
    available: list[Selector] = []
    for selector in selectors:
        tokens = visible_tokens(layout, selector)
        names = layout.variables_of(tokens)
        present_names = [n for n in layout.schema.variables if n in names and n not in missing]
        if len(present_names) == len(names):
            available.append(selector)
        elif present_names and not np.array_equal(tokens, visible_tokens(layout, sorted(names))):
            raise SelectionError(
                f"using={selector!r} is a part of {sorted(names)}, of which scenario '{scenario}' has {present_names} only: select "
                "the parts by variable"
            )
        else:
            available += present_names
    if not available:
        raise MissingVariable(
            f"scenario '{scenario}' has none of the predictors in using={using!r}"
        )
    return available


def _skills(
    model: Model,
    using: Any,
    subsets: Mapping[str, list[Selector] | None],
    sites: xr.Dataset | None,
    metric: str,
) -> dict[str, dict[str, Any]]:
    """Return the skill of each subset and that of all predictors of ``using``, by scenario."""
    full_name = "all predictors of using="
    if sites is None:
        scores = {n: _stored(model, u) for n, u in {**subsets, full_name: using}.items()}
        source, metric = "validation sites of the model", "auc"
    else:
        table = evaluate(model, sites, subsets={**subsets, full_name: using}, metrics=metric)
        values = table[f"mean_{metric}"].values.tolist()
        scores, source = dict(zip([*subsets, full_name], values)), "sites"
    best = scores[full_name]
    return {
        n: {
            "skill": scores[n],
            "skill_all": best,
            "skill_from": source if math.isfinite(scores[n]) else "",
            "skill_metric": metric,
        }
        for n in subsets
    }


def _stored(model: Model, using: Any) -> float:
    """Return the AUC of held-out sites that a model stores for a subset; NaN if there is none."""
    about, layout = model.about, model.layout
    counts = about.get("sites")
    is_held_out = bool(about.get("validation")) or bool(
        isinstance(counts, Mapping) and counts.get("validation")
    )
    scores = about.get("validation_auc", {}) if is_held_out else {}
    visible = visible_tokens(layout, using)
    subsets: dict[str, Any] = {"all": None, **{m: m for m in layout.schema.modalities}}
    for name, subset in subsets.items():
        if np.array_equal(visible_tokens(layout, subset), visible):
            value = scores.get(name)
            if isinstance(value, float):
                return value
    return math.nan
