"""Metrics on xarray objects by name, and on one species as a one-dimensional array."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, cast, overload

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomiam.errors import LabelError
from geomiam.metrics.tables import Array, Block, Kernel, per_species


class Metric(Protocol):
    """A metric on arrays ``(n, S)`` or ``(n,)``, or on DataArrays with the dims ``site`` and ``species``."""

    __name__: str
    kernel: Kernel | None
    """The metric on a block, which shares its sort with others; None for a metric without one."""
    takes_weights: bool
    """Whether the metric has the parameter ``weights``."""

    @overload
    def __call__(
        self, labels: xr.DataArray, scores: xr.DataArray, **settings: Any
    ) -> xr.DataArray: ...

    @overload
    def __call__(self, labels: ArrayLike, scores: ArrayLike, **settings: Any) -> Array: ...


def metric(kernel: Callable[[Block], Array]) -> Metric:
    """Return the metric of a kernel, for tables, DataArrays and one species; the decorator of all metrics."""

    def on_tables(labels: ArrayLike, scores: ArrayLike) -> Array:
        return per_species(kernel, labels, scores)[0]

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(on_tables, name, getattr(kernel, name))
    return by_name(on_tables, kernel=kernel)


def weighted_metric(kernel: Callable[[Block], Array]) -> Metric:
    """Return the metric of a kernel with the parameter ``weights``: the weight of each site ``(n,)``."""

    def on_tables(
        labels: ArrayLike, scores: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Array:
        return per_species(kernel, labels, scores, weights=weights)[0]

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(on_tables, name, getattr(kernel, name))
    result = by_name(on_tables, kernel=kernel)
    result.takes_weights = True
    return result


def by_name(metric: Callable[..., Any], *, kernel: Kernel | None = None) -> Metric:
    """Return a metric on tables ``(n, S)`` that also accepts DataArrays and arrays of one species.

    DataArrays have the dim ``site`` and may have ``species``. Species are matched by name, sites by
    their index if both have one. Further dims of the scores, such as ``subset``, are kept.
    """

    @wraps(metric)
    def wrapped(labels: Any, scores: Any, **settings: Any) -> Any:
        if isinstance(labels, xr.DataArray) and isinstance(scores, xr.DataArray):
            return _on_dataarrays(metric, labels, scores, settings)
        if np.ndim(labels) == 1 and np.ndim(scores) == 1:
            return _on_one_species(metric, np.asarray(labels), np.asarray(scores), settings)
        return metric(labels, scores, **settings)

    result = cast(Metric, wrapped)
    result.kernel, result.takes_weights = kernel, False
    return result


def _on_one_species(
    metric: Callable[..., Any], labels: Any, scores: Any, settings: dict[str, Any]
) -> Any:
    return metric(labels[:, None], scores[:, None], **settings)[0]


def _on_dataarrays(
    metric: Callable[..., Any], labels: xr.DataArray, scores: xr.DataArray, settings: dict[str, Any]
) -> xr.DataArray:
    labels, scores = matched(labels.compute(), scores.compute())
    along = ["species"] if "species" in labels.dims else []

    def on_arrays(y: np.ndarray, z: np.ndarray) -> Any:
        return metric(y, z, **settings) if along else _on_one_species(metric, y, z, settings)

    dims = ["site", *along]
    values = xr.apply_ufunc(
        on_arrays,
        labels,
        scores,
        input_core_dims=[dims, dims],
        output_core_dims=[along],
        vectorize=True,
    )
    return values.rename(metric.__name__)


def matched(labels: xr.DataArray, scores: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return labels, and scores in the order of the labels' species."""
    for name, array in (("labels", labels), ("scores", scores)):
        if "site" not in array.dims:
            raise LabelError(
                f"{name} need the dim 'site', found {array.dims}; rename it with "
                f"{name}.rename({array.dims[0] if array.dims else 'dim'}='site')"
            )
    if ("species" in labels.dims) is not ("species" in scores.dims):
        raise LabelError(
            f"labels have the dims {labels.dims} and scores {scores.dims}: both need the dim 'species', "
            "or neither; select one species with .sel(species=name)"
        )
    if "species" in labels.indexes and "species" in scores.indexes:
        absent = [str(s) for s in labels["species"].values if s not in scores.indexes["species"]]
        if absent:
            raise LabelError(
                f"scores lack {len(absent)} species of the labels: {absent[:3]}; select the labels "
                "with labels.sel(species=scores['species'])"
            )
        scores = scores.sel(species=labels["species"].values)
    try:
        return xr.align(labels, scores, join="exact")
    except ValueError as error:
        raise LabelError(
            f"labels and scores are of different sites ({error}); select the same sites in the same "
            "order, such as scores.sel(site=labels['site'])"
        ) from None
