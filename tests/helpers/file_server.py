"""HTTP servers on loopback: one that serves one file and can be told to misbehave, and one for a folder."""

import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path

PIECE_BYTES = 8192


@dataclass
class FileServer:
    """One file at every path. Each request takes one entry of `cuts` and `statuses`, while there are any."""

    content: bytes
    etag: str | None = '"v1"'
    supports_range: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes of the body after which the connection breaks
    statuses: list[int] = field(default_factory=list)  # answered instead of the file
    headers: dict[str, str] = field(default_factory=dict)  # sent in place of the right ones
    pause: float = 0  # seconds after each PIECE_BYTES
    # Writes all that is answered, status and headers included, instead of the file; the event says that it's over.
    answer: Callable[[BufferedIOBase, threading.Event], object] | None = None
    tls: ssl.SSLContext | None = None
    requests: list[dict[str, str]] = field(default_factory=list)  # the headers of each request so far
    bytes_sent: int = 0
    url: str = ""


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        # A client may leave in the middle of an answer.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def serve(server: FileServer) -> Iterator[FileServer]:  # noqa: C901 (the handler is a class of its own)
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(dict(self.headers))
            if server.answer:
                server.answer(self.wfile, over)
                return
            if server.statuses and (status := server.statuses.pop(0)) != 200:
                self.send_response(status)
                for name, value in ({"Content-Length": "0"} | server.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                return
            start = 0
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            validator = server.etag or server.headers.get("Last-Modified")
            if server.supports_range and wanted and self.headers.get("If-Range", validator) == validator:
                start = int(wanted[1])
            body = server.content[start:]
            headers = {"Content-Length": str(len(body))}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            if server.etag:
                headers["ETag"] = server.etag
            self.send_response(206 if start else 200)
            for name, value in (headers | server.headers).items():
                self.send_header(name, value)
            self.end_headers()
            body = body[: server.cuts.pop(0)] if server.cuts else body
            size = PIECE_BYTES if server.pause else len(body)
            for begin in range(0, len(body), size or 1):
                piece = body[begin : begin + size]
                server.bytes_sent += len(piece)
                self.wfile.write(piece)
                time.sleep(server.pause)

        def log_message(self, *args):
            pass

    http_server = Server(("127.0.0.1", 0), Handler)
    if server.tls:
        http_server.socket = server.tls.wrap_socket(http_server.socket, server_side=True)
    with running(http_server):
        server.url = f"{'https' if server.tls else 'http'}://127.0.0.1:{http_server.server_port}/tiny.tar.gz"
        try:
            yield server
        finally:
            over.set()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, to read only, as any web server does; yield the URL."""
    http_server = Server(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    with running(http_server):
        yield f"http://127.0.0.1:{http_server.server_port}"


@contextmanager
def running(http_server: Server) -> Iterator[None]:
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        http_server.shutdown()
        http_server.server_close()
        thread.join()


def response_head(status: str, **headers: object) -> bytes:
    """What `FileServer.answer` writes before the body. Underscores in header names stand for hyphens."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()
