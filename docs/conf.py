"""Sphinx configuration. The pages build without a network; links to other projects need one."""

import os
import shutil
from pathlib import Path

from geomiam import __version__

HERE = Path(__file__).parent

project = "geomiam"
author = "The geomiam developers"
release = version = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "jupyter_execute"]
html_theme = "furo"
html_title = f"geomiam {__version__}"

# The quickstart runs at every build, so its outputs are those of the current code. The other notebook
# needs a STAC server: it is stored with its outputs, which a test compares.
nb_execution_mode = "force"
nb_execution_excludepatterns = ["tutorials/sentinel2-gaps*"]
nb_execution_timeout = 600
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of small networks wait for each other
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False

autosummary_generate = True
autosummary_generate_overwrite = True

# The inventories are read from the web, and a build without a network must not warn.
if os.environ.get("READTHEDOCS") or os.environ.get("GEOMIAM_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "xarray": ("https://docs.xarray.dev/en/stable", None),
        "dask": ("https://docs.dask.org/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
    }

# Sphinx reads pages from its own folder only, so the notebooks are copied.
PAGES = {"01-quickstart": "quickstart", "02-sentinel2-gaps": "sentinel2-gaps"}
for notebook, page in PAGES.items():
    shutil.copyfile(
        HERE.parent / "notebooks" / f"{notebook}.ipynb", HERE / "tutorials" / f"{page}.ipynb"
    )


def add_fields(app, objtype, name, obj, options, lines):
    """Add the fields of a settings class, which pydantic keeps apart from its docstring."""
    for field, info in getattr(obj, "model_fields", {}).items() if objtype == "class" else ():
        default = "required" if info.is_required() else f"default ``{info.get_default()!r}``"
        text = ", ".join(filter(None, [info.description, default]))
        lines.append(f":param {field}: {text}")


def setup(app):
    """Connect the hook."""
    app.connect("autodoc-process-docstring", add_fields)
