"""Parts that a user adds: a class that satisfies a protocol, and one line in a registry."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import geomiam as gm
from geomiam.baselines import BASELINES, Training
from geomiam.masking import STRATEGIES, Balance, Strategy
from geomiam.schema.data_source import FORMATS


@dataclass(frozen=True)
class OneHidden:
    """Hide one modality as a whole, each as often as the others."""

    per_sample: bool = True

    def balance(self, scores) -> Balance:
        return Balance.neutral(np.shape(scores)[1])

    def sample(self, n, *, sizes, balance, rng):
        return np.eye(len(sizes))[rng.integers(len(sizes), size=n)]

    def expected(self, *, sizes, balance):
        return np.full(len(sizes), 1 / len(sizes))


def test_a_masking_strategy_is_a_class_and_a_line(monkeypatch, tmp_path):
    monkeypatch.setitem(STRATEGIES, "one-hidden", OneHidden)
    assert isinstance(OneHidden(), Strategy)
    training = quick(epochs=1)
    model = gm.fit(tiny_sites(), masking="one-hidden", network=TINY_NETWORK, training=training)
    model = gm.load_model(model.save(tmp_path / "model"))
    assert model.about["masking"] == {"name": "one-hidden", "per_sample": True}
    assert set(model.history.filter(like="p_").values.ravel()) == {1 / 2}
    assert gm.masking.named(**model.about["masking"]) == OneHidden()


def test_a_strategy_without_a_name_is_refused_with_the_line_that_names_it():
    with pytest.raises(gm.errors.SettingError, match=r"STRATEGIES\['name'\] = OneHidden"):
        gm.masking.to_dict(OneHidden())


@dataclass(frozen=True)
class Prevalence:
    """The share of presences of each species, everywhere."""

    onehot: ClassVar[bool] = True
    engine: ClassVar[str] = "numpy"
    prior: float = 0.0

    def fit(self, training: Training):
        share = np.nanmean(training.labels, axis=0) + self.prior
        return lambda table: np.tile(share, (len(table), 1))


def test_a_baseline_is_a_class_and_a_line(monkeypatch):
    monkeypatch.setitem(BASELINES, "prevalence", Prevalence)
    sites = tiny_sites()
    baseline = gm.fit_baseline("prevalence", sites, gm.infer_schema(sites), prior=0.5)
    share = sites["presence"].mean("site") + 0.5
    np.testing.assert_allclose(baseline.scores(sites)[0], share, rtol=1e-6)
    table = gm.evaluate(baseline, sites, schema=gm.infer_schema(sites))
    assert (table["auc"].sel(subset="all") == 0.5).all()
    with pytest.raises(gm.errors.SettingError, match=r"no option \['trees'\]; it has prior"):
        gm.fit_baseline("prevalence", sites, gm.infer_schema(sites), trees=3)


class TextGrid:
    """Rows of numbers in a text file, on a grid of whole degrees from 10° E, 50° N."""

    def read(self, paths, source, *, variable, lenient):
        values = [np.loadtxt(path, dtype=np.float32) for path in paths]
        box = [
            GeoBox.from_bbox((10, 50 - len(v), 10 + v.shape[1], 50), resolution=1) for v in values
        ]
        return [
            xr.DataArray(v, dims=("y", "x"), coords=xr_coords(b, dims=("y", "x")))
            for v, b in zip(values, box)
        ], 0


CATALOG = """
name: text
sources:
  rows: {kind: text, root: .}
modalities:
  climate:
    variables:
      bio1: {kind: scalar, from: {source: rows, path: bio1.txt}}
grid: {crs: EPSG:4326, resolution: 1, bounds: [10, 47, 14, 50]}
"""


def test_a_raster_format_is_a_class_and_a_line(monkeypatch, tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savetxt(tmp_path / "bio1.txt", rows)
    (tmp_path / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    with pytest.raises(gm.errors.SchemaError, match=r"'text' is not a kind; use one of raster"):
        gm.build_cube(tmp_path / "catalog.yaml")
    monkeypatch.setitem(FORMATS, "text", TextGrid)
    cube = gm.build_cube(tmp_path / "catalog.yaml")
    np.testing.assert_array_equal(cube["bio1"], rows)
