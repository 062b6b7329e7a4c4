"""``ds.miam`` and ``dt.miam``: the verbs as methods, one call each, no state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from pathlib import Path

    from geomiam.maps.plan import MapPlan
    from geomiam.model.model import Model
    from geomiam.schema.schema import Schema


@xr.register_datatree_accessor("miam")
@xr.register_dataset_accessor("miam")
class Miam:
    """The verbs of geomiam on a cube or on sites."""

    def __init__(self, obj: xr.Dataset | xr.DataTree):
        self._obj = obj

    def predict(
        self, model: Model, *, using: Any = None, species: Any = None, **options: Any
    ) -> xr.Dataset:
        """Suitability from whatever each place has; see :func:`geomiam.predict`."""
        from geomiam.inference.predict import predict

        return predict(self._obj, model, using=using, species=species, **options)

    def shapley(
        self, model: Model, *, groups: Any = None, species: Any = None, **options: Any
    ) -> xr.Dataset:
        """What each group of predictors adds, exactly; see :func:`geomiam.shapley`."""
        from geomiam.explain.shapley_values import shapley

        return shapley(self._obj, model, groups=groups, species=species, **options)

    def write_map(self, model: Model, path: str | Path, **options: Any) -> xr.Dataset:
        """Predict and explain into a Zarr store; see :func:`geomiam.write_map`."""
        from geomiam.maps.write import write_map

        return write_map(self._obj, model, path, **options)

    def plan_map(self, model: Model, **options: Any) -> MapPlan:
        """What a map will cost: blocks, memory, time; see :func:`geomiam.plan_map`."""
        from geomiam.maps.plan import plan_map

        return plan_map(self._obj, model, **options)

    def sample(self, occurrences: Any, **options: Any) -> xr.Dataset:
        """Predictors and labels at occurrences; see :func:`geomiam.sample`."""
        from geomiam.data.sites.sites import sample

        return sample(self._obj, occurrences, **options)

    def coverage(self, schema: Schema | Model) -> xr.Dataset:
        """Which predictor is missing where, as fractions; see :func:`geomiam.coverage`."""
        from geomiam.data.coverage import coverage

        return coverage(self._obj, schema)

    def saturation(self, model: Model, **options: Any) -> xr.DataArray:
        """Where symbols stand for values beyond the training data; see :func:`geomiam.saturation`."""
        from geomiam.explain.saturated import saturation

        return saturation(self._obj, model, **options)

    def schema(self, **options: Any) -> Schema:
        """Infer the schema; see :func:`geomiam.infer_schema`."""
        from geomiam.data.dataset import as_dataset
        from geomiam.data.infer.infer import infer_schema

        return infer_schema(as_dataset(self._obj), **options)
