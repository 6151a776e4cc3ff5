"""The stores, empty, under one name."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustray.store import ObjectStore, open_store


@pytest.fixture(params=["local", "s3", "attempts"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_uri"))
    store = open_store(request.getfixturevalue("overwriting_uri"))
    store.probe()
    assert store.mode == "attempts"
    return store
