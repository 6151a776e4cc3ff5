"""Where bytes are kept: a local folder or a bucket, content addresses, atomic commits."""

from robustray.store.canonical import canonical_json
from robustray.store.checkpoints import CheckpointStore, SupersededError
from robustray.store.digests import sha256_bytes, sha256_file
from robustray.store.local import LocalStore
from robustray.store.objects import NotFoundError, ObjectInfo, ObjectStore, check_key, open_store
from robustray.store.records import CheckpointRecord, FileEntry
from robustray.store.tensors import load_tensors, save_tensors

__all__ = [
    "CheckpointRecord",
    "CheckpointStore",
    "FileEntry",
    "LocalStore",
    "NotFoundError",
    "ObjectInfo",
    "ObjectStore",
    "SupersededError",
    "canonical_json",
    "check_key",
    "load_tensors",
    "open_store",
    "save_tensors",
    "sha256_bytes",
    "sha256_file",
]
