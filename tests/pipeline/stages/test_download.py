import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from pipeline.errors import FetchError
from pipeline.sources.registry import DATASETS
from shardset.errors import CorruptDataError, InputError
from shardset.shards import verify_shards
from tests.helpers.file_server import FileServer, serve
from tests.helpers.shard_sets import download as run_stage
from tests.helpers.shard_sets import read_images
from tests.helpers.workspace import register_dataset


@pytest.fixture
def archive_server(tiny):
    with serve(FileServer(tiny.archive)) as server:
        yield server


@pytest.fixture
def download(tiny, tmp_path, monkeypatch):
    """Run the stage on the tiny dataset, whose archive is published at `urls`, and return the shard set."""

    def run(*urls, source=None, **changes):
        monkeypatch.setitem(DATASETS, "tiny", replace(tiny.facts(*urls), **changes))
        run_stage("tiny", tmp_path / "raw", tmp_path / "archives", source)
        return verify_shards(tmp_path / "raw")

    return run


def assert_holds(shards, dataset):
    for split, (images, labels) in (("train", dataset.train), ("test", dataset.test)):
        assert read_images(shards, split).tobytes() == images.tobytes()
        assert shards.labels(split).tobytes() == labels.tobytes()
    assert shards.manifest.classes[0] == "airplane"
    assert shards.manifest.normalization is None


def test_every_kind_of_source_gives_the_same_set(download, archive_server, tiny, tmp_path):
    archive_path = tmp_path / "a copy.tar.gz"
    archive_path.write_bytes(tiny.archive)
    folder = tiny.write_files(tmp_path / "folder")
    manifests = []
    for source in (
        None,
        archive_server.url,
        str(archive_path),
        archive_path.as_uri(),
        str(folder),
        folder.as_uri(),
        str(folder / "cifar-10-batches-py"),
    ):
        shutil.rmtree(tmp_path / "archives", ignore_errors=True)
        shards = download(archive_server.url, source=source)
        assert_holds(shards, tiny)
        manifests.append((tmp_path / "raw/manifest.json").read_bytes())
    assert len(set(manifests)) == 1
    assert len(archive_server.requests) == 2


def test_second_run_fetches_nothing(download, archive_server, tiny, tmp_path):
    download(archive_server.url)
    shutil.rmtree(tmp_path / "raw")
    assert_holds(download(archive_server.url), tiny)
    assert len(archive_server.requests) == 1
    assert [path.name for path in (tmp_path / "archives").iterdir()] == ["tiny.tar.gz"]


def test_failed_download_names_attempts_and_ways_out(download, archive_server, tmp_path):
    archive_server.statuses = [404, 403]
    with pytest.raises(FetchError) as raised:
        download(archive_server.url, f"{archive_server.url}?mirror")
    message = str(raised.value)
    assert f"{archive_server.url}: 404 Not Found" in message
    assert f"{archive_server.url}?mirror: 403 Forbidden" in message
    for way_out in ("another mirror", "a local file", "make demo"):
        assert way_out in message
    assert "dvc" not in message  # `make repro` runs DVC where it isn't on the PATH
    assert not (tmp_path / "raw").exists()


def test_unpublished_archive_is_refused_unread(download, tiny, tmp_path):
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(b"x" * len(tiny.archive))
    with pytest.raises(InputError, match="expected SHA-256 .* it is not the published tiny.tar.gz"):
        download(source=str(wrong))
    wrong.write_bytes(b"x")
    with pytest.raises(InputError, match="expected [0-9,]+ bytes, got 1"):
        download(source=str(wrong))
    assert not (tmp_path / "raw").exists()
    assert not (tmp_path / "archives").exists()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("absent.tar.gz", "no such file or folder"),
        ("https://[bad/x", "Invalid IPv6 URL"),
        ("file://[::1/x", "Invalid IPv6 URL"),
        ("file://elsewhere/x", "file URLs should refer to this machine, file:///path"),
        ("~nosuchuser/x", "Could not determine home directory"),
        ("s3://bucket/x", "should be an http, https or file URL, or a path"),
    ],
)
def test_unusable_source_is_named(source, reason, download, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        download(source=source)
    assert str(raised.value).startswith(f"source {source}: {reason}")
    assert list(tmp_path.iterdir()) == []


def test_folder_with_wrong_batch_is_refused_unread(download, tiny, tmp_path):
    folder = tiny.write_files(tmp_path / "folder")
    created = tmp_path / "created"
    batch = folder / "cifar-10-batches-py/data_batch_3"
    batch.write_bytes(f"cbuiltins\nopen\n(V{created}\nVw\ntR.".encode())
    with pytest.raises(InputError, match="data_batch_3: expected MD5"):
        download(source=str(folder))
    assert not created.exists()
    batch.unlink()
    with pytest.raises(InputError, match="data_batch_3: missing"):
        download(source=str(folder))
    assert not (tmp_path / "raw").exists()


def test_decoded_pixels_must_be_the_registered_ones(download, tiny, tmp_path):
    source = tiny.write_files(tmp_path / "folder")
    registered = hashlib.sha256().hexdigest()
    with pytest.raises(CorruptDataError, match=f"content_sha256 {registered}, got {tiny.content_sha256}"):
        download(source=str(source), content_sha256=registered)
    assert not (tmp_path / "raw").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="mounts a file system as Linux does")
def test_full_disk_is_named_and_ends_download(archive_server, tiny, workspace):
    facts = tiny.facts(archive_server.url, f"{archive_server.url}?mirror")
    register_dataset(workspace.path / "pipeline", "tiny", facts)
    workspace.set_param("dataset: cifar10", "dataset: tiny")
    mount = (
        'mkdir -p data; mount -t tmpfs -o size=100k tmpfs data || exit 99; "$@"; code=$?; ls data/archives; exit $code'
    )
    unshare = ("unshare", "--mount", "--map-root-user", "bash", "-c", mount, "bash")
    done = workspace.run(*unshare, sys.executable, "-m", "pipeline", "download")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"may not mount a file system: {done.stderr}")
    assert done.returncode == 1
    error = "Error: data/archives/tiny.tar.gz.part: can't be written: No space left on device"
    assert done.stderr == f"Fetching tiny.tar.gz from {urlsplit(archive_server.url).netloc}\n{error}\n"
    assert done.stdout == "tiny.tar.gz.part\ntiny.tar.gz.part.json\n"
    assert len(archive_server.requests) == 1  # the other mirror was not asked


def test_each_host_is_named_when_it_is_tried(archive_server, tiny, workspace):
    with serve(FileServer(tiny.archive, statuses=[404])) as first:
        register_dataset(workspace.path / "pipeline", "tiny", tiny.facts(first.url, archive_server.url))
        workspace.set_param("dataset: cifar10", "dataset: tiny")
        done = workspace.pipeline("download")
    assert done.returncode == 0
    hosts = [urlsplit(url).netloc for url in (first.url, archive_server.url)]
    assert done.stderr == "".join(f"Fetching tiny.tar.gz from {host}\n" for host in hosts)
    assert done.stdout.count("\n") == 1


def test_val_fraction_leaves_test_as_it_is(tiny, tiny_raw, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "tiny", tiny.facts())
    run_stage("tiny", tmp_path / "raw", tmp_path, tiny.write_files(tmp_path / "source"), val_fraction=0.3)
    before, after = verify_shards(tiny_raw), verify_shards(tmp_path / "raw")
    assert np.array_equal(read_images(after, "test"), read_images(before, "test"))
    assert 15 <= after.manifest.splits["val"].samples <= 45
    pixels = {split: {image.tobytes() for image in read_images(after, split)} for split in ("train", "val")}
    assert pixels["train"] | pixels["val"] == {image.tobytes() for image in read_images(before, "train")}
    assert not pixels["train"] & pixels["val"]
