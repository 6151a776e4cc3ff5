"""An HTTP proxy on loopback that loses, delays or refuses what a test tells it to."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

FORWARD, LOSE_ANSWER = "forward", "lose the answer"


class Proxy:
    """Forwards every request to ``target``, except where ``fault`` says otherwise.

    Parameters
    ----------
    target : str
        Address of the real server.
    fault : callable
        Maps the path of a request to ``FORWARD``, ``LOSE_ANSWER`` (the server carries it out, the
        client never hears of it) or an HTTP status (the server hears of it only if the test calls
        what is then in ``held``).
    port : int
        Where to listen; 0 takes any free port.
    login : tuple of str, optional
        Name and password without which every request is refused (basic authentication).
    """

    def __init__(
        self,
        target: str,
        fault: Callable[[str], str | int],
        port: int = 0,
        login: tuple[str, str] | None = None,
    ) -> None:
        wanted = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}" if login else ""
        self.target, self.fault = urlsplit(target).netloc, fault
        self.held: list[Callable[[], object]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if wanted and self.headers.get("Authorization") != wanted:
                    return self._answer(401, b"no")
                what = proxy.fault(self.path)
                forward = partial(proxy.forward, self.command, self.path, body)
                if isinstance(what, int):
                    proxy.held.append(forward)
                    return self._answer(what, b"no")
                status, content = forward()
                if what == LOSE_ANSWER:
                    self.close_connection = True
                    return None
                return self._answer(status, content)

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _serve

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def forward(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Have the real server carry out one request."""
        connection = http.client.HTTPConnection(self.target, timeout=60)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, content

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
