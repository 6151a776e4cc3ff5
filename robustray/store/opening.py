"""From an address to the store that is there."""

from __future__ import annotations

import os

from robustray.errors import StoreError
from robustray.store.local import LocalStore
from robustray.store.objects import ObjectStore


def open_store(uri: str | None = None) -> ObjectStore:
    """Open the store at a place; nothing is touched until it is used.

    Parameters
    ----------
    uri : str, optional
        ``s3://bucket/prefix`` or a folder. By default $ROBUSTRAY_STORE, else ``./runs/store``.

    Raises
    ------
    StoreError
        For an address that is neither.
    """
    place = uri or os.environ.get("ROBUSTRAY_STORE") or "runs/store"
    if place.startswith("s3://"):
        from robustray.store.s3 import S3Store  # boto3 takes a while to load

        return S3Store(place)
    if "://" in place:
        scheme = place.split("://")[0]
        raise StoreError(f"a store is a folder or s3://bucket/prefix, not {scheme}://...")
    return LocalStore(place)
