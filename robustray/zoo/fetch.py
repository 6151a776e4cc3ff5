"""The files of the zoo on this machine: fetched once, checked each time they are used."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustray.errors import CorruptObjectError, find_fault
from robustray.files import write_atomically
from robustray.store import seal, unseal
from robustray.zoo.archives import find_changes, unpack
from robustray.zoo.download import Fetcher, fetch_url, page_title
from robustray.zoo.records import DownloadError, ZooFile, ZooRecord, drive_id

_IMPORTS = "imports.json"


@dataclass(frozen=True)
class Fetched:
    """A file that is here.

    Attributes
    ----------
    file : ZooFile
        Its record.
    path : Path
        The file, or the folder that an archive was unpacked to.
    sha256 : str
        Of the file as downloaded.
    known : bool
        Whether the publishers' digest was compared, and not only that of the first download.
    """

    file: ZooFile
    path: Path
    sha256: str
    known: bool


class Cache:
    """Fetches files of records into a folder, and remembers the digests of what was trusted.

    Parameters
    ----------
    folder : Path
        Default place: ``zoo`` in the folder of data sets.
    fetcher : Fetcher
        What is allowed.
    """

    def __init__(self, folder: Path, fetcher: Fetcher) -> None:
        self.folder, self.fetcher = folder, fetcher

    def fetch(self, record: ZooRecord) -> list[Fetched]:
        """Return all files of a record, downloaded where they are not here.

        Raises
        ------
        DownloadError
            If one can't be had, or has another digest than it should have.
        CorruptObjectError
            If the memory of first downloads is damaged.
        """
        return [self._fetch(record, file) for file in record.files]

    def verify(self, record: ZooRecord) -> list[tuple[ZooFile, str]]:
        """Return the state of each file, from its bytes.

        "ok" (as published), "trusted" (as at the first download), "unchecked" (put there by hand;
        `fetch` trusts it), "missing", or "DAMAGED": it, or something that was made from it (see
        `changed`).
        """
        found = []
        for file in record.files:
            path = self._path(record, file)
            if not path.exists():
                found.append((file, "missing"))
                continue
            digest, expected = _sha256(path), file.sha256 or self._trusted(record, file)
            if expected is None:
                found.append((file, "unchecked"))
                continue
            same = digest == expected and not self.changed(record, file)
            found.append((file, ("ok" if file.sha256 else "trusted") if same else "DAMAGED"))
        return found

    def changed(self, record: ZooRecord, file: ZooFile) -> list[str]:
        """Return names of what was made from a file and is no longer what was made.

        Files that an archive was unpacked to are compared with it; what was imported, with the
        digest of that time. Deleted imports are none.
        """
        path = self._path(record, file)
        try:
            found = [f"{path.name}.d/{name}" for name in self._changes(file, path)]
        except DownloadError:  # the archive itself is damaged
            found = []
        for name, entry in self._imports().items():
            made = self.folder / name
            if entry["from"] == f"{record.name}/{file.name}" and made.exists():
                found += [] if _sha256(made) == entry["sha256"] else [str(made)]
        return found

    def note_import(self, record: ZooRecord, files: Sequence[ZooFile], output: Path) -> None:
        """Remember what was made from files of a record, for `verify`."""
        entry = {"from": f"{record.name}/{files[0].name}", "sha256": _sha256(output)}
        text = json.dumps(self._imports() | {str(output.resolve()): entry}, indent=1)
        write_atomically(self.folder / _IMPORTS, text.encode())

    def _imports(self) -> dict[str, Any]:
        path = self.folder / _IMPORTS
        try:
            found = json.loads(path.read_text()) if path.exists() else {}
        except ValueError:
            return {}
        # A note for `verify` alone: what it does not say is not compared.
        entries = found.items() if isinstance(found, dict) else ()
        return {
            name: entry
            for name, entry in entries
            if isinstance(entry, dict) and entry.keys() >= {"from", "sha256"}
        }

    def _changes(self, file: ZooFile, path: Path) -> list[str]:
        folder = _folder_of(path)
        if file.archive is None or not folder.exists():
            return []
        return find_changes(path, folder, file.archive, limit=file.max_size)

    def _fetch(self, record: ZooRecord, file: ZooFile) -> Fetched:
        path = self._path(record, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        expected = file.sha256 or self._trusted(record, file)
        if path.exists():
            if expected is None:
                _check_by_hand(file, path)
            digest = _sha256(path)
        else:
            digest = self._download(file, path)
        if expected is not None and digest != expected:
            path.unlink()
            shutil.rmtree(_folder_of(path), ignore_errors=True)
            what = "its publishers tell" if file.sha256 else "was trusted at the first download"
            raise DownloadError(f"{file.name} has SHA-256 {digest}, and {expected} is what {what}")
        if expected is None:
            self._trust(record, file, digest)
        return Fetched(file, self._unpacked(file, path), digest, file.sha256 is not None)

    def _download(self, file: ZooFile, path: Path) -> str:
        """Try the sources in order; say why each failed."""
        reasons, away = [], None
        for source in file.sources:
            if source.startswith("page:"):
                reasons.append(
                    f"{source[5:]} is a page: get the file there by hand, and put it at {path}"
                )
                continue
            identifier = drive_id(source)
            url = self.fetcher.drive.format(identifier) if identifier else source
            fetcher = replace(self.fetcher, plain=self.fetcher.plain or file.plain_http)
            if url.startswith("http://") and not self.fetcher.private:
                fetcher.say(f"warning: {file.name} comes over an unencrypted connection")
            try:
                return fetch_url(url, path, fetcher, limit=file.max_size, size=file.size)
            except DownloadError as error:
                reasons.append(str(error))
                away = error if find_fault(error) else away
        raise DownloadError(f"{file.name} could not be downloaded: {'; '.join(reasons)}") from away

    def _unpacked(self, file: ZooFile, path: Path) -> Path:
        if file.archive is None:
            return path
        folder = _folder_of(path)
        if changed := self._changes(file, path):
            self.fetcher.say(f"unpacked again, as it was changed: {', '.join(changed[:6])}")
            shutil.rmtree(folder)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unpack-") as scratch:
                whole = Path(scratch) / "whole"
                unpack(path, whole, file.archive, limit=file.max_size)
                if not folder.exists():
                    whole.replace(folder)
        return folder

    def _path(self, record: ZooRecord, file: ZooFile) -> Path:
        return self.folder / record.name / file.name

    def _trusted(self, record: ZooRecord, file: ZooFile) -> str | None:
        return self._memory().get(f"{record.name}/{file.name}", {}).get("sha256")

    def _trust(self, record: ZooRecord, file: ZooFile, digest: str) -> None:
        seconds = int(time.time())
        memory = self._memory() | {
            f"{record.name}/{file.name}": {"sha256": digest, "trusted_at": seconds}
        }
        write_atomically(self.folder / "trusted.json", seal(memory))
        self.fetcher.say(
            f"{file.name}: no digest is published; from now on the file must have {digest}"
        )

    def _memory(self) -> dict[str, Any]:
        path = self.folder / "trusted.json"
        try:
            return unseal(path.read_bytes(), str(path)).content if path.exists() else {}
        except CorruptObjectError as error:
            raise CorruptObjectError(
                f"{error}. It holds the digests of first downloads: restore it, or delete it to "
                "trust the files that are here now"
            ) from error


def _folder_of(archive: Path) -> Path:
    """Return where an archive is unpacked to."""
    return archive.with_name(archive.name + ".d")


def _check_by_hand(file: ZooFile, path: Path) -> None:
    """Refuse a file that somebody has put there before its digest is trusted."""
    size = path.stat().st_size
    if size > file.max_size or (file.size is not None and size != file.size):
        wanted = file.size or f"at most {file.max_size}"
        raise DownloadError(f"{path} has {size} bytes; the record says {wanted}")
    if (title := page_title(path)) is not None:
        raise DownloadError(f"{path} is a web page, not a file: {title!r}; delete it")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
