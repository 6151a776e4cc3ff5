"""A store in a bucket, of Amazon's or of any other server that speaks S3.

`create` is PutObject with ``If-None-Match: *``. On servers that don't honour it, or answer it with
an error, `probe` finds that out once and notes it in the store; from then on every process uses
attempt keys there. A refusal is the header's if the same server takes a write without it: a missing
right, a wrong key or a bad name are refused either way. Everything
written carries its SHA-256 twice: as S3's own checksum, which the server verifies, and as metadata,
which is verified on every read. An upload that dies leaves its parts in the server; a life-cycle
rule for incomplete multipart uploads removes them.
"""

# boto3 has no types.
# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from robustray.errors import CorruptObjectError, StoreError, StoreUnavailableError
from robustray.store import attempt_keys
from robustray.store.digests import sha256_bytes, sha256_file
from robustray.store.objects import (
    NotAtomicError,
    NotFoundError,
    ObjectInfo,
    ObjectStore,
    check_key,
    check_prefix,
    is_key,
)
from robustray.store.patience import Patience
from robustray.store.s3_client import (
    PASSING,
    code_of,
    connect,
    endpoint,
    judge,
    make_seals,
    metadata_of,
    parse_uri,
    status_of,
)

T = TypeVar("T")
_PART = 16 << 20
_CHUNK = 1 << 20
_TRANSFER = TransferConfig(
    multipart_threshold=_PART,
    multipart_chunksize=_PART,
    max_concurrency=4,
    preferred_transfer_client="classic",
)


class S3Store(ObjectStore):
    """Objects of a bucket below a prefix.

    Address and credentials come from the environment, as everywhere: ``AWS_ENDPOINT_URL``,
    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_DEFAULT_REGION`` (else us-east-1).
    They are read in each process when the store is first used there.

    Parameters
    ----------
    uri : str
        ``s3://bucket/prefix``; the prefix may be missing.
    patience_s : float
        Seconds for which an operation outlasts a server that does not answer.
    timeout_s : float
        Seconds after which one request counts as not answered.
    """

    def __init__(self, uri: str, patience_s: float = 600.0, timeout_s: float = 60.0) -> None:
        self.bucket, self.prefix = parse_uri(uri)
        self.uri = f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")
        self.patience_s, self.timeout_s = patience_s, timeout_s
        self._patience = Patience(self.uri, patience_s, PASSING, self._judge)
        self._lock = threading.Lock()
        self._clients: dict[int, Any] = {}
        self._by_attempts: bool | None = None

    def __reduce__(self) -> tuple[type[S3Store], tuple[str, float, float]]:
        return type(self), (self.uri, self.patience_s, self.timeout_s)

    def get(self, key: str) -> bytes:
        """Return the object's bytes; `NotFoundError` without one."""
        key = self._located(key)

        def action(_: int) -> bytes:
            answer = self._fetch(key)
            data = answer["Body"].read()
            self._verify(key, answer, sha256_bytes(data))
            return data

        return self._run(action)

    def put(self, key: str, data: bytes) -> None:
        """Write the object whole, in place of an older one."""
        self._put(key, data)
        self._forget_attempts(key)

    def _put(self, key: str, data: bytes) -> None:
        self._call("put_object", Key=self._key(key), Body=data, **make_seals(data))

    def create(self, key: str, data: bytes) -> bool:
        """Write the object if there is none; True if and only if this very call made it."""
        check_key(key)
        if self.mode == "attempts":
            return attempt_keys.create(
                key,
                data,
                exists=lambda: self._has_plain(key),
                listing=self._list,
                put=self._put,
                delete=self._delete,
            )
        try:
            return self._create_atomically(key, data)
        except StoreError:
            if not self._takes(data):
                raise
        try:
            return self._create_atomically(key, data)
        except StoreError as error:  # twice, and a plain write in between was taken
            raise NotAtomicError(
                f"the server refuses If-None-Match on PutObject: {error}"
            ) from error

    def _create_atomically(self, key: str, data: bytes) -> bool:
        seals = make_seals(data)
        seals["Metadata"]["writer"] = writer = uuid.uuid4().hex

        def action(attempt: int) -> bool:
            name = self._key(key)
            try:
                self._client.put_object(
                    Bucket=self.bucket, Key=name, Body=data, IfNoneMatch="*", **seals
                )
            except ClientError as error:
                status = status_of(error)
                if status != 412 and not (status == 409 and self._has_plain(key)):
                    raise
                # An earlier attempt may have worked and only its answer been lost.
                return attempt > 0 and self._is_mine(key, data, writer)
            return True

        return self._run(action)

    def _takes(self, data: bytes) -> bool:
        """Tell whether the server lets this account write these bytes without a condition."""
        key = f"probe/{uuid.uuid4().hex}"
        try:
            self._put(key, data)
            self._delete(key)
        except (StoreError, StoreUnavailableError):
            return False
        return True

    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        if self._has_plain(key):
            return True
        return self.mode == "attempts" and bool(attempt_keys.attempts_of(key, self._list))

    def _has_plain(self, key: str) -> bool:
        return self._head(key) is not None

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return the objects whose keys begin with the string ``prefix``, sorted by key."""
        check_prefix(prefix)
        return (
            attempt_keys.merged(prefix, self._list)
            if self.mode == "attempts"
            else self._list(prefix)
        )

    def _list(self, prefix: str) -> list[ObjectInfo]:
        start = f"{self.prefix}/" if self.prefix else ""

        def action(_: int) -> list[ObjectInfo]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=start + prefix
            )
            entries = [entry for page in pages for entry in page.get("Contents", ())]
            infos = (ObjectInfo(e["Key"].removeprefix(start), int(e["Size"])) for e in entries)
            # Some clients make empty "folder/" objects, which are not keys.
            return sorted(info for info in infos if is_key(info.key))

        return self._run(action)

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""
        self._delete(key)
        self._forget_attempts(key)

    def _delete(self, key: str) -> None:
        self._call("delete_object", Key=self._key(key))

    def _forget_attempts(self, key: str) -> None:
        if self.mode == "attempts":
            for name in attempt_keys.attempts_of(key, self._list):
                self._delete(name)

    def put_file(self, key: str, path: Path) -> None:
        """Write a local file's bytes as the object, as a stream, in several parts if large."""
        path, name = Path(path), self._key(key)
        if path.stat().st_size <= _PART:
            self.put(key, path.read_bytes())
            return
        extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": sha256_file(path)}}

        def action(_: int) -> None:
            with path.open("rb") as file:
                self._client.upload_fileobj(
                    file, self.bucket, name, ExtraArgs=extra, Config=_TRANSFER
                )

        self._run(action)
        self._forget_attempts(key)

    def get_file(self, key: str, path: Path) -> None:
        """Write the object's bytes to a local file, as a stream; the file appears whole."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        key = self._located(key)
        part = path.with_name(f".{uuid.uuid4().hex}.part")

        def action(_: int) -> None:
            answer, digest = self._fetch(key), hashlib.sha256()
            with part.open("wb") as file:
                while chunk := answer["Body"].read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            self._verify(key, answer, digest.hexdigest(), part.stat().st_size)

        try:
            self._run(action)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def probe(self) -> None:
        """Find out within about ten seconds whether the store can be used, and how.

        Where the server turns out to overwrite what must be created once, or to refuse to be asked
        for that, it is noted in the store, and attempt keys are tried in the same way.
        """
        try:
            super().probe()
        except NotAtomicError:
            self._put(attempt_keys.MARKER, b'{"create": "attempts"}\n')
            self._by_attempts = True
            super().probe()

    @property
    def mode(self) -> str:
        """How `create` works here: "atomic", or "attempts" (see `robustray.store.attempt_keys`)."""
        if self._by_attempts is None:
            self._by_attempts = self._is_marked()
        return "attempts" if self._by_attempts else "atomic"

    def clock_skew(self) -> float:
        """Return by how many seconds the server's clock is ahead, from its answers' dates."""
        answer = self._call("list_objects_v2", MaxKeys=1)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date).timestamp() - time.time() if date else 0.0

    def impatient(self) -> S3Store:
        """Return a twin that gives up after ten seconds."""
        return S3Store(self.uri, patience_s=10.0, timeout_s=5.0)

    @property
    def _client(self) -> Any:
        """The client of this process; a forked child must not share its parent's sockets."""
        with self._lock:
            client = self._clients.get(os.getpid())
            if client is None:
                client = self._clients[os.getpid()] = connect(self.timeout_s)
            return client

    def _key(self, key: str) -> str:
        check_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key

    def _is_marked(self) -> bool:
        """Tell whether a probe has noted that this server needs attempt keys."""

        def action(_: int) -> bool:  # a GET, as errors of a HEAD have no reason
            try:
                self._fetch(attempt_keys.MARKER)["Body"].close()
            except NotFoundError:
                return False
            return True

        return self._run(action)

    def _located(self, key: str) -> str:
        """Return the key under which an object's bytes lie."""
        check_key(key)
        if self.mode == "attempts" and not self._has_plain(key):
            return attempt_keys.resolve(key, self._list)
        return key

    def _run(self, action: Callable[[int], T]) -> T:
        """Repeat requests until they work; see `Patience.run`."""

        def guarded(attempt: int) -> T:
            try:
                return action(attempt)
            except AttributeError as error:  # botocore's, of a failure that comes with a checksum
                raise ConnectionError("the server failed, and did not say why") from error

        return self._patience.run(guarded)

    def _call(self, method: str, **arguments: Any) -> Any:
        def action(_: int) -> Any:
            return getattr(self._client, method)(Bucket=self.bucket, **arguments)

        return self._run(action)

    def _fetch(self, key: str) -> Any:
        try:
            return self._client.get_object(
                Bucket=self.bucket, Key=self._key(key), ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if code_of(error) in ("NoSuchKey", "404"):
                raise NotFoundError(key, self.uri) from None
            raise

    def _head(self, key: str) -> Any | None:
        def action(_: int) -> Any | None:
            try:
                return self._client.head_object(Bucket=self.bucket, Key=self._key(key))
            except ClientError as error:
                if status_of(error) == 404 and code_of(error) != "NoSuchBucket":
                    return None
                raise

        return self._run(action)

    def _is_mine(self, key: str, data: bytes, writer: str) -> bool:
        """Tell whether the object is one that this call made; by content if it is not signed."""
        head = self._head(key)
        if head is None:
            return False
        signed = metadata_of(head).get("writer")
        return signed == writer if signed else self.get(key) == data

    def _verify(self, key: str, answer: Any, sha256: str, size: int | None = None) -> None:
        if size is not None and size != answer["ContentLength"]:
            raise ConnectionError(f"{key}: {size} bytes of {answer['ContentLength']} came")
        expected = metadata_of(answer).get("sha256")
        if expected and expected != sha256:
            raise CorruptObjectError(f"{self.uri}: {key} has SHA-256 {sha256}, not {expected}")

    def _judge(self, error: Exception) -> Exception | None:
        return judge(error, f"{self.uri} at {endpoint() or 'Amazon S3'}")
