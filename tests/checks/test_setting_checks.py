"""Settings of masking, metrics and splits that are out of range, or no numbers: one kind of error."""

import re

import numpy as np
import pytest

import geomiam as gm
from geomiam.errors import GeomiamError, LabelError, SettingError
from geomiam.masking.simple import Ramp
from geomiam.metrics import boyce, measure

LABELS, SCORES = np.array([[0], [1], [1]]), np.array([[0.1], [0.8], [0.4]])
CALLS = {
    "kappa must be >= 1, found 'x'": lambda: gm.masking.MIAM(kappa="x"),
    "kappa must be >= 1, found 0.5": lambda: gm.masking.MIAM(kappa=0.5),
    "lam must be >= 0, found None": lambda: gm.masking.MIAM(lam=None),
    "eps must be > 0, found nan": lambda: gm.masking.MIAM(eps=float("nan")),
    "share must lie in [0, 1], found '1'": lambda: gm.masking.named("constant", share="1"),
    "alpha must be > 0, found [1]": lambda: gm.masking.named("dirichlet", alpha=[1]),
    "warmup must be at least 0, found 1.5": lambda: Ramp(warmup=1.5),
    "'miam' has no setting ['kapa']": lambda: gm.masking.named("miam", kapa=2),
    "no masking strategy 'maim'": lambda: gm.masking.named("maim"),
    "folds must be at least 2, found 1": lambda: gm.splits.SpatialBlocks(1),
    "folds must be at least 2, found 2.5": lambda: gm.splits.SpatialBlocks(2.5),
    "clusters must be at least 1": lambda: gm.splits.EnvironmentalBlocks(2, clusters="3"),
    "2 clusters do not make 5": lambda: gm.splits.EnvironmentalBlocks(5, clusters=2),
    "pass their side as size=": lambda: gm.splits.BufferedLeaveOut("1 km", folds=2),
    "window must be a share in (0, 1)": lambda: boyce(LABELS, SCORES, window=1),
    "resolution must be at least 1": lambda: boyce(LABELS, SCORES, resolution="x"),
    "no metric ['acu']": lambda: measure(LABELS, SCORES, metrics=("acu",)),
}


@pytest.mark.parametrize("message", CALLS)
def test_a_wrong_setting_names_setting_range_and_value(message):
    with pytest.raises(SettingError, match=re.escape(message)) as caught:
        CALLS[message]()
    assert isinstance(caught.value, (GeomiamError, ValueError))


@pytest.mark.parametrize("labels", [np.array([0, 1, 1]), np.array([[0], [2], [1]])])
def test_wrong_labels_of_a_metric_are_a_label_error(labels):
    with pytest.raises(LabelError, match="labels must be"):
        gm.metrics.auc(labels, SCORES)
