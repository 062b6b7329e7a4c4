"""Shapley values of any game, exact or from sampled coalitions: arrays only.

A game is a function ``value(coalitions) -> (c, S)`` of boolean coalitions ``(c, n)`` of n groups. It has S
columns, for example the scores of S species.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np

from geomiam.at_once import COALITION_VALUES, ESTIMATED_COALITIONS
from geomiam.errors import SettingError
from geomiam.inference.coalitions import latin_square
from geomiam.inference.terms import members, shapley_weights

__all__ = ["Estimate", "Memo", "exact", "latin_square", "replicates", "sample", "steps"]

Value = Callable[[np.ndarray], np.ndarray]
Method = Literal["latin", "uniform"]
Rows = Literal["independent", "antithetic", "cyclic"]


@dataclass(frozen=True)
class Estimate:
    """Shapley values with their standard error."""

    values: np.ndarray
    """``(n, S)``."""
    standard_error: np.ndarray
    """``(n, S)``, due to the sampling of coalitions; 0 if all were evaluated."""
    base: np.ndarray
    """v(∅) ``(S,)``."""
    full: np.ndarray
    """v(all) ``(S,)``."""
    replicates: int
    """Independent replicates behind the standard error; 0 if all coalitions were evaluated.
    ``values ± t(0.975, replicates − 1) · standard_error`` is a 95 % interval for a dozen replicates or more.
    With fewer, the interval of a skewed contribution covers less."""
    evaluations: int
    """Coalitions evaluated; none is evaluated twice."""
    visits: int
    """Coalitions without ∅ and the full one, counted again when they recur."""


class Memo:
    """A game that stores at most ``memory`` bytes of its values, so that no coalition is evaluated twice.

    ``bar.update(int)`` is called for each batch of coalitions.
    """

    def __init__(self, value: Value, *, memory: int = COALITION_VALUES, bar: Any = None):
        self.value, self.memory, self.bar = value, memory, bar
        self.stored: dict[bytes, np.ndarray] = {}
        self.evaluations = self.visits = 0

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        """Return values ``(c, S)`` of coalitions ``(c, n)``."""
        parts = [
            coalitions[i : i + ESTIMATED_COALITIONS]
            for i in range(0, len(coalitions), ESTIMATED_COALITIONS)
        ]
        return np.concatenate([self._batch(part) for part in parts])

    def _batch(self, coalitions: np.ndarray) -> np.ndarray:
        # One bit per group: keys of 64 groups have 8 bytes.
        keys = [row.tobytes() for row in np.packbits(coalitions, axis=1)]
        new = {key: i for i, key in enumerate(keys) if key not in self.stored}
        values_of_new = self._evaluate(coalitions[list(new.values())]) if new else np.empty((0, 0))
        fresh = dict(zip(new, values_of_new))
        self.visits += int((coalitions.any(1) & ~coalitions.all(1)).sum())
        if self.bar is not None:
            self.bar.update(len(coalitions))
        values = np.stack([fresh[k] if k in fresh else self.stored[k] for k in keys])
        room = max(0, self.memory // values[0].nbytes - len(self.stored))
        self.stored |= dict(islice(fresh.items(), room))
        return values

    def _evaluate(self, coalitions: np.ndarray) -> np.ndarray:
        self.evaluations += len(coalitions)
        return np.asarray(self.value(coalitions), float)


def exact(value: Value, groups: int) -> Estimate:
    """Return Shapley values from all 2^n coalitions (Shapley 1953) of a function ``(c, n)`` → ``(c, S)``."""
    memo = _Counted(value)
    v = memo(members(groups))
    values = shapley_weights(groups).T @ v
    return Estimate(values, np.zeros_like(values), v[0], v[-1], 0, *memo.cost())


def sample(
    value: Value,
    groups: int,
    *,
    method: Method = "latin",
    samples: int = 24,
    rows: Rows = "independent",
    rng: int | np.random.Generator | None = 0,
) -> Estimate:
    """Return Shapley values from sampled coalitions.

    This is the stratified Monte Carlo method of MaskSDM (Zbinden et al. 2025, Algorithm 1). The rows of Latin
    squares are orders in which groups join, and the value of a group is its mean contribution. Every group
    joins once at every position of a square, so all sizes of coalitions have the same weight, and the
    contributions of a row add up to v(all) − v(∅).

    The rows of a square depend on each other. The independent replicates behind the standard error are
    therefore squares; for antithetic rows, a square with its mirror image.

    Parameters
    ----------
    value : callable
        Function of coalitions ``(c, n)`` that returns values ``(c, S)``.
    groups : int
        Number n of groups.
    method : {"latin", "uniform"}
        ``"uniform"`` is plain Monte Carlo for comparison: independent pairs S, S ∪ {i} of the same total
        cost. Its values do not add up.
    samples : int
        Number of Latin squares; each costs n·(n − 1) evaluations besides ∅ and the full coalition.
    rows : {"independent", "antithetic", "cyclic"}
        ``"cyclic"``: the cyclic shifts of 0 … n − 1 with one random permutation of the columns, as
        published. ``"independent"``: random permutations of rows and symbols as well. ``"antithetic"``: as
        ``"independent"``, and the reverse of each order.
    rng : int, numpy.random.Generator or None
        Draws the squares.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If the method or the kind of rows is unknown, if there are too few samples for a standard error, or
        an odd number of samples for antithetic rows.

    Examples
    --------
    >>> import numpy as np
    >>> from geomiam.explain.sampling import sample
    >>> worth = np.array([1.0, 2.0, 3.0])
    >>> estimate = sample(lambda coalitions: coalitions @ worth[:, None], 3, samples=2)
    >>> estimate.values[:, 0].round(6).tolist()
    [1.0, 2.0, 3.0]
    """
    (last,) = steps(
        value, groups, method=method, at=[samples], rows=rows, rng=np.random.default_rng(rng)
    )
    return last


def steps(
    value: Value,
    groups: int,
    *,
    at: Sequence[int],
    method: Method = "latin",
    rows: Rows = "independent",
    rng: int | np.random.Generator | None = 0,
) -> Iterator[Estimate]:
    """Yield the estimates of one growing sample after ``at`` squares, ascending; see :func:`sample`.

    Raises
    ------
    ValueError
        As :func:`sample`.
    """
    due = [replicates(groups, method=method, samples=k, rows=rows) for k in at]
    memo = _Counted(value)
    # ∅ and the full coalition are in every order. MaskSDM's code evaluates them anew for each.
    base, full = ends = memo(np.stack([np.zeros(groups, bool), np.ones(groups, bool)]))
    draw = _Draw(memo, groups, ends, np.random.default_rng(rng))
    replicate_stream = draw.pairs() if method == "uniform" else draw.squares(rows)
    running = _Running(*np.zeros((2, groups, len(base))))
    for replicate in islice(replicate_stream, due[-1]):
        running.add(replicate)
        if running.count in due:
            mean, error = running.mean.copy(), running.standard_error()
            yield Estimate(mean, error, base, full, running.count, *memo.cost())


class _Counted:
    """A :class:`Memo` and the number of its evaluations since construction."""

    def __init__(self, value: Value):
        self.memo = value if isinstance(value, Memo) else Memo(value)
        self.before = self.memo.evaluations, self.memo.visits

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        return self.memo(coalitions)

    def cost(self) -> tuple[int, int]:
        """Return the numbers of evaluations and visits."""
        return self.memo.evaluations - self.before[0], self.memo.visits - self.before[1]


@dataclass(frozen=True)
class _Draw:
    """Infinite streams of independent, unbiased replicates ``(n, S)``."""

    value: Value
    groups: int
    ends: np.ndarray
    """v(∅) and v(all), ``(2, S)``."""
    rng: np.random.Generator

    def squares(self, rows: Rows) -> Iterator[np.ndarray]:
        """Yield mean contributions over the orders of a square, or of a square and its mirror image."""
        while True:
            orders = latin_square(self.groups, cyclic=rows == "cyclic", rng=self.rng)
            if rows == "antithetic":
                orders = np.concatenate([orders, orders[:, ::-1]])
            step = max(1, ESTIMATED_COALITIONS // self.groups)
            parts = (orders[i : i + step] for i in range(0, len(orders), step))
            # Every group joins once at every position, so the mean over rows weighs all sizes |S| equally.
            yield sum(self._added(part).sum(0) for part in parts) / len(orders)

    def pairs(self) -> Iterator[np.ndarray]:
        """Yield one contribution per group, each to an independent coalition."""
        n = self.groups
        while True:
            moment = self.rng.random(
                (n, n)
            )  # row i: times at which groups join in the order for group i
            before = moment < moment.diagonal()[:, None]
            v = self.value(np.concatenate([before, before | np.eye(n, dtype=bool)]))
            yield v[n:] - v[:n]

    def _added(self, orders: np.ndarray) -> np.ndarray:
        """Return the contribution of each group ``(r, n, S)`` in each order ``(r, n)``."""
        (r, n), s = orders.shape, self.ends.shape[1]
        rank = orders.argsort(1)
        member = (rank[:, None, :] <= np.arange(n - 1)[:, None]).reshape(-1, n)
        between = self.value(member) if len(member) else np.empty((0, s))
        first, last = np.broadcast_to(self.ends[:, None, None], (2, r, 1, s))
        path = np.concatenate([first, between.reshape(r, n - 1, s), last], 1)
        return np.take_along_axis(np.diff(path, axis=1), rank[..., None], 1)


@dataclass
class _Running:
    """Running mean and squared deviations, without the replicates (Welford 1962)."""

    mean: np.ndarray
    squares: np.ndarray
    count: int = 0

    def add(self, replicate: np.ndarray) -> None:
        """Include one more replicate."""
        self.count += 1
        difference = replicate - self.mean
        self.mean = self.mean + difference / self.count
        self.squares = self.squares + difference * (replicate - self.mean)

    def standard_error(self) -> np.ndarray:
        """Return the standard error of the mean of independent replicates."""
        # s² / k with the unbiased variance s² of k replicates.
        return np.sqrt(self.squares / (self.count - 1) / self.count)


def replicates(groups: int, *, method: Method, samples: int, rows: Rows = "independent") -> int:
    """Return the number of independent replicates of a sample; see :func:`sample`.

    Raises
    ------
    ValueError
        As :func:`sample`.
    """
    if method not in get_args(Method) or rows not in get_args(Rows):
        raise SettingError(
            f"no method {method!r} with rows {rows!r}; methods: {', '.join(get_args(Method))}; "
            f"rows: {', '.join(get_args(Rows))}"
        )
    is_paired = method == "latin" and rows == "antithetic"
    if is_paired and samples % 2:
        raise SettingError(
            f"antithetic squares come in pairs, but samples={samples} is odd; "
            f"pass samples={samples + 1}"
        )
    count = samples // 2 if is_paired else samples
    if count < 2:
        raise SettingError(
            f"samples={samples} leaves {count} independent replicate, which is too few for a standard "
            f"error; pass samples={4 if is_paired else 2} or more"
        )
    return max(2, count * groups // 2) if method == "uniform" else count
