"""Addresses of buckets, and a client made from the environment."""

from __future__ import annotations

import os
import re
from typing import Any

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import create_loader

from robustray.errors import StoreError
from robustray.redaction import redact
from robustray.store.objects import is_key

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
