"""Long tests first, so that no worker is left with one at the end."""

LONG = ("test_readme.py", "test_real_data.py", "test_tiling.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
