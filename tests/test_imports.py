"""Arrows between modules run one way (DESIGN 3), and importing mtsk is cheap."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from inspect import signature
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

import mtsk

ROOT = Path(mtsk.__file__).parent

# From low to high, as ARCHITECTURE.md has them. A module may import from packages of
# its own layer, which form no cycle, and of lower ones.
LAYERS = [
    {"exceptions", "_validation", "_resources", "_atomic", "_progress"},
    {"data"},
    {"tasks", "backbones"},
    {"features", "heads", "crf", "metrics", "displays", "datasets"},
    {"decoders", "tables", "structure", "links", "persistence"},
    {"segmenter"},
    {"tiling", "inspection", "export"},
    {"testing"},
    {"cli", "__main__"},
]
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}
HEADS_MAY = {
    "mtsk.tasks.columns",
    "mtsk.exceptions",
    "mtsk._validation",
    "mtsk._resources",
    "mtsk._progress",
}

FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def package_name(path):
    """The file or folder directly under mtsk that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def package_of(path):
    """The package that a file's relative imports start from."""
    return ".".join(("mtsk", *path.relative_to(ROOT).parent.parts))


def imports_of(path):
    """Yield (line, module, name or None) of every import, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = package_of(path).split(".")
                parts = parts[: len(parts) - node.level + 1]
                module = ".".join([*parts, module] if module else parts)
            for alias in node.names:
                yield node.lineno, module, alias.name


def own_imports(path):
    """Yield (line, full module) of what a file imports from mtsk."""
    for line, module, name in imports_of(path):
        if module == "mtsk" and name is not None:
            # ``from mtsk import tasks`` is a room; a public name says its home.
            yield line, f"mtsk.{mtsk._HOME.get(name, f'mtsk.{name}')[5:]}"
        elif module.startswith("mtsk."):  # all of it, as users do, is the cli's way
            yield line, module


def ids(path):
    return str(path.relative_to(ROOT))


def private_names(path):
    """The names with one leading underscore that a file defines or sets."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        name = getattr(node, "name", None)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        if isinstance(name, str) and name.startswith("_") and name[1:2] != "_":
            found.add(name)
    return found


PRIVATE_OF = {}
for file in FILES:
    own = PRIVATE_OF.setdefault(package_name(file), set())
    own |= private_names(file)
PRIVATE = set().union(*PRIVATE_OF.values())
PROTOCOLS = {"_replace", "_fields", "_repr_html_"}  # of NamedTuple and of notebooks


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_every_package_has_a_layer(path):
    assert package_name(path) in LAYER_OF, "give it its place in LAYERS"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_import_from_a_higher_layer(path):
    here = LAYER_OF[package_name(path)]
    back = [
        f"{path.name}:{line} imports {module}"
        for line, module in own_imports(path)
        if LAYER_OF.get(module.split(".")[1], 99) > here
    ]
    assert not back


def test_packages_of_one_layer_form_no_cycle():
    edges = {name: set() for name in LAYER_OF}
    for path in FILES:
        here = package_name(path)
        edges[here] |= {m.split(".")[1] for _, m in own_imports(path)} - {here}
    TopologicalSorter(edges).prepare()  # raises CycleError


def test_few_files_stand_at_the_root():
    assert len(list(ROOT.glob("*.py"))) <= 8


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_private_name_of_another_package(path):
    here = package_name(path)
    private = [
        f"{path.name}:{line} {module} {name}"
        for line, module, name in imports_of(path)
        if module.startswith("mtsk.")
        and module.split(".")[1] != here
        and (name or "").startswith("_")
    ]
    private += [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr in PRIVATE - PRIVATE_OF[here] - PROTOCOLS
    ]
    assert not private


def test_the_public_face_is_small():
    assert len(mtsk._HOME) <= 15
    parameters = signature(mtsk.MultiTaskSegmenter.__init__).parameters
    assert len(parameters) - 1 <= 11  # without self
    assert mtsk.MultiTaskSegmenter.__bases__ == (BaseEstimator,)


@pytest.mark.parametrize(
    "path", [p for p in FILES if package_name(p) == "heads"], ids=ids
)
def test_heads_see_columns_never_tasks_or_pictures(path):
    strange = {
        module
        for _, module in own_imports(path)
        if module not in HEADS_MAY and module.split(".")[1] != "heads"
    }
    assert not strange


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_only_validation_touches_scikit_learn_privates(path):
    if path == ROOT / "_validation.py":
        return
    private = [
        f"{path.name}:{line} {module} {name or ''}"
        for line, module, name in imports_of(path)
        if module.split(".")[0] == "sklearn"
        and any(p.startswith("_") for p in [*module.split("."), name or ""])
    ]
    assert not private


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_matplotlib_and_pandas_are_never_imported_at_the_top(path):
    top = [
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert not {"matplotlib", "pandas"} & {(name or "").split(".")[0] for name in top}


def loaded_after(statement):
    """Return which heavy modules a fresh interpreter has after a statement."""
    code = (
        f"import sys; {statement}; "
        "print([m for m in ('torch', 'matplotlib', 'timm', 'skimage') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stdout)


def test_importing_mtsk_loads_nothing_heavy():
    assert loaded_after("import mtsk; dir(mtsk)") == []


def test_targets_and_folders_need_no_torch():
    heavy = loaded_after("from mtsk import Targets, ImageFolder")
    assert "torch" not in heavy
    assert "matplotlib" not in heavy


@pytest.mark.parametrize("name", mtsk.__all__)
def test_every_public_name_is_there(name):
    assert getattr(mtsk, name) is not None
    assert name in dir(mtsk)


def test_unknown_name():
    with pytest.raises(
        AttributeError, match="module 'mtsk' has no attribute 'nothing'"
    ):
        mtsk.nothing  # noqa: B018
