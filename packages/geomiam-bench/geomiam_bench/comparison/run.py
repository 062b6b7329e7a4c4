"""A run of the comparison: what it was made with, how it goes on, how it is stored."""

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
from geomiam.outputs.results import save_results
from geomiam.schema.schema import Schema
from geomiam_bench.comparison.costs import costs
from geomiam_bench.comparison.table import summary
from geomiam_bench.comparison.trials import Data, SystemPlan, chosen, compare
from geomiam_bench.results import read_json, with_rows


def settings_of(data: Data, plan: SystemPlan) -> dict[str, Any]:
    """Everything that all results depend on, as plain types; which systems and seeds is not among it."""
    made = {
        "data": data.facts(),
        "patterns": list(plan.patterns),
        "shares": list(plan.shares),
        "repeats": plan.repeats,
        "network": plan.network.model_dump(),
        "training": plan.training.model_dump(),
        "geomiam": __version__,
    }
    return json.loads(json.dumps(made))


def facts_of(one: Recipe, plan: SystemPlan, schema: Schema) -> dict[str, Any]:
    """What a system is on some data, as plain types."""
    facts: dict[str, Any] = {
        "what": one.description,
        "family": one.family,
        "without": one.without,
        "note": one.note(schema),
    }
    if one.baseline:
        return facts | {"baseline": one.baseline}
    made = one.options(network=plan.network, training=plan.training)
    facts |= {
        "network": made["network"].model_dump(),
        "training": made["training"].model_dump(),
        "masking": to_dict(made["masking"]),
        "warm_start": one.warm_start,
        "symbols": None if facts["note"] or not one.symbols else dict(one.symbols),
    }
    return json.loads(json.dumps(facts))


def begin(path: Path, data: Data, plan: SystemPlan, *, anew: bool = False) -> dict[str, Any]:
    """Return the run that is stored, or an empty one; what a plan adds joins what is there.

    With ``anew``, what is stored does not count; the first result that is written replaces it.

    Raises
    ------
    OutputExists
        If the file holds a run of other data, settings or systems of the same name.
    """
    made = settings_of(data, plan)
    systems = {s.name: facts_of(s, plan, data.schema) for s in chosen(data, plan)}
    run = {"settings": made, "systems": systems, "costs": {}, "results": []}
    if anew or not path.exists():
        return run
    before = read_comparison(path)
    other = [k for k, v in made.items() if before["settings"].get(k) != v]
    other += [n for n in systems if before["systems"].get(n, systems[n]) != systems[n]]
    if other:
        told = f"another {other[0]}"
        raise OutputExists(f"{path} holds a run with {told}; pass --overwrite to replace it")
    return before | {"systems": before["systems"] | systems}


def go_on(
    run: dict[str, Any], data: Data, plan: SystemPlan, *, told: Callable[[dict], object]
) -> Iterator[dict[str, Any]]:
    """Do what is not done yet; yield the run whenever there is more of it.

    Parameters
    ----------
    told : callable
        Is called with every result, old or new.
    """
    done = {(r["system"], r["seed"]): r for r in run["results"]}
    for result in compare(data, plan, done=done):
        done[result["system"], result["seed"]] = result
        told(result)
        yield run | {"results": list(done.values())}
    results = list(done.values())
    if {r["system"] for r in results} - set(run["costs"]):
        whole = replace(plan, systems=tuple(dict.fromkeys(r["system"] for r in results)))
        yield run | {"results": results, "costs": costs(data, whole)}


def write_comparison(path: str | Path, run: Mapping[str, Any]) -> None:
    """Write settings, systems, costs, summary and one line per result, in one step."""
    head = {k: v for k, v in run.items() if k != "results"} | {"summary": summary(run)}
    save_results(path, with_rows(head, "results", run["results"]))


def read_comparison(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_comparison` wrote."""
    return read_json(path)
