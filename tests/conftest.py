"""Shared fixtures; long tests first, so that no worker is left with one at the end."""

from pathlib import Path

import pytest

# By name, for a second conftest.py, in a folder below, is one module too many for
# pytest's --doctest-modules, which imports both as `conftest`.
pytest_plugins = ["command_line"]

LONG = ("test_readme.py", "test_real_data.py", "test_tiling.py")


# Files, and folders of files, whose results hang on how sums of floats are rounded.
ROUNDING = (
    "backbones",
    "heads/test_glm.py",
    "heads/test_logistic.py",
    "heads/test_network.py",
    "heads/test_ridge.py",
    "heads/test_statistics.py",
    "persistence/test_formats.py",
    "persistence/test_save_load.py",
    "test_cache.py",
    "test_feature_maps.py",
    "test_features.py",
    "test_segmenter.py",
    "test_shards.py",
    "test_structure.py",
    "test_tiling.py",
    "test_windows.py",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here) if here in item.path.parents else Path()
        if any(place.is_relative_to(name) for name in ROUNDING):
            item.add_marker(pytest.mark.rounding)
