"""Shared fixtures; long tests first, so that no worker is left with one at the end."""

# By name, for a second conftest.py, in a folder below, is one module too many for
# pytest's --doctest-modules, which imports both as `conftest`.
pytest_plugins = ["command_line"]

LONG = ("test_readme.py", "test_real_data.py", "test_tiling.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
