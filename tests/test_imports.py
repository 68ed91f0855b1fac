"""Arrows between modules run one way (DESIGN 3), and importing mtsk is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mtsk

ROOT = Path(mtsk.__file__).parent

# From low to high. A module may import those of its own level and of lower ones.
LEVELS = [
    {"exceptions"},
    {"_validation", "_resources"},
    {"image_files"},
    {"images", "targets", "augmentation", "postprocess"},
    {"tasks"},
    {"displays"},
    {"metrics", "datasets"},
    {"sharing"},
    {"crf"},
    {"superpixels"},
    {"backbones"},
    {"interpolation"},
    {"feature_maps", "projection"},
    {"cache", "network_passes"},
    {"features"},
    {"heads"},
    {"decoders"},
    {"relatedness"},
    {"pictures", "region_pooling", "tables", "weak_labels"},
    {"task_scores"},
    {"decoder_learning", "window_geometry"},
    {"windows"},
    {"joining", "checkpoint"},
    {"shards"},
    {"structure", "context"},
    {"nested"},
    {"structure_learning"},
    {"learning"},
    {"flow", "predicting", "persistence"},
    {"segmenter", "tile_store"},
    {"oracle", "attribution", "inspection", "suggestion", "tiling"},
    {"testing"},
    {"cli"},
    {"__main__"},
]
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
HEADS_MAY = {
    "mtsk.tasks.columns",
    "mtsk.exceptions",
    "mtsk._validation",
    "mtsk._resources",
}
# Rooms of one level that know nothing of one another.
APART = {"images", "targets", "metrics", "datasets"}

FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room_of(path):
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


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_every_file_has_a_level(path):
    assert room_of(path) in LEVEL_OF, f"give {room_of(path)} its place in LEVELS"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_arrow_runs_back(path):
    here = room_of(path)
    back = [
        f"{path.name}:{line} imports {module}"
        for line, module in own_imports(path)
        if module.count(".") >= 1
        and LEVEL_OF.get(module.split(".")[1], 99) > LEVEL_OF.get(here, -1)
    ]
    assert not back


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_rooms_of_one_level_do_not_know_one_another(path):
    here = room_of(path)
    beside = {
        room
        for room in APART & LEVELS[LEVEL_OF[here]]
        if room != here and here in APART
    }
    assert not [m for _, m in own_imports(path) if m.split(".")[1] in beside]


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) == "heads"], ids=ids)
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
