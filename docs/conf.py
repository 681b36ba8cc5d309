"""Sphinx configuration: Markdown and generated pages, the API, nothing from the network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generate import write_pages  # noqa: E402 (found by the line above)

import espnet_star  # noqa: E402

project = "espnet_star"
copyright = "The espnet_star authors"
release = espnet_star.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
]
exclude_patterns = ["generated/*.md"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_rtype = False
# Attributes in the class's own list: autodoc describes those of data classes already.
napoleon_use_ivar = True

# Two hyphens begin an option here, not a dash.
smartquotes = False

html_theme = "furo"
html_title = f"espnet_star {release}"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False

write_pages()
