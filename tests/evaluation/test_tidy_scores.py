"""One table with a row per subset and species."""

import numpy as np
import pytest
from test_intervals import table_of

import geomiam as gm
from geomiam.errors import LabelError


def test_scores_counts_and_bounds_are_in_one_row():
    table = table_of()
    table["presence"][:10, 0] = np.nan
    table["suitability"][1, 10:20] = np.nan
    scores = table.assign(
        auc=(("subset", "species"), gm.evaluation.confidence(table, samples=2)["auc"].values)
    )
    skill = gm.evaluation.confidence(table, metrics=["auc", "kappa"], samples=8)
    rows = gm.evaluation.tidy(scores, skill)
    assert rows.columns.tolist() == [
        *("subset", "species", "presences", "absences", "auc", "auc_lower", "auc_upper"),
        *("kappa", "kappa_lower", "kappa_upper"),
    ]
    assert len(rows) == 4
    row = rows[(rows["subset"] == "climate") & (rows["species"] == "a")].iloc[0]
    y = table["presence"].values[20:, 0]
    assert (row["presences"], row["absences"]) == ((y == 1).sum(), (y == 0).sum())
    assert row["auc_lower"] == float(skill["auc_lower"].sel(subset="climate", species="a"))


def test_other_tables_are_refused():
    with pytest.raises(LabelError, match="dims subset and species"):
        gm.evaluation.tidy()
    with pytest.raises(LabelError, match="dims subset and species"):
        gm.evaluation.tidy(table_of().isel(subset=0))
