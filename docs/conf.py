"""Configuration of the documentation. Nothing here is fetched: builds run offline."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")
sys.path.insert(0, str(Path(__file__).parent))  # sphinx-gallery imports from here

from docutils.nodes import SkipNode
from latex2mathml.converter import convert as to_mathml

import mtsk

project = "mtsk"
author = copyright = "The mtsk developers"
version = release = mtsk.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "py:obj"

html_theme = "furo"
html_title = "mtsk"
html_static_path = ["_static"]
html_css_files = ["mtsk.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

# -- API reference ------------------------------------------------------------

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's parameter lists already name the types
numpydoc_show_class_members = False  # the class template lists them
python_display_short_literal_types = True

# -- doctest: the code blocks of getting_started -------------------------------

doctest_test_doctest_blocks = ""  # pytest runs those of the docstrings

# -- gallery ------------------------------------------------------------------

_OUTPUTS = tempfile.TemporaryDirectory(prefix="mtsk-docs-")  # gone at exit


def gallery_argv(gallery_conf: dict[str, Any], script: dict[str, Any]) -> list[str]:
    """Return the options a gallery script runs with, whatever Sphinx's own were."""
    if Path(script["src_file"]).stem == "quickstart":
        return ["--scenes", "24", "--output", _OUTPUTS.name]
    return []


def gallery_order(name: str) -> tuple[bool, str]:
    """Return the sort key of a script: quickstart first, then by name."""
    return name != "quickstart.py", name


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"(^|/)(plot_\w+|quickstart)\.py$",
    "ignore_pattern": r"__init__\.py",
    "capture_repr": (),  # what is printed, not what a last line returns
    "reset_argv": "conf.gallery_argv",
    "within_subsection_order": "conf.gallery_order",
    "doc_module": ("mtsk",),
    "backreferences_dir": "api/examples",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}


# -- checks -------------------------------------------------------------------


def public_paths(module: ModuleType = mtsk) -> dict[str, str]:
    """Map every public path, such as ``mtsk.heads.JointRidge``, to its object's key.

    A class that is public in two modules has one key, that of its definition; other
    objects are what their path says.
    """
    paths = {}
    for name in [*module.__all__, *getattr(module, "_MODULES", ())]:
        path = f"{module.__name__}.{name}"
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            paths |= {path: path, **public_paths(importlib.import_module(path))}
        else:
            home = getattr(value, "__module__", None)
            paths[path] = f"{home}.{value.__qualname__}" if callable(value) else path
    return paths


def check_api(app: Any, env: Any) -> None:
    """Warn of public names that do not stand exactly once in the reference."""
    from sphinx.util import logging

    if app.builder.name != "html":
        return
    entries = env.domaindata["py"]["objects"].items()
    documented = {path for path, entry in entries if not entry.aliased}
    paths = public_paths()
    times = Counter(key for path, key in paths.items() if path in documented)
    for path, key in paths.items():
        if times[key] != 1:
            logging.getLogger(__name__).warning(
                "%s stands %d times in the API reference (docs/api.rst), not once",
                path,
                times[key],
            )


def skip_generated(
    app: Any, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the methods that scikit-learn adds to every estimator."""
    return True if name.endswith("_request") else None


# -- formulas -----------------------------------------------------------------

html_math_renderer = "mathml"  # browsers draw it themselves; MathJax is a download


def inline_formula(writer: Any, node: Any) -> None:
    """Write a formula within a line."""
    writer.body.append(to_mathml(node.astext()))
    raise SkipNode


def formula(writer: Any, node: Any) -> None:
    """Write a formula of its own."""
    text = " ".join(node.astext().split())
    writer.body.append(f'<div class="formula">{to_mathml(text, display="block")}</div>')
    raise SkipNode


def setup(app: Any) -> None:
    """Add what the pages need."""
    app.connect("env-check-consistency", check_api)
    app.connect("autodoc-skip-member", skip_generated)
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
