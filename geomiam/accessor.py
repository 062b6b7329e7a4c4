"""``ds.miam`` and ``dt.miam``: functions of geomiam as methods of a cube or of sites, without state.

Signatures are those of the functions, without their first argument; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from icechunk import Repository

    from geomiam.geo.lengths import Length
    from geomiam.inference.options import MapOptions, PredictOptions, ShapleyOptions
    from geomiam.inference.slabs import Scale
    from geomiam.maps.plan import MapPlan
    from geomiam.model.model import Model
    from geomiam.schema.schema import Schema
    from geomiam.tokens.select import Selector
    from geomiam.uncertainty.options import NoveltyOptions, ValueOptions


@xr.register_datatree_accessor("miam")
@xr.register_dataset_accessor("miam")
class Miam:
    """Functions of geomiam on a cube or on sites."""

    def __init__(self, obj: xr.Dataset | xr.DataTree):
        self._obj = obj

    def __repr__(self) -> str:
        from geomiam.data.overview import overview
        from geomiam.errors import printable

        title, lines = overview(self._obj)
        return "\n".join([title, *(f"  {printable(f'{k}: {v}')}" for k, v in lines.items())])

    def _repr_html_(self) -> str:
        from geomiam.data.overview import overview
        from geomiam.outputs.text import facts_html

        return facts_html(*overview(self._obj))

    def predict(
        self,
        model: Model | str | Path,
        *,
        using: Selector | Sequence[Selector] | None = None,
        species: str | Sequence[str] | None = None,
        scale: Scale = "probability",
        spread: bool = False,
        interval: float | None = None,
        options: PredictOptions | None = None,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Predict every cell or site from the predictors that it has; see :func:`geomiam.predict`.

        >>> maps = cube.miam.predict(model, using="climate")  # doctest: +SKIP
        """
        from geomiam.inference.predict import predict

        return predict(
            self._obj,
            model,
            using=using,
            species=species,
            scale=scale,
            spread=spread,
            interval=interval,
            options=options,
            progress=progress,
        )

    def shapley(
        self,
        model: Model | str | Path,
        *,
        groups: Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None = None,
        using: Selector | Sequence[Selector] | None = None,
        species: str | Sequence[str] | None = None,
        scale: Scale = "probability",
        order: int = 1,
        spread: bool = False,
        options: ShapleyOptions | None = None,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Return the contribution of each group of predictors; see :func:`geomiam.shapley`.

        >>> contributions = cube.miam.shapley(model)  # doctest: +SKIP
        """
        from geomiam.explain.shapley_values import shapley

        return shapley(
            self._obj,
            model,
            groups=groups,
            using=using,
            species=species,
            scale=scale,
            order=order,
            spread=spread,
            options=options,
            progress=progress,
        )

    def novelty(
        self,
        model: Model | str | Path,
        *,
        using: Selector | Sequence[Selector] | None = None,
        reference: xr.Dataset | None = None,
        options: NoveltyOptions | None = None,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Measure how different each cell or site is from the training sites; see :func:`geomiam.novelty`.

        >>> new = cube.miam.novelty(model)  # doctest: +SKIP
        """
        from geomiam.uncertainty.novelty import novelty

        return novelty(
            self._obj,
            model,
            using=using,
            reference=reference,
            options=options,
            progress=progress,
        )

    def value_of_information(
        self,
        model: Model | str | Path,
        *,
        groups: Sequence[Selector] | Mapping[str, Selector | Sequence[Selector]] | None = None,
        using: Selector | Sequence[Selector] | None = None,
        species: str | Sequence[str] | None = None,
        scale: Scale = "probability",
        reference: xr.Dataset | None = None,
        options: ValueOptions | None = None,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Return how much missing groups would change predictions; see :func:`geomiam.value_of_information`.

        >>> value = cube.miam.value_of_information(model)  # doctest: +SKIP
        """
        from geomiam.uncertainty.value_of_information import value_of_information

        return value_of_information(
            self._obj,
            model,
            groups=groups,
            using=using,
            species=species,
            scale=scale,
            reference=reference,
            options=options,
            progress=progress,
        )

    def write_map(
        self,
        model: Model | str | Path,
        path: str | Path | Repository,
        *,
        shapley: bool = False,
        species: str | Sequence[str] | None = None,
        using: Selector | Sequence[Selector] | None = None,
        chunks: Mapping[str, int] | None = None,
        client: Any = None,
        options: MapOptions | None = None,
        overwrite: bool = False,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Write predictions, and Shapley values if requested, into a Zarr store; see :func:`geomiam.write_map`.

        >>> maps = cube.miam.write_map(model, "map.zarr", shapley=True)  # doctest: +SKIP
        """
        from geomiam.maps.write import write_map

        return write_map(
            self._obj,
            model,
            path,
            shapley=shapley,
            species=species,
            using=using,
            chunks=chunks,
            client=client,
            options=options,
            overwrite=overwrite,
            progress=progress,
        )

    def plan_map(
        self,
        model: Model | str | Path,
        *,
        shapley: bool = False,
        species: str | Sequence[str] | None = None,
        using: Selector | Sequence[Selector] | None = None,
        chunks: Mapping[str, int] | None = None,
        client: Any = None,
        options: MapOptions | None = None,
    ) -> MapPlan:
        """Estimate the blocks, memory and time of a map; see :func:`geomiam.plan_map`.

        >>> print(cube.miam.plan_map(model, shapley=True))  # doctest: +SKIP
        """
        from geomiam.maps.plan import plan_map

        return plan_map(
            self._obj,
            model,
            shapley=shapley,
            species=species,
            using=using,
            chunks=chunks,
            client=client,
            options=options,
        )

    def sample(
        self,
        occurrences: pd.DataFrame | str | Path,
        *,
        species: str | Sequence[str] = "species",
        presence: str = "presence",
        keep: str | Sequence[str] = (),
        thin: bool = True,
        snap: Length | None = None,
        require: str | Sequence[str] = (),
        mask: str | None = None,
    ) -> xr.Dataset:
        """Read the predictors of a cube at occurrences; see :func:`geomiam.sample`.

        >>> sites = cube.miam.sample("records.csv", snap="5 km")  # doctest: +SKIP
        """
        from geomiam.data.sites.sites import sample

        return sample(
            self._obj,
            occurrences,
            species=species,
            presence=presence,
            keep=keep,
            thin=thin,
            snap=snap,
            require=require,
            mask=mask,
        )

    def coverage(self, schema: Any) -> xr.Dataset:
        """Return the fraction of cells at which each variable is observed; see :func:`geomiam.coverage`.

        >>> fractions = cube.miam.coverage(model)  # doctest: +SKIP
        """
        from geomiam.data.coverage import coverage

        return coverage(self._obj, schema)

    def saturation(
        self, model: Model | str | Path, *, memory_limit: int | str | None = None
    ) -> xr.DataArray:
        """Return the share of symbols beyond the training data; see :func:`geomiam.explain.saturation`.

        >>> share = cube.miam.saturation(model)  # doctest: +SKIP
        """
        from geomiam.explain.saturated import saturation

        return saturation(self._obj, model, memory_limit=memory_limit)

    def schema(
        self,
        *,
        modalities: Mapping[str, Sequence[str]] | None = None,
        kinds: Mapping[str, str] | None = None,
        name: str = "inferred",
    ) -> Schema:
        """Infer the schema of the variables; see :func:`geomiam.infer_schema`.

        >>> schema = cube.miam.schema(kinds={"landcover": "categorical"})  # doctest: +SKIP
        """
        from geomiam.data.dataset import as_dataset
        from geomiam.data.infer import infer_schema

        return infer_schema(as_dataset(self._obj), modalities=modalities, kinds=kinds, name=name)
