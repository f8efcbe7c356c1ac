"""The facts about CIFAR-10 compared with those of torchvision, which were gathered independently."""

import re

import pytest

from pipeline.sources.registry import DATASETS
from shardset.manifest import SPLITS

ARCHIVES = [dataset.archive for dataset in DATASETS.values() if dataset.archive]


@pytest.fixture
def cifar10():
    return DATASETS["cifar10"].archive


@pytest.mark.slow
def test_cifar10_batches_are_those_of_torchvision(cifar10):
    from torchvision.datasets import CIFAR10

    files = cifar10.files
    assert list(files.batches) == ["train", "test"]
    for split, published in (("train", CIFAR10.train_list), ("test", CIFAR10.test_list)):
        assert list(files.batches[split].items()) == [tuple(file) for file in published]  # in this order


@pytest.mark.slow
def test_cifar10_class_names_are_where_torchvision_reads_them(cifar10):
    from torchvision.datasets import CIFAR10

    files = cifar10.files
    assert {"filename": files.meta[0], "md5": files.meta[1], "key": files.classes_key} == CIFAR10.meta
    assert files.folder == CIFAR10.base_folder


@pytest.mark.slow
def test_cifar10_archive_is_that_of_torchvision(cifar10):
    from torchvision.datasets import CIFAR10

    assert cifar10.file_name == CIFAR10.filename
    assert cifar10.urls[-1] == CIFAR10.url  # the original host, as the last resort


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


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_each_dataset_has_a_content_hash(dataset):
    assert re.fullmatch(r"[0-9a-f]{64}", dataset.content_sha256)
