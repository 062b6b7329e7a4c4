"""The benchmark of what novelty costs: near and far models, and a survey in which a new environment has larger errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from geomiam_bench import extrapolation
from geomiam_bench.cli import app
from geomiam_bench.pages.extrapolation import extrapolation_section

pytestmark = pytest.mark.filterwarnings("ignore")


def survey(n: int = 160) -> xr.Dataset:
    """Two species with an optimum along a gradient, and a third one that is absent at its upper end."""
    rng = np.random.default_rng(0)
    gradient, noise = np.sort(rng.normal(size=n)), rng.normal(size=n)
    scores = np.stack([2 - 3 * (gradient - c) ** 2 for c in (-1, 1)] + [-3 * gradient], 1)
    present = rng.random(scores.shape) < 1 / (1 + np.exp(-scores))
    return xr.Dataset(
        {
            "gradient": ("site", gradient.astype("f4"), {"modality": "climate"}),
            "copy": ("site", (gradient + 0.1 * noise).astype("f4"), {"modality": "climate"}),
            "noise": ("site", noise.astype("f4"), {"modality": "soil"}),
            "presence": (("site", "species"), present.astype("f4")),
        },
        coords={
            "x": ("site", rng.uniform(0, 9, n)),
            "y": ("site", rng.uniform(0, 9, n)),
            "species": list("abc"),
        },
        attrs={"crs": "EPSG:4326"},
    )


def test_near_models_have_the_size_of_the_far_one_and_never_the_site():
    fold = np.repeat([0, 1, 2], [10, 20, 31])
    for number in range(3):
        pairs = extrapolation.halves(fold, number, np.random.default_rng(0))
        test_rows = np.sort(np.concatenate([test for _, test in pairs]))
        np.testing.assert_array_equal(test_rows, np.flatnonzero(fold == number))
        for train, test in pairs:
            assert len(np.unique(train)) == len(train) == (fold != number).sum()
            assert not np.isin(train, test).any() and (fold[train] == number).any()


def test_folds_of_a_gradient_are_quarters_of_its_order():
    fold = extrapolation.folds(survey(), "gradient")
    assert np.bincount(fold).tolist() == [40] * 4
    order = fold if fold[0] == 0 else 3 - fold
    assert np.corrcoef(order, np.arange(160))[0, 1] > 0.9


@pytest.fixture
def quick(monkeypatch):
    """Fits of a moment."""
    network = {"fusion": "sum", "width": 8, "members": 1}
    settings = {"network": network, "training": {"steps": 15}, "validation": False}
    monkeypatch.setattr(extrapolation, "SETTINGS", settings)


def test_the_excess_is_the_error_of_the_far_model_less_that_of_a_near_one(quick):
    sites = survey(80)
    fold = extrapolation.folds(sites, "gradient")
    rows, values = extrapolation.one_fold(sites, fold, 3, "gradient")
    np.testing.assert_array_equal(rows, np.flatnonzero(fold == 3))
    train, species = np.flatnonzero(fold != 3), np.arange(3)
    _, far = extrapolation.errors_of(sites, train, rows, species=species, seed=3)
    near_train, test = extrapolation.halves(fold, 3, np.random.default_rng(3))[1]
    _, near = extrapolation.errors_of(sites, near_train, test, species=species, seed=3)
    at = np.searchsorted(rows, test)
    for name in ("squared", "log loss"):
        expected = far[name][at] - near[name]
        np.testing.assert_allclose(values[f"excess {name}"][at], expected, atol=1e-6)
    labels = sites["presence"].values
    of_prevalence = ((labels[rows] - labels[train].mean(0)) ** 2).mean(1)
    difference = values["squared less prevalence"]
    np.testing.assert_allclose(difference, far["squared"] - of_prevalence, atol=1e-6)


def test_the_command_reports_every_error(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(extrapolation, "SETS", {"tiny": lambda folder: survey(80)})
    monkeypatch.setattr(extrapolation, "KINDS", ("gradient",))
    monkeypatch.setattr(extrapolation, "RESAMPLES", 10)
    path = tmp_path / "out.json"
    run = CliRunner().invoke(app, ["extrapolation", str(tmp_path), "--json", str(path)])
    assert run.exit_code == 0, run.output
    result = json.loads(path.read_text())["sets"]["tiny"]["gradient"]
    assert result["sites"] == 80 and set(result["correlation"]) == set(extrapolation.ERRORS)
    assert np.diff(result["bins"]["dissimilarity"]).min() > 0
    pair = result["correlation"]["excess squared"]["dissimilarity"]
    assert pair["interval"][0] < pair["interval"][1]
    page = extrapolation_section(path, tmp_path)
    assert "quarters of the first component, tiny" in page
    assert (tmp_path / "extrapolation.png").stat().st_size > 5000
