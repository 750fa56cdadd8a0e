"""Sphinx' configuration: `make docs` builds docs/ to build/docs."""

from __future__ import annotations

from lxdtap import __version__

project = "lxdtap"
release = version = __version__
copyright = "the authors of lxdtap, Apache-2.0"  # noqa: A001 - Sphinx' name for it

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]

# Nothing is looked up elsewhere: the build is the same offline. What is Python's, or only tells how
# a signature is typed, has no page here.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!lxdtap\b).*"),
    (r"py:.*", r"lxdtap\.(?!api\.[A-Z]|errors\.).*"),
]

# A docstring's Example is a block of code, its Args a list; types stand in the signature.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True

# What is not said to be in some language is what a shell or lxdtap says.
highlight_language = "text"

# Headings have anchors as on forges, so that links work in both places.
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"lxdtap {__version__}"
html_copy_source = False
html_show_sphinx = False
