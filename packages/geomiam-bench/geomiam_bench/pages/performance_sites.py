"""The sections of the performance page on many sites of many species, and on predictors larger than memory."""

from __future__ import annotations

from typing import Any

from geomiam_bench.pages.markdown import table


def many_sites(results: dict[str, Any]) -> str:
    """Return memory and seconds of fits whose labels are no table in memory."""
    rows = [
        [
            f"{r['rows']:,}",
            f"{r['table_gib']:.1f}",
            f"{r['store_gib']:.2f}",
            *(f"{r[k]:.1f}" for k in ("sample_gib", "fit_gib")),
            *(f"{r[k]:.0f}" for k in ("sample_seconds", "write_seconds", "fit_seconds", "step_ms")),
        ]
        for r in results["sizes"]
    ]
    head = [
        "sites",
        "GiB of the labels as a table",
        "GiB on disk",
        "peak GiB: sample and write",
        "fit",
        "CPU seconds: sample",
        "write",
        "fit",
        "ms of a step",
    ]
    slopes, species = results["slopes"], results["sizes"][-1]["species"]
    return "\n\n".join(
        [
            "### Many sites of many species",
            f"`geomiam-bench many-sites`: {results['records']} records at each site, {species:,} species, "
            f"{results['predictors']} predictors and {results['background']:,} background points are sampled, written as "
            f"Zarr, opened lazily and fitted, with the fusion `sum` and {results['steps']} steps for the validation and as "
            "many for the model. Labels are read chunk by chunk and stay compact; sampled labels of up to 1 GiB are a table. CPU seconds of one thread; peaks are those "
            "of whole processes, with all libraries:",
            table(head, rows),
            f"The peak of the fit grows with the power {slopes['fit_gib']:.2f} of the sites, its seconds with "
            f"{slopes['fit_seconds']:.2f}, those of a step with {slopes['step_ms']:.2f}. See "
            "[large training sets](../howto/large-training.md).",
        ]
    )


def large_predictors(results: dict[str, Any]) -> str:
    """Return memory and seconds of fits whose predictors are in temporary files."""
    rows = [
        [
            f"{r['rows']:,}",
            f"{r['gib']:.1f}",
            f"{r['memory_gib']:.2f}",
            f"{r['fit_seconds']:.0f}",
            f"{r['step_ms']:.0f}",
        ]
        for r in results["sizes"]
    ]
    head = ["sites", "GiB of predictors", "peak GiB of memory", "CPU seconds: fit", "ms of a step"]
    slopes = results["slopes"]
    limit = results["limit_gib"]
    bound = f" The process could not allocate more than {limit:g} GiB." if limit else ""
    bands, pixels, _ = results["image"]
    return "\n\n".join(
        [
            "### Predictors larger than memory",
            f"`geomiam-bench large-predictors`: sites with an image of {bands} × {pixels} × {pixels} values, "
            f"{results['scalars']} scalars and {results['species']} species are opened lazily and fitted, with the fusion "
            f"`sum` and {results['steps']} steps for the validation and as many for the model.{bound} The machine has {results['machine_gib']:g} GiB. CPU seconds of one "
            "thread; the peak is that of memory that belongs to no file, with all libraries:",
            table(head, rows),
            f"The peak grows with the power {slopes['memory_gib']:.2f} of the sites, the seconds with "
            f"{slopes['fit_seconds']:.2f}, those of a step with {slopes['step_ms']:.2f}. See "
            "[large training sets](../howto/large-training.md#predictors-larger-than-memory).",
        ]
    )
