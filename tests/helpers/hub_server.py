"""A hub on loopback with one dataset, in as much of the Hugging Face Hub's API as its clients need."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

from tests.helpers.file_server import Server, running

REPO = "user/name"
COMMIT = "0123456789abcdef" * 2 + "01234567"


@contextmanager
def serve_hub(folder: Path) -> Iterator[str]:
    """Serve a folder as the dataset REPO at its only commit, and yield the hub's address.

    Uploads go into the folder, next to the .gitattributes that each dataset on the Hub has.
    """
    folder.mkdir(exist_ok=True)
    (folder / ".gitattributes").write_text("*.npy filter=lfs diff=lfs merge=lfs -text\n")
    httpd = Server(("127.0.0.1", 0), type("HubHandler", (_Handler,), {"folder": folder}))
    with running(httpd):
        yield f"http://127.0.0.1:{httpd.server_port}"


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(f"/datasets/{REPO}/resolve/"):
            self._send_file(path.split("/", 6)[6])
        elif path.startswith(f"/api/datasets/{REPO}/tree/"):
            self._send_json(self._list_files(path.split("/", 7)[7] if path.count("/") > 6 else ""))
        elif path.startswith(f"/api/datasets/{REPO}"):
            names = [{"rfilename": name} for name in self._names()]
            self._send_json({"id": REPO, "sha": COMMIT, "siblings": names, "private": False, "tags": []})
        else:
            self._send_json({"error": "not found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = urlsplit(self.path).path.removeprefix(f"/api/datasets/{REPO}/").split("/")[0]
        if kind == "preupload":
            files = json.loads(body)["files"]
            self._send_json(
                {"files": [{"path": it["path"], "uploadMode": "regular", "shouldIgnore": False} for it in files]}
            )
        elif kind == "commit":
            self._store(body)
            url = f"http://{self.headers['Host']}/datasets/{REPO}/commit/{COMMIT}"
            self._send_json({"success": True, "commitOid": COMMIT, "commitUrl": url})
        elif kind == "paths-info":
            wanted = [*_query(body)]
            self._send_json([it for it in self._list_files("") if it["path"] in wanted])
        else:  # creating the repository, and checking the card
            self._send_json({"url": f"http://{self.headers['Host']}/datasets/{REPO}", "errors": [], "warnings": []})

    def log_message(self, *args: object) -> None:
        pass

    def _names(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def _list_files(self, within: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for path in sorted((self.folder / within).rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            kind = "directory" if path.is_dir() else "file"
            found.append({"type": kind, "oid": COMMIT, "size": path.stat().st_size, "path": name})
        return found

    def _store(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                path = self.folder / line["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(line["value"]["content"]))

    def _send_file(self, name: str) -> None:
        path = self.folder / name
        if path.is_file():
            content = path.read_bytes()
            self._send(content, 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

    def _send_json(self, data: object, status: int = 200) -> None:
        self._send(json.dumps(data).encode(), status, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _query(body: bytes) -> Iterator[str]:
    """The paths that a client asks about, as a form or as JSON."""
    from urllib.parse import parse_qs

    try:
        yield from json.loads(body)["paths"]
    except ValueError:
        yield from parse_qs(body.decode()).get("paths", [])
