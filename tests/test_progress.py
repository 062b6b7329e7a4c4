"""Progress: shown on a terminal or in a notebook, one decision per call; and the log."""

from __future__ import annotations

import io
import logging
import types
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites

import geomiam as gm
from geomiam import progress
from geomiam.errors import OutsideTrainingRange
from geomiam.progress import log, progress_bar, progress_set

SITES = tiny_sites(60)
FIT = {"network": TINY_NETWORK, "training": quick(epochs=1)}


@pytest.fixture(scope="module")
def model() -> gm.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gm.fit(SITES, **FIT)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)


def cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    lengths = {"bio1": (), "clay": (), "ndvi": (4,)}
    layers = {
        k: (("month",) * len(d) + ("y", "x"), rng.normal(size=(*d, 6, 6)).astype(np.float32))
        for k, d in lengths.items()
    }
    coords = {"y": 45.5 - np.arange(6), "x": 0.5 + np.arange(6), "month": [1, 4, 7, 10]}
    ds = xr.Dataset(layers, coords, {"crs": "EPSG:4326"}).chunk(x=3)
    for name, modality in (("bio1", "climate"), ("clay", "soil"), ("ndvi", "soil")):
        ds[name].attrs["modality"] = modality
    return ds


Call = Callable[..., object]
CALLS: dict[str, Call] = {
    "fit": lambda model, out, **p: gm.fit(SITES, **FIT, **p),
    "fit by the rule": lambda model, out, **p: gm.fit(
        SITES, network={"width": 8, "heads": 2, "depth": 1}, training={"steps": 2}, **p
    ),
    "finetune": lambda model, out, **p: gm.finetune(
        model, SITES, train="all", training=quick(epochs=1), **p
    ),
    "pretrain": lambda model, out, **p: gm.pretrain(SITES, **FIT, **p),
    "cross_validate": lambda model, out, **p: gm.cross_validate(
        SITES, splits=gm.splits.SpatialBlocks(2), **FIT, **p
    ),
    "evaluate": lambda model, out, **p: gm.evaluate(model, SITES, **p),
    "importance": lambda model, out, **p: gm.explain.importance(model, SITES, **p),
    "predict": lambda model, out, **p: gm.predict(cube().compute(), model, **p),
    "shapley": lambda model, out, **p: gm.shapley(cube().compute(), model, **p),
    "write_map": lambda model, out, **p: gm.write_map(cube(), model, out, **p),
    "write_cube": lambda model, out, **p: gm.write_cube(cube(), out, **p),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_progress_is_shown_where_somebody_sees_it_and_hidden_on_demand(
    name, model, tmp_path, monkeypatch, capsys, at_once
):
    def text(folder: str, **argument: bool) -> str:
        CALLS[name](model, tmp_path / folder, **argument)
        output = capsys.readouterr()
        assert output.out == ""
        return output.err

    assert text("a") == ""  # the captured stream is no terminal
    assert "|" in text("b", progress=True)
    monkeypatch.setattr(progress, "_is_watched", lambda: True)
    assert "|" in text("c")
    assert text("d", progress=False) == ""


def test_a_terminal_and_a_notebook_show_bars_and_a_file_does_not(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    assert progress.is_shown()
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    assert not progress.is_shown()
    monkeypatch.setattr(progress.sys, "stderr", None)  # pythonw on Windows
    assert not progress.is_shown()
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(progress.sys.modules, "IPython", ipython)
    assert progress.is_shown()
    shell.config = {"TerminalIPythonApp": {}}
    assert not progress.is_shown()


def test_the_outer_decision_holds_inside_and_ends_with_the_call():
    with progress_set(False):
        with progress_set(None):
            assert not progress.is_shown()
            assert progress_bar(range(3)).disable
        with progress_set(True):
            assert progress.is_shown()
        assert not progress.is_shown()
    with pytest.raises(RuntimeError), progress_set(True):
        raise RuntimeError
    assert not progress.is_shown()


def test_the_logger_is_silent_until_it_is_configured(capsys):
    handlers = logging.getLogger("geomiam").handlers
    assert any(isinstance(h, logging.NullHandler) for h in handlers)
    log("a line")
    output = capsys.readouterr()
    assert output.out + output.err == ""


def test_a_name_in_the_log_cannot_change_a_terminal(caplog):
    with caplog.at_level(logging.INFO, "geomiam"):
        log("species \x1b[2Jfagus %s")
    assert caplog.messages == ["species \\x1b[2Jfagus %s"]


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_resumes_is_logged(tmp_path, caplog):
    folder = tmp_path / "run"
    gm.fit(SITES, network=TINY_NETWORK, training=quick(epochs=1), checkpoint=folder)
    with caplog.at_level(logging.INFO, "geomiam"):
        gm.fit(SITES, network=TINY_NETWORK, training=quick(epochs=2), checkpoint=folder)
    assert any("resumes after epoch 1" in m for m in caplog.messages)
    assert any("trained geomiam model" in m for m in caplog.messages)


def test_a_warning_points_to_the_line_of_the_user(model):
    with pytest.warns(OutsideTrainingRange) as caught:
        gm.predict(cube().compute() + 100, model)
    assert {w.filename for w in caught} == {__file__}
    with pytest.warns(UserWarning) as caught:
        gm.fit(SITES, **FIT)
    assert {w.filename for w in caught} == {__file__}
