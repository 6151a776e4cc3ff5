"""An MLflow over an SQLite file, and what a test reads back from any MLflow."""

from __future__ import annotations

from uuid import uuid4

import pytest

from robustray.tracking import MlflowSink
from tests.helpers.mlflow_records import record


@pytest.fixture(scope="session")
def sqlite_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SQLite MLflow whose tables exist (making them takes seconds); its folder is made late."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/made/on demand/mlflow.db"
    MlflowSink(uri).apply(record(experiment="warm-up"))
    return uri


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    """A tracking URI of each kind."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_uri")
    return request.getfixturevalue("mlflow_server").endpoint


@pytest.fixture
def experiment() -> str:
    """A name that no other test uses."""
    return f"e-{uuid4().hex[:12]}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of tenths of a second in place of seconds."""
    monkeypatch.setattr("robustray.tracking.uploader.FIRST_WAIT", 0.05)
    monkeypatch.setattr("robustray.tracking.uploader.LONGEST_WAIT", 0.4)
