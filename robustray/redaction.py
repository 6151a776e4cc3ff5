"""Taking credentials out of what is printed, logged or stored."""

from __future__ import annotations

import os
import re

_USERINFO = re.compile(r"(?<=//)[^\s/]*@")
_NAMED = re.compile(r"(?i)((?:password|passwd|pwd|token|secret)=)[^&\s'\"]+")
_VARIABLES = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "RAY_AUTH_TOKEN"),
)
_SHORTEST = 8  # what is shorter would be found in ordinary words


def redact(text: str) -> str:
    """Return a text with ``***`` for credentials of addresses and of the environment."""
    text = _NAMED.sub(r"\1***", _USERINFO.sub("***@", text))
    for name in _VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return text
