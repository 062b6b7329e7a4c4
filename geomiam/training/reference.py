"""The sample of training sites that a model stores, from the tables of a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geomiam.model.reference import Reference, joined
from geomiam.tokens.encode import TokenArrays
from geomiam.tokens.features import feature_values
from geomiam.training.loop import Run


def reference_of(runs: Sequence[Run], fold: np.ndarray | None = None) -> Reference | None:
    """Return the sample of the sites that train any member, with their validation folds ``(n,)``.

    None if the settings are to store no sites.
    """
    run = runs[0]
    if not run.config.reference_sites:
        return None
    table, layout = run.table, run.model.layout
    rows = np.unique(np.concatenate([r.table.train.cpu().numpy() for r in runs]))
    block = TokenArrays(
        tuple(v[rows].cpu().numpy() for v in table.values), table.observed[rows].cpu().numpy()
    )
    classes = {name: len(codes) for name, codes in run.model.scaler.classes.items()}
    values = feature_values(block, layout, classes=classes, visible=np.ones(layout.size, bool))
    return Reference.of(
        values, None if fold is None else fold[rows], limit=run.config.reference_sites
    )


def widened_reference(first: Reference | None, run: Run) -> Reference | None:
    """Return the sites of a model and those of its fine-tuning; None if the model stores none."""
    # Without the sites of the first training, those of the fine-tuning would pass for all of them.
    second = reference_of([run])
    if not first or not second:
        return None
    return joined(first, second, limit=run.config.reference_sites)
