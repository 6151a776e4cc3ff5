"""Downloads from a real server: resumed, corrupted, web pages, redirects, too large."""

import gzip
import hashlib
import io
import socket
import tarfile
import zipfile

import pytest

from robustray.zoo import Cache, DownloadError, Fetcher, ZooRecord, fetch_url, unpack
from robustray.zoo.records import look_up
from tests.helpers.web_server import File, WebServer

DATA = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    with WebServer() as found:
        found.files["/w.pt"] = File(DATA)
        yield found


@pytest.fixture
def fetcher(server):
    return Fetcher(private=True, drive=server.url + "/uc?id={}&export=download")


def fetch(server, tmp_path, fetcher, path="/w.pt", limit=1 << 30, size=None):
    return fetch_url(server.url + path, tmp_path / "w", fetcher, limit=limit, size=size)


def test_a_file_comes_whole_and_leaves_nothing_else(server, tmp_path, fetcher):
    assert fetch(server, tmp_path, fetcher, size=len(DATA)) == DIGEST
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w").read_bytes() == DATA


def test_what_broke_off_is_continued(server, tmp_path, fetcher):
    file = server.files["/w.pt"]
    file.cut = 700_000
    with pytest.raises(DownloadError, match="the same command continues"):
        fetch(server, tmp_path, fetcher)
    kept = (tmp_path / "w.part").stat().st_size
    assert 0 < kept <= 700_000
    assert not (tmp_path / "w").exists()
    file.cut = None
    assert fetch(server, tmp_path, fetcher) == DIGEST
    assert file.ranges == [f"bytes={kept}-"]


def test_another_file_in_its_place_is_fetched_from_its_beginning(server, tmp_path, fetcher):
    file = server.files["/w.pt"]
    file.cut = 500_000
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, fetcher)
    server.files["/w.pt"] = File(DATA[::-1], tag='"2"')
    assert fetch(server, tmp_path, fetcher) == hashlib.sha256(DATA[::-1]).hexdigest()


@pytest.mark.parametrize(("says", "words"), [(True, "at most 1000"), (False, "the 1000 bytes")])
def test_too_large_files_are_refused_before_or_while_they_come(
    server, tmp_path, fetcher, says, words
):
    server.files["/w.pt"].says_its_size = says
    with pytest.raises(DownloadError, match=words):
        fetch(server, tmp_path, fetcher, limit=1000)
    assert not (tmp_path / "w").exists()


def test_another_size_than_the_record_says(server, tmp_path, fetcher):
    with pytest.raises(DownloadError, match="the record says 99"):
        fetch(server, tmp_path, fetcher, size=99)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_told_by_its_title(server, tmp_path, fetcher, kind):
    page = b"<!DOCTYPE html><html><head><title>Please log in</title></head></html>"
    server.files["/w.pt"] = File(page, kind=kind)
    with pytest.raises(DownloadError, match="a web page, not a file: 'Please log in'"):
        fetch(server, tmp_path, fetcher)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://10.0.0.1/x",
        "https://192.168.1.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[fd00::1]/x",
        "https://[64:ff9b::10.0.0.1]/x",
        "https://[2002:7f00:1::]/x",
        "https://[fec0::1]/x",
        "https://100.64.0.1/x",
        "https://0.0.0.0/x",
        "https://224.0.0.1/x",
    ],
)
def test_addresses_that_are_not_public_are_refused(url):
    with pytest.raises(DownloadError, match="no public address"):
        look_up(url)


@pytest.mark.parametrize("url", ["http://example.org/x", "file:///etc/passwd", "ftp://x/y", "x"])
def test_other_schemes_are_refused(url):
    with pytest.raises(DownloadError, match="only https"):
        look_up(url)


def test_a_redirect_to_a_private_address_is_refused(server, tmp_path, fetcher, monkeypatch):
    """The first address is taken for a public one; the second must be looked at by itself."""
    from robustray.zoo import records

    server.files["/w.pt"] = File(b"", status=302, location="http://127.0.0.2:1/secret")
    monkeypatch.setattr(records, "_is_public", lambda address: address == "127.0.0.1")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.2, which is no public address"):
        fetch_url(server.url + "/w.pt", tmp_path / "w", Fetcher(plain=True), limit=10)


def test_redirects_are_followed_and_do_not_go_round(server, tmp_path, fetcher):
    server.files["/old"] = File(b"", status=302, location="/w.pt")
    server.files["/round"] = File(b"", status=302, location="/round")
    assert fetch(server, tmp_path, fetcher, "/old") == DIGEST
    with pytest.raises(DownloadError, match="redirects"):
        fetch(server, tmp_path, fetcher, "/round")
    with pytest.raises(DownloadError, match="status 404"):
        fetch(server, tmp_path, fetcher, "/none")


def record(server, **fields):
    file = {"name": "w.pt", "sources": [server.url + "/w.pt"], "plain_http": True} | fields
    return ZooRecord.model_validate(
        {
            "name": "one",
            "description": "-",
            "system": "robust-resnets",
            "data": "cifar10",
            "licence": "MIT",
            "paper": "-",
            "files": [file],
        }
    )


def test_a_published_digest_is_demanded(server, tmp_path, fetcher):
    cache = Cache(tmp_path, fetcher)
    (fetched,) = cache.fetch(record(server, sha256=DIGEST))
    assert fetched.known
    fetched.path.write_bytes(b"changed")
    assert [state for _, state in cache.verify(record(server, sha256=DIGEST))] == ["DAMAGED"]
    with pytest.raises(DownloadError, match=f"{DIGEST} is what its publishers tell"):
        cache.fetch(record(server, sha256=DIGEST))
    assert not fetched.path.exists()
    (again,) = cache.fetch(record(server, sha256=DIGEST))
    assert again.path.read_bytes() == DATA


def test_the_first_download_is_trusted_and_then_demanded(server, tmp_path):
    said: list[str] = []
    cache = Cache(tmp_path, Fetcher(private=True, say=said.append))
    (fetched,) = cache.fetch(record(server))
    assert not fetched.known
    assert any(DIGEST in line for line in said)
    assert [state for _, state in cache.verify(record(server))] == ["trusted"]
    fetched.path.unlink()
    server.files["/w.pt"] = File(b"another")
    with pytest.raises(DownloadError, match="trusted at the first download"):
        cache.fetch(record(server))


def test_the_next_source_is_tried_and_every_reason_told(server, tmp_path, fetcher):
    cache = Cache(tmp_path, fetcher)
    sources = ["page:https://example.org/click", server.url + "/none", server.url + "/w.pt"]
    (fetched,) = cache.fetch(record(server, sources=sources))
    assert fetched.sha256 == DIGEST
    fetched.path.unlink()
    with pytest.raises(DownloadError, match=r"by hand, and put it at .*w\.pt; .*status 404"):
        cache.fetch(record(server, sources=sources[:2]))


def test_drives_confirmation_is_given(server, tmp_path, fetcher):
    identifier = "1okHk4XPgunmqHG3alXfVF84qRwlu6Oqe"
    server.files[identifier] = File(DATA)
    (fetched,) = Cache(tmp_path, fetcher).fetch(record(server, sources=[f"drive:{identifier}"]))
    assert fetched.sha256 == DIGEST
    assert "confirm=t" in server.asked[-1]


def test_what_drive_broke_off_is_continued_behind_the_confirmation(server, tmp_path, fetcher):
    identifier = "1okHk4XPgunmqHG3alXfVF84qRwlu6Oqe"
    file = server.files[identifier] = File(DATA, tag='"w"', cut=700_000)
    cache, wanted = Cache(tmp_path, fetcher), record(server, sources=[f"drive:{identifier}"])
    with pytest.raises(DownloadError, match="the same command continues"):
        cache.fetch(wanted)
    kept = (tmp_path / "one/w.pt.part").stat().st_size
    file.cut = None
    (fetched,) = cache.fetch(wanted)
    assert fetched.sha256 == DIGEST
    assert file.ranges == [f"bytes={kept}-"]


def test_a_file_put_there_by_hand_is_looked_at_before_it_is_trusted(server, tmp_path, fetcher):
    cache, by_hand = Cache(tmp_path, fetcher), tmp_path / "one/w.pt"
    wanted = record(server, sources=["page:https://example.org/click"], max_size=len(DATA))
    by_hand.parent.mkdir()
    for content, words in (
        (b"<html><title>Sign in</title></html>", "a web page, not a file: 'Sign in'"),
        (DATA + b"1", f"at most {len(DATA)}"),
    ):
        by_hand.write_bytes(content)
        with pytest.raises(DownloadError, match=words):
            cache.fetch(wanted)
    by_hand.write_bytes(DATA)
    assert [state for _, state in cache.verify(wanted)] == ["unchecked"]
    (fetched,) = cache.fetch(wanted)
    assert fetched.sha256 == DIGEST
    assert [state for _, state in cache.verify(wanted)] == ["trusted"]


def test_the_next_address_of_a_host_is_tried(server, tmp_path, fetcher, monkeypatch):
    """As on a machine whose resolver tells of IPv6 and which has no way there."""
    port = int(server.url.rpartition(":")[2])
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    real, asked = socket.getaddrinfo, []

    def answer(host, *rest, **named):
        asked.append(host)
        return found if host == "two.test" else real(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    url = f"http://two.test:{port}/w.pt"
    assert fetch_url(url, tmp_path / "w", fetcher, limit=1 << 30) == DIGEST
    assert asked.count("two.test") == 1, "a second answer might be another, unchecked address"


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))
        for address in ("8.8.8.8", "10.1.2.3")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(DownloadError, match=r"10\.1\.2\.3, which is no public address"):
        look_up("https://rebinding.test/x")


def archive(kind, members):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in members:
                file.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_are_unpacked(server, tmp_path, fetcher, kind):
    server.files["/w.pt"] = File(archive(kind, [("a/b.index", b"1"), ("a/c", b"22")]))
    (fetched,) = Cache(tmp_path, fetcher).fetch(record(server, archive=kind))
    assert (fetched.path / "a/c").read_bytes() == b"22"


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "..\\out", "C:out"])
def test_members_outside_of_the_folder_are_refused(tmp_path, kind, name):
    (tmp_path / "x").write_bytes(archive(kind, [("fine", b"1"), (name, b"2")]))
    with pytest.raises(DownloadError, match="outside of its folder"):
        unpack(tmp_path / "x", tmp_path / "to", kind, limit=100)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bombs_and_damage_are_refused(tmp_path, kind):
    (tmp_path / "x").write_bytes(archive(kind, [("big", b"0" * 10_000)]))
    with pytest.raises(DownloadError, match="more bytes"):
        unpack(tmp_path / "x", tmp_path / "to", kind, limit=9_999)
    (tmp_path / "many").write_bytes(archive(kind, [(f"f{n}", b"") for n in range(1001)]))
    with pytest.raises(DownloadError, match="more than 1000 files"):
        unpack(tmp_path / "many", tmp_path / "to", kind, limit=100)
    (tmp_path / "y").write_bytes((tmp_path / "x").read_bytes()[:60])
    with pytest.raises(DownloadError, match="can't be unpacked"):
        unpack(tmp_path / "y", tmp_path / "to", kind, limit=100)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_flipped_byte_of_an_archive_brings_another_error_or_half_a_folder(tmp_path, kind):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/b", DATA[:600])
    whole = buffer.getvalue() if kind == "zip" else archive(kind, [("a/b", DATA[:600])])
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        (tmp_path / "x").write_bytes(damaged)
        folder = tmp_path / f"to{place}"
        try:
            unpack(tmp_path / "x", folder, kind, limit=10_000)
        except DownloadError:
            refused += 1
            assert not folder.exists()
    assert refused > len(whole) // 2


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, type_):
    with tarfile.open(tmp_path / "x", "w") as file:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = type_, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(DownloadError, match="a link or a device"):
        unpack(tmp_path / "x", tmp_path / "to", "tar", limit=100)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("change", ["edited", "longer", "gone", "new", "link"])
def test_what_an_archive_became_is_verified_and_made_anew(server, tmp_path, kind, change):
    said: list[str] = []
    server.files["/w.pt"] = File(archive(kind, [("a/b", b"111"), ("c", b"22")]))
    cache, wanted = (
        Cache(tmp_path, Fetcher(private=True, say=said.append)),
        record(server, archive=kind),
    )
    (fetched,) = cache.fetch(wanted)
    assert [state for _, state in cache.verify(wanted)] == ["trusted"]
    target = fetched.path / "a/b"
    if change == "gone":
        target.unlink()
    elif change == "new":
        target = fetched.path / "a/new"
        target.write_bytes(b"1")
    elif change == "link":
        target.unlink()
        target.symlink_to(fetched.path / "c")
    else:
        target.write_bytes(b"112" if change == "edited" else b"1111")
    name = str(target.relative_to(fetched.path))
    assert [state for _, state in cache.verify(wanted)] == ["DAMAGED"]
    assert cache.changed(wanted, wanted.files[0]) == [f"w.pt.d/{name}"]
    (again,) = cache.fetch(wanted)
    assert (again.path / "a/b").read_bytes() == b"111"
    assert not (again.path / "a/new").exists()
    assert any(name in line for line in said)
    assert [state for _, state in cache.verify(wanted)] == ["trusted"]


def test_what_was_imported_is_verified(server, tmp_path, fetcher):
    cache, wanted = Cache(tmp_path / "zoo", fetcher), record(server, sha256=DIGEST)
    cache.fetch(wanted)
    output = tmp_path / "w.safetensors"
    output.write_bytes(b"imported")
    cache.note_import(wanted, wanted.files, output)
    assert [state for _, state in cache.verify(wanted)] == ["ok"]
    output.write_bytes(b"edited")
    assert [state for _, state in cache.verify(wanted)] == ["DAMAGED"]
    assert cache.changed(wanted, wanted.files[0]) == [str(output)]
    output.unlink()
    assert [state for _, state in cache.verify(wanted)] == ["ok"]


def test_a_head_of_a_tar_archive_that_claims_much_is_refused(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=1) as file:
        file.write(info.tobuf())
        file.write(bytes(1 << 20))
    (tmp_path / "x").write_bytes(content.getvalue())
    with pytest.raises(DownloadError, match=r"a head claims 3221225\d* bytes"):
        unpack(tmp_path / "x", tmp_path / "to", "tar", limit=100)


@pytest.mark.parametrize("text", ["[1]", '"x"', "null", '{"a": 1}', '{"a": {"from": "x"}}', "{"])
def test_a_note_of_imports_of_another_shape_is_none(server, tmp_path, fetcher, text):
    cache, wanted = Cache(tmp_path / "zoo", fetcher), record(server, sha256=DIGEST)
    cache.fetch(wanted)
    (tmp_path / "zoo/imports.json").write_text(text)
    assert [state for _, state in cache.verify(wanted)] == ["ok"]
    (tmp_path / "made").write_bytes(b"1")
    cache.note_import(wanted, wanted.files, tmp_path / "made")
    (tmp_path / "made").write_bytes(b"2")
    assert [state for _, state in cache.verify(wanted)] == ["DAMAGED"]
