from .checkpoints import CheckpointStore, SupersededError
from .digests import canonical_json, sha256_bytes, sha256_file
from .local import LocalStore
from .objects import NotFoundError, ObjectInfo, ObjectStore, check_key, holds, look_twice
from .opening import open_store
from .records import (
    CheckpointRecord,
    FileEntry,
    create_sealed,
    find_sealed,
    is_damaged,
    read_sealed,
    seal,
    unseal,
)
from .tensors import load_tensors, save_tensors

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
