"""On the real CIFAR-10, where PIPELINE_SOURCE names a folder that holds it."""

import json

import numpy as np
import pytest
import torch
from tests.test_normalize import SCHEMES
from torchvision import datasets, transforms

from pipeline.stages.download import download_dataset
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_params
from tests.helpers.workspace import REPOSITORY


@pytest.fixture(scope="module")
def run_dir(cifar10_source, tmp_path_factory):
    """A folder with data/raw and data/stats.json of the real dataset."""
    path = tmp_path_factory.mktemp("real")
    download_dataset("cifar10", path / "raw", path / "archives", str(cifar10_source), lambda done, total: None)
    write_stats(path / "raw", path / "stats.json")
    return path


@pytest.fixture(scope="module")
def tensors(cifar10_source):
    """torchvision's own `CIFAR10[i]` through `ToTensor()`, for every i, with the labels."""
    by_split = {}
    for split in ("train", "test"):
        dataset = datasets.CIFAR10(cifar10_source, train=split == "train", transform=transforms.ToTensor())
        images = torch.empty(len(dataset), 3, 32, 32)
        labels = torch.empty(len(dataset), dtype=torch.int64)
        for index, (image, label) in enumerate(dataset):
            images[index], labels[index] = image, label
        by_split[split] = images, labels
    return by_split


def test_statistics_are_the_exact_ones(run_dir):
    stats = json.loads((run_dir / "stats.json").read_bytes())
    rounded = {
        name: [round(stats[name][channel], 8) for channel in ("red", "green", "blue")] for name in ("mean", "std")
    }
    assert rounded == {"mean": [0.49139968, 0.48215841, 0.44653091], "std": [0.24703223, 0.24348513, 0.26158784]}
    per_image = [round(stats["std_per_image"][channel], 7) for channel in ("red", "green", "blue")]
    assert per_image == [0.2022021, 0.1993154, 0.2008635]
    assert (run_dir / "stats.json").read_bytes() == (REPOSITORY / "data/stats.json").read_bytes()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_shard_is_bit_for_bit_what_torchvision_gives(scheme, run_dir, tensors, tmp_path):
    normalize_shards(run_dir / "raw", run_dir / "stats.json", tmp_path / "shards", make_params(scheme=scheme))
    shards = open_shards(tmp_path / "shards")
    normalize = transforms.Normalize(shards.manifest.normalization.mean, shards.manifest.normalization.std)
    for split, (images, labels) in tensors.items():
        assert np.array_equal(shards.labels(split), labels.numpy())
        for shard, start, stop in shards.ranges(split):
            expected = normalize(images[start:stop]).numpy()
            assert np.array_equal(shards.images(shard).view(np.uint32), expected.view(np.uint32))


def test_float16_is_the_float32_result_rounded_to_nearest_even(run_dir, tensors, tmp_path):
    normalize_shards(run_dir / "raw", run_dir / "stats.json", tmp_path / "shards", make_params(dtype="float16"))
    shards = open_shards(tmp_path / "shards")
    normalize = transforms.Normalize(shards.manifest.normalization.mean, shards.manifest.normalization.std)
    for split, (images, _) in tensors.items():
        for shard, start, stop in shards.ranges(split):
            expected = normalize(images[start:stop]).half().numpy()
            assert np.array_equal(shards.images(shard).view(np.uint16), expected.view(np.uint16))
