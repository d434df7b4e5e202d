"""A server on this machine that misbehaves as real mirrors do."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """One file of the server and how it is served.

    Attributes
    ----------
    content : bytes
    ranges : bool
        Whether pieces can be asked for.
    breaks_after : list of int
        The connection breaks after so many bytes of the first answer, the second, and so on.
    status : int
        Another status than success.
    pause : float
        Seconds between pieces of 1,000 bytes.
    silent : float
        Seconds before the first byte of an answer.
    announce_length : bool
        Whether the answer says how long it is.
    """

    content: bytes = b""
    ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    status: int = 200
    pause: float = 0.0
    silent: float = 0.0
    announce_length: bool = True


class Mirror:
    """The server's pages and what was asked of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, range

    def serve(self, path: str, content: bytes = b"", **behaviour: Any) -> str:
        """Put a page on the server and return its URL."""
        self.pages[path] = Page(content, **behaviour)
        return self.address + path

    def downloads(self, path: str) -> list[str]:
        """The ranges asked for in downloads of one page, in order; empty strings for the whole."""
        return [asked for method, where, asked in self.requests if method == "GET" and where == path]


@contextmanager
def serving() -> Iterator[Mirror]:
    """Run a mirror inside a ``with`` block."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            asked = self.headers.get("Range", "")
            mirror.requests.append((self.command, self.path, asked))
            page = mirror.pages.get(self.path, Page(status=404))
            time.sleep(page.silent)
            if page.status != 200:
                self.send_error(page.status)
                return
            content, start = page.content, 0
            wanted = re.match(r"bytes=(\d+)-", asked)
            if wanted and page.ranges:
                start = int(wanted[1])
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if page.announce_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if not body:
                return
            piece = content[start:]
            if page.breaks_after:
                piece = piece[: page.breaks_after.pop(0)]
            with suppress(ConnectionError):
                if page.pause:
                    for i in range(0, len(piece), 1000):
                        self.wfile.write(piece[i : i + 1000])
                        time.sleep(page.pause)
                else:
                    self.wfile.write(piece)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    mirror = Mirror(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
