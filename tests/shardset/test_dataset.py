import importlib
import multiprocessing
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from torchvision import transforms
from torchvision.datasets import CIFAR10

from pipeline import ShardDataset, load_stats, open_shards
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError, InputError
from tests.helpers.cifar_format import CLASSES
from tests.helpers.shard_sets import make_params

MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module")
def root(tiny_raw, tmp_path_factory):
    """Shard sets of the tiny dataset, in shards of 30 samples, one folder a dtype."""
    root = tmp_path_factory.mktemp("reader")
    write_stats(tiny_raw, root / "stats.json")
    for dtype in ("float32", "float16", "uint8"):
        params = make_params(dtype=dtype, samples_per_shard=30)
        normalize_shards(tiny_raw, root / "stats.json", root / dtype, params)
    return root


@pytest.fixture(scope="module")
def torchvision_dataset(tiny, root, tmp_path_factory):
    """torchvision's own dataset of the same files, with the transforms that the shards stand for."""
    path = tmp_path_factory.mktemp("torchvision")
    tiny.install_reader(path)
    source = tiny.write_files(path / "source")
    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*load_stats(root / "stats.json"))])

    def dataset(split, transform=normalize, **kwargs):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(path)
            lists = importlib.import_module("tiny_reader").Tiny
        return type("Tiny", (lists, CIFAR10), {})(source, train=split == "train", transform=transform, **kwargs)

    return dataset


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_are_those_of_torchvision_one_by_one_and_in_batches(split, dtype, preload, root, torchvision_dataset):
    theirs = torchvision_dataset(split)
    with warnings.catch_warnings(action="error"), ShardDataset(root / dtype, split, preload=preload) as ours:
        assert len(ours) == len(theirs)
        loaded = next(iter(DataLoader(ours, batch_size=len(ours))))
        for index, (image, label) in enumerate(theirs):
            for read in (ours[index], (loaded[0][index], int(loaded[1][index]))):
                assert read[0].dtype == torch.float32
                assert read[0].numpy().tobytes() == image.numpy().tobytes()
                assert type(read[1]) is int
                assert read[1] == label
        assert (ours.classes, ours.class_to_idx, ours.targets) == (theirs.classes, theirs.class_to_idx, theirs.targets)


def test_float16_samples_are_the_float32_ones_rounded(root):
    rounded, exact = (next(iter(DataLoader(ShardDataset(root / dtype), 100)))[0] for dtype in ("float16", "float32"))
    assert torch.equal(rounded, exact.half().float())


def test_indices_are_those_of_a_list(root):
    dataset = ShardDataset(root / "float32")
    for index in (-1, -100, np.int64(-1), torch.tensor(99)):
        assert torch.equal(dataset[index][0], dataset[int(index) % 100][0])
    assert len(list(dataset)) == 100
    for index in (100, -101, 2**63, 2**64 - 1):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 100 samples"):
            dataset[index]
    with pytest.raises(TypeError):
        dataset[0.5]


@pytest.mark.parametrize("preload", [False, True])
def test_a_shuffled_epoch_gives_every_sample_once_in_fresh_memory(preload, root):
    dataset = ShardDataset(root / "float32", preload=preload)
    expected = sorted(image.numpy().tobytes() for image, _ in dataset)
    batches = list(DataLoader(dataset, batch_size=32, shuffle=True))
    assert [len(labels) for _, labels in batches] == [32, 32, 32, 4]
    assert sorted(image.numpy().tobytes() for images, _ in batches for image in images) == expected
    batches[0][0].zero_()  # writable, and not the file
    assert sorted(image.numpy().tobytes() for image, _ in dataset) == expected


@pytest.mark.parametrize("split", ["train", "test"])
def test_transforms_are_called_as_by_torchvision(split, root, torchvision_dataset):
    flip = transforms.functional.hflip
    theirs = torchvision_dataset(
        split,
        transforms.Compose([transforms.ToTensor(), transforms.Normalize(*load_stats(root / "stats.json")), flip]),
        target_transform=str,
    )
    ours = ShardDataset(root / "float32", split, transform=flip, target_transform=str)
    for (image, label), (expected, expected_label) in zip(ours, theirs, strict=True):
        assert torch.equal(image, expected)
        assert label == expected_label
    images, labels = next(iter(DataLoader(ours, batch_size=10)))
    assert images.shape == (10, 3, 32, 32)
    assert labels == tuple(theirs[i][1] for i in range(10))


def test_inside_the_datasets_and_samplers_of_torch(root):
    train, test = ShardDataset(root / "float32"), ShardDataset(root / "float32", "test")
    alone = list(train)

    def read(dataset, **kwargs):
        return [
            (image, int(label))
            for images, labels in DataLoader(dataset, 7, **kwargs)
            for image, label in zip(images, labels, strict=True)
        ]

    def same(samples, expected):
        assert len(samples) == len(expected)
        for (image, label), (expected_image, expected_label) in zip(samples, expected, strict=True):
            assert torch.equal(image, expected_image)
            assert label == expected_label

    same(read(Subset(train, [5, 99, 31, 5])), [alone[i] for i in (5, 99, 31, 5)])
    same(read(Subset(Subset(train, range(10, 90)), torch.tensor([3, 4]))), [alone[13], alone[14]])
    same(read(ConcatDataset([train, test])), alone + list(test))
    first, second = random_split(train, [0.7, 0.3], torch.Generator().manual_seed(0))
    same(read(first), [alone[i] for i in first.indices])
    same(read(second), [alone[i] for i in second.indices])
    stacked = next(iter(DataLoader(StackDataset(train, TensorDataset(torch.arange(100))), 100)))
    assert torch.equal(stacked[0][0], torch.stack([image for image, _ in alone]))
    halves = [DistributedSampler(train, num_replicas=2, rank=rank, seed=3) for rank in (0, 1)]
    order = [list(sampler) for sampler in halves]
    assert sorted(order[0] + order[1]) == list(range(100))
    for sampler, indices in zip(halves, order, strict=True):
        same(read(train, sampler=sampler), [alone[i] for i in indices])
    named = DataLoader(
        train, batch_size=4, collate_fn=lambda samples: {"x": [s[0] for s in samples], "n": len(samples)}
    )
    assert next(iter(named))["n"] == 4


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_workers_give_the_same_batches_however_they_are_started(start, dtype, root):
    dataset = ShardDataset(root / dtype)
    expected = list(DataLoader(dataset, batch_size=16))
    loaded = list(DataLoader(dataset, batch_size=16, num_workers=2, multiprocessing_context=start))
    assert len(loaded) == len(expected)
    for (images, labels), (expected_images, expected_labels) in zip(loaded, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("preload", [False, True])
def test_a_pickled_dataset_is_its_path_and_not_its_samples(preload, root, monkeypatch):
    dataset = ShardDataset(root / "float32", "test", target_transform=str, preload=preload)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 4000  # the path, the settings and the manifest
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    assert (len(again), again[3][1]) == (20, dataset[3][1])
    assert torch.equal(again[3][0], dataset[3][0])


def test_mean_and_std_are_those_that_were_used_and_denormalize_undoes_them(tiny, root):
    for dtype in ("float32", "uint8"):
        dataset = ShardDataset(root / dtype)
        assert (dataset.mean, dataset.std) == load_stats(root / "stats.json")
        images = next(iter(DataLoader(dataset, batch_size=100)))[0]
        assert np.array_equal((dataset.denormalize(images) * 255).round().to(torch.uint8).numpy(), tiny.train[0])
        assert torch.equal(dataset.denormalize(images[3]), dataset.denormalize(images)[3])


def test_shards_that_were_not_normalized_give_pixels_in_0_to_1(tiny, tiny_raw):
    dataset = ShardDataset(tiny_raw)
    assert torch.equal(dataset[7][0], torch.from_numpy(tiny.train[0][7]) / 255)
    assert torch.equal(dataset.denormalize(dataset[7][0]), dataset[7][0])


def test_what_is_closed_can_be_replaced_and_not_be_read(root, tmp_path):
    shutil.copytree(root / "float32", tmp_path / "set")
    for preload in (False, True):
        with ShardDataset(tmp_path / "set", preload=preload) as dataset:
            image = dataset[0][0].clone()
            batch = next(iter(DataLoader(dataset, batch_size=2)))[0]
        with pytest.raises(IndexError):
            dataset[0]
        assert torch.equal(batch[0], image)
        if MAPS.exists():
            assert str(tmp_path) not in MAPS.read_text()


@pytest.mark.parametrize("verify", ["size", "hash"])
@pytest.mark.parametrize("fault", ["missing", "short", "header"])
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_bad_shard_is_named_at_once(kind, fault, verify, root, tmp_path):
    path = shutil.copytree(root / "float32", tmp_path / "set") / f"train/{kind}-00001-of-00004.npy"
    content = path.read_bytes()
    path.unlink()
    if fault != "missing":
        path.write_bytes(content[:-1] if fault == "short" else content.replace(b"'descr': '<", b"'descr': '>"))
    with pytest.raises(CorruptDataError, match=f"train/{kind}-00001-of-00004.npy: "):
        ShardDataset(tmp_path / "set", verify=verify)
    assert len(ShardDataset(tmp_path / "set", "test", verify=verify)) == 20


def test_a_flipped_bit_is_found_by_hash_and_a_short_shard_always(root, tmp_path):
    path = shutil.copytree(root / "float32", tmp_path / "set") / "train/images-00001-of-00004.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert len(ShardDataset(tmp_path / "set")) == 100
    with pytest.raises(CorruptDataError, match="train/images-00001-of-00004.npy: expected SHA-256"):
        ShardDataset(tmp_path / "set", verify="hash")
    path.write_bytes(content[:-1])
    for verify in ("size", None):
        with pytest.raises(CorruptDataError, match="images-00001-of-00004.npy: expected 368,768 bytes, got 368,767"):
            ShardDataset(tmp_path / "set", verify=verify)


def test_what_does_not_exist_is_named(root, tmp_path):
    with pytest.raises(InputError, match="split: should be one of 'train', 'test', got 'valid'"):
        ShardDataset(root / "float32", "valid")
    with pytest.raises(InputError, match="verify: should be one of 'size', 'hash', None, got 'md5'"):
        ShardDataset(root / "float32", verify="md5")
    with pytest.raises(CorruptDataError, match="manifest.json: missing"):
        ShardDataset(tmp_path)


def test_without_torch_there_are_numpy_arrays_and_the_manifest(root, tiny):
    shards = open_shards(str(root / "uint8"))
    images = np.concatenate([shards.images(shard) for shard in shards.shards("train")])
    assert np.array_equal(images, tiny.train[0])
    assert np.array_equal(shards.labels("train"), tiny.train[1])
    assert shards.manifest.classes == CLASSES


class Doubled(ShardDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return 2 * image, label


def test_a_pickled_dataset_is_still_what_it_was(root):
    dataset = Doubled(root / "float32", "test")
    dataset.name = "mine"
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.name == "mine"
    assert torch.equal(copy[3][0], dataset[3][0])


def test_what_a_subclass_does_with_a_sample_is_done_in_batches_too(root):
    dataset = Doubled(root / "float32", "test")
    doubled = 2 * torch.stack([image for image, _ in ShardDataset(root / "float32", "test")])
    for batches in (DataLoader(dataset, 20), DataLoader(Subset(dataset, range(20)), 20)):
        images, _ = next(iter(batches))
        assert torch.equal(images, doubled)


def test_files_stay_mapped_while_they_are_read(root):
    dataset = ShardDataset(root / "float32", "test")
    rows = dataset._rows  # as another thread has them in the middle of a read
    dataset.close()
    assert torch.equal(rows[dataset._row_of_sample[3]], ShardDataset(root / "float32", "test")[3][0].flatten())


def test_a_pickled_dataset_takes_no_other_set_than_its_own(tiny_raw, root, tmp_path):
    normalize_shards(tiny_raw, root / "stats.json", tmp_path / "shards", make_params())
    pickled = pickle.dumps(ShardDataset(tmp_path / "shards"))
    normalize_shards(tiny_raw, root / "stats.json", tmp_path / "shards", make_params(scheme="unit"))
    with pytest.raises(CorruptDataError, match="another set has taken its place"):
        pickle.loads(pickled)


def test_a_collate_function_may_take_slices_of_a_batch(root):
    with_slices = DataLoader(ShardDataset(root / "float32", "test"), 8, collate_fn=lambda batch: list(batch[2:4]))
    samples = next(iter(with_slices))
    assert [image.shape for image, _ in samples] == [(3, 32, 32)] * 2


def test_indices_that_are_no_whole_numbers_are_refused(root):
    with pytest.raises(TypeError, match="whole numbers, got float64"):
        ShardDataset(root / "float32", "test").__getitems__([1.7])
