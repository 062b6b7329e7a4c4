"""``geomiam evaluate`` and ``cross-validate``: the skill of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from geomiam.cli.options import (
    DEVICE,
    LOOP,
    LOSS,
    NETWORK,
    ModelPath,
    Overwrite,
    SitesPath,
    TrainOptions,
    with_options,
)
from geomiam.cli.outputs import TableFlags, reserve, reserve_pair
from geomiam.errors import GeomiamError
from geomiam.outputs.kinds import PICTURE, SCORES
from geomiam.outputs.write import save_picture

FOLD_LOOP = tuple(name for name in LOOP if name != "block")
"""Options of the training; ``--block`` is the side of the folds."""
Subsets = Annotated[
    str, typer.Option(help="unimodal, pairs, leave-one-out, every, variables, all; joined by '+'.")
]
Metrics = Annotated[
    str, typer.Option(help="auc, auc_prg, average_precision, tss, boyce, cor, …; joined by ','.")
]


@with_options()
def evaluate(
    model: ModelPath,
    sites: SitesPath,
    subsets: Subsets = "unimodal+all",
    metrics: Metrics = "auc",
    figure: Annotated[
        Path | None, typer.Option(help="Picture of the scores to write, e.g. skill.png.")
    ] = None,
    overwrite: Overwrite = False,
    *,
    output: TableFlags,
) -> None:
    """Score a model on labelled sites, for subsets of the predictors."""
    import geomiam as gm

    if figure:
        reserve(figure, overwrite, kind=PICTURE, inputs=[model, sites])
    names = names_of(metrics)
    data = gm.open_sites(sites).load()
    table = gm.evaluate(gm.load_model(model), data, subsets=subsets, metrics=names)
    rows = _rows(table)
    output.say(rows, _scores_text(rows, names))
    if figure:
        save_picture(gm.plot.subsets(table, metric=names[0])[0].figure, figure, overwrite=overwrite)


@dataclass(frozen=True)
class FoldFlags:
    """Kind, number and size of the folds of ``cross-validate``."""

    splits: Annotated[
        str,
        typer.Option(
            help="Folds: blocks (squares in space), checkerboard, environment (clusters of the predictors), "
            "knndm (as far from training sites as the cells of --area are) or random."
        ),
    ] = "blocks"
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 5
    block: Annotated[
        str | None,
        typer.Option(help="Side of the squares, such as '100 km'; default: from the data."),
    ] = None
    area: Annotated[
        Path | None, typer.Option(help="For --splits knndm: cube of the area to be mapped (Zarr).")
    ] = None

    def splitter(self, seed: int) -> Any:
        """Return the splitter of these folds."""
        import geomiam as gm

        name, folds, block, area = self.splits, self.folds, self.block, self.area
        if block and name not in ("blocks", "checkerboard"):
            raise GeomiamError(f"--block is the side of squares, which --splits {name} has none of")
        if (area is None) == (name == "knndm"):
            raise GeomiamError("--splits knndm needs --area cube.zarr, and no other folds use it")
        if name == "blocks":
            return gm.splits.SpatialBlocks(folds, block, rng=seed)
        if name == "checkerboard":
            return gm.splits.Checkerboard(block)
        if name == "environment":
            return gm.splits.EnvironmentalBlocks(folds, rng=seed)
        if name == "knndm":
            return gm.splits.NearestNeighbourMatching(gm.open_cube(str(area)), folds, rng=seed)
        if name == "random":
            from sklearn.model_selection import KFold

            return KFold(folds, shuffle=True, random_state=seed)
        raise GeomiamError(
            f"no folds '{name}'; use blocks, checkerboard, environment, knndm or random"
        )


@with_options(options=("schema", "masking", *NETWORK, *LOSS, *FOLD_LOOP, *DEVICE, "seed"))
def cross_validate(
    sites: SitesPath,
    subsets: Subsets = "unimodal+all",
    metrics: Metrics = "auc",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Zarr store of all scores and predictions, for 'geomiam report'."
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Map of the folds to write, e.g. folds.png.")
    ] = None,
    overwrite: Overwrite = False,
    *,
    fold_flags: FoldFlags,
    options: TrainOptions,
    output: TableFlags,
) -> None:
    """Measure the skill on all sites: each is predicted by a model that its fold did not train.

    One model is trained per fold, with the settings of 'geomiam fit'. With random folds, test sites are near
    training sites, so the skill is higher than in places without records.
    """
    import geomiam as gm
    from geomiam.data.store.store import write_zarr

    reserve_pair(
        out, figure, overwrite, kind=SCORES, inputs=[sites, fold_flags.area, options.schema]
    )
    names = names_of(metrics)
    table = gm.cross_validate(
        gm.open_sites(sites).load(),
        options.schema,
        splits=fold_flags.splitter(options.seed),
        metrics=names,
        subsets=subsets,
        network=options.given(*NETWORK) or None,
        training=options.given(*LOSS, *FOLD_LOOP, *DEVICE) or None,
        fit_options=options.given("masking"),
        rng=options.seed,
    )
    rows = _rows(table)
    output.say(rows, f"{_scores_text(rows, names)}\n{_folds_text(table, fold_flags.splits)}")
    if out:
        write_zarr(table, out, overwrite=overwrite, kind=SCORES)
    if figure:
        save_picture(gm.plot.folds(table).figure, figure, overwrite=overwrite)
    output.say_paths(out, figure)


def _folds_text(table: Any, splits: str) -> str:
    """Return the number of folds, and the size of the blocks or the match of the distances."""
    attrs, count = table.attrs, int(table["fold"].max()) + 1
    if "block_km" in attrs:
        size = f"{attrs['block_count']} blocks of {attrs['block_km']:g} km: {attrs['block_reason']}"
        return f"{count} folds, {size}"
    if "w_km" in attrs:
        return f"{count} folds, W = {attrs['w_km']:.1f} km: {attrs['fold_reason']}"
    return f"{count} folds, {splits}"


def names_of(metrics: str) -> list[str]:
    """Return the names of metrics that are joined by commas."""
    return [m.strip() for m in metrics.split(",")]


def _rows(table: Any) -> Any:
    """Return the scores of each subset, as means over species."""
    other_dims = [d for d in table.dims if d != "subset"]
    return table.drop_dims(other_dims).reset_coords(drop=True).to_dataframe().reset_index()


def _scores_text(rows: Any, names: list[str]) -> str:
    lines = ["  ".join(f"{m[:9]:>9}" for m in names) + "  unscored     sites  subset"]
    for row in rows.to_dict("records"):
        scores = "  ".join(f"{row[f'mean_{m}']:9.4f}" for m in names)
        unscored_text = f"{row[f'unscored_{names[0]}']:8.0f}"
        lines.append(f"{scores}  {unscored_text}  {row['sites']:8,.0f}  {row['subset']}")
    return "\n".join(lines)
