"""Parts that a user adds: a class that satisfies a protocol, and one line in a registry."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam.masking import STRATEGIES, Balance, Strategy


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
