"""An HTTP server on loopback that serves one file and can be told to misbehave."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """One file at every path. Each request takes one entry of `cuts` and `statuses`, while there are any."""

    content: bytes
    etag: str | None = '"v1"'
    supports_range: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes of the body after which the connection breaks
    statuses: list[int] = field(default_factory=list)  # answered instead of the file
    headers: dict[str, str] = field(default_factory=dict)  # sent in place of the right ones
    requests: list[dict[str, str]] = field(default_factory=list)  # the headers of each request so far
    bytes_sent: int = 0
    url: str = ""


@contextmanager
def serve(server: FileServer) -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(dict(self.headers))
            if server.statuses and (status := server.statuses.pop(0)) != 200:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if server.supports_range and wanted and self.headers.get("If-Range", server.etag) == server.etag:
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
            server.bytes_sent += len(body)
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http_server.server_port}/tiny.tar.gz"
    try:
        yield server
    finally:
        http_server.shutdown()
        http_server.server_close()
        thread.join()
