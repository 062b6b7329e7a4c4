"""Honest rivals of a masked model, on the same sites, labels and subsets.

One forest or booster per species, or one small network for all; each answers from any subset,
because what is not shown reaches it as NaN. Trees route NaN natively; the network sees a zero and an
indicator that says so, and is trained with predictors hidden at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from geomiam.cube.predictors import bind
from geomiam.errors import SelectionError
from geomiam.schema import Schema
from geomiam.tokens.blocks import encode
from geomiam.tokens.layout import Layout
from geomiam.tokens.scaler import Scaler, fit_scaler
from geomiam.tokens.select import Selector, visible_tokens
from geomiam.training.losses import make_loss
from geomiam.training.table import check_classes, read_labels, read_predictors

Using = Selector | Sequence[Selector] | None


class Learner(Protocol):
    """What a rival needs: scores ``(n, S)`` from a table ``(n, p)`` with NaN."""

    def scores(self, table: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Encoder:
    """Sites as a flat table ``(n, p)``: standardised numbers, one column per class, NaN = not shown.

    Angles become sine and cosine, windows, patches and vectors one column per value.
    """

    schema: Schema
    scaler: Scaler

    def table(self, sites: xr.Dataset, using: Using = None) -> np.ndarray:
        """Return the table, NaN where a token is hidden or not observed."""
        layout = Layout.of(self.schema)
        block = encode(
            read_predictors_lenient(sites, self.schema), layout=layout, scaler=self.scaler
        )
        shown = visible_tokens(layout, using)
        hidden = np.split(
            ~(block.observed & shown), np.cumsum([p.size for p in layout.parts])[:-1], 1
        )
        columns = [
            self._columns(part, np.where(gone[:, :, None], np.nan, values))
            for part, values, gone in zip(layout.parts, block.values, hidden)
        ]
        return np.concatenate(columns, 1).astype(np.float32)

    def _columns(self, part: Any, values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), -1)
        if part.kind == "circular":
            return np.concatenate([np.sin(flat), np.cos(flat)], 1)
        if part.kind != "categorical":
            return flat
        codes = np.arange(len(self.scaler.classes[part.spans[0].variable.name]))
        return np.where(np.isnan(flat), np.nan, flat == codes)


def read_predictors_lenient(sites: xr.Dataset, schema: Schema) -> dict[str, np.ndarray]:
    """Return ``(n, *own dims)`` per variable; a modality may be missing altogether."""
    from geomiam.cube.predictors import predictors

    found = predictors(sites, schema)
    return {k: np.asarray(v.transpose("site", ...).values) for k, v in found.items()}


@dataclass(frozen=True)
class Rival:
    """A trained rival: the same face as a model has in evaluation."""

    name: str
    species: list[str]
    schema: Schema
    encoder: Encoder
    learner: Learner
    engine: str = ""

    def scores(self, sites: xr.Dataset, *, using: Using = None) -> np.ndarray:
        """Score sites from a subset of the predictors.

        Parameters
        ----------
        sites : xarray.Dataset
            Predictors ``(site, *own dims)``.
        using : selectors, optional
            What the rival may see; all if not given.

        Returns
        -------
        numpy.ndarray
            ``(n, S)`` in the order of ``species``; higher = more likely present.
        """
        return self.learner.scores(self.encoder.table(sites, using))


def fit_rival(
    name: str, sites: xr.Dataset, schema: Schema, *, rng: int = 0, **options: Any
) -> Rival:
    """Train a rival on sites.

    Parameters
    ----------
    name : {"rf", "xgboost", "maxent-like"}
        Down-sampled random forest (Valavi et al. 2021), gradient boosting, or a two-layer network
        with Maxent's likelihood (after DeepMaxent, Ryckewaert et al. 2024).
    sites : xarray.Dataset
        With ``presence(site, species)``; NaN = not surveyed.
    schema : Schema
    rng : int
    **options
        Of :class:`Forest`, :class:`Boosting` or :class:`MaxentNetwork`.

    Returns
    -------
    Rival

    Raises
    ------
    SelectionError
        If the name is unknown.
    LabelError
        If nothing can be learned from the labels.
    """
    if name not in RIVALS:
        raise SelectionError(f"no rival '{name}'; there are {', '.join(RIVALS)}")
    schema = bind(schema, sites)
    labels, species = read_labels(sites)
    check_classes(labels, species)
    encoder = Encoder(schema, fit_scaler(read_predictors(sites, schema), schema))
    learner, engine = RIVALS[name](encoder.table(sites), labels, rng=rng, **options)
    return Rival(name, list(species), schema, encoder, learner, engine)


@dataclass(frozen=True)
class PerSpecies:
    """One classifier per species; None where the species has one class."""

    predictors: Sequence[Callable[[np.ndarray], np.ndarray] | None]

    def scores(self, table: np.ndarray) -> np.ndarray:
        flat = np.zeros(len(table))
        return np.stack([p(table) if p else flat for p in self.predictors], 1)


@dataclass(frozen=True)
class Forest:
    """Trees on as many background sites as presences, drawn anew for each tree."""

    trees: Sequence[Any] = field(repr=False)

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray, *, trees: int, rng: np.random.Generator) -> Forest:
        """Grow unpruned trees on balanced bootstrap samples, √p predictors per split."""
        from sklearn.tree import DecisionTreeClassifier

        present, absent = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        grown = []
        for _ in range(trees):
            rows = np.r_[rng.choice(present, len(present)), rng.choice(absent, len(present))]
            tree = DecisionTreeClassifier(
                max_features="sqrt", random_state=int(rng.integers(2**31))
            )
            grown.append(tree.fit(x[rows], y[rows]).tree_)
        return cls(grown)

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Mean share of presences in the leaves ``(n,)``."""
        total = np.zeros(len(table))
        for tree in self.trees:
            total += tree.predict(table)[:, -1]
        return total / len(self.trees)


def fit_forests(
    table: np.ndarray, labels: np.ndarray, *, rng: int, trees: int = 1000
) -> tuple[PerSpecies, str]:
    """Return a down-sampled random forest per species."""
    seeds = np.random.default_rng(rng)
    made = _each_species(
        table, labels, lambda x, y: Forest.fit(x, y, trees=trees, rng=seeds), "forests"
    )
    return PerSpecies(made), "scikit-learn trees"


def fit_boosting(
    table: np.ndarray, labels: np.ndarray, *, rng: int, rounds: int = 200, rate: float = 0.03
) -> tuple[PerSpecies, str]:
    """Return gradient boosting per species: xgboost where it is installed, else scikit-learn's."""
    try:
        from xgboost import XGBClassifier as Engine

        settings: dict[str, Any] = {"n_estimators": rounds, "max_leaves": 8, "n_jobs": 1}
        settings |= {"tree_method": "hist", "grow_policy": "lossguide", "max_depth": 0}
        engine = "xgboost"
    except ImportError:
        from sklearn.ensemble import HistGradientBoostingClassifier as Engine

        settings = {"max_iter": rounds, "max_leaf_nodes": 8, "early_stopping": False}
        engine = "scikit-learn histogram boosting"

    def grow(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        weight = np.where(y == 1, (y == 0).sum() / (y == 1).sum(), 1.0)
        model = Engine(learning_rate=rate, random_state=rng, **settings)
        model.fit(x, y.astype(int), sample_weight=weight)
        return lambda table: model.predict_proba(table)[:, 1]

    return PerSpecies(_each_species(table, labels, grow, "boosting")), engine


@dataclass(frozen=True)
class MaxentNetwork:
    """Two hidden layers on values and hidden-indicators; logits per species."""

    network: nn.Module

    @torch.inference_mode()
    def scores(self, table: np.ndarray) -> np.ndarray:
        return self.network(_with_indicators(torch.as_tensor(table))).numpy()


def fit_maxent_network(
    table: np.ndarray,
    labels: np.ndarray,
    *,
    rng: int,
    width: int = 250,
    epochs: int = 100,
    batch: int = 250,
    lr: float = 2e-4,
    masked: bool = True,
) -> tuple[MaxentNetwork, str]:
    """Return a DeepMaxent-style network, the published sizes; ``masked`` hides columns in training.

    The share hidden is drawn per row from U(0, 1) for half of the rows and is 0 for the others, so
    the full input stays the most frequent one.
    """
    x, y = torch.as_tensor(table), torch.as_tensor(labels)
    with torch.random.fork_rng():
        torch.manual_seed(rng)
        network = _two_layers(2 * x.shape[1], width, y.shape[1])
        optimizer, loss = torch.optim.Adam(network.parameters(), lr=lr), make_loss("maxent", y)
        for _ in _bar(range(epochs), "maxent-like"):
            for rows in torch.randperm(len(x)).split(batch):
                seen = _hide(x[rows]) if masked else x[rows]
                optimizer.zero_grad()
                loss(network(_with_indicators(seen)), y[rows]).backward()
                optimizer.step()
    return MaxentNetwork(network.eval()), "torch"


RIVALS: dict[str, Callable[..., tuple[Learner, str]]] = {
    "rf": fit_forests,
    "xgboost": fit_boosting,
    "maxent-like": fit_maxent_network,
}


def _two_layers(inputs: int, width: int, outputs: int) -> nn.Module:
    layers = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _hide(x: Tensor) -> Tensor:
    share = torch.rand(len(x), 1) * (torch.rand(len(x), 1) < 0.5)
    return x.masked_fill(torch.rand_like(x) < share, torch.nan)


def _with_indicators(x: Tensor) -> Tensor:
    hidden = x.isnan()
    return torch.cat([x.nan_to_num(0.0), hidden.to(x.dtype)], 1)


def _each_species(table: np.ndarray, labels: np.ndarray, grow: Callable, what: str) -> list:
    made = []
    for y in _bar(labels.T, what):
        known = ~np.isnan(y)
        both = len(np.unique(y[known])) == 2
        made.append(grow(table[known], y[known]) if both else None)
    return made


def _bar(items: Any, what: str) -> Any:
    from tqdm import tqdm

    return tqdm(items, desc=what, delay=2, leave=False)
