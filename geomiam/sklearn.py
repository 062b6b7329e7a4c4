"""geomiam in scikit-learn: a classifier for tables with missing values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from geomiam.inference.options import PredictOptions
from geomiam.inference.predict import predict
from geomiam.masking import Strategy
from geomiam.model.model import Model
from geomiam.networks.config import NetworkConfig
from geomiam.schema.schema import Schema
from geomiam.schema.variable import Kind, Modality, Variable
from geomiam.training.config import TrainingConfig
from geomiam.training.fit import fit

REST = "rest"
"""Modality of the columns that no modality names."""
TINY = 1e-12
"""Distance from 0 and 1 of probabilities whose log-odds are returned."""

Columns = Sequence[Hashable]


class MiamClassifier(ClassifierMixin, BaseEstimator):
    """Classify rows from whatever columns each has; NaN = missing.

    A transformer or additive network that is trained by masking, as :func:`geomiam.fit` does, behind
    the interface of scikit-learn. Rows need no coordinates: nothing is held out inside, and an outer
    loop validates, such as ``cross_val_score(estimator, X, y, cv=gm.splits.SpatialBlocks(),
    groups=coordinates)``.

    Parameters
    ----------
    modalities : mapping of str to sequence, optional
        Modality to its columns, by name or position: columns that go missing together, and that
        masking hides together. Columns that none names are the modality ``rest``. Default: all
        columns are one modality.
    kinds : mapping, optional
        Column to its kind: ``"categorical"`` (whole numbers are codes of classes), ``"circular"``
        (degrees), ``"scalar"``, the default.
    masking : Strategy or str, optional
        As for :func:`geomiam.fit`; default ``MIAM()``.
    network : NetworkConfig or mapping, optional
        A config is used as it is; a mapping changes single settings of the rule: ``{"width": 32}``.
    training : TrainingConfig or mapping, optional
        A config, with ``holdout=0, keep="last"``, is used as it is; a mapping changes single settings
        of the rule: ``{"steps": 200}``.
    random_state : int, numpy.random.RandomState or None
        An int gives equal models for equal data.
    progress : bool, optional
        Show progress bars; default: on a terminal or in a notebook.

    Attributes
    ----------
    model_ : geomiam.Model
        The trained model, for :func:`geomiam.predict`, :func:`geomiam.shapley` and ``model_.save``.
    classes_ : numpy.ndarray or list of numpy.ndarray
        The two classes; the second one is the presence. For several labels, ``[0, 1]`` for each.
    n_features_in_ : int
    feature_names_in_ : numpy.ndarray
        Where ``X`` had names of columns.

    See Also
    --------
    geomiam.fit : the same training on sites.

    Notes
    -----
    Labels are binary ``(n,)``, or 0, 1 and NaN = not surveyed ``(n, S)`` for S labels of a row. There
    are no sample weights: the loss weighs presences and absences itself
    (``training={"loss": "weighted-bce"}``). A row with nothing observed gets the base value, the
    prediction from no predictor, since scikit-learn takes no NaN as a prediction.

    Examples
    --------
    >>> import numpy as np
    >>> from geomiam.sklearn import MiamClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 3))
    >>> y = X[:, 0] > 0
    >>> X[rng.random(X.shape) < 0.2] = np.nan
    >>> small = {"width": 8, "heads": 2, "fusion": "sum", "members": 1}
    >>> classifier = MiamClassifier(network=small, training={"steps": 50}, random_state=0)
    >>> classifier.fit(X, y).predict_proba(X).shape
    (80, 2)
    """

    def __init__(
        self,
        *,
        modalities: Mapping[str, Columns] | None = None,
        kinds: Mapping[Hashable, Kind] | None = None,
        masking: Strategy | str | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
        training: TrainingConfig | Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        progress: bool | None = None,
    ):
        self.modalities = modalities
        self.kinds = kinds
        self.masking = masking
        self.network = network
        self.training = training
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any) -> MiamClassifier:
        """Train on a table.

        Parameters
        ----------
        X : (n, p) array_like or pandas.DataFrame
            Numbers; NaN = missing.
        y : (n,) or (n, S) array_like
            Two classes, or S labels that are 0, 1 or NaN = not surveyed.

        Returns
        -------
        MiamClassifier
            The fitted estimator itself.

        Raises
        ------
        ValueError
            If ``X`` has infinite values, ``y`` more than two classes or one only, or ``modalities``
            or ``kinds`` name no column.
        """
        table = validate_data(self, X, ensure_all_finite="allow-nan", dtype=np.float64)
        if y is None:
            raise ValueError("MiamClassifier requires y to be passed, but the target y is None")
        labels, species = self._labels(y)
        check_consistent_length(table, labels)
        sites = self._sites(table).assign(presence=(("site", "species"), labels))
        self.model_: Model = fit(
            sites.assign_coords(species=species),
            self._schema(),
            masking=self.masking,
            network=self.network,
            training=self.training,
            validation=False,
            rng=int(check_random_state(self.random_state).randint(2**31 - 1)),
            progress=self.progress,
        )
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-odds of presence ``(n,)``, or ``(n, S)`` for S labels; 0 is the threshold."""
        check_is_fitted(self)
        table = validate_data(self, X, reset=False, ensure_all_finite="allow-nan", dtype=np.float64)
        plain = self.model_.link == "logit"
        maps = predict(
            self._sites(table),
            self.model_,
            scale="logit" if plain else "probability",
            options=PredictOptions(empty="base"),
            progress=self.progress,
        )
        values = maps["suitability"].transpose("site", "species").values.astype(np.float64)
        odds = values if plain else logit(values.clip(TINY, 1 - TINY))
        return odds if self._is_multilabel else odds[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities: of both classes ``(n, 2)``, or of the presence of each label ``(n, S)``."""
        present = expit(self.decision_function(X))
        return present if self._is_multilabel else np.stack([1 - present, present], 1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the more likely class ``(n,)``, or 0 and 1 ``(n, S)`` for S labels."""
        present = (self.decision_function(X) > 0).astype(int)
        return present if self._is_multilabel else np.asarray(self.classes_)[present]

    def __sklearn_tags__(self) -> Tags:
        """Describe to scikit-learn what is accepted: NaN, and several labels of a row."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags

    @property
    def _is_multilabel(self) -> bool:
        return isinstance(self.classes_, list)

    def _labels(self, y: Any) -> tuple[np.ndarray, list[str]]:
        """Set ``classes_``, and return labels ``(n, S)``, 1, 0 or NaN, and their names."""
        names = [str(name) for name in getattr(y, "columns", ())]
        y = check_array(y, ensure_2d=False, ensure_all_finite=False, dtype=None, input_name="y")
        if y.ndim == 1 or y.shape[1] == 1:
            return self._two_classes(column_or_1d(y, warn=True))
        check_array(y, ensure_all_finite="allow-nan", dtype=np.float64, input_name="y")
        labels = y.astype(np.float64)
        if odd := set(labels[~np.isnan(labels)]) - {0.0, 1.0}:
            raise ValueError(
                f"Unknown label type: y has {labels.shape[1]} columns, so each holds 0, 1 or NaN = not "
                f"surveyed; found {sorted(odd)[0]:g}"
            )
        self.classes_: Any = [np.array([0, 1])] * labels.shape[1]
        return labels, names or [f"y{i}" for i in range(labels.shape[1])]

    def _two_classes(self, y: np.ndarray) -> tuple[np.ndarray, list[str]]:
        is_surveyed = ~np.isnan(y) if y.dtype.kind == "f" else np.ones(len(y), bool)
        check_classification_targets(y[is_surveyed])
        classes = np.unique(y[is_surveyed])
        if len(classes) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is multiclass: found "
                f"{len(classes)} classes; pass one column of 0 and 1 for each class"
            )
        if len(classes) < 2:
            raise ValueError(
                f"y has one class only, {classes.tolist()}; a classifier needs rows of two classes"
            )
        self.classes_ = classes
        labels = np.where(is_surveyed, y == classes[1], np.nan)
        return labels[:, None], [str(classes[1])]

    def _names(self) -> list[str]:
        """Names of the variables: those of the columns, or x0, x1, …"""
        names = getattr(self, "feature_names_in_", None)
        return [f"x{i}" for i in range(self.n_features_in_)] if names is None else list(names)

    def _name_of(self, column: Hashable, argument: str) -> str:
        names = self._names()
        if column in names:
            return str(column)
        if isinstance(column, (int, np.integer)) and 0 <= column < len(names):
            return names[column]
        raise ValueError(
            f"{argument}= names the column {column!r}, which is not in X; found {names}"
        )

    def _schema(self) -> Schema:
        kinds = {self._name_of(c, "kinds"): kind for c, kind in (self.kinds or {}).items()}
        variables = {n: Variable(name=n, kind=kinds.get(n, "scalar")) for n in self._names()}
        homes = {
            m: [self._name_of(c, "modalities") for c in columns]
            for m, columns in (self.modalities or {}).items()
        }
        assigned_columns = {name for columns in homes.values() for name in columns}
        if remaining_columns := [name for name in variables if name not in assigned_columns]:
            homes.setdefault(REST if homes else "predictors", []).extend(remaining_columns)
        return Schema(
            modalities={
                m: Modality(name=m, variables={n: variables[n] for n in columns})
                for m, columns in homes.items()
            }
        )

    def _sites(self, table: np.ndarray) -> xr.Dataset:
        return xr.Dataset({n: ("site", column) for n, column in zip(self._names(), table.T)})
