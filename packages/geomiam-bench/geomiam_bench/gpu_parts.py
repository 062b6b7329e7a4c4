"""The measurements of ``geomiam-bench gpu``, one function each, which runs in a separate process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

import geomiam as gm
from geomiam.model.model import Precision
from geomiam.networks.blocks import TransformerBlock
from geomiam.tokens.select import group_masks
from geomiam_bench.shapley import FUSIONS, SIZES, explain_all, make, off, operations, predict_all

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements; :data:`TINY` are those of a trial on a CPU."""

    rows: int = 65536
    """Cells of a batch."""
    batches: tuple[int, ...] = (1024, 8192, 65536, 262144)
    """Cells of a batch, varied."""
    width: int = 192
    product: int = 8192
    """Side of a square product."""
    copy_mib: int = 512
    """MiB that are copied to the device."""
    sites: int = 20_000
    training_batches: tuple[int, ...] = (128, 1024, 8192)
    epochs: int = 3
    repeat: int = 5
    backend: str = "inductor"
    """Backend of ``torch.compile``."""


TINY = Sizes(
    rows=8,
    batches=(4, 8),
    width=8,
    product=32,
    copy_mib=1,
    sites=60,
    training_batches=(64,),
    epochs=1,
    repeat=1,
    backend="eager",
)


def wait(device: torch.device) -> None:
    """Wait until the device has finished all requested work."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def timed(
    todo: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    repeat: int,
    seconds: float = 60.0,
) -> dict[str, float]:
    """Return the median seconds of each call; the calls are repeated in turn.

    After ``seconds`` there is no further repetition; every call is measured at least once.
    """
    durations: dict[str, list[float]] = {name: [] for name in todo}
    end = time.monotonic() + seconds
    for number in range(
        1 + repeat
    ):  # the first run compiles kernels and counts only if it is alone
        for name, run in todo.items():
            if number > 1 and time.monotonic() > end:
                break
            wait(device)
            start = time.perf_counter()
            run()
            wait(device)
            durations[name].append(time.perf_counter() - start)
    return {name: statistics.median(s[1:]) for name, s in durations.items()}


def products(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Return the operations a second of a large square product, by precision; TF32 is not used in fp32."""
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.randn(sizes.product, sizes.product, device=device).to(dtype)
        seconds = timed({name: partial(torch.matmul, x, x)}, device, repeat=7)[name]
        rates[name] = 2 * sizes.product**3 / seconds
    return rates


def predictions(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Return cells a second of predictions and exact explanations, and what bfloat16 changes."""
    todo: dict[str, Callable[[], Any]] = {}
    for fusion in FUSIONS:
        model, block = make(fusion, width=sizes.width, rows=sizes.rows, **SIZES)
        masks = np.stack(list(group_masks(model.layout).values()))
        for precision in PRECISIONS:
            cast_model = model.in_precision(precision).to(device)
            todo[f"{fusion} {precision}"] = partial(explain_all, cast_model, block, masks)
            todo[f"{fusion} {precision} predict"] = partial(predict_all, cast_model, block)
    seconds = timed(todo, device, repeat=sizes.repeat, seconds=90)
    counts = operations(**SIZES, d=sizes.width)
    of_name = {n: counts[n.replace(" fp32", "").replace(" bf16", "")] for n in todo}
    return {
        "cells_per_second": {n: sizes.rows / s for n, s in seconds.items()},
        "operations_per_second": {n: of_name[n] * sizes.rows / s for n, s in seconds.items()},
        "price_in_predictions": {
            n: seconds[n] / seconds[f"{n} predict"] for n in todo if "predict" not in n
        },
        "largest_difference": {
            f"{f} bf16 to fp32": off(todo[f"{f} bf16"](), todo[f"{f} fp32"]()) for f in FUSIONS
        },
    }


def batches(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Return cells a second of a prediction by the cells of a batch."""
    rates: dict[str, dict[str, float]] = {p: {} for p in PRECISIONS}
    for rows in sizes.batches:
        model, block = make("group", width=sizes.width, rows=rows, **SIZES)
        todo: dict[str, Callable[[], Any]] = {
            p: partial(predict_all, model.in_precision(p).to(device), block) for p in PRECISIONS
        }
        seconds = timed(todo, device, repeat=sizes.repeat, seconds=15)
        for precision in PRECISIONS:
            rates[precision][str(rows)] = rows / seconds[precision]
    return rates


def feeding(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Return bytes a second to the device, and cells a second of ``gm.predict`` from arrays in memory."""
    host = torch.zeros(sizes.copy_mib * 2**18)
    todo: dict[str, Callable[[], Any]] = {"pageable": lambda: host.to(device)}
    if device.type == "cuda":
        pinned_memory = host.pin_memory()
        todo["pinned"] = lambda: pinned_memory.to(device, non_blocking=True)
        todo["to pinned memory first"] = lambda: host.pin_memory().to(device, non_blocking=True)
    copies = timed(todo, device, repeat=sizes.repeat, seconds=20)
    model, _ = make("group", width=sizes.width, **SIZES)
    rng, names = np.random.default_rng(0), list(model.schema.variables)
    cells = xr.Dataset({n: ("site", rng.normal(size=sizes.rows).astype(np.float32)) for n in names})
    model = model.to(device)
    work = {"predict": lambda: gm.predict(cells, model, progress=False)}
    seconds = timed(work, device, repeat=sizes.repeat, seconds=30)["predict"]
    return {
        "bytes_per_second": {n: host.nbytes / s for n, s in copies.items()},
        "cells_per_second": sizes.rows / seconds,
    }


def compiled(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Return seconds of a prediction with and without ``torch.compile`` of the blocks, and of the compilation."""
    model, block = make("group", width=sizes.width, rows=sizes.rows, **SIZES)
    model = model.to(device)
    plain = timed({"": partial(predict_all, model, block)}, device, repeat=sizes.repeat)[""]
    for module in model.network.modules():
        if isinstance(module, TransformerBlock):
            module.compile(backend=sizes.backend, dynamic=True)
    start = time.perf_counter()
    predict_all(model, block)
    wait(device)
    first = time.perf_counter() - start
    seconds = timed({"": partial(predict_all, model, block)}, device, repeat=sizes.repeat)[""]
    return {"seconds": plain, "seconds_compiled": seconds, "seconds_of_first_call": first}


class Fit(NamedTuple):
    """Settings of a measured training."""

    fusion: str
    batch: int
    precision: str


def training(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Return training sites a second, with the scores after each epoch, by network, batch and precision."""
    sites = training_sites(sizes.sites)
    rows = []
    for fusion, settings in FUSIONS.items():
        for batch in sizes.training_batches:
            for precision in ("32-true", "bf16-mixed"):
                config = gm.TrainingConfig(
                    epochs=sizes.epochs + 1,
                    epoch_steps=1,
                    batch=batch,
                    holdout=0,
                    keep="last",
                    accelerator=device.type,
                    precision=precision,
                )
                network = gm.NetworkConfig(fusion=fusion, width=sizes.width, heads=4, **settings)
                model = gm.fit(
                    sites, network=network, training=config, validation=False, progress=False
                )
                # The first epoch compiles kernels.
                seconds = float(model.history["seconds"][1:].median())
                fit = Fit(fusion, batch, precision)._asdict()
                rows.append({**fit, "sites_per_second": sizes.sites / seconds})
    return {"rows": rows}


def training_sites(n: int) -> xr.Dataset:
    """Return sites with 64 predictors in 6 modalities and 20 species, one predictor in five missing."""
    rng = np.random.default_rng(0)
    names = [f"v{g}_{i}" for g, k in enumerate((11, 11, 11, 11, 10, 10)) for i in range(k)]
    values = rng.normal(size=(n, len(names))).astype(np.float32)
    labels = (values[:, :1] + rng.normal(size=(n, SIZES["species"])) > 1).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    return xr.Dataset(
        {k: ("site", x, {"modality": k.split("_")[0]}) for k, x in zip(names, values.T)}
        | {"presence": (("site", "species"), labels)},
        coords={
            "longitude": ("site", rng.uniform(0, 10, n)),
            "latitude": ("site", rng.uniform(40, 50, n)),
            "species": [f"s{i}" for i in range(SIZES["species"])],
        },
    )


class Part(NamedTuple):
    """A measurement, and the seconds after which it is stopped."""

    measure: Callable[[torch.device, Sizes], dict[str, Any]]
    seconds: float


PARTS = {
    "products": Part(products, 40),
    "predictions": Part(predictions, 150),
    "batches": Part(batches, 80),
    "feeding": Part(feeding, 70),
    "training": Part(training, 150),
    "compiled": Part(compiled, 90),
}
"""In the order in which they run; the last ones fall away if the time is over."""


def of_sizes(sizes: Sizes) -> dict[str, Any]:
    """Return the sizes, with those of the model, as JSON types."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(sizes).items()}
    return {**SIZES, **values}
