"""The notebook runs and says true numbers; the documentation is complete and builds without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import geomiam as gm

ROOT = Path(gm.__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOK = ROOT / "notebooks" / "01-quickstart.ipynb"
NOTEBOOK_PAGES = ("quickstart.ipynb", "sentinel2-gaps.ipynb")  # copied there by conf.py


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


# The notebook ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_quickstart_runs_and_its_numbers_hold(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=where).execute()  # raises where a cell does
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    text = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
    assert "19,838 land cells; 0 have every predictor" in text
    assert "19,838 of 19,838 land cells answered" in text
    assert "the same model: True" in text
    assert found(r"efficiency: largest difference (\S+)", text) < 1e-5
    assert found(r"in memory at once: largest difference (\S+)", text) < 1e-5
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 4
    assert not any(tmp_path.iterdir())  # it leaves nothing behind where it runs


def found(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match, pattern
    return float(match[1])


def test_the_notebook_is_stored_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert not any(c.outputs or c.execution_count for c in code)


# The pages ---------------------------------------------------------------------------------------


def test_the_api_page_has_every_public_name():
    page = read("api.md")
    for name in gm.__all__:
        if name not in ("__version__", "cube"):  # the functions of cube are listed by themselves
            assert f"geomiam.{name}\n" in page or f"geomiam.{name}." in page, name
    for strategy in gm.masking.__all__:
        assert re.search(rf"\b{strategy}\b", page), strategy


def test_the_tests_that_the_laws_name_exist():
    named = set(re.findall(r"`(test_\w+\.py)`", read("concepts.md")))
    assert len(named) > 8
    assert not [n for n in named if not (ROOT / "tests" / n).is_file()]


def test_links_between_the_pages_lead_somewhere():
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
            path = target.partition("#")[0]
            assert path in NOTEBOOK_PAGES or (DOCS / path).is_file(), (page.name, target)


@pytest.fixture
def catalog() -> gm.Schema:
    """The catalog of the page, as if bound to three years of monthly data."""
    (text,) = re.findall(r"```yaml\n(.*?)```", read("catalogs.md"), re.DOTALL)
    schema = gm.Schema.from_dict(yaml.safe_load(text))
    months = tuple(f"{y}-{m:02}-01" for y in (2016, 2017, 2018) for m in range(1, 13))
    labels = {"band": ("red", "nir"), "time": months, "feature": tuple(range(64))}
    labels |= {"v": tuple(range(48)), "u": tuple(range(48))}
    bound = {
        n: v.model_copy(update={"labels": {d: labels[d] for d in v.dims}})
        for n, v in schema.variables.items()
    }
    return schema.replace(bound)


def test_the_catalog_of_the_page_loads_and_shows_every_kind(catalog):
    from geomiam.schema.schema import KINDS

    assert {v.kind for v in catalog.variables.values()} == set(KINDS)
    assert list(catalog.groups) == ["climate", "land", "sky"]


def test_the_selectors_of_the_page_select_what_it_says(catalog):
    from geomiam.tokens.layout import Layout
    from geomiam.tokens.select import visible_tokens

    layout = Layout.of(catalog)
    sizes = {
        "climate": 2,
        "bio1": 1,
        "landsat[time=2018]": 2 * 4,
        "landsat[time=2016:2018]": 2 * 12,
        "landsat[time=2018-07:2018-09]": 2,
        "landsat[band=red|nir,time=2018]": 2 * 4,
        "sentinel2[centre]": 2,
    }
    listed = re.findall(r"^\| (?:`|<code>)(.+?)(?:`|</code>) \|", read("catalogs.md"), re.MULTILINE)
    listed = [s.replace("&#124;", "|") for s in listed if "[" in s or s in sizes]
    assert {s for s in listed if not s.startswith("linke")} == set(sizes)  # that one: test_readme
    for selector, size in sizes.items():
        assert visible_tokens(layout, selector).sum() == size, selector
    said = {"landsat": {"time": slice("2016", "2018"), "band": ["red", "nir"]}}
    assert visible_tokens(layout, said).sum() == 2 * 12


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="sphinx is not installed: pip install geomiam[docs]")
    pytest.importorskip("myst_nb", reason="myst-nb is not installed: pip install geomiam[docs]")
    pytest.importorskip("furo", reason="furo is not installed: pip install geomiam[docs]")
    html = tmp_path / "html"
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "doctrees")]
    options += ["-D", "nb_execution_mode=off"]  # the notebook has its own test
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(html)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = ("index", "quickstart", "sentinel2-gaps", "concepts", "catalogs", "large-maps", "api")
    for name in pages:
        assert (html / f"{name}.html").is_file()
    page = (html / "api.html").read_text(encoding="utf-8")
    for anchor in ("fit", "predict", "shapley", "accessor.Miam.predict", "errors.MemoryRefused"):
        assert f'id="geomiam.{anchor}"' in page, anchor
