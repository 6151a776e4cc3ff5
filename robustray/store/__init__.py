"""Where bytes are kept: a local folder or a bucket, content addresses, atomic commits."""

from robustray.store.canonical import canonical_json
from robustray.store.checkpoints import CheckpointStore, SupersededError
from robustray.store.contents import holds, look_twice
from robustray.store.digests import sha256_bytes, sha256_file
from robustray.store.local import LocalStore
from robustray.store.objects import NotFoundError, ObjectInfo, ObjectStore, check_key, open_store
from robustray.store.records import CheckpointRecord, FileEntry
from robustray.store.sealed import create_sealed, find_sealed, is_damaged, read_sealed, seal, unseal
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
    "create_sealed",
    "find_sealed",
    "holds",
    "is_damaged",
    "load_tensors",
    "look_twice",
    "open_store",
    "read_sealed",
    "save_tensors",
    "seal",
    "sha256_bytes",
    "sha256_file",
    "unseal",
]
