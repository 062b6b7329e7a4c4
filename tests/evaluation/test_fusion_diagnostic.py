"""The rule that states whether to train modalities together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_small import TINY_NETWORK, quick, tiny_sites
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.errors import LabelError
from geomiam.evaluation import diagnostic as module
from geomiam.evaluation.evaluate import Masked

TEST = np.arange(240) % 3 == 0


@pytest.fixture(scope="module")
def comparison():
    """The table, and the two models behind it."""
    sites, models, real = tiny_sites(240, gaps=0.0), [], module._compared
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "_compared", lambda a, b, test: (models.extend([a, b]), real(a, b, test))[1]
        )
        table = gm.evaluation.fusion_diagnostic(
            sites, network=TINY_NETWORK, training=quick(epochs=6), validation=TEST, rng=0
        )
    return table, sites.isel(site=TEST), models


def test_both_ways_are_scored_on_the_held_out_sites(comparison):
    table, test, models = comparison
    labels = test["presence"].values
    for way, model in zip(("average", "linear head"), models, strict=True):
        scores = Masked(model).scores(test)
        expected = [roc_auc_score(labels[:, s], scores[:, s]) for s in range(2)]
        np.testing.assert_allclose(table["auc"].sel(way=way), expected)
    alone = Masked(models[0])
    mean = np.mean([alone.scores(test, using=[m]) for m in ("climate", "soil")], 0)
    np.testing.assert_allclose(alone.scores(test), mean, atol=1e-5)  # it is the plain average
    for m in ("climate", "soil"):
        scores = alone.scores(test, using=[m])
        expected = [roc_auc_score(labels[:, s], scores[:, s]) for s in range(2)]
        np.testing.assert_allclose(table["unimodal_auc"].sel(modality=m), expected)


def test_the_advice_follows_the_difference(comparison):
    table, _, _ = comparison
    means = table["auc"].mean("species")
    difference = float(means.sel(way="linear head") - means.sel(way="average"))
    assert table.attrs["difference"] == pytest.approx(difference)
    assert table.attrs["advice"] == ("joint training" if difference > 0 else "ensemble")
    np.testing.assert_allclose(table["mean_auc"], means)


def test_the_encoders_are_frozen_and_the_head_has_moved(comparison):
    _, _, (average, linear) = comparison
    for name, weight in average.network.members.state_dict().items():
        assert torch.equal(linear.network.members.state_dict()[name], weight), name
    assert not torch.allclose(linear.network.head.weight, average.network.head.weight)


def test_a_head_beats_the_average_where_one_modality_explains_the_noise_of_the_other():
    """The second modality carries no signal alone; beside the first it takes its noise away."""
    sites, rng = tiny_sites(900, gaps=0.0), np.random.default_rng(0)
    signal, noise = rng.normal(size=(2, 900))
    variables = {
        "bio1": ("site", signal + 2 * noise, {"modality": "climate"}),
        "clay": ("site", noise, {"modality": "soil"}),
        "presence": (("site", "species"), np.repeat(signal[:, None] > 0, 2, 1).astype(float)),
    }
    table = gm.evaluation.fusion_diagnostic(
        sites.drop_vars("ndvi").assign(variables),
        network=TINY_NETWORK.model_copy(update={"width": 16}),
        training=quick(epochs=12, lr=0.05, holdout=0.3, block=80),
        rng=1,
    )
    assert table.attrs["difference"] > 0.02 and table.attrs["advice"] == "joint training"


def test_without_a_site_to_score_it_is_refused():
    config = quick(holdout=0, keep="last")
    with pytest.raises(LabelError, match="no site is left to score"):
        gm.evaluation.fusion_diagnostic(tiny_sites(), network=TINY_NETWORK, training=config)
