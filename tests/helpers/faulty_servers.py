"""Servers that misbehave on purpose, where no real one would."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"


class Proxy:
    """Passes bytes on to a server; drops the replies that it is told to drop.

    With a context it speaks TLS to its clients.
    """

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._target, self._context = port, context
        self.drop_replies = 0
        self.dropped = 0
        self._listener = socket.create_server((HOST, 0))
        self.endpoint = f"http://{HOST}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context:
                client = self._context.wrap_socket(client, server_side=True)
            server = socket.create_connection((HOST, self._target))
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            self._pump(server, client, True)

    def _pump(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if replies and self.drop_replies:
                    self.drop_replies -= 1
                    self.dropped += 1
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


class NaiveS3(ThreadingHTTPServer):
    """Just enough of S3 for a store, without conditional writes; can be told to be busy.

    With ``looks_first`` it honours If-None-Match, but looks first and writes later. ``judge`` gives
    the error of a write (status, code) or None, from whether it has the header and whether the
    object exists.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Answer)
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}  # with their metadata
        self.looks_first = False
        self.largest = 1 << 20  # bytes of an object
        self.judge: Callable[[bool, bool], tuple[int, str] | None] = lambda asked, there: None
        self.lock = threading.Lock()
        self.headers: dict[str, str] = {}  # of refusals
        self.refusals: list[tuple[int, str]] = []
        self.endpoint = f"http://{HOST}:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: NaiveS3

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.looks_first and self.headers["If-None-Match"]:
            if self.path in self.server.objects:
                self._say(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            time.sleep(0.05)
        if self._refused():
            return
        if len(data) > self.server.largest:
            self._refuse(400, "EntityTooLarge")
            return
        asked = self.headers["If-None-Match"] is not None
        with self.server.lock:
            refusal = self.server.judge(asked, self.path in self.server.objects)
            if refusal is None:
                kept = {
                    n: v for n, v in self.headers.items() if n.lower().startswith("x-amz-meta-")
                }
                self.server.objects[self.path] = data, kept
        if refusal is None:
            self._say(200)
        else:
            self._refuse(*refusal)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self._refused():
            return
        if "list-type" in url.query:
            start = parse_qs(url.query)["prefix"][0]
            found = [(p.split("/", 2)[2], d) for p, (d, _) in self.server.objects.items()]
            rows = [
                f"<Contents><Key>{key}</Key><Size>{len(data)}</Size></Contents>"
                for key, data in found
                if key.startswith(start)
            ]
            self._say(200, f"<ListBucketResult>{''.join(rows)}</ListBucketResult>".encode())
        elif url.path in self.server.objects:
            self._say(200, *self.server.objects[url.path])
        else:
            self._say(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.server.objects.pop(self.path, None)
        self._say(204)

    def log_message(self, *_: object) -> None:
        pass

    def _refused(self) -> bool:
        if not self.server.refusals:
            return False
        self._refuse(*self.server.refusals.pop(0))
        return True

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>-</Message></Error>"
        self._say(status, b"" if status == 304 else body.encode(), self.server.headers)

    def _say(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
