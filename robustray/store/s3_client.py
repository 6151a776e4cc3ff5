"""Addresses of buckets, a client made from the environment, and what its errors mean."""

# boto3 and botocore have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import base64
import hashlib
import os
import re
from typing import Any

import boto3.session
import botocore.exceptions as boto
import botocore.session
import urllib3.exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError

from robustray.errors import CorruptObjectError, StoreError
from robustray.store.objects import is_key
from robustray.words import redact

_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
# Service descriptions, which take most of the time that it takes to make a client.
_LOADER = create_loader()


def parse_uri(uri: str) -> tuple[str, str]:
    """Return bucket and prefix (without slashes at its ends) of ``s3://bucket/prefix``.

    Raises
    ------
    StoreError
        For anything else.
    """
    if "@" in uri or "?" in uri:  # might hold credentials, so it is not repeated
        raise StoreError(
            "a bucket is written s3://bucket/prefix; the server's address belongs to "
            "AWS_ENDPOINT_URL, credentials to AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    match = _URI.fullmatch(uri)
    prefix = (match[2] or "").strip("/") if match else ""
    if match is None or (prefix and not is_key(prefix)):
        raise StoreError(f"a bucket is written s3://bucket/prefix, not {uri!r}")
    return match[1], prefix


def endpoint() -> str:
    """Return the server's address from the environment, "" for Amazon's; fit for messages."""
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return redact(address)


def connect(timeout_s: float) -> Any:
    """Make a boto3 client that never tries again by itself: `Patience` does, and keeps count.

    Parameters
    ----------
    timeout_s : float
        Seconds without a byte after which a request fails.

    Raises
    ------
    StoreError
        When address or profile are malformed.
    """
    options = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=min(timeout_s, 10.0),
        read_timeout=timeout_s,
        max_pool_connections=32,
    )
    try:
        core = botocore.session.Session()
        core.register_component("data_loader", _LOADER)
        options = options.merge(Config(s3={"addressing_style": _addressing(core)}))
        session = boto3.session.Session(botocore_session=core)
        region = session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
        return session.client("s3", region_name=region, config=options)
    except (BotoCoreError, ValueError) as error:
        why = redact(str(error))
        raise StoreError(f"S3 client: {why}; see AWS_ENDPOINT_URL, AWS_PROFILE") from error


def _addressing(core: botocore.session.Session) -> str:
    """Return how requests name the bucket: as the profile says it, else as most servers want it."""
    said = core.get_scoped_config().get("s3", {})
    style = said.get("addressing_style") if isinstance(said, dict) else None
    return style or ("path" if endpoint() else "auto")


def make_seals(data: bytes) -> dict[str, Any]:
    """Return arguments of PutObject: the SHA-256 for the server, and again for whoever reads."""
    digest = hashlib.sha256(data)
    return {
        "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
        "Metadata": {"sha256": digest.hexdigest()},
    }


def metadata_of(answer: Any) -> dict[str, str]:
    """Return an answer's metadata; some servers recase the names."""
    return {name.lower(): value for name, value in answer.get("Metadata", {}).items()}


PASSING: tuple[type[Exception], ...] = (
    BotoCoreError,
    ClientError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)
_CLIENT_SIDE = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.MetadataRetrievalError,
    boto.CredentialRetrievalError,
)
# Refusals (4xx) that a later attempt may not meet.
_PASSING_CODES = {
    "BadDigest",
    "BandwidthLimitExceeded",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InvalidPart",
    "NoSuchUpload",
    "OperationAborted",
    "PriorRequestNotComplete",
    "RequestThrottled",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_RIGHTS = "the account of AWS_ACCESS_KEY_ID needs the right to read, write, list and delete here"
_REGION = "set AWS_DEFAULT_REGION to the bucket's region"
_ADVICE = {
    "NoSuchBucket": "there is no such bucket; make it, or set ROBUSTRAY_STORE to another one",
    "InvalidBucketName": "no bucket can have this name; set ROBUSTRAY_STORE to another one",
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "403": f"{_RIGHTS}, and the AWS_* keys must be its own",
    "InvalidAccessKeyId": f"the server does not know this key; {_KEYS}, and AWS_ENDPOINT_URL "
    "for a server that is not Amazon's",
    "SignatureDoesNotMatch": "set AWS_SECRET_ACCESS_KEY to the secret of AWS_ACCESS_KEY_ID",
    "ExpiredToken": "the credentials have expired; set new ones, AWS_SESSION_TOKEN included",
    "InvalidToken": "set AWS_SESSION_TOKEN to the token of these keys, or unset it",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "NotImplemented": "the server can't do what is needed; use another one",
}


def judge(error: Exception, place: str) -> Exception | None:
    """Return the error for the caller, or None for one that may pass.

    Parameters
    ----------
    error : Exception
        One of `PASSING`.
    place : str
        Bucket and server, for the message.

    Returns
    -------
    StoreError | CorruptObjectError | None
    """
    if isinstance(error, boto.FlexibleChecksumError):
        return CorruptObjectError(f"{place}: {error}")
    if isinstance(error, ClientError):
        return _judge_answer(error, place)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return StoreError(f"{place}: no credentials; {_KEYS}")
    if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(
            f"{place}: its certificate is not trusted; set AWS_CA_BUNDLE to the "
            "certificate authority's file, or AWS_ENDPOINT_URL to the right address"
        )
    if isinstance(error, BotoCoreError) and not isinstance(error, _CLIENT_SIDE):
        return StoreError(redact(f"{place}: {error}"))
    return None


def code_of(error: ClientError) -> str:
    """Return the error code of a server's answer ("NoSuchKey"; "404" where there is no body)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """Return the HTTP status of a server's answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _judge_answer(error: ClientError, place: str) -> Exception | None:
    code, status = code_of(error), status_of(error)
    advice = _ADVICE.get(code)
    if advice is not None or status == 501:
        return StoreError(f"{place}: {code}: {advice or _ADVICE['NotImplemented']}")
    if code in _PASSING_CODES or status in (408, 425, 429) or status >= 500 or status == 0:
        return None
    message = error.response.get("Error", {}).get("Message", "")
    return StoreError(redact(f"{place}: {code or status}: {message}"))
