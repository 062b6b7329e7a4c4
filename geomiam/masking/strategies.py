"""Masking strategies: distributions over masking probabilities p in [0, 1]^M.

``p_m`` is the probability to HIDE a token of modality m (1 = hidden). Each strategy is a frozen
dataclass that draws p (`sample`), knows its mean (`expected`) and reads the score table
(`balance`); :func:`hide` turns p into hidden tokens. In a training step::

    b = strategy.balance(scores_so_far)
    p = strategy.sample(n if strategy.per_sample else 1, sizes=sizes, balance=b, rng=rng)
    hidden = hide(p, n=n, sizes=sizes, rng=rng)

Hiding everything is possible and meant: the model must know what to say when it sees nothing.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from geomiam.masking.scores import Array, Balance, check_settings
from geomiam.masking.scores import balance as balance_of

__all__ = [
    "MIAM",
    "OPM",
    "BetaCube",
    "Constant",
    "Dirichlet",
    "ModalityDropout",
    "Strategy",
    "Uniform",
    "UniformCube",
    "hide",
    "named",
    "to_dict",
]


@runtime_checkable
class Strategy(Protocol):
    """What the trainer asks of a strategy."""

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


@dataclass(frozen=True)
class MIAM:
    """Modality imbalance-aware masking (MIAM poster, ICLR 2026).

    A mixture over the corners c of the cube {0, 1}^M, with a Beta factor per modality: near
    c_m = 1 modality m is mostly hidden, near c_m = 0 mostly visible. The all-visible and the
    all-hidden corner weigh 1/4 each, the other corners share the remaining half. A modality that
    scores high and has stopped learning (r > 1) is hidden more.

    Parameters
    ----------
    kappa : float
        Sharpness, >= 1: how close to the corners p lies (1 with lam = 0 is the uniform cube).
    lam : float
        Strength of the imbalance, >= 0. The authors took 1 and 3.
    per_sample : bool
        Draw p per sample rather than per batch.
    chance, smoothing, eps, r_max, strict_paper
        How scores become r, see :func:`geomiam.masking.scores.balance`.

    Notes
    -----
    When every modality is one token, the all-hidden corner would always show an empty input; its
    weight goes to the all-visible corner, and P(c_m = 1) falls from 1/2 to 1/4.
    With one modality the two corners weigh 1/2 each (1 and 0 if it is also one token).

    Raises
    ------
    ValueError
        When a field is out of range.
    """

    kappa: float = 10.0
    lam: float = 1.0
    _: KW_ONLY
    per_sample: bool = False
    chance: float = 0.0
    smoothing: float = 0.5
    eps: float = 1e-3
    r_max: float = 5.0
    strict_paper: bool = False

    def __post_init__(self) -> None:
        _check_kappa(self.kappa)
        _check_lam(self.lam)
        check_settings(chance=self.chance, smoothing=self.smoothing, eps=self.eps, r_max=self.r_max)

    def balance(self, scores: ArrayLike) -> Balance:
        return balance_of(
            scores,
            lam=self.lam,
            chance=self.chance,
            smoothing=self.smoothing,
            eps=self.eps,
            r_max=self.r_max,
            strict_paper=self.strict_paper,
        )

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        corners = _draw_corners(n, sizes=_check_sizes(sizes, balance), rng=rng)
        visible, hidden = self._exponents(balance)
        u = rng.random(corners.shape)
        # Inverse distribution functions of Beta(1, visible) and Beta(hidden, 1).
        return np.where(corners, u ** (1 / hidden), 1 - u ** (1 / visible))

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        at_one = _corner_mean(_check_sizes(sizes, balance))
        visible, hidden = self._exponents(balance)
        return (1 - at_one) / (1 + visible) + at_one * (1 - 1 / (1 + hidden))

    def _exponents(self, balance: Balance) -> tuple[Array, Array]:
        visible = self.kappa * balance.r ** (-self.lam)  # c_m = 0: p_m ~ Beta(1, kappa r^-lam)
        hidden = self.kappa * balance.r ** (+self.lam)  # c_m = 1: p_m ~ Beta(kappa r^+lam, 1)
        return visible, hidden


@dataclass(frozen=True)
class BetaCube:
    """MIAM without imbalance, lam = 0 (ablation of the MIAM poster, ICLR 2026).

    Parameters
    ----------
    kappa : float
        Sharpness, >= 1.
    per_sample : bool
        Draw p per sample rather than per batch.
    """

    kappa: float = 10.0
    _: KW_ONLY
    per_sample: bool = False

    def __post_init__(self) -> None:
        _check_kappa(self.kappa)

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        even = MIAM(kappa=self.kappa, lam=0.0)
        return even.sample(n, sizes=sizes, balance=balance, rng=rng)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return MIAM(kappa=self.kappa, lam=0.0).expected(sizes=sizes, balance=balance)


@dataclass(frozen=True)
class UniformCube:
    """Each p_m uniform on [0, 1] by itself (ablation of the MIAM poster, ICLR 2026)."""

    _: KW_ONLY
    per_sample: bool = False

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        return rng.random((n, len(_check_sizes(sizes, balance))))

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return np.full(len(_check_sizes(sizes, balance)), 0.5)


@dataclass(frozen=True)
class Uniform:
    """One p, uniform on [0, 1], shared by all modalities (Zbinden et al. 2025, MaskSDM)."""

    _: KW_ONLY
    per_sample: bool = False

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        m = len(_check_sizes(sizes, balance))
        return np.repeat(rng.random((n, 1)), m, axis=1)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return np.full(len(_check_sizes(sizes, balance)), 0.5)


@dataclass(frozen=True)
class Constant:
    """The same p always, for all modalities (masked auto-encoders).

    Parameters
    ----------
    share : float
        Share of tokens hidden, in [0, 1].
    per_sample : bool
        Without effect on p; kept so that all strategies have it.
    """

    share: float = 0.75
    _: KW_ONLY
    per_sample: bool = False

    def __post_init__(self) -> None:
        _check_share("share", self.share)

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        return np.full((n, len(_check_sizes(sizes, balance))), float(self.share))

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return np.full(len(_check_sizes(sizes, balance)), float(self.share))


@dataclass(frozen=True)
class Dirichlet:
    """p, or the visible share 1 - p, on the simplex (MultiMAE, 4M).

    Parameters
    ----------
    alpha : float
        Concentration, > 0; 1 is uniform on the simplex.
    simplex : {"masked", "visible"}
        Which of the two sums to one over modalities. "masked" is what the MIAM authors draw
        (mean 1/M); "visible" splits a budget of visible tokens as 4M does (mean 1 - 1/M).
    per_sample : bool
        Draw p per sample rather than per batch.

    Raises
    ------
    ValueError
        When a field is out of range; on use, for "masked" with one modality, where the simplex
        is the point p = 1 and nothing would ever be seen.
    """

    alpha: float = 1.0
    simplex: Literal["masked", "visible"] = "masked"
    _: KW_ONLY
    per_sample: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha < np.inf:
            raise ValueError(f"alpha must be > 0, found {self.alpha}; 1 is uniform")
        if self.simplex not in ("masked", "visible"):
            raise ValueError(f'simplex must be "masked" or "visible", found {self.simplex!r}')

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        m = self._count(sizes, balance)
        shares = rng.dirichlet(np.full(m, float(self.alpha)), size=n)
        return shares if self.simplex == "masked" else 1 - shares

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        m = self._count(sizes, balance)
        return np.full(m, 1 / m if self.simplex == "masked" else 1 - 1 / m)

    def _count(self, sizes: ArrayLike, balance: Balance) -> int:
        m = len(_check_sizes(sizes, balance))
        if m == 1 and self.simplex == "masked":
            raise ValueError(
                'Dirichlet(simplex="masked") with one modality hides every token, always; '
                "use Uniform()"
            )
        return m


@dataclass(frozen=True)
class ModalityDropout:
    """Hide each modality as a whole with probability q: p is a corner, 0 or 1 per modality.

    A modality is never seen in part, and all of them may be hidden at once (probability q^M).

    Parameters
    ----------
    q : float
        Probability to hide a modality, in [0, 1].
    per_sample : bool
        Draw p per sample rather than per batch.
    """

    q: float = 0.1
    _: KW_ONLY
    per_sample: bool = False

    def __post_init__(self) -> None:
        _check_share("q", self.q)

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        q = self.expected(sizes=sizes, balance=balance)
        return (rng.random((n, len(q))) < q).astype(np.float64)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        return np.full(len(_check_sizes(sizes, balance)), float(self.q))


@dataclass(frozen=True)
class OPM:
    """Hide dominant modalities as a whole, never the others (OPM, for M modalities).

    On-the-fly prediction modulation, generalised from two modalities as the MIAM authors do: one
    dominates when the mean ratio of its score to each other score exceeds 1. While fewer than two
    scores are known nothing is hidden; an unknown score takes no part.

    Parameters
    ----------
    q_base : float
        Probability to hide a modality that barely dominates, in [0, 1].
    lam : float
        How much that probability grows with dominance, >= 0.
    per_sample : bool
        Draw p per sample rather than per batch.
    """

    q_base: float = 0.5
    lam: float = 0.5
    _: KW_ONLY
    per_sample: bool = False

    def __post_init__(self) -> None:
        _check_share("q_base", self.q_base)
        _check_lam(self.lam)

    balance = staticmethod(balance_of)

    def sample(self, n: int, *, sizes: ArrayLike, balance: Balance, rng: Generator) -> Array:
        q = self.expected(sizes=sizes, balance=balance)
        return (rng.random((n, len(q))) < q).astype(np.float64)

    def expected(self, *, sizes: ArrayLike, balance: Balance) -> Array:
        lead = _mean_ratio(balance.s, m=len(_check_sizes(sizes, balance)))
        q = self.q_base * (1 + self.lam * np.tanh(lead - 1))
        return np.where(lead > 1, np.clip(q, 0, 1), 0.0)


def hide(p: ArrayLike, *, n: int, sizes: ArrayLike, rng: Generator) -> NDArray[np.bool_]:
    """Draw the hidden tokens, each on its own, with the probability of its modality.

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
    """
    p, sizes = np.asarray(p, dtype=np.float64), _check_counts(sizes)
    if p.shape not in {(n, len(sizes)), (1, len(sizes))}:
        raise ValueError(
            f"p must have shape ({n}, {len(sizes)}) or (1, {len(sizes)}), found {p.shape}; "
            "one row per sample or one for all, one column per modality"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p must lie in [0, 1], found {p.min()} to {p.max()}; 1 hides a token")
    per_token = np.repeat(p, sizes, axis=1)
    return rng.random((n, per_token.shape[1])) < per_token


# Name -> class and the fields that the name fixes; the first name of a class is its own.
_NAMES: dict[str, tuple[type, dict[str, Any]]] = {
    "miam": (MIAM, {}),
    "uniform": (Uniform, {}),
    "dirichlet": (Dirichlet, {}),
    "dirichlet-visible": (Dirichlet, {"simplex": "visible"}),
    "dropout": (ModalityDropout, {}),
    "opm": (OPM, {}),
    "constant": (Constant, {}),
    "uniform-cube": (UniformCube, {}),
    "beta-cube": (BetaCube, {}),
}


def named(name: str, **fields: Any) -> Strategy:
    """Strategy from its name, as on the command line; ``named(**to_dict(s)) == s``.

    Raises
    ------
    ValueError
        When no strategy has that name; the message lists the names.
    """
    if name not in _NAMES:
        raise ValueError(f"no masking strategy {name!r}; choose from: {', '.join(_NAMES)}")
    kind, fixed = _NAMES[name]
    return kind(**fixed | fields)


def to_dict(strategy: Strategy) -> dict[str, Any]:
    """Name and fields of a strategy, for the model's config.

    Raises
    ------
    ValueError
        When the strategy is not one of this module.
    """
    for name, (kind, _) in _NAMES.items():
        if type(strategy) is kind:
            return {"name": name, **asdict(strategy)}
    raise ValueError(
        f"{type(strategy).__name__} has no name in geomiam; use one of: {', '.join(_NAMES)}"
    )


def _draw_corners(n: int, *, sizes: NDArray[np.intp], rng: Generator) -> NDArray[np.bool_]:
    """Corners c, (n, M): 1/4 all zeros, 1/4 all ones, the rest shared equally by the others.

    The 2^M corners are never listed. A uniform binary vector already gives every corner 2^-M;
    taking one with probability `free`, and all-equal entries otherwise, tops up the two extremes
    to exactly 1/4.
    """
    m = len(sizes)
    free = 1.0 if m <= 2 else 1 / (2 - 2.0 ** (2 - m))
    corners = rng.random((n, m)) < 0.5
    tied = rng.random(n) >= free
    corners[tied] = corners[tied, :1]
    if (sizes == 1).all():
        corners[corners.all(axis=1)] = False
    return corners


def _corner_mean(sizes: NDArray[np.intp]) -> float:
    """P(c_m = 1), the same for every modality."""
    if (sizes > 1).any():
        return 0.5
    # All-ones moved to all-zeros: half of the other corners (together 1/2; none if M = 1) is left.
    return 0.25 if len(sizes) > 1 else 0.0


def _mean_ratio(s: Array, *, m: int) -> Array:
    """Mean of s_m / s_j over the other known modalities j; 0 where there is none."""
    lead, known = np.zeros(m), np.isfinite(s)
    if known.sum() > 1:
        scores = s[known]
        lead[known] = (scores * (1 / scores).sum() - 1) / (len(scores) - 1)
    return lead


def _check_sizes(sizes: ArrayLike, balance: Balance) -> NDArray[np.intp]:
    counts = _check_counts(sizes)
    if len(counts) != len(balance.r):
        raise ValueError(
            f"sizes name {len(counts)} modalities and the balance {len(balance.r)}; "
            "both must follow the model's modalities"
        )
    return counts


def _check_counts(sizes: ArrayLike) -> NDArray[np.intp]:
    counts = np.asarray(sizes)
    if counts.ndim != 1 or counts.size == 0 or counts.dtype.kind not in "iu" or counts.min() < 1:
        raise ValueError(f"sizes must be whole numbers >= 1, one per modality, found {sizes!r}")
    return counts.astype(np.intp)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], found {value}; it is a probability to hide")


def _check_kappa(kappa: float) -> None:
    if not 1 <= kappa < np.inf:
        raise ValueError(f"kappa must be >= 1, found {kappa}; 1 is flat, 10 the authors' choice")


def _check_lam(lam: float) -> None:
    if not 0 <= lam < np.inf:
        raise ValueError(f"lam must be >= 0, found {lam}; 0 ignores the scores")
