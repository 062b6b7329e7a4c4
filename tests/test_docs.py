"""The notebook runs, and its numbers are as stated; the documentation is complete and builds without a warning."""

from __future__ import annotations

import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml
from packaging.requirements import Requirement

import geomiam as gm
from geomiam.cli.app import app

ROOT = Path(gm.__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOK = ROOT / "notebooks" / "01-quickstart.ipynb"
NOTEBOOK_PAGES = ("quickstart", "sentinel2-gaps")
"""Copied into docs/tutorials/ by conf.py."""
QUICKER = {
    "epochs=10": "epochs=1",
    "width=48, heads=4, depth=2": "width=8, heads=2, depth=1, inner=0, frequencies=4",
}
"""Settings of the quickstart, and those with which the test runs it."""
EXTENSIONS = ("myst_nb", *(f"sphinx.ext.{n}" for n in ("autodoc", "autosummary", "napoleon")))
"""Those that can warn: viewcode only adds pages with the source."""


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


# The notebook ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_quickstart_runs_and_its_numbers_hold(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    from nbclient import NotebookClient

    text = NOTEBOOK.read_text(encoding="utf-8")
    for setting, small in QUICKER.items():  # the numbers below do not depend on the training
        assert setting in text
        text = text.replace(setting, small)
    notebook = nbformat.reads(text, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=folder).execute()  # raises where a cell does
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    text = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
    assert "19,838 land cells; 0 have every predictor" in text
    assert "19,838 of 19,838 land cells have a prediction" in text
    assert "the same model: True" in text
    assert number_in(r"efficiency: largest difference (\S+)", text) < 1e-5
    assert number_in(r"in memory at once: largest difference (\S+)", text) < 1e-5
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 4
    assert not any(tmp_path.iterdir())  # it leaves nothing behind where it runs


def number_in(pattern: str, text: str) -> float:
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


NAMESPACES = (
    "baselines",
    "demo",
    "errors",
    "evaluation",
    "explain",
    "masking",
    "metrics",
    "plot",
    "ranges",
    "reports",
    "sklearn",
    "sources",
    "splits",
)


def public_names() -> list[str]:
    """Every public object once, such as ``geomiam.fit`` and ``geomiam.splits.SpatialBlocks``."""
    top = {f"geomiam.{n}": getattr(gm, n) for n in gm.__all__ if n != "__version__"}
    names = [n for n, value in top.items() if not isinstance(value, ModuleType)]
    top_ids = {id(top[n]) for n in names}  # gm.explain.shapley is gm.shapley
    for space in NAMESPACES:
        module = getattr(gm, space)
        public = getattr(module, "__all__", None) or [
            n
            for n, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        for name in public:
            value = getattr(module, name)
            if not (name.startswith("_") or isinstance(value, ModuleType) or id(value) in top_ids):
                names.append(f"geomiam.{space}.{name}")
    return sorted(set(names))


def test_the_reference_has_every_public_name_once():
    entries = re.findall(
        r"^(?:   |\.\. py:data:: )(geomiam\.[\w.]+)$", read("reference/index.md"), re.M
    )
    assert len(entries) == len(set(entries))
    assert not set(public_names()) - set(entries)
    for name in entries:
        assert pkgutil.resolve_name(name) is not None


def test_the_tests_that_the_laws_name_exist():
    files = set(re.findall(r"`([\w/]*test_\w+\.py)`", read("explanation/concepts.md")))
    assert len(files) > 8
    assert not [n for n in files if not (ROOT / "tests" / n).is_file()]


def pages() -> list[Path]:
    return [ROOT / "README.md", *(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.stem)
def test_every_name_and_command_on_a_page_exists(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"\bgm\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", text):
        pkgutil.resolve_name(f"geomiam.{name}")
    verbs = typer.main.get_command(app).commands
    code = [
        *re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.M | re.S),
        *re.findall(r"`([^`]+)`", text),
    ]
    for line in re.findall(r"^(?:\$ )?geomiam ([a-z].*)", "\n".join(code), re.M):
        verb, *words = line.split(" #")[0].split()
        flags = {flag for p in verbs[verb].params for flag in (*p.opts, *p.secondary_opts)}
        assert {w.split("=")[0] for w in words if re.match("--?[a-z]", w)} <= {*flags, "-h"}, line


def test_the_installation_page_lists_the_extras():
    """Those for users; the others are for developers of geomiam."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"docs", "test", "demo-data"}
    table = re.findall(r"^\| `([a-z]\w*)` \| ", read("howto/installation.md"), re.M)
    assert sorted(table) == sorted(extras)


def test_the_conda_recipe_has_the_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text("utf-8"))
    names = {"dask": "dask-core", "matplotlib": "matplotlib-base", "torch": "pytorch"}
    requirements = map(Requirement, project["dependencies"])
    expected = {names.get(r.name, r.name.replace("_", "-")): str(r.specifier) for r in requirements}
    expected["python"] = project["requires-python"]
    assert dict(line.split() for line in recipe["requirements"]["run"]) == expected


def test_links_between_the_pages_have_a_target():
    pages = [p for p in DOCS.rglob("*.md") if "_build" not in p.parts]
    assert len(pages) > 20
    for page in pages:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
            path = target.partition("#")[0]
            if path.endswith(".ipynb"):
                assert Path(path).stem in NOTEBOOK_PAGES, (page.name, target)
            elif "://" not in target and path:
                assert (page.parent / path).is_file(), (page.name, target)


def test_every_page_is_in_one_of_the_four_parts():
    assert {p.name for p in DOCS.glob("*.md")} == {"index.md"}
    for part in ("tutorials", "howto", "reference", "explanation"):
        index = read(f"{part}/index.md")
        for page in set((DOCS / part).glob("*.md")) - {DOCS / part / "index.md"}:
            assert f"({page.name})" in index and f"\n{page.stem}\n" in index, page.name


def test_the_drawing_has_the_rooms_that_exist():
    from tools.draw_architecture import IMAGE, ROOMS, drawing

    assert IMAGE.read_text(encoding="utf-8") == drawing(), "python -m tools.draw_architecture"
    text = " ".join(" ".join((room.title, *room.lines)) for room in ROOMS.values())
    folders = {p.name for p in (ROOT / "geomiam").rglob("*") if p.is_dir()}
    rooms = set(re.findall(r"(\w+)/", text))
    assert rooms <= folders
    assert {p.parent.name for p in (ROOT / "geomiam").glob("*/__init__.py")} <= rooms


def test_the_excerpt_with_parameters_is_that_of_the_bundled_catalog():
    _, text = re.findall(r"```yaml\n(.*?)```", read("howto/catalogs.md"), re.DOTALL)
    excerpt = yaml.safe_load(text)
    entries = yaml.safe_load(gm.catalogs()["chelsa-futures"].read_text("utf-8"))
    assert excerpt["parameters"] == entries["parameters"]
    assert excerpt["sources"]["chelsa"].items() <= entries["sources"]["chelsa"].items()


@pytest.fixture
def catalog() -> gm.Schema:
    """The catalog of the page, as if bound to three years of monthly data."""
    text, _ = re.findall(r"```yaml\n(.*?)```", read("howto/catalogs.md"), re.DOTALL)
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
    from geomiam.schema.variable import KINDS

    assert {v.kind for v in catalog.variables.values()} == set(KINDS)
    assert list(catalog.groups) == ["climate", "land", "sky"]


def test_the_selectors_of_the_page_select_these_tokens(catalog):
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
    entries = re.findall(
        r"^\| (?:`|<code>)(.+?)(?:`|</code>) \|", read("howto/catalogs.md"), re.MULTILINE
    )
    entries = [s.replace("&#124;", "|") for s in entries if "[" in s or s in sizes]
    assert {s for s in entries if not s.startswith("linke")} == set(sizes)  # that one: test_readme
    for selector, size in sizes.items():
        assert visible_tokens(layout, selector).sum() == size, selector
    mapping = {"landsat": {"time": slice("2016", "2018"), "band": ["red", "nir"]}}
    assert visible_tokens(layout, mapping).sum() == 2 * 12


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="sphinx is not installed: pip install geomiam[docs]")
    pytest.importorskip("myst_nb", reason="myst-nb is not installed: pip install geomiam[docs]")
    pytest.importorskip("furo", reason="furo is not installed: pip install geomiam[docs]")
    # Sphinx generates these; pages of names that were removed would be warnings.
    shutil.rmtree(DOCS / "reference" / "generated", ignore_errors=True)
    html = tmp_path / "html"
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "doctrees")]
    options += ["-D", "nb_execution_mode=off"]  # the notebook has its own test
    # furo draws the whole tree of pages on each page: two thirds of the time, and no warning more.
    options += ["-D", "html_theme=basic", "-D", f"extensions={','.join(EXTENSIONS)}"]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(html)]
    build = subprocess.run(command, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr[-3000:]
    pages = (
        "index",
        "tutorials/quickstart",
        "howto/catalogs",
        "reference/index",
        "explanation/concepts",
    )
    for name in pages:
        assert (html / f"{name}.html").is_file()
    for name in (
        "fit",
        "accessor.Miam.predict",
        "errors.MemoryRefused",
        "splits.SpatialBlocks.split",
    ):
        owner = name if name.count(".") < 2 else name.rpartition(".")[0]
        page = html / "reference" / "generated" / f"geomiam.{owner}.html"
        assert f'id="geomiam.{name}"' in page.read_text(encoding="utf-8"), name
