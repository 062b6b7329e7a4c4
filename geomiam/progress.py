"""Progress bars and log lines: one decision for a call and all that it calls.

``progress=`` of a public function holds for every bar below it. ``None`` takes the decision of the
calling function; without one, bars are shown on a terminal or in a notebook, and nothing is written
to a file, a pipe or a batch log. Text that is neither a warning nor progress goes to the logger
``geomiam`` at level INFO.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

from geomiam.errors import printable

P = ParamSpec("P")
R = TypeVar("R")

DELAY = 2.0
"""Seconds before a bar appears."""

_CHOICE: ContextVar[bool | None] = ContextVar("geomiam_progress", default=None)


def with_progress(function: Callable[P, R]) -> Callable[P, R]:
    """Apply the keyword argument ``progress`` of a function to all bars inside it."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with progress_set(cast("bool | None", kwargs.get("progress"))):
            return function(*args, **kwargs)

    return call


@contextmanager
def progress_set(progress: bool | None) -> Iterator[None]:
    """Show bars inside, or hide them; None leaves the decision as it is."""
    token = _CHOICE.set(_CHOICE.get() if progress is None else progress)
    try:
        yield
    finally:
        _CHOICE.reset(token)


def is_shown() -> bool:
    """Return whether bars are shown here."""
    choice = _CHOICE.get()
    return _is_watched() if choice is None else choice


def progress_bar(*args: Any, **settings: Any) -> Any:
    """Return a bar of ``tqdm.auto``, hidden where :func:`is_shown` is false."""
    options: dict[str, Any] = {"delay": DELAY, "disable": not is_shown(), **settings}
    return _tqdm(hidden=options["disable"])(*args, **options)


def dask_progress(description: str) -> Any:
    """Return a context in which dask's local schedulers move a bar."""
    from tqdm.dask import TqdmCallback

    hidden = not is_shown()
    options = {"desc": description, "delay": DELAY, "disable": hidden}
    return TqdmCallback(tqdm_class=_tqdm(hidden=hidden), **options)


def log(text: str) -> None:
    """Write a line to the logger ``geomiam``; control characters become escapes."""
    logging.getLogger("geomiam").info("%s", printable(text))


def _tqdm(*, hidden: bool) -> Any:
    if hidden:  # also in threads, where filters of warnings cannot be set
        from tqdm import tqdm

        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets, a notebook gets bars of text
        from tqdm.auto import tqdm as bars
    return bars


def _is_watched() -> bool:
    """Whether a bar is visible: on a terminal, or in a notebook."""
    stream = sys.stderr
    return (stream is not None and stream.isatty()) or _in_notebook()


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
