import hashlib
import shutil
from dataclasses import replace

import pytest

from pipeline.datasets import DATASETS
from pipeline.download import download_dataset
from pipeline.errors import CorruptDataError, FetchError, InputError
from pipeline.fetch import RETRIES, Patience, fetch_archive
from pipeline.shards import open_shards, verify_shards
from tests.file_server import FileServer, serve
from tests.test_normalize import read_images

# What a server sends that never gets further: one request, and its retries.
NOTHING = [0] * (1 + RETRIES)
NO_SERVER = "http://127.0.0.1:9/tiny.tar.gz"


def ignore_progress(done, total):
    pass


def files_in(archives_dir):
    """What is there, but for the lock, which stays."""
    return sorted(path.name for path in archives_dir.iterdir() if path.name != ".tiny.tar.gz.lock")


@pytest.fixture
def server(tiny):
    with serve(FileServer(tiny.archive)) as server:
        yield server


@pytest.fixture
def fetch(tiny, tmp_path):
    """Fetch the tiny archive from the URLs given and return its bytes."""

    def fetch_bytes(*urls):
        path = fetch_archive(tiny.facts().archive, urls, tmp_path / "archives", ignore_progress, Patience(backoff=0))
        assert files_in(path.parent) == ["tiny.tar.gz"]
        return path.read_bytes()

    return fetch_bytes


def test_an_archive_is_fetched_once(fetch, server, tiny):
    assert fetch(server.url) == tiny.archive
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 1


def test_progress_ends_at_the_archive_s_size(server, tiny, tmp_path):
    calls = []
    fetch_archive(tiny.facts().archive, [server.url], tmp_path, lambda *call: calls.append(call))
    assert calls == sorted(calls)
    assert calls[-1] == (len(tiny.archive), len(tiny.archive))


def test_a_broken_connection_is_resumed_where_it_broke(fetch, server, tiny):
    server.cuts = [70_000, 70_000, 1000, 0, 1000, 30_000]
    assert fetch(server.url) == tiny.archive
    assert [request.get("If-Range") for request in server.requests] == [None, *['"v1"'] * 6]
    # At most the chunk in flight is fetched twice.
    assert server.bytes_sent <= len(tiny.archive) + 6 * 8192


def test_a_later_process_resumes_what_an_earlier_one_fetched(fetch, server, tiny, tmp_path):
    server.cuts = [70_000, *NOTHING]
    with pytest.raises(FetchError, match="the connection broke"):
        fetch(server.url)
    part = (tmp_path / "archives/tiny.tar.gz.part").stat().st_size
    assert part > 0
    assert fetch(server.url) == tiny.archive
    assert server.requests[-1]["Range"] == f"bytes={part}-"
    assert server.requests[-1]["If-Range"] == '"v1"'


def test_another_mirror_finishes_what_the_first_began(fetch, server, tiny):
    with serve(FileServer(tiny.archive, cuts=[70_000, *NOTHING], etag='"elsewhere"')) as first:
        assert fetch(first.url, server.url) == tiny.archive
    assert "Range" in server.requests[0]
    assert "If-Range" not in server.requests[0]


def test_a_file_that_changed_meanwhile_is_fetched_anew(fetch, server, tiny):
    server.content, server.etag, server.cuts = b"x" * len(tiny.archive), '"old"', [70_000, *NOTHING]
    with pytest.raises(FetchError):
        fetch(server.url)
    server.content, server.etag = tiny.archive, '"new"'
    assert fetch(server.url) == tiny.archive
    assert server.requests[-1]["If-Range"] == '"old"'


def test_wrong_bytes_from_one_mirror_do_not_spoil_the_next(fetch, server, tiny):
    with serve(FileServer(b"x" * len(tiny.archive), cuts=[70_000, *NOTHING])) as liar:
        assert fetch(liar.url, server.url) == tiny.archive
    assert ["Range" in request for request in server.requests] == [True, False]


def test_a_server_without_ranges_starts_anew(fetch, server, tiny):
    server.supports_range, server.etag = False, None
    server.cuts = [70_000]
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 2


def test_a_server_that_never_gets_further_is_given_up(fetch, server):
    server.supports_range = False
    server.cuts = [70_000] * 9
    with pytest.raises(FetchError, match="the connection broke"):
        fetch(server.url)
    assert len(server.requests) == 2 + RETRIES


def test_a_server_without_ranges_that_breaks_early_does_not_lose_what_was_there(fetch, server, tiny):
    with (
        serve(FileServer(tiny.archive, cuts=[200_000, *NOTHING])) as first,
        serve(FileServer(tiny.archive, cuts=[9000] * 9, supports_range=False)) as second,
    ):
        assert fetch(first.url, second.url, server.url) == tiny.archive
    assert int(server.requests[0]["Range"].removeprefix("bytes=").removesuffix("-")) > 190_000


def test_a_login_page_does_not_lose_what_was_there(fetch, server, tiny):
    with (
        serve(FileServer(tiny.archive, cuts=[200_000, *NOTHING])) as first,
        serve(FileServer(b"<html>Please log in</html>", supports_range=False)) as portal,
    ):
        assert fetch(first.url, portal.url, server.url) == tiny.archive
    assert "Range" in server.requests[0]


def test_an_archive_is_taken_as_it_is_sent_whatever_the_server_calls_it(fetch, server, tiny):
    server.headers = {"Content-Encoding": "x-gzip"}
    assert fetch(server.url) == tiny.archive


def test_a_busy_server_is_asked_again(fetch, server, tiny):
    server.statuses = [503, 429, 500]
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"statuses": [404]}, "404 Not Found"),
        ({"statuses": [403]}, "403 Forbidden"),
        ({"statuses": [503] * 4}, "503"),
        ({"content": b"<html>Please log in</html>"}, "expected Content-Length: [0-9]+, got 26"),
        ({"headers": {"Content-Length": "abc"}}, "expected Content-Length: [0-9]+, got abc"),
    ],
)
def test_a_mirror_that_fails_is_named_and_the_next_one_is_asked(fault, reason, fetch, server, tiny):
    with serve(FileServer(tiny.archive)) as bad:
        for name, value in fault.items():
            setattr(bad, name, value)
        with pytest.raises(FetchError, match=rf"{bad.url}: .*{reason}"):
            fetch(bad.url)
        bad.statuses = fault.get("statuses", []) and [404]
        assert fetch(bad.url, server.url) == tiny.archive


def test_one_flipped_bit_is_found(fetch, server, tiny, tmp_path):
    server.content = bytes([tiny.archive[0] ^ 1]) + tiny.archive[1:]
    with pytest.raises(FetchError, match="expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}"):
        fetch(server.url)
    assert files_in(tmp_path / "archives") == []


def test_an_endless_body_is_cut_off(fetch, server, tmp_path):
    endless = b"".join(b"%x\r\n%b\r\n" % (len(server.content), server.content) for _ in range(3))
    headers = {"Transfer-Encoding": "chunked", "Content-Length": str(len(server.content))}
    server.content, server.headers = endless, headers
    with pytest.raises(FetchError, match="the server sends more"):
        fetch(server.url)
    assert not (tmp_path / "archives/tiny.tar.gz").exists()


def test_a_damaged_archive_from_before_is_fetched_again(fetch, server, tiny, tmp_path):
    fetch(server.url)
    (tmp_path / "archives/tiny.tar.gz").write_bytes(b"x" * len(tiny.archive))
    assert fetch(server.url) == tiny.archive


@pytest.fixture
def download(tiny, tmp_path, monkeypatch):
    """Run the stage on the tiny dataset, whose published archive is at `urls`."""
    tiny.install_reader(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*urls, source=None):
        monkeypatch.setitem(DATASETS, "tiny", tiny.facts(*urls))
        download_dataset("tiny", tmp_path / "raw", tmp_path / "archives", source, ignore_progress)
        return verify_shards(tmp_path / "raw")

    return run


def assert_holds(shards, tiny):
    for split, (images, labels) in (("train", tiny.train), ("test", tiny.test)):
        assert read_images(shards, split).tobytes() == images.tobytes()
        assert shards.labels(split).tobytes() == labels.tobytes()
    assert shards.manifest.classes[0] == "airplane"
    assert shards.manifest.normalization is None


def test_every_kind_of_source_gives_the_same_shard_set(download, server, tiny, tmp_path):
    archive_path = tmp_path / "a copy.tar.gz"
    archive_path.write_bytes(tiny.archive)
    folder = tiny.write_files(tmp_path / "folder")
    manifests = []
    for source in (
        None,
        server.url,
        str(archive_path),
        archive_path.as_uri(),
        str(folder),
        folder.as_uri(),
        str(folder / "cifar-10-batches-py"),
    ):
        shutil.rmtree(tmp_path / "archives", ignore_errors=True)
        shards = download(server.url, source=source)
        assert_holds(shards, tiny)
        manifests.append((tmp_path / "raw/manifest.json").read_bytes())
    assert len(set(manifests)) == 1
    assert len(server.requests) == 2


def test_a_second_run_unpacks_the_archive_and_fetches_nothing(download, server, tiny, tmp_path):
    download(server.url)
    shutil.rmtree(tmp_path / "raw")
    assert_holds(download(server.url), tiny)
    assert len(server.requests) == 1
    assert files_in(tmp_path / "archives") == ["tiny.tar.gz"]


def test_a_host_that_can_not_be_reached_is_named_with_the_reason(fetch):
    with pytest.raises(FetchError, match=f"{NO_SERVER}: .*Connection refused"):
        fetch(NO_SERVER)


def test_when_nothing_gives_the_archive_the_message_says_what_was_tried_and_the_ways_out(download, server, tmp_path):
    server.statuses = [404, 403]
    with pytest.raises(FetchError) as caught:
        download(server.url, f"{server.url}?mirror")
    message = str(caught.value)
    assert f"{server.url}: 404 Not Found" in message
    assert f"{server.url}?mirror: 403 Forbidden" in message
    for way_out in ("another mirror", "a local file", "make demo"):
        assert way_out in message
    assert not (tmp_path / "raw").exists()


def test_a_source_that_is_not_the_published_one_is_refused_and_nothing_is_unpacked(download, tiny, tmp_path):
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(b"x" * len(tiny.archive))
    with pytest.raises(InputError, match="expected SHA-256"):
        download(source=str(wrong))
    wrong.write_bytes(b"x")
    with pytest.raises(InputError, match="expected [0-9,]+ bytes, got 1"):
        download(source=str(wrong))
    with pytest.raises(InputError, match="no such file or folder"):
        download(source=str(tmp_path / "absent.tar.gz"))
    for source in ("https://[bad/x", "file://[::1/x", "~nosuchuser/x", "s3://bucket/x"):
        with pytest.raises(InputError, match="^source "):
            download(source=source)
    assert not (tmp_path / "raw").exists()
    assert not (tmp_path / "archives").exists()


def test_a_folder_with_a_wrong_or_missing_file_is_refused_by_name_before_it_is_unpickled(download, tiny, tmp_path):
    folder = tiny.write_files(tmp_path / "folder")
    evidence = tmp_path / "evidence"
    batch = folder / "cifar-10-batches-py/data_batch_3"
    batch.write_bytes(f"cbuiltins\nopen\n(V{evidence}\nVw\ntR.".encode())
    with pytest.raises(InputError, match="data_batch_3: expected MD5"):
        download(source=str(folder))
    assert not evidence.exists()
    batch.unlink()
    with pytest.raises(InputError, match="data_batch_3: missing"):
        download(source=str(folder))
    with pytest.raises(InputError, match="data_batch_1: missing"):
        download(source=str(tmp_path))


def test_a_read_only_folder_is_read_and_left_as_it_is(download, tiny, tmp_path):
    folder = tiny.write_files(tmp_path / "folder")
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(folder.rglob("*"))
    assert_holds(download(source=str(folder)), tiny)
    assert sorted(folder.rglob("*")) == before


def test_content_that_is_not_the_pinned_one_is_refused(tiny, tmp_path, monkeypatch):
    tiny.install_reader(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DATASETS, "tiny", replace(tiny.facts(), content_sha256=hashlib.sha256().hexdigest()))
    source = tiny.write_files(tmp_path / "folder")
    with pytest.raises(CorruptDataError, match=f"got {tiny.content_sha256}"):
        download_dataset("tiny", tmp_path / "raw", tmp_path, str(source), ignore_progress)
    assert not (tmp_path / "raw").exists()


def test_the_synthetic_dataset_is_balanced_and_learnable(synthetic_raw):
    shards = open_shards(synthetic_raw)
    images, labels = read_images(shards, "train"), shards.labels("train")
    assert set(map(int, labels)) == set(range(10))
    assert (labels == 3).sum() == 1200
    class_means = [images[labels == label].mean(axis=0) for label in range(10)]
    test_images = read_images(shards, "test")[:500].astype(float)
    nearest = [min(range(10), key=lambda label: ((image - class_means[label]) ** 2).sum()) for image in test_images]
    assert (nearest == shards.labels("test")[:500]).mean() > 0.9
