"""A web server on loopback with good and bad habits."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class File:
    data: bytes
    tag: str = '"1"'
    kind: str = "application/octet-stream"
    cut: int | None = None
    status: int = 200
    location: str = ""
    says_its_size: bool = True
    ranges: list[str] = field(default_factory=list)


class WebServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, File] = {}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that has seen enough goes away

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


CONFIRM = b"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head>
<body><form id="download-form" action="/download" method="get">
<input type="hidden" name="id" value="%s"><input type="hidden" name="confirm" value="t">
<input type="hidden" name="uuid" value="abc"></form></body></html>"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path == "/uc":
            return self._send(File(CONFIRM % query["id"][0].encode(), kind="text/html; charset=u"))
        name = query["id"][0] if url.path == "/download" and "uuid" in query else url.path
        file = self.server.files.get(name)
        self._send(file or File(b"no", status=404))
        return None

    def _send(self, file: File) -> None:
        start, status = 0, file.status
        wanted = self.headers.get("Range")
        if wanted:
            file.ranges.append(wanted)
            if self.headers.get("If-Range") == file.tag:
                start, status = int(wanted[6:-1]), 206
        body = file.data[start:]
        self.send_response(status)
        self.send_header("Content-Type", file.kind)
        self.send_header("ETag", file.tag)
        if file.says_its_size:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        if status == 206:
            last = len(file.data) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(file.data)}")
        if file.location:
            self.send_header("Location", file.location)
        self.end_headers()
        if file.cut is not None and file.cut > start:
            self.wfile.write(body[: file.cut - start])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
        else:
            with contextlib.suppress(OSError):  # the client may have seen enough
                self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
