"""The undisturbed run of the small study that disturbed ones are compared with."""

import pytest

from tests.sweeps.support import Place


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Place:
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    assert place.run("--set", "resources.max_concurrent=2") == 0, place.log
    return place
