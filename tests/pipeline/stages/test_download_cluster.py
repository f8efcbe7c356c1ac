"""Stage `download` on the workers of a cluster, for every kind of source."""

from typing import Any

import pytest

from pipeline.sources.registry import DATASETS
from shardset.errors import InputError
from tests.helpers.image_files import make_image_folder, make_parquet, make_tar, make_zip
from tests.helpers.shard_sets import download
from tests.helpers.torchvision_files import write_food101, write_mnist
from tests.helpers.workspace import hash_files

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 7)


def write_files(kind, path):
    """Write a source, and return its path."""
    folder = make_image_folder(path / "pictures", each=10)
    match kind:
        case "tar":
            return make_tar(folder, path / "pictures.tar")
        case "zip":
            return make_zip(folder, path / "pictures.zip")
        case "parquet":
            return make_parquet(folder, path / "parquet")
    return folder


@pytest.mark.parametrize("kind", ["folder", "tar", "zip", "parquet"])
def test_images_give_the_same_set_as_on_threads(kind, cluster, tmp_path):
    source = write_files(kind, tmp_path)
    calls: list[tuple[str, int, int]] = []
    for name, scheduler in (("threads", None), ("cluster", cluster)):
        calls.clear()
        download(
            "images",
            tmp_path / name,
            tmp_path,
            source,
            scheduler=scheduler,
            progress=lambda *call: calls.append(call),
        )
        assert calls[-1] == ("Decoding", 60, 60)
    assert hash_files(tmp_path / "cluster") == hash_files(tmp_path / "threads")
    assert sum(done % 7 == 0 for action, done, _ in calls if action == "Decoding") < 9  # shard by shard


def test_selection_gives_the_same_set_as_on_threads(cluster, tmp_path):
    folder = make_image_folder(tmp_path / "flat", splits=("",), each=20)
    path = folder / "cat/3.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    for name, scheduler in (("threads", None), ("cluster", cluster)):
        changes = {"unreadable": "skip", "test_fraction": 0.2, "val_fraction": 0.2}
        download("images", tmp_path / name, tmp_path, folder, scheduler=scheduler, **changes)
    assert hash_files(tmp_path / "cluster") == hash_files(tmp_path / "threads")


@pytest.mark.parametrize("name", ["tiny", "synthetic", "torchvision:MNIST", "torchvision:Food101"])
def test_known_datasets_are_the_same_as_on_threads(name, cluster, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "tiny", tiny.facts())
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 3000 if name == "synthetic" else 7)
    source = tmp_path / "source"
    changes: dict[str, Any] = {}
    if name == "tiny":
        tiny.write_files(source)
    elif name != "synthetic":
        source.mkdir()
        changes = {"size": 28, "resize": None} if name.endswith("MNIST") else {"size": 20, "resize": 24}
        write_mnist(source, "MNIST") if name.endswith("MNIST") else write_food101(source)
    for out, scheduler in (("threads", None), ("cluster", cluster)):
        download(name, tmp_path / out, tmp_path / "archives", source, scheduler=scheduler, **changes)
    assert hash_files(tmp_path / "cluster") == hash_files(tmp_path / "threads")


def test_unreadable_images_are_listed_as_on_threads(cluster, tmp_path):
    folder = make_image_folder(tmp_path / "pictures", each=10)
    for name in ("train/cat/1.jpg", "test/dog/9.jpg"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    messages = []
    for scheduler in (None, cluster):
        with pytest.raises(InputError) as raised:
            download("images", tmp_path / "raw", tmp_path, folder, scheduler=scheduler)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("2 images can't be read:")


def test_relative_source_is_found_by_workers(cluster, tmp_path, monkeypatch):
    make_image_folder(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    manifest = download("images", tmp_path / "raw", tmp_path, "pictures", scheduler=cluster)
    assert manifest.splits["train"].samples == 6
