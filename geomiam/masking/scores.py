"""Balance of the modalities, from the table of their validation scores so far.

The balance is a pure function of that table: it keeps no state between epochs. A run that is
killed needs only its score table to resume with equal results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomiam.checks.settings import check_number
from geomiam.errors import SettingError

Array = NDArray[np.float64]

_PROBABILITY = ("must lie in [0, 1]", lambda x: 0 <= x <= 1, "it is a probability to hide")
SETTINGS: dict[str, tuple[str, Callable[[float], bool], str]] = {
    "share": _PROBABILITY,
    "q": _PROBABILITY,
    "q_base": _PROBABILITY,
    "alpha": ("must be > 0", lambda x: 0 < x < np.inf, "1 is uniform"),
    "kappa": ("must be >= 1", lambda x: 1 <= x < np.inf, "1 is flat, 10 the authors' choice"),
    "lam": ("must be >= 0", lambda x: 0 <= x < np.inf, "0 ignores the scores"),
    "chance": ("must lie in [0, 1)", lambda x: 0 <= x < 1, "0.5 for AUC, 0 to switch off"),
    "smoothing": ("must lie in [0, 1)", lambda x: 0 <= x < 1, "0 to switch off"),
    "eps": ("must be > 0", lambda x: 0 < x < np.inf, "a plateau would divide by zero"),
    "r_max": ("must be >= 1", lambda x: x >= 1, "use inf for no clipping"),
}
"""Range of each number that a strategy takes: in words, as a condition, and advice."""


def check_settings(**settings: float) -> None:
    """Raise SettingError when a number of a strategy is out of range."""
    for name, value in settings.items():
        requirement, accepts, hint = SETTINGS[name]
        check_number(name, value, requirement=requirement, accepts=accepts, hint=hint)


@dataclass(frozen=True, eq=False)
class Balance:
    """State of the modalities at one epoch, in the order of the model's modalities.

    Parameters
    ----------
    s : (M,) array
        Score of the model from one modality alone, less chance; NaN = unknown.
    d : (M,) array
        Speed at which that score moves, per epoch, always > 0; NaN = unknown.
    r : (M,) array
        ``rho_s / rho_d``, finite and > 0: above 1 the modality dominates and is hidden more.
    epoch : int
        Number of epochs that were scored so far.

    Raises
    ------
    ValueError
        When the shapes differ, `r` is not finite and positive, or `s` or `d` is not positive.

    Examples
    --------
    >>> gm.masking.Balance.neutral(3).r
    array([1., 1., 1.])
    """

    s: Array
    d: Array
    r: Array
    epoch: int = 0

    def __post_init__(self) -> None:
        for name in ("s", "d", "r"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64))
        shapes = [a.shape for a in (self.s, self.d, self.r)]
        if len(set(shapes)) > 1 or self.s.ndim != 1:
            raise SettingError(f"s, d and r must share one shape (M,), found {shapes}")
        if not (np.isfinite(self.r) & (self.r > 0)).all():
            raise SettingError(f"r must be finite and > 0, found {self.r}; use 1 for no preference")
        for name, value in (("s", self.s), ("d", self.d)):
            if (value <= 0).any():
                raise SettingError(f"{name} must be > 0 or NaN, found {value}; use NaN if unknown")

    @classmethod
    def neutral(cls, m: int) -> Balance:
        """Return the balance without any scores, equal for all `m` modalities."""
        unknown = np.full(m, np.nan)
        return cls(s=unknown, d=unknown, r=np.ones(m))


def balance(
    scores: ArrayLike,
    *,
    lam: float = 1.0,
    chance: float = 0.0,
    smoothing: float = 0.5,
    # The demo of the MIAM authors adds 1e-3, too. Without r_max a ratio r = 5 at λ = 3 would give
    # κ r^λ = 1250, a mean p of .96, and the modality would hardly ever be visible.
    eps: float = 1e-3,
    r_max: float = 5.0,
    strict_paper: bool = False,
) -> Balance:
    """Balance of the modalities after the epochs in `scores`.

    ``r_m = rho_s / rho_d`` where rho is the share of a modality's score `s` (or of its speed `d`)
    in the geometric mean over modalities (MIAM poster, ICLR 2026). The poster does not
    define first epochs, a speed of zero, noise and modalities without a score; their treatment is
    described below.

    Parameters
    ----------
    scores : (E, M) array_like
        One row per epoch so far (E may be 0), one column per modality: validation score on the
        0-1 scale with only that modality visible. NaN = the modality has no score. A modality
        whose last two rows are not both finite is frozen at r = 1 and left out of the means.
    lam : float
        Strength of the imbalance; it enters here only through the clipping.
    chance : float
        Score of a blind guess, taken off before the shares are formed (0.5 for AUC; 0 = off).
    smoothing : float
        Weight of the past in the moving average whose last step is `d`; in [0, 1).
        A NaN restarts the average.
    eps : float
        Added to `d` so that a plateau stays finite, and the floor of `s`.
    r_max : float
        ``r ** lam``, which is what bends the Beta factors, is kept in [1/r_max, r_max] for every
        `lam`, so the most and the least a modality can be hidden depend on kappa and r_max alone.
    strict_paper : bool
        Exactly as in the poster: raw backward differences, no smoothing and no clipping;
        `eps` is then only the floor of `s` and `d`.

    Returns
    -------
    Balance
        Neutral (r = 1) until two rows of scores exist.

    Raises
    ------
    ValueError
        When `scores` is not a table or holds infinity, or a setting is out of range.

    See Also
    --------
    geomiam.masking.MIAM : the strategy that follows the balance.

    Examples
    --------
    >>> scores = [[0.80, 0.55], [0.81, 0.65]]  # two epochs: the first modality no longer improves
    >>> r = gm.masking.balance(scores).r
    >>> bool(r[0] > 1 > r[1])
    True
    """
    check_settings(chance=chance, smoothing=smoothing, eps=eps, r_max=r_max)
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise SettingError(
            f"scores must be a table (epochs, modalities), found shape {table.shape}; "
            "use np.empty((0, M)) before the first epoch"
        )
    if np.isinf(table).any():
        raise SettingError("scores hold infinity; use NaN for a score that is undefined")
    if len(table) == 0:
        return Balance.neutral(table.shape[1])
    slope = _slope(table, smoothing=0.0 if strict_paper else smoothing)
    # r ignores a common factor of all s, and not a common shift: scores of .5 to .9 less a chance of .5
    # give other shares than the scores themselves.
    s = np.maximum(table[-1] - chance, eps)
    # One d = 0 would make the geometric mean of all modalities 0.
    d = np.maximum(slope, eps) if strict_paper else slope + eps
    # r = 1, which changes nothing, before the second epoch and for a modality without scores.
    r = np.ones_like(s)
    has_speed = np.isfinite(d)
    if has_speed.any():
        # MIAM: rho_s = s_m / (Π_j s_j)^(1/M), rho_d likewise, r_m = rho_s / rho_d.
        rho_s = s[has_speed] / _geometric_mean(s[has_speed])
        rho_d = d[has_speed] / _geometric_mean(d[has_speed])
        r[has_speed] = rho_s / rho_d
    if not strict_paper:  # in logarithms, so that a tiny lam cannot overflow r_max ** (1 / lam)
        bound = np.log(r_max) / lam if lam > 0 else np.inf
        r = np.exp(np.clip(np.log(r), -bound, bound))
    return Balance(s=s, d=d, r=r, epoch=len(table))


def _geometric_mean(values: Array) -> float:
    """Return the geometric mean; importing that of scipy.stats takes as long as a short training."""
    return float(np.exp(np.log(values).mean()))


def _slope(table: Array, *, smoothing: float) -> Array:
    """Return the size of the last step of the moving average; NaN before the first step."""
    # Older rows weigh less than a rounding error: each epoch costs the same, however long the run.
    reach = int(np.log(1e-20) / np.log(smoothing)) + 2 if smoothing > 0 else 2
    table = table[-reach:]
    average = slope = np.full(table.shape[1], np.nan)
    # A NaN in a row makes the slope NaN twice: on the row itself and on the restart after it.
    for row in table:
        new_average = np.where(np.isnan(average), row, smoothing * average + (1 - smoothing) * row)
        average, slope = new_average, new_average - average
    speed: Array = np.abs(slope)
    return speed
