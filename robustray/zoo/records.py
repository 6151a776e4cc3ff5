"""Records of published weights (YAML, in published/), and the addresses that they may name."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import certifi
import urllib3
import yaml
from pydantic import Field, ValidationError, model_validator
from urllib3.util import Timeout

from robustray.errors import ManifestError, UserError, choice_error
from robustray.manifest.fields import Natural, Section

FOLDER = Path(str(files("robustray.zoo"))) / "published"
_GIB = 1 << 30
_URL = r"^(https|http)://[^\s/]+/.*$|^drive:[A-Za-z0-9_-]{20,}$|^page:https://.+$"


class ZooFile(Section):
    """One file of a record.

    ``sources`` are tried in order: ``https://...`` (Hugging Face's ``.../resolve/...`` among them),
    ``drive:ID`` for Google Drive, ``page:https://...`` for a page on which a person has to click.
    ``http://`` is allowed with ``plain_http: true`` only. ``sha256`` and ``size`` (bytes) are what
    the publishers tell; without a digest the first download is trusted and remembered.
    ``archive`` is unpacked; ``format`` is one that ``load_weights`` knows.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")]
    role: Literal["weights", "accurate", "robust", "mixing", "generator"] = "weights"
    sources: Annotated[tuple[Annotated[str, Field(pattern=_URL)], ...], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Natural | None = None
    max_size: Natural = 4 * _GIB
    plain_http: bool = False
    archive: Literal["zip", "tar"] | None = None
    format: str = "auto"

    @model_validator(mode="after")
    def _no_open_lines_unseen(self) -> Self:
        if not self.plain_http and any(source.startswith("http://") for source in self.sources):
            raise ValueError(
                "sources: http:// can be read and changed on its way; say plain_http: true if "
                "there is no other"
            )
        return self


class ZooRecord(Section):
    """A set of published weights.

    ``model`` and ``options`` are those of ``create_model``; without a model it can be fetched and
    not imported. ``normalisation`` happens to pixels in [0, 1] before the first layer.
    ``published`` are the authors' numbers, in percent.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
    description: str
    system: Literal[
        "robust-resnets", "robust-model-zoo", "adaptive-smoothing", "gradient-direction"
    ]
    model: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    normalisation: str | None = None
    data: str
    threat: str | None = None
    licence: str
    paper: str
    published: dict[str, float] = Field(default_factory=dict)
    note: str = ""
    files: Annotated[tuple[ZooFile, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("files: two of them have the same name")
        return self

    @property
    def sha256(self) -> str | None:
        """The digest of the weights, where they are one file and it has been published."""
        file, *others = self.files
        return None if others or file.archive else file.sha256


def load_records(folder: Path | None = None) -> dict[str, ZooRecord]:
    """Return all records by name, sorted.

    Parameters
    ----------
    folder : Path, optional
        Default: ``$ROBUSTRAY_ZOO_RECORDS``, else the records that come with the package.

    Raises
    ------
    ManifestError
        If a file is no record, or two have one name.
    """
    return dict(_load(folder or Path(os.environ.get("ROBUSTRAY_ZOO_RECORDS") or FOLDER)))


@lru_cache(maxsize=4)
def _load(place: Path) -> dict[str, ZooRecord]:
    found: dict[str, ZooRecord] = {}
    for path in sorted(place.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            record = _record(document, path)
            if record.name in found:
                raise ManifestError(f"two records are called {record.name}", str(path), "name")
            found[record.name] = record
    return dict(sorted(found.items()))


def find_record(name: str, folder: Path | None = None) -> ZooRecord:
    """Return a record by its name.

    Raises
    ------
    ModelError
        If there is none; lists the closest ones (a ``ValueError``).
    """
    records = load_records(folder)
    if name not in records:
        raise choice_error("set of published weights", name, records)
    return records[name]


def records_of(model: str) -> dict[str, ZooRecord]:
    """Return the records of a model's weights by their names, those without the model's name."""
    found = load_records().items()
    return {name.removeprefix(f"{model}-"): r for name, r in found if r.model == model}


def known_as(sha256: str) -> list[str]:
    """Return the names of the records that have a file with this digest."""
    found = load_records().items()
    return [name for name, r in found if any(file.sha256 == sha256 for file in r.files)]


def drive_id(source: str) -> str | None:
    """Return the id of a file on Google Drive, or None for another source."""
    found = re.fullmatch(r"drive:(.+)", source)
    return found[1] if found else None


def _record(document: Any, path: Path) -> ZooRecord:
    if not isinstance(document, dict):
        raise ManifestError("must be a mapping of fields to values", str(path))
    try:
        return ZooRecord.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ManifestError(
            f"{first['msg'].removeprefix('Value error, ')}", str(path), place, first["input"]
        ) from error


_TIMEOUT = Timeout(connect=20, read=60)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # an IPv4 address in its last 32 bits
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


class DownloadError(UserError):
    """A file can't be had from a source, or is not what it should be."""


@dataclass(frozen=True)
class Address:
    """What was looked up and checked: scheme, host, port, path, and the host's IPs."""

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]


def look_up(url: str, *, private: bool = False, plain: bool = False) -> Address:
    """Resolve a URL's host and refuse it unless every one of its addresses is public.

    Parameters
    ----------
    url : str
        ``https://...``, or ``http://...`` where ``plain`` allows it.
    private : bool
        Allow addresses of this machine and of local networks; for tests.
    plain : bool
        Allow unencrypted connections.

    Raises
    ------
    DownloadError
        For another scheme, a host that is not found, or one that is not public.
    """
    parts = urlsplit(url)
    allowed = ("https", "http") if plain or private else ("https",)
    if parts.scheme not in allowed or not parts.hostname:
        raise DownloadError(f"{_shown(url)}: only {' and '.join(allowed)} addresses are asked")
    try:
        port = parts.port or {"https": 443, "http": 80}[parts.scheme]
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError) as error:
        raise DownloadError(f"{parts.hostname} can't be found: {error}") from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not private:
        for address in addresses:
            if not _is_public(address):
                raise DownloadError(
                    f"{parts.hostname} is {address}, which is no public address: refused"
                )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.scheme, parts.hostname, port, path, addresses)


def request(place: Address, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """Send a GET to a checked IP itself, so that no second look-up can lead elsewhere.

    A host's addresses are tried in turn until one answers: machines without a way to IPv6 exist.
    Proxies of the environment are not used: behind one, nobody could tell who is asked.

    Raises
    ------
    DownloadError
        If nobody answers.
    """
    reasons, last = [], None
    for address in place.addresses:
        try:
            return _request(place, address, headers)
        except urllib3.exceptions.HTTPError as error:
            reasons.append(f"{address}: {error}")
            last = error
    raise DownloadError(f"{place.host} does not answer: {'; '.join(reasons)}") from last


def _request(place: Address, address: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    shown = f"[{address}]" if ":" in address else address
    if place.scheme == "https":
        authority = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
        pool: urllib3.HTTPConnectionPool = urllib3.HTTPSConnectionPool(
            shown,
            place.port,
            server_hostname=place.host,
            assert_hostname=place.host,
            cert_reqs="CERT_REQUIRED",
            ca_certs=authority or certifi.where(),
            timeout=_TIMEOUT,
        )
    else:
        pool = urllib3.HTTPConnectionPool(shown, place.port, timeout=_TIMEOUT)
    default = {"https": 443, "http": 80}[place.scheme]
    host = place.host if place.port == default else f"{place.host}:{place.port}"
    return pool.urlopen(
        "GET",
        place.path,
        headers={"Host": host, "User-Agent": "robustray", "Accept-Encoding": "identity"} | headers,
        redirect=False,
        retries=False,
        preload_content=False,
    )


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.teredo or found.sixtofour or found in _SITE_LOCAL:
            return False
        if found.ipv4_mapped:
            found = found.ipv4_mapped
        elif found in _TRANSLATED:
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.is_global and not found.is_multicast


def _shown(url: str) -> str:
    """Return a URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
