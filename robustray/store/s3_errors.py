"""What an S3 client's errors mean: wait, or tell the user what to set."""

from __future__ import annotations

import botocore.exceptions as boto
import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from robustray.errors import CorruptObjectError, StoreError
from robustray.redaction import redact

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
