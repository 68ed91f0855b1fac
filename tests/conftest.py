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
    "features/test_cache.py",
    "features/test_feature_maps.py",
    "features/test_features.py",
    "segmenter/test_segmenter.py",
    "tables/test_shards.py",
    "structure/test_structure.py",
    "tiling",
)
# Tests among them of names, forms and files, which take long.
NOT_ROUNDING = (
    "[decoder]",
    "[fcn]",
    "[unet]",
    "model_selection",
    "test_a_grid_search_over_strength",
    "test_another_process_with_another_hash_seed_says_the_same",
    "test_in_the_segmenter",
    "test_weights_by_the_tasks_names",
    "test_weights_of_tasks_in_every_form",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here) if here in item.path.parents else Path()
        among = any(place.is_relative_to(name) for name in ROUNDING)
        if among and not any(part in item.name for part in NOT_ROUNDING):
            item.add_marker(pytest.mark.rounding)
