"""Sphinx configuration; builds without a network."""

import shutil
from pathlib import Path

from geomiam import __version__

HERE = Path(__file__).parent

project = "geomiam"
author = "The geomiam developers"
release = version = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "furo"
html_title = f"geomiam {__version__}"

# The quickstart runs at every build, so the page cannot say what the code does not do. The other
# needs a STAC server: it is stored with its outputs, and a test holds it to them.
nb_execution_mode = "force"
nb_execution_excludepatterns = ["sentinel2-gaps*"]
nb_execution_timeout = 300
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

# Notebooks live in notebooks/; Sphinx reads sources from its own folder only.
PAGES = {"01-quickstart": "quickstart", "02-sentinel2-gaps": "sentinel2-gaps"}
for notebook, page in PAGES.items():
    shutil.copyfile(HERE.parent / "notebooks" / f"{notebook}.ipynb", HERE / f"{page}.ipynb")


def tell_fields(app, what, name, obj, options, lines):
    """Add the fields of a settings class, which pydantic keeps apart from its docstring."""
    for field, info in getattr(obj, "model_fields", {}).items() if what == "class" else ():
        default = "required" if info.is_required() else f"default ``{info.get_default()!r}``"
        text = ", ".join(filter(None, [info.description, default]))
        lines.append(f":param {field}: {text}")


def setup(app):
    """Connect the hook."""
    app.connect("autodoc-process-docstring", tell_fields)
