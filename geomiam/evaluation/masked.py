"""A trained model as a predictor: predictors outside the subset are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geomiam.inference.predict import predict
from geomiam.model.model import Model
from geomiam.schema.schema import Schema
from geomiam.tokens.select import Selector


@dataclass(frozen=True, eq=False)
class Masked:
    """A trained model as a :class:`~geomiam.evaluation.evaluate.Predictor`: predictors outside the subset are hidden.

    Scores are logits, or log-shares for a softmax model, whose logits compare species but not sites.
    """

    model: Model
    names: Sequence[str] | None = None
    """Species to score; default all of the model's."""

    @property
    def species(self) -> tuple[str, ...]:
        """Names of the species, in the order of the scores."""
        return tuple(self.model.species if self.names is None else self.names)

    @property
    def schema(self) -> Schema:
        """Schema of the model."""
        return self.model.schema

    def scores(
        self, sites: xr.Dataset, *, using: Selector | Sequence[Selector] | None = None
    ) -> np.ndarray:
        """Score sites ``(n, S)``; NaN where nothing of the subset is observed."""
        shares = self.model.link == "softmax"
        species = None if shares else self.species
        maps = predict(sites, self.model, using=using, species=species, scale="logit")
        logits = maps["suitability"].transpose("site", "species").values
        if not shares:
            return logits
        from scipy.special import log_softmax

        return log_softmax(logits, axis=-1)[:, self.model.species_index(self.species)]

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Return probabilities of the same shape as the scores."""
        return to_probability(self.model, scores)


def to_probability(model: Model, scores: np.ndarray) -> np.ndarray:
    """Return scores of :class:`Masked` as probabilities, by the model's link."""
    import torch

    if model.link == "softmax":
        return np.exp(scores)
    return model.probability(torch.as_tensor(scores)).numpy()
