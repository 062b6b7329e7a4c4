"""The performance page of the documentation, from the results of the commands.

The folder of results holds ``shapley.json``, ``gpu.json``, ``maps.json``, ``layers.json``, ``kills.json``, ``planning.json``,
``overviews.json``, ``training.json``, ``many-sites.json`` and ``large-predictors.json``; the page has a section for each file that is there.
All numbers come from the JSON.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import median
from typing import Any

from geomiam_bench.pages.layers import layers_section
from geomiam_bench.pages.markdown import table
from geomiam_bench.pages.performance_gpu import gpu
from geomiam_bench.pages.performance_graphs import graphs
from geomiam_bench.pages.performance_ratio import map_ratio
from geomiam_bench.pages.performance_sites import large_predictors, many_sites
from geomiam_bench.pages.performance_text import HEAD, SHEET, WHY

JOBS = {
    "Europe, 1 km": 5.8e6,
    "Europe, 100 m": 5.8e8,
    "the world's land, 100 m": 1.35e10,
}
"""Land cells: 5.8 million km² (the 39 countries of the EEA), 135 million km² (without Antarctica)."""

NAMES = {
    "naive": "the papers' procedure, every coalition a full pass",
    "token fp32": "token fusion, exact",
    "token bf16": "token fusion, exact, bf16",
    "token learned": "token fusion, by a learned explainer",
    "group fp32": "group fusion, exact",
    "group bf16": "group fusion, exact, bf16",
    "token fp32 predict": "token fusion, prediction alone",
    "token bf16 predict": "token fusion, prediction alone, bf16",
    "group fp32 predict": "group fusion, prediction alone",
    "group bf16 predict": "group fusion, prediction alone, bf16",
}


def write_page(results: Path, docs: Path) -> None:
    """Write the page and the figures."""
    pictures = docs / "images" / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    parts = [HEAD]
    sections = {
        "shapley": explanations,
        "gpu": gpu,
        "maps": maps,
        "map-ratio": map_ratio,
        "layers": layers_section,
        "kills": kills,
        "planning": planning,
        "graphs": graphs,
        "overviews": overviews,
        "training": training,
        "many-sites": many_sites,
        "large-predictors": large_predictors,
    }
    for name, write in sections.items():
        path = results / f"{name}.json"
        if path.exists():
            figure = path.with_suffix(".png")
            if figure.exists():
                shutil.copy(figure, pictures / figure.name)
            parts.append(write(json.loads(path.read_text(encoding="utf-8"))))
    (docs / "explanation" / "performance.md").write_text(
        "\n\n".join(parts) + "\n", encoding="utf-8"
    )


def explanations(results: dict[str, Any]) -> str:
    """Return the costs of a prediction and an explanation, and of a job."""
    sizes, cost = results["sizes"], results["milliseconds_per_cell"]
    faster, price = results["times_faster_than_naive"], results["price_in_predictions"]
    rows = [
        [
            NAMES[way],
            f"{results['operations_per_cell'][way] / 1e6:,.0f}",
            f"{cost[way]:.2f}",
            f"{results['share_of_peak'][way]:.0%}",
            f"{faster[way]:.1f}" if way in faster else "",
            f"{price[way]:.1f}" if way in price else "",
        ]
        for way in NAMES
    ]
    off, largest = results["largest_difference"], results["largest_value"]
    peak = {k: v / 1e9 for k, v in results["peak_of_products"].items()}
    return "\n\n".join(
        [
            "## Prediction and explanation",
            f"{sizes['tokens']} tokens in {sizes['groups']} groups, width {sizes['width']}, "
            f"{sizes['species']} species, {2 ** sizes['groups']} coalitions a cell; CPU time of one thread, "
            f"medians of interleaved runs. The peak is what a plain product of these sizes reaches in the "
            f"same run: {peak['fp32']:.0f} billion operations a second in float32, {peak['bf16']:.0f} in bfloat16.",
            table(
                [
                    "",
                    "million operations a cell",
                    "ms a cell",
                    "of the peak",
                    "× faster",
                    "price in predictions",
                ],
                rows,
            ),
            f"Token fusion is exact: it differs from the papers' procedure by at most "
            f"{off['token fp32 to naive']:.0e}. bfloat16 changes a value by at most "
            f"{off['group bf16 to fp32']:.4f} (group; largest value {largest['group']:.2f}) and "
            f"{off['token bf16 to naive']:.4f} (token; {largest['token']:.2f}).",
            WHY.format(
                bound=results["operations_per_cell"]["naive"]
                / results["operations_per_cell"]["token fp32"],
                share=results["share_of_peak"]["token bf16"],
            ),
            "![Milliseconds per cell as groups, tokens, species and the missing share grow](../images/benchmarks/shapley.png)",
            jobs(results),
        ]
    )


def jobs(results: dict[str, Any]) -> str:
    """Return the table that plans a job."""
    sizes, cost = results["sizes"], results["milliseconds_per_cell"]
    ways = ("group fp32 predict", "group fp32", "group bf16")
    values = sizes["tokens"] + sizes["species"] * (1 + sizes["groups"])
    rows = [
        [
            name,
            f"{cells:,.0f}",
            f"{cells / 512**2:,.0f}",
            f"{cells * 4 * values / 1e9:,.0f} GB",
            *(f"{cells * cost[w] / 3.6e6:,.0f}" for w in ways),
            f"{cells * results['operations_per_cell']['group fp32'] / 1e15:,.1f}",
        ]
        for name, cells in JOBS.items()
    ]
    return "\n\n".join(
        [
            "## A sheet to plan a job",
            f"With the model above, cells with data only. Bytes are those of {sizes['tokens']} predictors "
            "read and of suitability and Shapley values written, before compression, which saves half or more.",
            table(
                [
                    "",
                    "land cells",
                    "blocks of 512 × 512",
                    "bytes",
                    "core-hours: prediction",
                    "explained",
                    "explained, bf16",
                    "10¹⁵ operations",
                ],
                rows,
            ),
            SHEET,
        ]
    )


def maps(results: dict[str, Any]) -> str:
    """Return the speed from Zarr to Zarr, workers, memory, and the largest real map."""
    speed, memory, real = results["speed"], results["memory"], results["real"]
    rows = [
        [f"{m['cells']:,}", f"{m['promised'] / 2**20:.0f}", f"{m['measured'] / 2**20:.0f}"]
        for m in memory
    ]
    load = f" ({results['load at the start']:.1f} to {results['load after speed']:.1f} processes were waiting for "
    load += f"{results['cores']} cores meanwhile)"
    parts = [
        "## Maps, from Zarr to Zarr",
        f"{speed['cells']:,} cells of a small model (24 tokens, width 96, 4 species), which makes reading and "
        f"writing weigh more than they do with a large one{load}:",
        f"- A map from store to store runs at {speed['map against bare model']:.2f} of the bare model's speed.\n"
        f"- Two threads are {speed['2 threads against 1']:.2f} times one, two processes "
        f"{speed['2 processes against 1']:.2f} times one.",
        "![Seconds from Zarr to Zarr, and peak memory against cells](../images/benchmarks/maps.png)",
        "Peak memory does not grow with the map. The promised MiB are those of the plan:",
        table(["cells", "promised", "measured"], rows),
    ]
    if isinstance(real, dict):  # the command had the data for one
        parts.append(
            f"**The largest real map at hand**: human footprint of Europe, {real['cells']:,} cells, "
            f"{real['cells with data']:,} with data, by `geomiam predict` from start to end in "
            f"{real['seconds from start to end']:.0f} s. {real['report'].partition('; ')[2].rstrip('. ')}. A GeoTIFF with overviews of it "
            f"takes {real['overview']['seconds to write']:.0f} s to write, and its coarsest level "
            f"{1000 * real['overview']['seconds to read the coarsest']:.0f} ms to open.",
        )
    return "\n\n".join(parts)


def kills(results: dict[str, Any]) -> str:
    """Return the results of killed writers and workers."""
    rows = [
        [
            f"the {process}",
            *(
                f"{results[process][k]:,}"
                for k in ("kills", "maps", "unequal", "again", "needless")
            ),
        ]
        for process in ("writer", "worker")
    ]
    head = [
        "killed",
        "times",
        "maps",
        "unequal, byte by byte",
        "blocks made again",
        "of these, marked as done",
    ]
    return "\n\n".join(
        [
            "### Killed at random times",
            "`geomiam-bench kills` kills the writer of a map, or workers under it, with SIGKILL, and lets it go on:",
            table(head, rows),
        ]
    )


def planning(results: dict[str, Any]) -> str:
    """Return the tasks and seconds of plans against scenes, items and cells."""
    slopes, country = results["slopes"], results["country"]
    tiles = [
        [
            f"{r['tiles']:,}",
            f"{r['tasks']:,}",
            f"{r['seconds']:.2f}",
            f"{r['odc_tasks']:,}",
            f"{r['odc_seconds']:.2f}",
            f"{r['tasks'] / r['odc_tasks']:.2f}",
        ]
        for r in results["tiles"]
    ]
    items = [
        [
            *(f"{r['items']:,}", f"{r['seconds']:.1f}", f"{r['ms_per_item']:.1f}"),
            f"{r['megabytes']:,.0f}",
        ]
        for r in results["items"]
    ]
    cells = [
        [f"{r['cells']:,}", f"{r['tasks']:,}", f"{r['seconds']:.2f}"] for r in results["cells"]
    ]
    head = [
        "tiles of a day",
        "tasks",
        "seconds",
        "odc-stac: tasks",
        "seconds",
        "tasks ÷ odc-stac's",
    ]
    return "\n\n".join(
        [
            "## Planning",
            f"Before the first pixel is read (`geomiam-bench planning`; CPU seconds). Sentinel-2 on cells of 10 m, "
            f"{results['bands']} bands, in chunks of 1,024 × 1,024, beside odc-stac, which loads the same bands and the "
            f"scene classification without a mask. Tasks grow with the power {slopes['tasks on tiles']:.2f} of the "
            f"tiles (odc-stac: {slopes['odc_tasks on tiles']:.2f}):",
            table(head, tiles),
            "A task reads the scenes of one day under one chunk, one after another, and carries their links and grids "
            "only. Items are read one by one, and released (seconds without those of making the items):",
            table(["items", "seconds of the plan", "ms per item", "MB of memory"], items),
            f"One call for {country['tiles']} tiles on {country['dates']} dates, as monthly medians on "
            f"{country['cells']:,} cells of 20 m, is planned in {country['seconds']:.0f} s, with "
            f"{country['tasks']:,} tasks; `gm.build_cube` writes it in bands of rows and resumes.",
            f"A lazy `gm.predict` grows with the power {slopes['tasks on cells']:.2f} of the cells:",
            table(["cells", "tasks", "seconds"], cells),
            static_catalogs(results["static"]),
        ]
    )


def static_catalogs(results: dict[str, Any]) -> str:
    """Return the cost of a plan of a month against the links of a static catalog, by layout."""
    largest = max(r["links"] for r in results["rows"])
    rows = [
        [
            r["layout"],
            f"{r['scenes']:,}",
            f"{r['seconds']:.1f}",
            f"{r['megabytes']:,.0f}",
            f"{results['slopes'][r['layout']]:.2f}",
        ]
        for r in results["rows"]
        if r["links"] == largest
    ]
    head = ["links", "scenes of the month", "seconds", "MB of memory", "power of the links"]
    return "\n\n".join(
        [
            "### Static STAC catalogs",
            f"A plan of one month from a catalog on disk with {largest:,} items of ten years. By dates in names or folders, "
            "other items are not opened; folders are read with the neighbouring months. The power is that of the growth "
            "of the seconds from 1,000 links on:",
            table(head, rows),
        ]
    )


def overviews(results: dict[str, Any]) -> str:
    """Return what overviews save where cells are coarse, and by how much values differ."""
    rows = [
        [
            f"{r['cell']:,} m",
            "none" if r["mask"] is None else "clouds",
            f"{r['megabytes']['full']:.1f}",
            f"{r['megabytes']['overviews']:.1f}",
            f"{r['seconds']['full']:.2f}",
            f"{r['seconds']['overviews']:.2f}",
            f"{r['cells_with_data']['full']:.1%}",
            f"{r['cells_with_data']['overviews']:.1%}",
            f"{r['rmse'] / r['spread_of_cells']:.1%}",
        ]
        for r in results["rows"]
    ]
    head = ["cells", "mask", "MB read", "by overviews", "CPU seconds", "by overviews"]
    head += ["cells with data", "by overviews", "difference"]
    return "\n\n".join(
        [
            "### Overviews",
            f"`geomiam-bench overviews` reads a made-up scene of {results['pixels']:,} × {results['pixels']:,} pixels of 10 m, "
            f"{results['bands']} bands and {results['clouds']:.0%} clouds, onto coarse cells, at full resolution and with "
            "`SceneOptions(overviews=True)`. The difference is the root mean square over cells with data in both, "
            "relative to the standard deviation of the cells. One run; other programs shared the machine:",
            table(head, rows),
        ]
    )


def training(results: dict[str, Any]) -> str:
    """Return the cost of a training step beside the papers' step."""
    sizes, faster = results["sizes"], results["speed_up_over_paper"]
    kinds = [k for k in faster["group"] if k not in ("miam", "uniform")]
    rows = [
        [
            f"{name} fusion",
            *(f"{faster[name][k]['median']:.1f}" for k in kinds),
            f"{faster[name]['uniform']['median']:.1f}",
            f"{faster[name]['miam']['of_sums']:.1f}",
        ]
        for name in ("token", "group")
    ]
    head = ["hidden share", *(f"{float(k):.0%}" for k in kinds), "uniform", "MIAM"]
    return "\n\n".join(
        [
            "## Training",
            f"A step of {sizes['batch']} sites, {sizes['tokens']} tokens, width {sizes['width']}, {sizes['depth']} blocks, "
            "against the papers' step at equal size, which computes every token and puts the mask token where one is "
            "hidden: how many times faster, medians of interleaved pairs, one thread.",
            table(head, rows),
            "![Speed-up against hidden share](../images/benchmarks/training.png)",
            "Hidden tokens are not computed, so the gain follows the share that is hidden; uniform masking hides half. Group "
            "fusion computes less for a visible token as well. Sites are in memory, and a batch is a slice of them. "
            "`TrainingConfig(devices=2)` shares each batch among devices (Lightning Fabric): gradients are those of one.",
            *fits(results.get("fits", [])),
        ]
    )


def fits(rows: list[dict[str, Any]]) -> list[str]:
    """Return the cost of fits with default settings; nothing without results."""
    if not rows:
        return []
    cells = [
        [
            *(f"{r[k]:,}" for k in ("sites", "species", "predictors")),
            *(f"{median(r[k]):.0f}" for k in ("fit", "process")),
        ]
        for r in rows
    ]
    head = ["sites", "species", "predictors", "CPU seconds", "with all imports"]
    return [
        "### A fit with default settings\n\n`gm.fit(sites)` trains members of up to four kinds on spatial folds and "
        "then on all sites. CPU seconds of one thread; other programs shared the machine, which makes them longer:",
        table(head, cells),
    ]
