"""What travels with an object's bytes so that damage is noticed on both ways."""

from __future__ import annotations

import base64
import hashlib
from typing import Any


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
