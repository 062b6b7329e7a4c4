"""The joint model that the community is compared with."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_small import tiny_sites

import geomiam as gm
from geomiam_bench.community import differences
from geomiam_bench.community_baseline import fit_joint


@pytest.mark.filterwarnings("ignore")
def test_the_joint_model_reads_other_species_and_not_the_species_itself():
    sites = tiny_sites(120, species=3, gaps=0, seed=1)
    labels = np.random.default_rng(0).integers(0, 2, (120, 3)).astype(float)
    labels[:, 1] = labels[:, 0]  # two species that always occur together, and one at random
    sites["presence"] = (("site", "species"), labels)
    sites = gm.add_community(sites)
    variables = tuple(f"community_Quercus {i}" for i in range(3))
    joint = fit_joint(sites, variables, seed=0)
    scores = joint.scores(sites)
    auc = gm.metrics.auc(labels, scores)
    assert auc[:2].min() > 0.95 and auc[2] < 0.8
    without_one = sites.assign({variables[2]: 1 - sites[variables[2]]})
    new_scores = joint.scores(without_one)
    np.testing.assert_array_equal(new_scores[:, 2], scores[:, 2])
    assert (new_scores[:, 0] != scores[:, 0]).all()
    hidden = joint.scores(sites.assign({v: sites[v] * np.nan for v in variables}))
    assert gm.metrics.auc(labels, hidden)[:2].max() < 0.8
    alone = fit_joint(sites, (), seed=0)
    assert np.isfinite(alone.scores(sites)).all()


def test_differences_are_paired_over_species():
    auc = {
        "community": {0: np.array([0.7, 0.8, np.nan]), 5: np.array([0.8, 0.9, 0.5])},
        "without community": {0: np.array([0.7, 0.7, 0.5])},
        "joint logistic": {0: np.array([0.6, 0.7, 0.5]), 5: np.array([0.7, 0.8, 0.4])},
    }
    rows = differences(auc)
    assert rows["without community"] == {"0": [0.05, 0.05], "5": [0.1, 0.0577]}
    assert rows["joint logistic"] == {"0": [0.1, 0.0], "5": [0.1, 0.0]}
