"""On the real CIFAR-10, where PIPELINE_SOURCE names a folder that holds it."""

import hashlib
import json

import numpy as np
import pytest
import torch
import yaml

from pipeline.params import load_params
from pipeline.sources.registry import DATASETS
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset import ShardDataset, open_shards, verify_shards
from tests.helpers.shard_sets import audit, download, make_params
from tests.helpers.workspace import REPOSITORY

pytestmark = [pytest.mark.real, pytest.mark.slow]

SCHEMES = ("dataset", "dataset_per_image", "imagenet", "symmetric", "unit", "custom")


@pytest.fixture(scope="module")
def run_dir(cifar10_source, tmp_path_factory):
    """A folder with the raw set and stats.json of the real dataset."""
    path = tmp_path_factory.mktemp("real")
    download("cifar10", path / "raw", path / "archives", cifar10_source)
    write_stats(path / "raw", path / "stats.json")
    return path


@pytest.fixture(scope="module")
def tensors(cifar10_source):
    """torchvision's own `CIFAR10[i]` through `ToTensor()` for every i, with the labels, by split."""
    from torchvision import datasets, transforms

    by_split = {}
    for split in ("train", "test"):
        dataset = datasets.CIFAR10(cifar10_source, train=split == "train", transform=transforms.ToTensor())
        images = torch.empty(len(dataset), 3, 32, 32)
        labels = torch.empty(len(dataset), dtype=torch.int64)
        for index, (image, label) in enumerate(dataset):
            images[index], labels[index] = image, label
        by_split[split] = images, labels
    return by_split


def assert_equal_bits(ours, expected):
    bits = f"u{ours.itemsize}"
    assert ours.dtype == expected.dtype
    assert np.array_equal(ours.view(bits), expected.view(bits))


def test_content_hash_is_that_of_torchvision_samples(cifar10_source):
    from torchvision import datasets

    content = hashlib.sha256()
    for is_train in (True, False):
        for image, label in datasets.CIFAR10(cifar10_source, train=is_train):
            pixels = np.asarray(image).transpose(2, 0, 1)  # CHW
            content.update(hashlib.sha256(pixels.tobytes()).digest())
            content.update(label.to_bytes(8, "little"))
    assert content.hexdigest() == DATASETS["cifar10"].content_sha256


def test_raw_set_verifies_and_has_the_content_hash(run_dir, cifar10_source):
    from torchvision import datasets

    manifest = verify_shards(run_dir / "raw").manifest
    assert manifest.content_sha256 == DATASETS["cifar10"].content_sha256
    assert {split: of_split.samples for split, of_split in manifest.splits.items()} == {"train": 50_000, "test": 10_000}
    assert list(manifest.classes) == datasets.CIFAR10(cifar10_source).classes


def test_statistics_are_the_known_ones(run_dir):
    stats = json.loads((run_dir / "stats.json").read_bytes())
    rounded = {
        name: [round(stats[name][channel], 8) for channel in ("red", "green", "blue")] for name in ("mean", "std")
    }
    assert rounded == {"mean": [0.49139968, 0.48215841, 0.44653091], "std": [0.24703223, 0.24348513, 0.26158784]}
    per_image = [round(stats["std_per_image"][channel], 7) for channel in ("red", "green", "blue")]
    assert per_image == [0.2022021, 0.1993154, 0.2008635]


def test_statistics_are_the_committed_ones(run_dir):
    assert (run_dir / "stats.json").read_bytes() == (REPOSITORY / "data/stats.json").read_bytes()


def test_audit_is_the_one_in_git_and_in_the_lock(run_dir):
    ignore = str(REPOSITORY / str(load_params(REPOSITORY / "params.yaml").audit.ignore))
    summary = audit(run_dir / "raw", run_dir / "audit", ignore=ignore)
    assert f"data/audit: {summary}" in (REPOSITORY / "README.md").read_text().splitlines()
    assert (run_dir / "audit.json").read_bytes() == (REPOSITORY / "data/audit.json").read_bytes()
    files = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.name}
        for path in sorted((run_dir / "audit").iterdir())
    ]
    lock = yaml.safe_load((REPOSITORY / "dvc.lock").read_text())["stages"]["audit"]
    md5 = {out["path"]: out["md5"] for out in lock["outs"]}["data/audit"]
    assert md5 == f"{hashlib.md5(json.dumps(files).encode()).hexdigest()}.dir"  # as DVC hashes folders


@pytest.mark.parametrize(("page", "dtype"), [("README.md", "float32"), ("docs/releasing.md", "uint8")])
def test_docs_show_what_the_commands_print(page, dtype, run_dir, tmp_path):
    params = make_params(dtype=dtype)
    shards = normalize_shards(run_dir / "raw", run_dir / "stats.json", tmp_path / "shards", params).summary()
    lines = (REPOSITORY / page).read_text().splitlines()
    assert f"data/shards: {shards}: every file matches the manifest" in lines
    if page == "README.md":
        assert f"data/raw: {open_shards(run_dir / 'raw').manifest.summary()}" in lines
        assert f"data/shards: {shards}" in lines


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_value_is_that_of_torchvision(scheme, run_dir, tensors, tmp_path):
    from torchvision import transforms

    normalize_shards(run_dir / "raw", run_dir / "stats.json", tmp_path / "shards", make_params(scheme=scheme))
    shards = open_shards(tmp_path / "shards")
    normalize = transforms.Normalize(shards.manifest.normalization.mean, shards.manifest.normalization.std)
    for split, (images, labels) in tensors.items():
        assert np.array_equal(shards.labels(split), labels.numpy())
        for shard, start, stop in shards.ranges(split):
            assert_equal_bits(shards.images(shard), normalize(images[start:stop]).numpy())


def test_float16_is_the_float32_value_rounded_to_even(run_dir, tensors, tmp_path):
    from torchvision import transforms

    normalize_shards(run_dir / "raw", run_dir / "stats.json", tmp_path / "shards", make_params(dtype="float16"))
    shards = open_shards(tmp_path / "shards")
    normalize = transforms.Normalize(shards.manifest.normalization.mean, shards.manifest.normalization.std)
    for split, (images, _) in tensors.items():
        for shard, start, stop in shards.ranges(split):
            assert_equal_bits(shards.images(shard), normalize(images[start:stop]).half().numpy())


def test_raw_samples_are_those_of_torchvision(run_dir, tensors):
    for split, (images, labels) in tensors.items():
        dataset = ShardDataset(run_dir / "raw", split)
        assert list(dataset.targets) == labels.tolist()
        for start in range(0, len(dataset), 1000):
            batch, _ = dataset[list(range(start, start + 1000))]
            assert torch.equal(batch, images[start : start + 1000])
