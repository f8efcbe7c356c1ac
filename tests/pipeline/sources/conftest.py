import pytest

from pipeline.sources.fetch import fetch_archive
from pipeline.sources.receive import Timeouts
from tests.helpers.file_server import FileServer, serve


@pytest.fixture
def server(tiny):
    """A server that has the tiny archive."""
    with serve(FileServer(tiny.archive)) as server:
        yield server


@pytest.fixture
def fetch(tiny, tmp_path):
    """Fetch the tiny archive from the URLs given, and return its bytes."""

    def fetch_bytes(*urls, timeouts=None):
        path = fetch_archive(
            tiny.facts().archive, urls, tmp_path / "archives", lambda done, total: None, timeouts or Timeouts(backoff=0)
        )
        assert [file.name for file in path.parent.iterdir()] == ["tiny.tar.gz"]
        return path.read_bytes()

    return fetch_bytes
