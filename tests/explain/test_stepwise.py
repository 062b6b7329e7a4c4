"""Forward selection: equal to evaluations of the same subsets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import train_small

import geomiam as gm

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def network(sites) -> gm.Model:
    return train_small(sites, "sum")


def score_by_hand(model, sites, using, metric="auc") -> float:
    """Mean over species on sites where any predictor is observed; the base value where nothing is visible."""
    observed = gm.predict(sites, model)["observed"].values > 0
    part, options = sites.isel(site=observed), gm.PredictOptions(empty="base")
    if using:
        maps = gm.predict(part, model, using=using, scale="logit", options=options)
        scores = maps["suitability"].transpose("site", "species").values
    else:
        scores = np.zeros((part.sizes["site"], 3))
    return float(np.nanmean(gm.metrics.auc(part["presence"].values, scores)))


def test_every_step_is_the_best_of_all_sets(network, sites):
    table = gm.explain.stepwise(network, sites)
    names = list(network.schema.groups)
    added_groups: list[str] = []
    assert float(table["score"][0]) == 0.5
    for step in range(1, len(names) + 1):
        scores = {
            n: score_by_hand(network, sites, [*added_groups, n])
            for n in names
            if n not in added_groups
        }
        best = max(scores, key=lambda n: scores[n])
        assert str(table["added"][step].item()) == best
        assert float(table["score"][step]) == pytest.approx(scores[best], abs=1e-9)
        candidates = table["candidate_score"].isel(step=step).dropna("group").to_series()
        assert candidates.to_dict() == pytest.approx(scores)
        added_groups.append(best)
    assert table["species_score"].mean("species").values == pytest.approx(table["score"].values)
    np.testing.assert_allclose(table["gain"][1:], np.diff(table["score"]))


def test_the_first_set_within_the_tolerance_is_enough(network, sites):
    table = gm.explain.stepwise(network, sites, tolerance=0.02)
    enough = table.attrs["enough"]
    loss = float(table["score"][-1]) - table["score"].values
    assert loss[enough] <= 0.02 and (loss[:enough] > 0.02).all()
    assert json.loads(table.attrs["groups"]) == table["added"].values[1 : enough + 1].tolist()
    exact = gm.explain.stepwise(network, sites, tolerance=0)
    assert float(exact["score"][exact.attrs["enough"]]) >= float(exact["score"][-1])


def test_the_skill_of_all_groups_is_that_of_the_importance(network, sites):
    table = gm.explain.stepwise(network, sites, groups="modalities", metric="brier")
    full = gm.explain.importance(network, sites, groups="modalities", metric="brier")
    assert float(table["score"][-1]) == pytest.approx(float(full["mean_full_value"]))
    first = table["candidate_score"].isel(step=1)
    assert float(table["score"][1]) == float(first.min())  # a smaller Brier score is better


def test_test_sites_score_the_sets_of_the_choice(network, sites):
    half = np.arange(sites.sizes["site"]) % 2 == 0
    table = gm.explain.stepwise(network, sites.isel(site=half), test=sites.isel(site=~half))
    plain = gm.explain.stepwise(network, sites.isel(site=half))
    np.testing.assert_array_equal(table["score"], plain["score"])
    for step in (1, 3):
        using = table["added"].values[1 : step + 1].tolist()
        expected = score_by_hand(network, sites.isel(site=~half), using)
        assert float(table["test_score"][step]) == pytest.approx(expected, abs=1e-9)


def test_training_sites_are_reported(network, sites):
    with pytest.warns(gm.errors.TrainedOnTheseSites):
        gm.explain.stepwise(network, sites)


def test_wrong_settings_are_refused(network, sites):
    with pytest.raises(gm.errors.SettingError, match="tolerance"):
        gm.explain.stepwise(network, sites, tolerance=-1)
    with pytest.raises(gm.errors.SelectionError):
        gm.explain.stepwise(network, sites, metric="cor")


def test_figure(network, sites):
    import matplotlib.pyplot as plt

    table = gm.explain.stepwise(network, sites, test=sites)
    ax = gm.plot.stepwise(table)
    assert len(ax.get_xticklabels()) == table.sizes["step"]
    ax.figure.canvas.draw()
    plt.close("all")


def test_groups_are_chosen_in_each_zone_on_its_own(network, sites):
    numbers = np.where(sites["y"] > 49, 2.0, np.where(sites["y"] > 48, 1.0, np.nan))
    attrs = {"flag_values": [1, 2], "flag_meanings": "middle north"}
    zones = sites["y"].copy(data=numbers).assign_attrs(attrs)
    table = gm.explain.stepwise(network, sites, zones=zones, metric="brier")
    assert table["zone"].values.tolist() == ["middle", "north"]
    for number, zone in ((1, "middle"), (2, "north")):
        alone = gm.explain.stepwise(network, sites.isel(site=numbers == number), metric="brier")
        of_zone = table.sel(zone=zone)
        for name in alone.data_vars:
            np.testing.assert_array_equal(of_zone[name], alone[name])
        for name in ("enough", "groups", "sites"):
            assert of_zone[name].item() == alone.attrs[name]
    assert not table.isel(zone=0)["score"].equals(table.isel(zone=1)["score"])
    with pytest.raises(gm.errors.SettingError, match="one value per site"):
        gm.explain.stepwise(network, sites, zones=zones[:5])
    gm.plot.stepwise(table.sel(zone="north"))
    with pytest.raises(gm.errors.SettingError, match="zone"):
        gm.plot.stepwise(table)
