"""Servers that answer If-None-Match in all the ways that servers do.

Real ones with these manners can't be had here, so a small server takes them on.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from robustray.errors import StoreError
from robustray.store import attempt_keys
from robustray.store.objects import NotAtomicError
from robustray.store.s3 import S3Store
from tests.helpers.faulty_servers import NaiveS3

Judge = Callable[[bool, bool], tuple[int, str] | None]


@pytest.fixture
def s3_address(monkeypatch: pytest.MonkeyPatch) -> str:
    """A URI, with keys in the environment; the server's address is still to be set."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    return "s3://bucket/place"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidArgument"),
        (403, "AccessDenied"),
        (403, "NotImplemented"),
        (405, "MethodNotAllowed"),
        (409, "Odd"),
        (412, "PreconditionFailed"),
        (501, "NotImplemented"),
        (501, ""),
    ],
)
def test_a_server_that_refuses_the_condition_is_used_by_attempt_keys(
    s3_address: str, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_attempts(monkeypatch, s3_address, lambda asked, there: (status, code) if asked else None)


@pytest.mark.parametrize(
    ("status", "code"), [(304, ""), (304, "NotModified"), (400, "InvalidArgument"), (403, "Odd")]
)
def test_a_server_that_refuses_in_its_own_way_what_exists_is_used_by_attempt_keys(
    s3_address: str, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_attempts(
        monkeypatch, s3_address, lambda asked, there: (status, code) if asked and there else None
    )


def check_attempts(monkeypatch: pytest.MonkeyPatch, uri: str, judge: Judge) -> None:
    with NaiveS3() as server:
        server.judge = judge
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = S3Store(uri, patience_s=5)
        store.probe()
        assert store.mode == S3Store(uri).mode == "attempts"
        assert [store.create("k", b"1"), store.create("k", b"2")] == [True, False]
        assert S3Store(uri).get("k") == b"1"
        assert [info.key for info in store.list()] == ["k"]
        assert set(server.objects) == {f"/{uri[5:]}/{key}" for key in raw_keys(store)}


def raw_keys(store: S3Store) -> list[str]:
    return ["robustray-store.json", *attempt_keys.attempts_of("k", store._list)]


@pytest.mark.parametrize(
    ("status", "code"), [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")]
)
def test_a_server_that_honours_the_condition_is_asked_for_it(
    s3_address: str, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while two writers meet: a conflict on what is not there yet passes."""
    conflicts = [(409, "ConditionalRequestConflict")] * 2

    def judge(asked: bool, there: bool) -> tuple[int, str] | None:
        if asked and there:
            return status, code
        return conflicts.pop() if asked and conflicts else None

    with NaiveS3() as server:
        server.judge = judge
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = S3Store(s3_address, patience_s=5)
        store.probe()
        assert (store.mode, conflicts) == ("atomic", [])
        assert [store.create("k", b"1"), store.create("k", b"2")] == [True, False]
        assert store.get("k") == b"1"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidArgument"),
        (400, "InvalidRequest"),  # of the checksum's header, perhaps
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
        (404, "NoSuchBucket"),
        (405, "MethodNotAllowed"),
        (501, "NotImplemented"),
    ],
)
def test_what_is_refused_with_and_without_the_condition_is_no_matter_of_the_condition(
    s3_address: str, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NaiveS3() as server:
        server.judge = lambda asked, there: (status, code)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        for action in (lambda s: s.probe(), lambda s: s.create("k", b"1")):
            with pytest.raises(StoreError, match=code) as caught:
                action(S3Store(s3_address, patience_s=5))
            assert not isinstance(caught.value, NotAtomicError)
        assert S3Store(s3_address).mode == "atomic"
        assert server.objects == {}


def test_a_refusal_that_passes_changes_nothing(
    s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = [(403, "AccessDenied")]
    with NaiveS3() as server:
        server.judge = lambda asked, there: once.pop() if asked and once else None
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = S3Store(s3_address, patience_s=5)
        assert store.create("k", b"1")
        server.judge = lambda asked, there: (501, "NotImplemented") if asked else None
        with pytest.raises(NotAtomicError, match=r"refuses If-None-Match.*NotImplemented"):
            store.create("other", b"1")
        assert store.mode == "atomic", "only a probe may change how a store works"


def test_what_is_too_large_is_refused_for_that(
    s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NaiveS3() as server:
        server.largest = 60
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = S3Store(s3_address, patience_s=5)
        with pytest.raises(StoreError, match="EntityTooLarge") as caught:
            store.create("k", bytes(61))
        assert not isinstance(caught.value, NotAtomicError)
        assert store.create("k", bytes(60))


def test_a_failure_that_comes_with_a_checksum_is_waited_out(
    s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Botocore answers such a reply with an AttributeError."""
    with NaiveS3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        store = S3Store(s3_address, patience_s=20)
        store.put("k", b"1")
        server.headers = {"x-amz-checksum-sha256": "x"}
        server.refusals = [(500, "InternalError")]
        assert store.get("k") == b"1"
        assert server.refusals == []
