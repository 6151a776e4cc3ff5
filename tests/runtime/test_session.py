"""Opening a run, and how it is closed: on a real Ray and store, with MLflow away."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager

import pytest

from robustray.manifest import Resources, build_manifest
from robustray.runtime.lease import LeaseLostError
from robustray.runtime.session import Session, open_session
from robustray.store import LocalStore, canonical_json

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(300)]

NOBODY = "http://127.0.0.1:9"
MANIFEST = build_manifest(
    {
        "kind": "Sweep", "name": "small", "model": {"name": "preact_resnet"},
        "recipe": {"epochs": 1}, "data": {"name": "digits"}, "resources": {"gpus": 0, "cpus": 1},
    }
)  # fmt: skip


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def open_small(store: LocalStore, said: list[str], **changes) -> AbstractContextManager[Session]:
    options = {"prefix": "jobs/small", "cpus_do": False, "work": "working"} | changes
    return open_session(store, NOBODY, MANIFEST, said.append, **options)


def has_ended(store: LocalStore) -> bool:
    beats = [e.key for e in store.list("jobs/small/drivers/") if e.key.endswith("beat.json")]
    return bool(beats) and json.loads(store.get(beats[-1])) == {"ended": True}


def test_an_error_is_told_while_the_lease_holds_and_the_lease_ends_with_the_block(store):
    said: list[str] = []
    with pytest.raises(ZeroDivisionError), open_small(store, said) as session:  # noqa: PT012

        def close(error: BaseException) -> None:
            assert not has_ended(store)
            session.store.put("jobs/small/end.txt", repr(error).encode())

        with session.closing(close):
            raise ZeroDivisionError
    assert store.get("jobs/small/end.txt") == b"ZeroDivisionError()"
    assert has_ended(store)
    assert "MLflow does not answer" in said[-1]


def test_who_has_lost_the_lease_closes_nothing_of_its_successor(store):
    closed: list[BaseException] = []
    with pytest.raises(LeaseLostError), open_small(store, []) as session:  # noqa: PT012
        claim = canonical_json({"host": "elsewhere", "process": 1})
        assert store.create("jobs/small/drivers/00000002/claim.json", claim)
        with session.closing(closed.append):
            session.store.put("jobs/small/end.txt", b"")
    assert not closed
    assert not store.exists("jobs/small/end.txt")
    assert not has_ended(store)


def test_a_place_may_depend_on_the_resources_that_there_are(store):
    def place(resources: Resources) -> str:
        return "jobs/gpu" if resources.gpus else "jobs/small"

    said: list[str] = []
    many = MANIFEST.model_copy(update={"resources": Resources(gpus=1, cpus=1)})
    with open_session(
        store, NOBODY, many, said.append, prefix=place, cpus_do=True, work="counting"
    ) as session:
        assert session.resources.gpus == 0
        assert store.list("jobs/small/drivers/")
    assert said[0] == "no GPU anywhere: counting on CPUs"
