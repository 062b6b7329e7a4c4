"""Masking strategies: distributions over masking probabilities p in [0, 1]^M.

``p_m`` is the probability to HIDE a token of modality m (1 = hidden). Each strategy is a frozen
dataclass that draws p (`sample`), returns its mean (`expected`) and reads the score table
(`balance`); :func:`hide` turns p into hidden tokens. In a training step::

    b = strategy.balance(scores_so_far)
    p = strategy.sample(n if strategy.per_sample else 1, sizes=sizes, balance=b, rng=rng)
    hidden = hide(p, n=n, sizes=sizes, rng=rng)

Most strategies can hide all tokens. This is intended, since the model must also predict without any
observed predictor.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from geomiam.errors import SettingError
from geomiam.masking.scores import Array, Balance


@runtime_checkable
class Strategy(Protocol):
    """Interface of a masking strategy in training.

    Examples
    --------
    >>> isinstance(gm.masking.MIAM(), gm.masking.Strategy)
    True
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # a dataclass: its fields go to the config

    @property
    def per_sample(self) -> bool:
        """Draw p for each sample of a batch, rather than once for the whole batch."""
        ...

    def balance(self, scores: ArrayLike) -> Balance:
        """Balance from the (E, M) validation scores so far; rows may be none, NaN is unknown."""
        ...

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        """Draw masking probabilities.

        Parameters
        ----------
        n : int
            How many vectors p to draw.
        sizes : (M,) array_like of int
            Tokens per modality.
        balance : Balance
            From `Strategy.balance`, or ``Balance.neutral(M)``.
        rng : numpy.random.Generator
            Source of randomness.

        Returns
        -------
        (n, M) float64 array in [0, 1]

        Raises
        ------
        ValueError
            When `sizes` are not M whole numbers >= 1.
        """
        ...

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        """Mean of p, exact, shape (M,)."""
        ...


def hide(p: ArrayLike, *, n: int, sizes: ArrayLike, rng: Generator) -> NDArray[np.bool_]:
    """Draw the hidden tokens independently, each with the probability of its modality.

    Parameters
    ----------
    p : (n, M) or (1, M) array_like in [0, 1]
        Masking probabilities; one row serves all samples.
    n : int
        Samples.
    sizes : (M,) array_like of int
        Tokens per modality; tokens lie side by side in the order of the modalities.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    (n, sum(sizes)) bool array
        True = hidden.

    Raises
    ------
    ValueError
        When the shapes do not fit or p leaves [0, 1].

    See Also
    --------
    geomiam.masking.Strategy : distributions of p.

    Examples
    --------
    >>> hidden = gm.masking.hide([[1.0, 0.0]], n=2, sizes=[3, 2], rng=np.random.default_rng(0))
    >>> hidden.astype(int)
    array([[1, 1, 1, 0, 0],
           [1, 1, 1, 0, 0]])
    """
    p, sizes = np.asarray(p, dtype=np.float64), check_counts(sizes)
    if p.shape not in {(n, len(sizes)), (1, len(sizes))}:
        raise SettingError(
            f"p must have shape ({n}, {len(sizes)}) or (1, {len(sizes)}), found {p.shape}; "
            "one row per sample or one for all, one column per modality"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise SettingError(f"p must lie in [0, 1], found {p.min()} to {p.max()}; 1 hides a token")
    # Tokens are drawn independently also where p is common to the batch, as in MaskSDM: one p and many
    # patterns of hidden tokens.
    per_token = np.repeat(p, sizes, axis=1)
    return rng.random((n, per_token.shape[1])) < per_token  # m_t ~ Bernoulli(p of its modality)


def check_sizes(sizes: ArrayLike, balance: Balance) -> NDArray[np.intp]:
    """Return the tokens per modality ``(M,)`` if they are those of the balance."""
    counts = check_counts(sizes)
    if len(counts) != len(balance.r):
        raise SettingError(
            f"sizes name {len(counts)} modalities and the balance {len(balance.r)}; "
            "both must follow the model's modalities"
        )
    return counts


def check_counts(sizes: ArrayLike) -> NDArray[np.intp]:
    """Return sizes as integers ``(M,)``."""
    counts = np.asarray(sizes)
    if counts.ndim != 1 or counts.size == 0 or counts.dtype.kind not in "iu" or counts.min() < 1:
        raise SettingError(f"sizes must be whole numbers >= 1, one per modality, found {sizes!r}")
    return counts.astype(np.intp)
