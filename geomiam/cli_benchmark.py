"""``geomiam benchmark``: the tables that the claims about skill come from, by one command each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.errors import OutputExists

app = typer.Typer(
    help="Rerun the tables behind the claims about skill, on real data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[
    Path, typer.Argument(help="Folder with metadata.json and one folder per region.")
]
Json = Annotated[Path, typer.Option("--json", help="Results; a run that was stopped goes on.")]
Names = Annotated[str, typer.Option(help="Names, separated by commas.")]


@app.command()
def disdat(
    folder: Folder,
    out: Json,
    regions: Annotated[str, typer.Option(help="Regions; all that are there if not given.")] = "",
    background: Annotated[str, typer.Option(help="target-group or random.")] = "target-group",
    strategies: Names = "miam",
    fusions: Names = "group",
    oracle: Annotated[bool, typer.Option("--oracle", help="One more model per subset.")] = False,
    baselines: Names = "rf,xgboost,maxent-like",
    seeds: Annotated[int, typer.Option(help="Trainings of each method.")] = 3,
    subsets: Annotated[str, typer.Option(help="Columns, as of 'evaluate'.")] = "unimodal+all",
    covariates: Annotated[str, typer.Option(help="published or all.")] = "published",
    members: Annotated[int, typer.Option(help="Networks in one model.")] = 5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew.")] = False,
) -> None:
    """Train on presence records, score on independent surveys (Elith et al. 2020)."""
    from geomiam.evaluation.disdat import NETWORK, Plan, benchmark, entries, write_results
    from geomiam.evaluation.readers.disdat import regions as found

    plan = Plan(
        regions=_names(regions) or tuple(found(folder)),
        background=background,  # type: ignore[arg-type]
        strategies=_names(strategies),
        fusions=_names(fusions),
        oracle=oracle,
        baselines=_names(baselines),
        seeds=seeds,
        subsets=subsets,
        covariates=covariates,
        network=NETWORK.model_copy(update={"members": members}),
    )
    done = {} if overwrite else _done(out, plan)
    results = []
    with _bar(len(plan.regions) * len(entries(plan))) as bar:
        for result in benchmark(folder, plan, done=done):
            results.append(result)
            write_results(out, plan, results)
            bar.set_postfix_str(f"{result['region']} {result['label']}")
            bar.update()
    _print(json.loads(out.read_text(encoding="utf-8"))["summary"])
    typer.echo(f"\n{len(results)} trained predictors → {out}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _done(path: Path, plan: Any) -> dict:
    """Results of a run with equal settings; another run's file is not touched."""
    from geomiam.evaluation.disdat import settings_of

    if not path.exists():
        return {}
    before = json.loads(path.read_text(encoding="utf-8"))
    if before.get("settings") != json.loads(json.dumps(settings_of(plan))):
        raise OutputExists(
            f"{path} holds a run with other settings; pass --overwrite to replace it"
        )
    return {(r["region"], r["label"], r["seed"]): r for r in before["results"]}


def _bar(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="model", desc="benchmark")


def _print(summary: dict) -> None:
    for label, facts in sorted(summary.items(), key=lambda i: -i[1]["mean_over_species"]):
        row = "  ".join(f"{name} {r['all']:.3f}" for name, r in facts["regions"].items())
        typer.echo(
            f"{label:24s} {row}  mean of {facts['species']} species "
            f"{facts['mean_over_species']:.4f}"
        )
