"""How the tests are shared out among processes."""
import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items):
    "With `--dist loadgroup` a file's tests stay in one process, which makes their fixtures once; notebooks go one by one."
    for item in items:
        if item.path.stem != 'test_notebooks': item.add_marker(pytest.mark.xdist_group(item.path.stem))
