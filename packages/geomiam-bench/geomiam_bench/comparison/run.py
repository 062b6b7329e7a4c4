"""A run of the comparison: its settings, its continuation, and its file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from geomiam._version import __version__
from geomiam.baselines.recipes import Recipe
from geomiam.errors import OutputExists
from geomiam.masking import to_dict
from geomiam.outputs.write import save_results
from geomiam.schema.schema import Schema
from geomiam_bench.comparison.costs import costs
from geomiam_bench.comparison.table import summary
from geomiam_bench.comparison.trials import Data, SystemPlan, chosen, compare
from geomiam_bench.results import read_json, with_rows


def settings_of(data: Data, plan: SystemPlan) -> dict[str, Any]:
    """Return the settings that all results depend on, as plain types, without systems and seeds."""
    values = {
        "data": data.facts(),
        "patterns": list(plan.patterns),
        "shares": list(plan.shares),
        "repeats": plan.repeats,
        "network": plan.network.model_dump(),
        "training": plan.training.model_dump(),
        "geomiam": __version__,
    }
    return json.loads(json.dumps(values))


def recipe_settings(recipe: Recipe, plan: SystemPlan, schema: Schema) -> dict[str, Any]:
    """Return the settings of a system on given data, as plain types."""
    settings: dict[str, Any] = {
        "what": recipe.description,
        "family": recipe.family,
        "without": recipe.without,
        "note": recipe.note(schema),
    }
    if recipe.baseline:
        return settings | {"baseline": recipe.baseline}
    options = recipe.options(network=plan.network, training=plan.training)
    settings |= {
        "network": options["network"].model_dump(),
        "training": options["training"].model_dump(),
        "masking": to_dict(options["masking"]),
        "warm_start": recipe.warm_start,
        "symbols": None if settings["note"] or not recipe.symbols else dict(recipe.symbols),
    }
    return json.loads(json.dumps(settings))


def begin(path: Path, data: Data, plan: SystemPlan, *, restart: bool = False) -> dict[str, Any]:
    """Return the stored run with the systems that a plan adds, or an empty run.

    With ``restart``, a stored run is ignored, and the first result that is written replaces it.

    Raises
    ------
    OutputExists
        If the file holds a run of other data, settings or systems of the same name.
    """
    settings = settings_of(data, plan)
    systems = {s.name: recipe_settings(s, plan, data.schema) for s in chosen(data, plan)}
    run = {"settings": settings, "systems": systems, "costs": {}, "results": []}
    if restart or not path.exists():
        return run
    previous_run = read_comparison(path)
    differences = [k for k, v in settings.items() if previous_run["settings"].get(k) != v]
    differences += [n for n in systems if previous_run["systems"].get(n, systems[n]) != systems[n]]
    if differences:
        difference = f"another {differences[0]}"
        raise OutputExists(f"{path} holds a run with {difference}; pass --overwrite to replace it")
    return previous_run | {"systems": previous_run["systems"] | systems}


def go_on(
    run: dict[str, Any], data: Data, plan: SystemPlan, *, on_result: Callable[[dict], object]
) -> Iterator[dict[str, Any]]:
    """Compute the missing results, and yield the run after each of them.

    Parameters
    ----------
    on_result : callable
        Called with every result, old or new.
    """
    by_key = {(r["system"], r["seed"]): r for r in run["results"]}
    for result in compare(data, plan, previous_results=by_key):
        by_key[result["system"], result["seed"]] = result
        on_result(result)
        yield run | {"results": list(by_key.values())}
    results = list(by_key.values())
    if {r["system"] for r in results} - set(run["costs"]):
        full_plan = replace(plan, systems=tuple(dict.fromkeys(r["system"] for r in results)))
        yield run | {"results": results, "costs": costs(data, full_plan)}


def write_comparison(path: str | Path, run: Mapping[str, Any]) -> None:
    """Write settings, systems, costs, summary and one line per result, in one step."""
    head = {k: v for k, v in run.items() if k != "results"} | {"summary": summary(run)}
    save_results(path, with_rows(head, "results", run["results"]))


def read_comparison(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_comparison` wrote."""
    return read_json(path)
