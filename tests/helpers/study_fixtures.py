"""The undisturbed run of the small study that disturbed ones are compared with."""

from __future__ import annotations

import os

import pytest
from filelock import FileLock

from tests.helpers.study_runs import Place


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Run the small study, once for all processes that share the tests; who is second waits."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent  # that of all of them
    folder /= "undisturbed"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        place = Place(folder)
        if not (folder / "done").exists():
            assert place.run("--set", "resources.max_concurrent=2") == 0, place.log
            place.expect_no_survivors()
            (folder / "done").touch()
    return place
