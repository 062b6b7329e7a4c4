"""Shapley values of any game, exact or from sampled coalitions: arrays in, arrays out.

A game is a function ``value(coalitions) -> (c, S)`` of boolean coalitions ``(c, n)`` of n groups: S
games of the same groups at once, such as the scores of S species.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np

from geomiam.errors import SettingError
from geomiam.inference.coalitions import latin_square, members, shapley_weights

__all__ = ["Estimate", "Memo", "exact", "latin_square", "replicates", "sample", "steps"]

Value = Callable[[np.ndarray], np.ndarray]
Method = Literal["latin", "uniform"]
Rows = Literal["independent", "antithetic", "cyclic"]

BATCH = 256
"""Coalitions asked of a game at a time."""

MEMORY = 2**30
"""Bytes of values that are remembered; coalitions beyond are evaluated again if they come again."""


@dataclass(frozen=True)
class Estimate:
    """Shapley values and how far they may be off."""

    values: np.ndarray
    """``(n, S)``."""
    standard_error: np.ndarray
    """``(n, S)``, of the sampling of coalitions; 0 where all were evaluated."""
    base: np.ndarray
    """v(∅) ``(S,)``."""
    full: np.ndarray
    """v(all) ``(S,)``."""
    replicates: int
    """Independent replicates behind the standard error; 0 where all coalitions were evaluated.
    ``values ± t(0.975, replicates − 1) · standard_error`` is a 95 % interval, from a dozen replicates
    on: fewer may miss the tail of a skewed contribution, and the interval then covers less."""
    evaluations: int
    """Coalitions evaluated, each once."""
    visits: int
    """Coalitions looked at, ∅ and all aside: what a run without memory would evaluate."""


class Memo:
    """A game that remembers: no coalition is evaluated twice.

    Parameters
    ----------
    value : callable
        The game.
    memory : int
        Most bytes of values to remember.
    bar : object with ``update(int)``, optional
        Told of every batch of coalitions, such as a tqdm bar.
    """

    def __init__(self, value: Value, *, memory: int = MEMORY, bar: Any = None):
        self.value, self.memory, self.bar = value, memory, bar
        self.known: dict[bytes, np.ndarray] = {}
        self.evaluations = self.visits = 0

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        """Values ``(c, S)`` of coalitions ``(c, n)``."""
        parts = [coalitions[i : i + BATCH] for i in range(0, len(coalitions), BATCH)]
        return np.concatenate([self._batch(part) for part in parts])

    def _batch(self, coalitions: np.ndarray) -> np.ndarray:
        keys = [row.tobytes() for row in np.packbits(coalitions, axis=1)]
        new = {key: i for i, key in enumerate(keys) if key not in self.known}
        found = self._evaluate(coalitions[list(new.values())]) if new else np.empty((0, 0))
        fresh = dict(zip(new, found))
        self.visits += int((coalitions.any(1) & ~coalitions.all(1)).sum())
        if self.bar is not None:
            self.bar.update(len(coalitions))
        answers = np.stack([fresh[k] if k in fresh else self.known[k] for k in keys])
        room = max(0, self.memory // answers[0].nbytes - len(self.known))
        self.known |= dict(islice(fresh.items(), room))
        return answers

    def _evaluate(self, coalitions: np.ndarray) -> np.ndarray:
        self.evaluations += len(coalitions)
        return np.asarray(self.value(coalitions), float)


def exact(value: Value, groups: int) -> Estimate:
    """Shapley values from all 2^n coalitions (Shapley 1953).

    Parameters
    ----------
    value : callable
        Coalitions ``(c, n)`` → values ``(c, S)``.
    groups : int
        n.

    Returns
    -------
    Estimate
    """
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
    """Shapley values from sampled coalitions.

    Stratified Monte Carlo of MaskSDM (Zbinden et al., Algorithm 1): groups join one after another in
    the orders that the rows of Latin squares give, and the value of a group is the mean of what it
    adds. Every group joins once at every position of a square, so all sizes of coalitions count
    equally, and the values of every row add up to v(all) − v(∅).

    The rows of a square hang together, so squares, not rows, are the independent replicates behind
    the standard error; for antithetic rows a replicate is a square with its mirror image.

    Parameters
    ----------
    value : callable
        Coalitions ``(c, n)`` → values ``(c, S)``.
    groups : int
        n.
    method : {"latin", "uniform"}
        ``"uniform"`` is plain Monte Carlo for comparison: independent pairs S, S ∪ {i}, as many as
        cost the same. Its values do not add up.
    samples : int
        Latin squares; each costs n·(n − 1) evaluations, ∅ and all aside.
    rows : {"independent", "antithetic", "cyclic"}
        Of the squares: ``"cyclic"`` as published, the cyclic shifts of 0 … n − 1 with one random
        permutation of the columns; ``"independent"`` with random permutations of rows and symbols
        as well; ``"antithetic"`` these, each order followed by its reverse.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If there is no such method or kind of rows, too few samples for a standard error, or an odd
        number where squares come in pairs.
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
    base, full = ends = memo(np.stack([np.zeros(groups, bool), np.ones(groups, bool)]))
    draw = _Draw(memo, groups, ends, np.random.default_rng(rng))
    made = draw.pairs() if method == "uniform" else draw.squares(rows)
    running = _Running(*np.zeros((2, groups, len(base))))
    for replicate in islice(made, due[-1]):
        running.add(replicate)
        if running.count in due:
            mean, error = running.mean.copy(), running.standard_error()
            yield Estimate(mean, error, base, full, running.count, *memo.cost())


class _Counted:
    """A game with a memory, its own or the caller's, and what was asked of it from here on."""

    def __init__(self, value: Value):
        self.memo = value if isinstance(value, Memo) else Memo(value)
        self.before = self.memo.evaluations, self.memo.visits

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        return self.memo(coalitions)

    def cost(self) -> tuple[int, int]:
        """Evaluations and visits."""
        return self.memo.evaluations - self.before[0], self.memo.visits - self.before[1]


@dataclass(frozen=True)
class _Draw:
    """Endless streams of independent replicates ``(n, S)``, each unbiased."""

    value: Value
    groups: int
    ends: np.ndarray
    """v(∅) and v(all), ``(2, S)``."""
    rng: np.random.Generator

    def squares(self, rows: Rows) -> Iterator[np.ndarray]:
        """Mean contributions over the orders of a square, or of a square and its mirror image."""
        while True:
            orders = latin_square(self.groups, cyclic=rows == "cyclic", rng=self.rng)
            if rows == "antithetic":
                orders = np.concatenate([orders, orders[:, ::-1]])
            step = max(1, BATCH // self.groups)
            parts = (orders[i : i + step] for i in range(0, len(orders), step))
            yield sum(self._added(part).sum(0) for part in parts) / len(orders)

    def pairs(self) -> Iterator[np.ndarray]:
        """One contribution per group, each to a coalition of its own."""
        n = self.groups
        while True:
            moment = self.rng.random((n, n))  # row i: when each group joins, as group i sees it
            before = moment < moment.diagonal()[:, None]
            v = self.value(np.concatenate([before, before | np.eye(n, dtype=bool)]))
            yield v[n:] - v[:n]

    def _added(self, orders: np.ndarray) -> np.ndarray:
        """What each group adds in each order ``(r, n)``: ``(r, n, S)``."""
        (r, n), s = orders.shape, self.ends.shape[1]
        rank = orders.argsort(1)
        joined = (rank[:, None, :] <= np.arange(n - 1)[:, None]).reshape(-1, n)
        between = self.value(joined) if len(joined) else np.empty((0, s))
        first, last = np.broadcast_to(self.ends[:, None, None], (2, r, 1, s))
        path = np.concatenate([first, between.reshape(r, n - 1, s), last], 1)
        return np.take_along_axis(np.diff(path, axis=1), rank[..., None], 1)


@dataclass
class _Running:
    """Mean and squared deviations of replicates that are not kept (Welford 1962)."""

    mean: np.ndarray
    squares: np.ndarray
    count: int = 0

    def add(self, replicate: np.ndarray) -> None:
        """Take one more into account."""
        self.count += 1
        off = replicate - self.mean
        self.mean = self.mean + off / self.count
        self.squares = self.squares + off * (replicate - self.mean)

    def standard_error(self) -> np.ndarray:
        """Of the mean, replicates being independent."""
        return np.sqrt(self.squares / (self.count - 1) / self.count)


def replicates(groups: int, *, method: Method, samples: int, rows: Rows = "independent") -> int:
    """Count the independent replicates that a sample has; see :func:`sample`.

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
    paired = method == "latin" and rows == "antithetic"
    if paired and samples % 2:
        raise SettingError(
            f"antithetic squares come in pairs, but samples={samples} is odd; "
            f"pass samples={samples + 1}"
        )
    count = samples // 2 if paired else samples
    if count < 2:
        raise SettingError(
            f"samples={samples} leaves {count} independent replicate, of which no standard error "
            f"can be told; pass samples={4 if paired else 2} or more"
        )
    return max(2, count * groups // 2) if method == "uniform" else count
