"""The facts about CIFAR-10 and CIFAR-100 compared with those of torchvision, which were gathered independently."""

import re

import pytest

from pipeline.sources.registry import DATASETS
from shardset.manifest import SPLITS

ARCHIVES = [dataset.archive for dataset in DATASETS.values() if dataset.archive]


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def published(request):
    """The facts in torchvision's class, and the archive in this project's registry."""
    from torchvision import datasets

    return getattr(datasets, request.param), DATASETS[request.param.lower()].archive


@pytest.mark.slow
def test_batches_are_those_of_torchvision(published):
    cifar, archive = published
    assert list(archive.files.batches) == ["train", "test"]
    for split, of_split in (("train", cifar.train_list), ("test", cifar.test_list)):
        assert list(archive.files.batches[split].items()) == [tuple(file) for file in of_split]  # in this order


@pytest.mark.slow
def test_class_names_are_where_torchvision_reads_them(published):
    cifar, archive = published
    files = archive.files
    assert {"filename": files.meta[0], "md5": files.meta[1], "key": files.classes_key} == cifar.meta
    assert files.folder == cifar.base_folder


@pytest.mark.slow
def test_archive_is_that_of_torchvision(published):
    cifar, archive = published
    assert archive.file_name == cifar.filename
    assert archive.urls[-1] == cifar.url  # the original host, as the last resort


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.file_name)
def test_each_archive_is_identified_completely(archive):
    assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)
    assert archive.num_bytes > 0
    assert len(set(archive.urls)) == len(archive.urls) > 0
    assert all(url.startswith("https://") and archive.file_name in url for url in archive.urls)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.file_name)
def test_each_file_has_a_name_and_an_md5_of_its_own(archive):
    files = archive.files
    md5_by_name = files.md5_by_name
    assert len(md5_by_name) == sum(map(len, files.batches.values())) + 1
    assert len(set(md5_by_name.values())) == len(md5_by_name)
    assert all(re.fullmatch(r"[0-9a-f]{32}", md5) for md5 in md5_by_name.values())
    assert list(files.batches) == [split for split in SPLITS if split in files.batches]


def test_each_dataset_is_identified():
    for name, dataset in DATASETS.items():
        # Without a hash of the content, the hashes of the published files have to do.
        assert dataset.content_sha256 or dataset.archive
        if name != "cifar100":  # see its entry
            assert re.fullmatch(r"[0-9a-f]{64}", dataset.content_sha256)
