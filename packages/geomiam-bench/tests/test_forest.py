"""The forest of the library, on real data with documented figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, needs_shared

from geomiam.baselines.registry import fit_baseline
from geomiam.metrics import auc
from geomiam_bench import readers


@needs_shared
@pytest.mark.slow
def test_the_forest_is_the_documented_forest():
    """Against per-species figures of an independent program, all covariates, Wet Tropics."""
    training, survey = readers.disdat(SHARED / "disdat", "AWT")
    training, survey = (sites.isel(species=slice(None, None, 3)) for sites in (training, survey))
    schema = readers.disdat_schema(SHARED / "disdat", "AWT", covariates="all")
    baseline = fit_baseline("rf", training, schema, rng=0, options={"trees": 300})
    got = auc(survey["presence"].values, baseline.scores(survey))
    table = pd.read_parquet(SHARED / "disdat" / "baselines_per_species.parquet")
    table = table[(table["region"] == "AWT") & (table["background"] == "target-group")]
    published_auc = table[table["method"] == "rf_down"].set_index("species")["auc"]
    names = [str(s) for s in survey["species"].values]
    assert np.nanmean(got) == pytest.approx(published_auc[names].mean(), abs=0.01)
    np.testing.assert_allclose(got, published_auc[names], atol=0.05)
