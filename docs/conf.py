"""How Sphinx builds the site: `make docs`."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).parent))
matplotlib.use("Agg")

project = "flexsn"
release = metadata.version("flexsn")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_parts"]
exclude_patterns = ["_build", "site_parts"]
nitpicky = True
nitpick_ignore_regex = [  # what is not ours, and what is ours alone
    ("py:.*", r"(?!flexsn\.).*"),
    ("py:.*", r"flexsn\.(ir|planning|kernels)\..*"),
]

default_role = "py:obj"
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_param = False  # "a, b: as for X" is one entry
napoleon_custom_sections = ["Shapes", "Dtypes", "States", "Source", ("Parameters", "Learned")]

html_theme = "furo"
html_title = "flexsn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
