"""Which machines may be asked: public ones only, and the very one that was checked."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import certifi
import urllib3
from urllib3.util import Timeout

from robustray.errors import UserError

_TIMEOUT = Timeout(connect=20, read=60)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # an IPv4 address in its last 32 bits
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


class DownloadError(UserError):
    """A file can't be had from a source, or is not what it should be."""


@dataclass(frozen=True)
class Place:
    """What was looked up and checked: scheme, host, port, path, and the host's IPs."""

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]


def look_up(url: str, *, private: bool = False, plain: bool = False) -> Place:
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
    return Place(parts.scheme, parts.hostname, port, path, addresses)


def request(place: Place, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
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


def _request(place: Place, address: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
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
