"""The sample of training sites that a model stores, from the tables of a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from geomiam.at_once import SCORED_ROWS
from geomiam.model.reference import Reference, joined
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.features import feature_values, features_of
from geomiam.training.loop import Run

PART = 2**27
"""Most bytes of the features that a sample is drawn from at a time."""


def reference_of(runs: Sequence[Run], fold: np.ndarray | None = None) -> Reference | None:
    """Return the sample of the sites that train any member, with their validation folds ``(n,)``.

    None if the settings are to store no sites.
    """
    run = runs[0]
    if not run.config.reference_sites:
        return None
    rows = np.unique(np.concatenate([r.table.train.cpu().numpy() for r in runs]))
    size = 4 * len(rows) * sum(f.size for f in features_of(run.model.layout))
    # Parts of nearly equal sizes, so that the sample of all of them is even.
    parts = np.array_split(rows, max(1, -(-size // PART)))
    samples = [_sample(run, part, None if fold is None else fold[part]) for part in parts]
    return joined(*samples, limit=run.config.reference_sites)


def _sample(run: Run, rows: np.ndarray, fold: np.ndarray | None) -> Reference:
    """Return a sample of some rows of the table of a run, with their folds ``(r,)``."""
    layout, features = run.model.layout, []
    classes = {name: len(codes) for name, codes in run.model.scaler.classes.items()}
    visible = np.ones(layout.size, bool)
    for batch in torch.as_tensor(rows).split(SCORED_ROWS):
        values, observed = run.table.batch(batch)
        block = TokenArrays(tuple(v.cpu().numpy() for v in values), observed.cpu().numpy())
        features.append(feature_values(block, layout, classes=classes, visible=visible))
    return Reference.of(np.concatenate(features), fold, limit=run.config.reference_sites)


def widened_reference(first: Reference | None, run: Run) -> Reference | None:
    """Return the sites of a model and those of its fine-tuning; None if the model stores none."""
    # Without the sites of the first training, those of the fine-tuning would pass for all of them.
    second = reference_of([run])
    if not first or not second:
        return None
    return joined(first, second, limit=run.config.reference_sites)
