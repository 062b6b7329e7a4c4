"""The commands behind the claims about skill: whole tables on real data, one command each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.outputs import reserve
from geomiam.outputs.kinds import PICTURE, RESULTS
from geomiam.outputs.write import save_picture
from geomiam.progress import progress_bar
from geomiam_bench.options import Figure, Json, Names, Overwrite, listed
from geomiam_bench.results import continued, read_json

Folder = Annotated[
    Path, typer.Argument(help="Folder with metadata.json and one folder per region.")
]
Continued = Annotated[
    Path, typer.Option("--json", help="Results; a run that was stopped is continued.")
]


def disdat(
    folder: Folder,
    out: Continued,
    regions: Annotated[str, typer.Option(help="Regions, separated by commas; default: all.")] = "",
    background: Annotated[str, typer.Option(help="target-group or random.")] = "target-group",
    groups: Annotated[
        str, typer.Option(help="Target groups: published (NSW merged) or original.")
    ] = "published",
    strategies: Names = "miam",
    fusions: Names = "group+sum",
    default: Annotated[
        bool, typer.Option("--default", help="Also train gm.fit(sites) without further settings.")
    ] = False,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Also train a model per subset.")
    ] = False,
    baselines: Names = "rf,xgboost,maxent-like",
    seeds: Annotated[int, typer.Option(help="Trainings of each method.")] = 3,
    subsets: Annotated[
        str, typer.Option(help="Subsets to score, as in 'evaluate'.")
    ] = "unimodal+all",
    covariates: Annotated[str, typer.Option(help="published or all.")] = "published",
    members: Annotated[int, typer.Option(help="Networks in one model.")] = 6,
    kappa: Annotated[float, typer.Option(help="Parameter kappa of MIAM; 10 as published.")] = 20.0,
    published_folder: Annotated[
        Path | None,
        typer.Option(
            "--published",
            help="Folder of published per-species files, to compare species by species.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train on presence records, score on independent surveys (Elith et al. 2020)."""
    from geomiam_bench.disdat import (
        NETWORK,
        Plan,
        benchmark,
        entries,
        settings_of,
        write_results,
    )
    from geomiam_bench.published import species_auc
    from geomiam_bench.readers.disdat import regions as regions_in

    region_names = listed(regions) or tuple(regions_in(folder))
    published_species = species_auc(published_folder, region_names) if published_folder else None
    plan = Plan(
        regions=region_names,
        background=background,  # type: ignore[arg-type]
        groups=groups,  # type: ignore[arg-type]
        strategies=listed(strategies),
        fusions=listed(fusions),
        default=default,
        oracle=oracle,
        baselines=listed(baselines),
        seeds=seeds,
        subsets=subsets,
        covariates=covariates,
        kappa=kappa,
        network=NETWORK.model_copy(update={"members": members}),
    )
    reserve(out, True, kind=RESULTS)
    previous_run = None if overwrite else continued(out, settings_of(plan))
    previous_rows = previous_run["results"] if previous_run else []
    stored_results = {(r["region"], r["label"], r["seed"]): r for r in previous_rows}
    results = []
    with _bar(len(plan.regions) * len(entries(plan))) as bar:
        for result in benchmark(folder, plan, previous_results=stored_results):
            results.append(result)
            write_results(out, plan, results, published_species=published_species)
            bar.set_postfix_str(f"{result['region']} {result['label']}")
            bar.update()
    _print(read_json(out)["summary"])
    typer.echo(f"\n{len(results)} trained predictors → {out}")


def missingness(
    data: Annotated[Path, typer.Argument(help="Sites: Zarr store; or a folder as 'disdat' reads.")],
    out: Json,
    figure: Figure = None,
    schema: Annotated[Path | None, typer.Option(help="Catalog (YAML) of the sites.")] = None,
    region: Annotated[str, typer.Option(help="Region of such a folder.")] = "",
    strategies: Names = "miam,uniform",
    imputations: Names = "mean,median,marginal,conditional",
    baselines: Names = "xgboost",
    patterns: Names = "at-random,by-modality,belt,region",
    effects: Annotated[
        str, typer.Option(help="What happens to these data: missing, noise, shift.")
    ] = "missing",
    shares: Annotated[str, typer.Option(help="Shares missing or wrong.")] = "0,0.2,0.4,0.6,0.8",
    train_pattern: Annotated[str, typer.Option(help="Gaps of the training sites.")] = "at-random",
    train_share: Annotated[float, typer.Option(help="Share of data in these gaps.")] = 0.0,
    seeds: Annotated[int, typer.Option(help="Trainings of each method.")] = 3,
    overwrite: Overwrite = False,
) -> None:
    """Score methods while more and more of the predictors is missing or wrong."""
    import xarray as xr

    from geomiam_bench.sweeps import STYLES, SweepPlan, sweeps, write_sweep

    reserve(out, overwrite, kind=RESULTS, inputs=[schema, figure])
    if figure:
        reserve(figure, overwrite, kind=PICTURE, inputs=[schema, out])
    plan = SweepPlan(
        strategies=listed(strategies),
        imputations=listed(imputations),
        baselines=listed(baselines),
        patterns=listed(patterns),
        effects=listed(effects),
        shares=tuple(map(float, listed(shares))),
        train_pattern=train_pattern,
        train_share=train_share,
        seeds=seeds,
    )
    sites, site_schema, plan = _sites(data, schema, region, plan)
    tables = []
    with _bar(plan.seeds) as bar:
        for table in sweeps(sites, site_schema, plan):
            tables.append(table)
            bar.update()
    seconds = sum(t.attrs["seconds"] for t in tables)
    all_seeds = xr.concat(tables, "seed", combine_attrs="drop").assign_attrs(seconds=seconds)
    write_sweep(out, plan, all_seeds)
    if figure:
        from geomiam import plot

        save_picture(
            plot.missingness(all_seeds, styles=STYLES)[0].figure, figure, overwrite=overwrite
        )
    _print_sweep(all_seeds)
    typer.echo(f"→ {out}" + (f", {figure}" if figure else ""))


def systems(
    data: Annotated[Path, typer.Argument(help="Sites: Zarr store; or a folder as 'disdat' reads.")],
    out: Continued,
    figure: Figure = None,
    schema: Annotated[Path | None, typer.Option(help="Catalog (YAML) of the sites.")] = None,
    region: Annotated[str, typer.Option(help="Region of such a folder.")] = "",
    systems: Annotated[str, typer.Option(help="Names, separated by commas; default: all.")] = "",
    seeds: Annotated[int, typer.Option(help="Trainings of each system.")] = 3,
    epochs: Annotated[int, typer.Option(help="At most; systems stop by themselves.")] = 0,
    tune: Annotated[
        bool, typer.Option("--tune", help="Score blocks of the records; the survey stays closed.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare whole systems (default fit, MaskSDM, MIAM, UME, MAESTRO's parts, trees) on the same sites."""
    from dataclasses import replace

    from geomiam_bench import readers
    from geomiam_bench.comparison.run import begin, go_on, write_comparison
    from geomiam_bench.comparison.trials import Data, SystemPlan, chosen
    from geomiam_bench.readers.disdat import regions

    reserve(out, True, kind=RESULTS, inputs=[schema, figure])
    if figure:
        reserve(figure, True, kind=PICTURE, inputs=[schema, out])
    plan = SystemPlan(seeds=seeds, **({"systems": listed(systems)} if systems else {}))  # type: ignore[arg-type]
    if epochs:
        plan = replace(plan, training=plan.training.model_copy(update={"epochs": epochs}))
    sites, site_schema, plan = _sites(data, schema, region, plan)
    survey = None
    if (data / "metadata.json").exists() and not tune:
        survey = readers.disdat(data, region or regions(data)[0])[1]
    comparison_data = Data(sites, site_schema, survey)
    run = begin(out, comparison_data, plan, restart=overwrite)
    with _bar(plan.seeds * len(chosen(comparison_data, plan))) as bar:

        def show(result: dict) -> None:
            bar.set_postfix_str(result["system"])
            bar.update()

        for current_run in go_on(run, comparison_data, plan, on_result=show):
            write_comparison(out, run := current_run)
    if figure:
        from geomiam_bench.comparison.figure import draw

        save_picture(draw(run), figure, overwrite=True)  # of the same results, which go on
    _print_systems(run)
    typer.echo(f"→ {out}" + (f", {figure}" if figure else ""))


def _print_systems(run: dict) -> None:
    """One line per system: means by situation, the difference to the reference, and costs."""
    from geomiam_bench.comparison.table import reference, summary

    rows = summary(run)
    names = list(next(iter(rows.values()))["auc"])
    head = "".join(f"{n:>14s}{'± vs ' + reference(rows):>19s}" for n in names)
    typer.echo(f"{'system':20s}{head}{'train s':>9s}{'weights':>10s}{'s/1,000':>9s}")
    for name, result in rows.items():
        typer.echo(
            f"{name:20s}"
            + "".join(f"{result['auc'][n]:14.4f}{_against(result, n):>19s}" for n in names)
            + f"{result['seconds']:9.1f}{result['parameters'] or 0:10,.0f}{result['cost'] or 0:9.3f}"
        )


def _against(result: dict, situation: str) -> str:
    difference = result["against"].get(situation)
    if not difference or difference["mean"] is None:
        return ""
    error = f" ± {100 * difference['error']:.1f}" if difference["error"] is not None else ""
    return f"{100 * difference['mean']:+.1f}{error}"


def _sites(data: Path, schema: Path | None, region: str, plan: Any) -> tuple:
    """Sites, their schema, and the plan with the loss that their labels ask for."""
    from dataclasses import replace

    import geomiam as gm
    from geomiam_bench import readers
    from geomiam_bench.readers.disdat import regions

    if not (data / "metadata.json").exists():
        sites = gm.open_sites(data).load()
        return sites, gm.Schema.from_yaml(schema) if schema else gm.infer_schema(sites), plan
    region = region or regions(data)[0]
    records = readers.disdat(data, region)[0]
    training = plan.training.model_copy(update={"loss": "maxent"})  # no absences, only background
    return records, readers.disdat_schema(data, region), replace(plan, training=training)


def _print_sweep(table: Any) -> None:
    from geomiam_bench.sweeps import summary

    for pattern, rows in summary(table).items():
        typer.echo(f"{pattern:14s}" + "".join(f"{s:>8.0%}" for s in table["share"].values))
        for name, values in rows.items():
            typer.echo(f"  {name:12s}" + "".join(f"{v:8.3f}" for v in values))


def _bar(total: int) -> Any:
    return progress_bar(total=total, unit="model", desc="benchmark")


def _print(summary: dict) -> None:
    for label, result in sorted(summary.items(), key=lambda i: -i[1]["mean_over_species"]):
        row = "  ".join(f"{name} {r['all']:.3f}" for name, r in result["regions"].items())
        typer.echo(
            f"{label:24s} {row}  mean of {result['species']} species "
            f"{result['mean_over_species']:.4f}"
        )
