"""Sphinx configuration; builds without a network."""

import shutil
from pathlib import Path

from geomiam import __version__

HERE = Path(__file__).parent

project = "geomiam"
author = "The geomiam developers"
release = version = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"geomiam {__version__}"
exclude_patterns = ["_build", "jupyter_execute"]

nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "deflist"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False

# The notebook lives with its tests in notebooks/; Sphinx reads sources from its own folder only.
shutil.copyfile(HERE.parent / "notebooks" / "01-quickstart.ipynb", HERE / "quickstart.ipynb")
