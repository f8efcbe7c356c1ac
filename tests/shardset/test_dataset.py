import copy
import gc
import hashlib
import io
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)

from pipeline.shards.writer import save_manifest
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset import ShardDataset, load_stats, open_shards
from shardset.errors import CorruptDataError, InputError
from shardset.manifest import SetFile, Shard, SplitShards
from tests.helpers.image_files import make_image_folder
from tests.helpers.shard_sets import download, make_manifest, make_params

MAPS = Path("/proc/self/maps")
CARD_FILES = ("README.md", "croissant.json")


@pytest.fixture(scope="module")
def normalized_dir(tiny_raw, tmp_path_factory):
    """A folder with shard sets of the tiny dataset, in shards of 30 samples, one for each dtype, and stats.json."""
    path = tmp_path_factory.mktemp("normalized")
    write_stats(tiny_raw, path / "stats.json")
    for dtype in ("float32", "float16", "uint8"):
        normalize_shards(tiny_raw, path / "stats.json", path / dtype, make_params(dtype=dtype, samples_per_shard=30))
    return path


@pytest.fixture
def float32_copy(normalized_dir, tmp_path):
    """A copy of the float32 set, to be damaged by one test."""
    return shutil.copytree(normalized_dir / "float32", tmp_path / "set")


CHOSEN = [7, 99, 31, 0, 30]  # from each shard, not in order


@pytest.fixture(scope="module")
def chosen_path(tmp_path_factory):
    """A list of some samples of train, each with a remark."""
    path = tmp_path_factory.mktemp("chosen") / "chosen.csv"
    path.write_text("index,remark\n" + "".join(f"{index},keep\n" for index in CHOSEN))
    return path


@pytest.fixture(scope="module")
def torchvision_dataset(tiny, normalized_dir, tmp_path_factory):
    """torchvision's own dataset of the same files, by default with the transforms that the shards stand for."""
    from torchvision import transforms  # imported here, so that a run without the slow tests starts fast
    from torchvision.datasets import CIFAR10

    source = tiny.write_files(tmp_path_factory.mktemp("torchvision") / "source")
    files = tiny.facts().archive.files
    lists = {f"{split}_list": [[*item] for item in batches.items()] for split, batches in files.batches.items()}
    meta = {"filename": files.meta[0], "md5": files.meta[1], "key": files.classes_key}
    reader = type("Tiny", (CIFAR10,), {"base_folder": files.folder, "meta": meta, **lists})
    stats = load_stats(normalized_dir / "stats.json")
    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*stats)])

    def make_dataset(split, transform=normalize, **kwargs):
        return reader(source, train=split == "train", transform=transform, **kwargs)

    return make_dataset


def flip_bit(path):
    """Flip the lowest bit of the last value of 8 bytes, which turns a label into another valid one."""
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)


def assert_same_samples(samples, expected):
    assert len(samples) == len(expected)
    for (image, label), (expected_image, expected_label) in zip(samples, expected, strict=True):
        assert torch.equal(image, expected_image)
        assert label == expected_label


def load_samples(dataset, **kwargs):
    """Read a dataset in batches of 7, as single samples."""
    return [
        (image, int(label))
        for images, labels in DataLoader(dataset, 7, **kwargs)
        for image, label in zip(images, labels, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_equal_those_of_torchvision(split, dtype, preload, normalized_dir, torchvision_dataset):
    theirs = torchvision_dataset(split)
    with (
        warnings.catch_warnings(action="error"),
        ShardDataset(normalized_dir / dtype, split, preload=preload) as ours,
    ):
        assert len(ours) == len(theirs)
        loaded = next(iter(DataLoader(ours, batch_size=len(ours))))
        for index, (image, label) in enumerate(theirs):
            for read in (ours[index], (loaded[0][index], int(loaded[1][index]))):
                assert read[0].dtype == torch.float32
                assert read[0].numpy().tobytes() == image.numpy().tobytes()
                assert type(read[1]) is int
                assert read[1] == label
        assert (list(ours.classes), ours.class_to_idx) == (theirs.classes, theirs.class_to_idx)
        assert list(ours.targets) == theirs.targets


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_transforms_are_called_as_by_torchvision(split, normalized_dir, torchvision_dataset):
    from torchvision import transforms

    flip = transforms.functional.hflip
    stats = load_stats(normalized_dir / "stats.json")
    theirs = torchvision_dataset(
        split,
        transforms.Compose([transforms.ToTensor(), transforms.Normalize(*stats), flip]),
        target_transform=str,
    )
    ours = ShardDataset(normalized_dir / "float32", split, transform=flip, target_transform=str)
    assert_same_samples(ours, theirs)
    images, labels = next(iter(DataLoader(ours, batch_size=10)))
    assert images.shape == (10, 3, 32, 32)
    assert labels == tuple(theirs[i][1] for i in range(10))


def test_float16_samples_are_float32_ones_rounded(normalized_dir):
    rounded, exact = (
        next(iter(DataLoader(ShardDataset(normalized_dir / dtype), 100)))[0] for dtype in ("float16", "float32")
    )
    assert torch.equal(rounded, exact.half().float())


def test_raw_samples_are_pixels_scaled_to_unit_range(tiny, tiny_raw):
    dataset = ShardDataset(tiny_raw)
    assert torch.equal(dataset[7][0], torch.from_numpy(tiny.train[0][7]) / 255)
    assert torch.equal(dataset.denormalize(dataset[7][0]), dataset[7][0])


def test_mean_and_std_are_those_of_stats_json(normalized_dir):
    for dtype in ("float32", "uint8"):
        dataset = ShardDataset(normalized_dir / dtype)
        assert (dataset.mean, dataset.std) == load_stats(normalized_dir / "stats.json")


def test_denormalize_gives_the_pixels_back(tiny, normalized_dir):
    for dtype in ("float32", "uint8"):
        dataset = ShardDataset(normalized_dir / dtype)
        images = next(iter(DataLoader(dataset, batch_size=100)))[0]
        assert np.array_equal((dataset.denormalize(images) * 255).round().to(torch.uint8).numpy(), tiny.train[0])
        assert torch.equal(dataset.denormalize(images[3]), dataset.denormalize(images)[3])


def test_denormalize_refuses_integers(normalized_dir):
    dataset = ShardDataset(normalized_dir / "uint8", normalize=False)
    with pytest.raises(TypeError, match=r"denormalize: images should be normalized floats, got torch\.uint8"):
        dataset.denormalize(dataset[0][0])


@pytest.mark.parametrize("default", [torch.float16, torch.float64])
def test_default_dtype_of_torch_changes_nothing(default, normalized_dir):
    dataset = ShardDataset(normalized_dir / "uint8")
    expected = dataset[0][0]
    pixels = dataset.denormalize(expected.double())
    torch.set_default_dtype(default)
    try:
        assert torch.equal(dataset[0][0], expected)
        assert torch.equal(default_collate(dataset.__getitems__([0]))[0][0], expected)
        assert torch.equal(dataset.denormalize(expected.double()), pixels)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_tensors_hold_all_samples_in_order(dtype, preload, normalized_dir):
    dataset = ShardDataset(normalized_dir / dtype, preload=preload)
    images, labels = dataset.tensors()
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal(images, torch.stack([image for image, _ in dataset]))
    assert labels.tolist() == list(dataset.targets)
    expected = images.clone()
    images.zero_()
    labels.zero_()
    assert torch.equal(dataset.tensors()[0], expected)
    assert dataset.tensors()[1].tolist() == list(dataset.targets)


@pytest.mark.parametrize("preload", [False, True])
def test_pixels_are_those_of_the_source(preload, tiny, tiny_raw, normalized_dir):
    for shards_dir in (tiny_raw, normalized_dir / "uint8"):
        dataset = ShardDataset(shards_dir, normalize=False, preload=preload)
        pixels = torch.from_numpy(tiny.train[0])
        batch = next(iter(DataLoader(dataset, 100)))[0]
        for images in (torch.stack([image for image, _ in dataset]), batch, dataset.tensors()[0]):
            assert images.dtype == torch.uint8
            assert torch.equal(images, pixels)


def test_transform_gets_pixels_without_normalizing(tiny, tiny_raw):
    dataset = ShardDataset(tiny_raw, normalize=False, transform=lambda image: image.flip(-1))
    assert torch.equal(next(iter(DataLoader(dataset, 100)))[0], torch.from_numpy(tiny.train[0]).flip(-1))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pixels_of_normalized_values_are_refused(dtype, normalized_dir):
    with pytest.raises(InputError, match=rf"normalize: False needs pixels, .*{dtype} values.* `dtype: uint8`"):
        ShardDataset(normalized_dir / dtype, normalize=False)


def test_targets_and_classes_are_cheap_and_refuse_changes(normalized_dir):
    dataset = ShardDataset(normalized_dir / "float32")
    assert dataset.targets is dataset.targets
    for name, key in (("targets", 0), ("classes", 0), ("class_to_idx", dataset.classes[0])):
        with pytest.raises(TypeError):
            getattr(dataset, name)[key] = 9
        with pytest.raises(AttributeError):
            setattr(dataset, name, [9])


@pytest.mark.parametrize("preload", [False, True])
def test_each_split_of_a_set_is_read_in_order(preload, split_set, split_images):
    for split in split_set.manifest.splits:
        dataset = ShardDataset(split_set.dir, split, preload=preload, verify="hash")
        images, labels = next(iter(DataLoader(dataset, batch_size=100)))
        assert torch.equal(images, torch.from_numpy(split_images[split]) / 255)
        assert labels.tolist() == list(dataset.targets) == [index % 2 for index in range(len(split_images[split]))]


@pytest.mark.parametrize("make_copy", [lambda dataset: dataset, lambda dataset: pickle.loads(pickle.dumps(dataset))])
@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_indices_choose_samples_in_their_order(dtype, preload, make_copy, normalized_dir, chosen_path):
    train = ShardDataset(normalized_dir / dtype)
    expected = [train[index] for index in CHOSEN]
    dataset = make_copy(ShardDataset(normalized_dir / dtype, preload=preload, indices=chosen_path, verify="hash"))
    assert len(dataset) == 5
    assert_same_samples(list(dataset), expected)
    assert_same_samples(load_samples(dataset), expected)
    assert_same_samples([dataset[-1], *dataset.__getitems__([-2, 0])], [expected[-1], expected[-2], expected[0]])
    assert torch.equal(dataset.tensors()[0], torch.stack([image for image, _ in expected]))
    assert dataset.tensors()[1].tolist() == list(dataset.targets) == [label for _, label in expected]
    with pytest.raises(IndexError, match="index 5 is out of range for 5 samples"):
        dataset[5]


@pytest.mark.slow
def test_indices_reach_spawned_workers(normalized_dir, chosen_path):
    train = ShardDataset(normalized_dir / "uint8")
    dataset = ShardDataset(normalized_dir / "uint8", indices=chosen_path)
    samples = load_samples(dataset, num_workers=1, multiprocessing_context="spawn")
    assert_same_samples(samples, [train[index] for index in CHOSEN])


def test_pickled_dataset_needs_no_list(normalized_dir, tmp_path):
    (tmp_path / "list.csv").write_text("index\n3\n")
    pickled = pickle.dumps(ShardDataset(normalized_dir / "uint8", indices=tmp_path / "list.csv"))
    (tmp_path / "list.csv").unlink()
    assert torch.equal(pickle.loads(pickled)[0][0], ShardDataset(normalized_dir / "uint8")[3][0])


def test_preload_keeps_only_the_chosen_images(normalized_dir, chosen_path):
    dataset = ShardDataset(normalized_dir / "uint8", preload=True, indices=chosen_path)
    assert [len(images) for images in dataset._data._images] == [5]


def test_sources_are_those_of_the_chosen_samples(tmp_path):
    download("images", tmp_path / "raw", tmp_path, make_image_folder(tmp_path / "pictures"))
    (tmp_path / "list.csv").write_text("split,index\nval,4\nval,0\n")
    dataset = ShardDataset(tmp_path / "raw", "val", indices=tmp_path / "list.csv")
    assert dataset.sources == ("val/dog/1.jpg", "val/cat/0.jpg")


def test_indices_of_another_split_are_refused(normalized_dir, chosen_path):
    with pytest.raises(InputError, match=r"chosen\.csv, line 3: index should be an integer from 0 to 19 .*, got '99'$"):
        ShardDataset(normalized_dir / "float32", "test", indices=chosen_path)


def test_absent_split_is_refused(split_set):
    splits = split_set.manifest.splits
    for absent in {"val", "test", "valid"} - set(splits):
        allowed = ", ".join(map(repr, splits))
        with pytest.raises(InputError, match=f"^split: should be one of {allowed}, got '{absent}'$"):
            ShardDataset(split_set.dir, absent)


def test_unknown_verify_is_refused(normalized_dir):
    with pytest.raises(InputError, match="verify: should be one of 'size', 'hash', None, got 'md5'"):
        ShardDataset(normalized_dir / "float32", verify="md5")


def test_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(CorruptDataError, match="manifest.json: missing, so .* is not a complete shard set"):
        ShardDataset(tmp_path)


def test_repr_names_dataset_split_and_shape(normalized_dir, split_set, chosen_path):
    assert repr(ShardDataset(normalized_dir / "float16", "test")) == (
        "<ShardDataset tiny test: 20 samples, (3, 32, 32) float16>"
    )
    assert repr(ShardDataset(normalized_dir / "uint8", indices=chosen_path)) == (
        "<ShardDataset tiny train: 5 of 100 samples, (3, 32, 32) uint8>"
    )
    for split, size in (("train", 25), ("val", 12), ("test", 7)):
        if split in split_set.manifest.splits:
            expected = f"<ShardDataset made {split}: {size} samples, (3, 32, 32) uint8>"
            assert repr(ShardDataset(split_set.dir, split)) == expected


def test_manifest_is_that_of_the_set(normalized_dir):
    manifest = ShardDataset(normalized_dir / "float32", "test").manifest
    assert manifest == open_shards(normalized_dir / "float32").manifest
    assert manifest.splits["train"].samples == 100
    assert manifest.normalization.scheme == "dataset"


def test_index_counts_as_in_a_list(normalized_dir):
    dataset = ShardDataset(normalized_dir / "float32")
    for index in (-1, -100, np.int64(-1), torch.tensor(99)):
        assert torch.equal(dataset[index][0], dataset[int(index) % 100][0])
    assert len(list(dataset)) == 100


@pytest.mark.parametrize("index", [100, -101, 2**63, 2**64 - 1])
def test_index_out_of_range_raises_index_error(index, normalized_dir):
    with pytest.raises(IndexError, match=f"index {index} is out of range for 100 samples"):
        ShardDataset(normalized_dir / "float32")[index]


def test_index_that_is_not_an_integer_is_refused(normalized_dir):
    dataset = ShardDataset(normalized_dir / "float32", "test")
    with pytest.raises(TypeError):
        dataset[0.5]
    with pytest.raises(TypeError, match=r"indices should be a sequence of integers, got float64 \(1,\)"):
        dataset.__getitems__([1.7])
    with pytest.raises(TypeError, match=r"indices should be a sequence of integers, got int64 \(1, 2\)"):
        dataset.__getitems__([[1, 2]])


@pytest.mark.parametrize("preload", [False, True])
def test_shuffled_epoch_has_every_sample_once(preload, normalized_dir):
    dataset = ShardDataset(normalized_dir / "float32", preload=preload)
    expected = sorted(image.numpy().tobytes() for image, _ in dataset)
    batches = list(DataLoader(dataset, batch_size=32, shuffle=True))
    assert [len(labels) for _, labels in batches] == [32, 32, 32, 4]
    assert sorted(image.numpy().tobytes() for images, _ in batches for image in images) == expected


@pytest.mark.parametrize("preload", [False, True])
def test_writing_to_a_batch_leaves_the_dataset_alone(preload, normalized_dir):
    dataset = ShardDataset(normalized_dir / "float32", preload=preload)
    images, _ = next(iter(DataLoader(dataset, batch_size=32)))
    expected = images.clone()
    images.zero_()
    dataset[0][0].zero_()
    assert torch.equal(next(iter(DataLoader(dataset, batch_size=32)))[0], expected)


def test_subsets_of_torch_read_the_right_samples(normalized_dir):
    train = ShardDataset(normalized_dir / "float32")
    samples = list(train)
    assert_same_samples(load_samples(Subset(train, [5, 99, 31, 5])), [samples[i] for i in (5, 99, 31, 5)])
    nested = Subset(Subset(train, range(10, 90)), torch.tensor([3, 4]))
    assert_same_samples(load_samples(nested), [samples[13], samples[14]])
    for part in random_split(train, [0.7, 0.3], torch.Generator().manual_seed(0)):
        assert_same_samples(load_samples(part), [samples[i] for i in part.indices])


def test_combined_datasets_of_torch_read_the_right_samples(normalized_dir):
    train, test = ShardDataset(normalized_dir / "float32"), ShardDataset(normalized_dir / "float32", "test")
    assert_same_samples(load_samples(ConcatDataset([train, test])), list(train) + list(test))
    stacked = next(iter(DataLoader(StackDataset(train, TensorDataset(torch.arange(100))), 100)))
    assert torch.equal(stacked[0][0], torch.stack([image for image, _ in train]))


def test_distributed_samplers_share_all_samples(normalized_dir):
    train = ShardDataset(normalized_dir / "float32")
    samplers = [DistributedSampler(train, num_replicas=2, rank=rank, seed=3) for rank in (0, 1)]
    orders = [list(sampler) for sampler in samplers]
    assert sorted(orders[0] + orders[1]) == list(range(100))
    for sampler, order in zip(samplers, orders, strict=True):
        assert_same_samples(load_samples(train, sampler=sampler), [train[i] for i in order])


def test_collate_function_gets_all_samples_of_a_batch(normalized_dir):
    train = ShardDataset(normalized_dir / "float32")
    loader = DataLoader(train, 4, collate_fn=lambda samples: {"x": [s[0] for s in samples], "n": len(samples)})
    batch = next(iter(loader))
    assert batch["n"] == 4
    assert torch.equal(torch.stack(batch["x"]), torch.stack([train[i][0] for i in range(4)]))


def test_collate_function_may_slice_a_batch(normalized_dir):
    with_slices = DataLoader(
        ShardDataset(normalized_dir / "float32", "test"), 8, collate_fn=lambda batch: list(batch[2:4])
    )
    samples = next(iter(with_slices))
    assert [image.shape for image, _ in samples] == [(3, 32, 32)] * 2


def read_batch(dataset, batch_size=8, **kwargs):
    """Read the first batch as a collate_fn receives it."""
    return next(iter(DataLoader(dataset, batch_size, collate_fn=lambda batch: batch, **kwargs)))


def test_sample_of_a_batch_is_a_pytree_node(normalized_dir):
    dataset = ShardDataset(normalized_dir / "float32", "test")
    batch = read_batch(dataset)
    assert [type(leaf) for leaf in tree_leaves(batch[0])] == [torch.Tensor, int]
    assert torch.equal(tree_map(lambda leaf: leaf + 1, batch[0])[0], dataset[0][0] + 1)


@pytest.mark.slow
def test_v2_transform_in_a_collate_function_changes_images(normalized_dir):
    from torchvision.transforms import v2

    flip = v2.RandomHorizontalFlip(p=1.0)
    dataset = ShardDataset(normalized_dir / "float32", "test")
    loader = DataLoader(dataset, 8, collate_fn=lambda batch: default_collate([flip(sample) for sample in batch]))
    assert torch.equal(next(iter(loader))[0], dataset.tensors()[0][:8].flip(-1))


def test_changing_samples_in_a_collate_function_changes_the_batch(normalized_dir):
    def collate(batch):
        for image, _ in batch:
            image.mul_(2)
        batch[-1].image.zero_()
        return default_collate(batch)

    dataset = ShardDataset(normalized_dir / "float32", "test")
    expected = 2 * dataset.tensors()[0][:8]
    expected[7] = 0
    assert torch.equal(next(iter(DataLoader(dataset, 8, collate_fn=collate)))[0], expected)


def test_index_of_a_batch_that_is_not_an_integer_is_refused(normalized_dir):
    batch = read_batch(ShardDataset(normalized_dir / "float32", "test"))
    for index in ([0], 0.5, None):
        with pytest.raises(TypeError):
            batch[index]
    with pytest.raises(IndexError):
        batch[8]


@pytest.mark.parametrize("choose", [list, lambda batch: [batch[0]], lambda batch: batch[:2]])
def test_kept_sample_does_not_hold_its_batch(choose, normalized_dir):
    sample = choose(read_batch(ShardDataset(normalized_dir / "float32", "test")))[0]
    assert sample.image.untyped_storage().nbytes() == 3 * 32 * 32 * 4


def test_saved_sample_loads_with_weights_only(normalized_dir):
    sample = read_batch(ShardDataset(normalized_dir / "float32", "test"))[3]
    file = io.BytesIO()
    torch.save(sample, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert torch.equal(loaded[0], sample.image)
    assert loaded[1] == sample.label


@pytest.mark.slow
def test_batch_of_a_worker_is_made_in_shared_memory(normalized_dir):
    dataset = ShardDataset(normalized_dir / "uint8")

    def is_shared(batch):
        images, labels = default_collate(batch)
        return images.is_shared(), torch.equal(images, dataset.tensors()[0][:32]), labels.tolist()

    loader = DataLoader(dataset, 32, num_workers=1, collate_fn=is_shared, multiprocessing_context="fork")
    assert next(iter(loader)) == (True, True, list(dataset.targets[:32]))


@pytest.mark.slow
def test_batch_larger_than_shared_memory_raises(normalized_dir):
    script = f"""if True:
        from torch.utils.data import DataLoader
        from shardset import ShardDataset
        list(DataLoader(ShardDataset({str(normalized_dir / "float32")!r}), 100, num_workers=2))
    """
    small = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "sh", "-c", small], check=False).returncode:
        pytest.skip("needs the right to mount a small /dev/shm")
    command = ["unshare", "-m", "sh", "-c", f'{small} && exec "$@"', "sh", sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "No space left on device" in result.stderr


def test_batch_sampler_as_sampler_gives_batches(normalized_dir):
    for dataset in (
        ShardDataset(normalized_dir / "uint8", "test"),
        ShardDataset(normalized_dir / "uint8", "test", transform=lambda image: image),
    ):
        sampler = BatchSampler(SequentialSampler(dataset), 16, drop_last=False)
        batches = list(DataLoader(dataset, sampler=sampler, batch_size=None))
        assert [images.shape[0] for images, _ in batches] == [16, 4]
        assert torch.equal(torch.cat([images for images, _ in batches]), dataset.tensors()[0])
        assert torch.cat([labels for _, labels in batches]).tolist() == list(dataset.targets)


def test_empty_batch_has_no_samples(normalized_dir):
    assert list(ShardDataset(normalized_dir / "uint8").__getitems__([])) == []


@pytest.mark.slow
@pytest.mark.parametrize("start_method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_workers_give_the_same_batches(start_method, dtype, normalized_dir):
    dataset = ShardDataset(normalized_dir / dtype)
    expected = list(DataLoader(dataset, batch_size=16))
    loaded = list(DataLoader(dataset, batch_size=16, num_workers=2, multiprocessing_context=start_method))
    assert len(loaded) == len(expected)
    for (images, labels), (expected_images, expected_labels) in zip(loaded, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


class Doubled(ShardDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return 2 * image, label


def test_subclass_changes_samples_in_batches_too(normalized_dir):
    dataset = Doubled(normalized_dir / "float32", "test")
    doubled = 2 * torch.stack([image for image, _ in ShardDataset(normalized_dir / "float32", "test")])
    for batches in (DataLoader(dataset, 20), DataLoader(Subset(dataset, range(20)), 20)):
        images, _ = next(iter(batches))
        assert torch.equal(images, doubled)


@pytest.mark.parametrize("preload", [False, True])
def test_pickled_dataset_contains_no_images(preload, normalized_dir, monkeypatch):
    monkeypatch.chdir(normalized_dir)
    dataset = ShardDataset("float32", "test", target_transform=str, preload=preload)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 4000  # the path, the settings and the manifest
    monkeypatch.chdir("/")
    copied = pickle.loads(pickled)
    assert (len(copied), copied[3][1]) == (20, dataset[3][1])
    assert torch.equal(copied[3][0], dataset[3][0])


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux lists the mapped files")
@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))])
@pytest.mark.parametrize("preload", [False, True])
def test_copy_keeps_preload(preload, make_copy, float32_copy):
    copied = make_copy(ShardDataset(float32_copy, preload=preload))
    gc.collect()
    assert (str(float32_copy) in MAPS.read_text()) is not preload
    assert len(copied) == 100


def test_attributes_can_be_copied(normalized_dir):
    dataset = ShardDataset(normalized_dir / "float32")
    attributes = copy.deepcopy(dataset.__dict__)
    assert attributes.keys() == dataset.__dict__.keys()


class WithState(ShardDataset):
    """Copies its attributes as many classes do."""

    def __getstate__(self):
        return self.__dict__.copy()


@pytest.mark.slow
def test_subclass_with_its_own_state_works_in_spawned_workers(normalized_dir):
    dataset = WithState(normalized_dir / "float32")
    loader = DataLoader(dataset, 100, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(next(iter(loader))[0], dataset.tensors()[0])


def test_pickled_subclass_keeps_its_class_and_attributes(normalized_dir):
    dataset = Doubled(normalized_dir / "float32", "test")
    dataset.name = "mine"
    copied = pickle.loads(pickle.dumps(dataset))
    assert type(copied) is Doubled
    assert copied.name == "mine"
    assert torch.equal(copied[3][0], dataset[3][0])


def test_pickled_dataset_refuses_a_replaced_set(tiny_raw, normalized_dir, tmp_path):
    stats_path = normalized_dir / "stats.json"
    normalize_shards(tiny_raw, stats_path, tmp_path / "shards", make_params())
    pickled = pickle.dumps(ShardDataset(tmp_path / "shards"))
    normalize_shards(tiny_raw, stats_path, tmp_path / "shards", make_params(scheme="unit"))
    with pytest.raises(CorruptDataError, match="shards: was replaced by another set while it was being read"):
        pickle.loads(pickled)


@pytest.mark.parametrize("preload", [False, True])
def test_closed_dataset_raises_index_error(preload, float32_copy):
    with ShardDataset(float32_copy, preload=preload) as dataset:
        image = dataset[0][0].clone()
        batch = next(iter(DataLoader(dataset, batch_size=2)))[0]
    with pytest.raises(IndexError):
        dataset[0]
    assert len(dataset) == 0
    assert torch.equal(batch[0], image)


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux lists the mapped files")
@pytest.mark.parametrize("preload", [False, True])
def test_closed_dataset_maps_no_files(preload, float32_copy):
    with ShardDataset(float32_copy, preload=preload) as dataset:
        assert (str(float32_copy) in MAPS.read_text()) is not preload
        dataset[0]
    assert str(float32_copy) not in MAPS.read_text()


def test_files_stay_mapped_during_a_read(normalized_dir):
    dataset = ShardDataset(normalized_dir / "float32", "test")
    pieces = dataset._data._pieces  # as another thread holds them in the middle of a read
    dataset.close()
    images = np.empty((1, 3, 32, 32), np.float32)
    pieces.take(np.array([3]), images)
    assert torch.equal(torch.from_numpy(images[0]), ShardDataset(normalized_dir / "float32", "test")[3][0])


@pytest.mark.parametrize("verify", ["size", "hash", None])
@pytest.mark.parametrize("fault", ["missing", "short", "header"])
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_unreadable_shard_is_named_on_open(kind, fault, verify, float32_copy):
    path = float32_copy / f"train/{kind}-00001-of-00004.npy"
    content = path.read_bytes()
    path.unlink()
    if fault != "missing":
        path.write_bytes(content[:-1] if fault == "short" else content.replace(b"'descr': '<", b"'descr': '>"))
    with pytest.raises(CorruptDataError, match=f"train/{kind}-00001-of-00004.npy: "):
        ShardDataset(float32_copy, verify=verify)
    assert len(ShardDataset(float32_copy, "test", verify=verify)) == 20


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_flipped_bit_is_found_by_hash(kind, float32_copy):
    path = float32_copy / f"train/{kind}-00001-of-00004.npy"
    flip_bit(path)
    assert len(ShardDataset(float32_copy)) == 100
    with pytest.raises(CorruptDataError, match=f"train/{kind}-00001-of-00004.npy: expected SHA-256"):
        ShardDataset(float32_copy, verify="hash")


@pytest.mark.parametrize("verify", ["size", "hash", None])
def test_short_shard_is_found_by_size(verify, float32_copy):
    path = float32_copy / "train/images-00001-of-00004.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptDataError, match="images-00001-of-00004.npy: expected 368,768 bytes, got 368,767"):
        ShardDataset(float32_copy, verify=verify)


@pytest.mark.parametrize("split", ["train", "test"])
def test_hash_verification_rejects_an_unlisted_file(split, float32_copy):
    (float32_copy / "train/images-00004-of-00004.npy").touch()
    assert len(ShardDataset(float32_copy, split))
    with pytest.raises(CorruptDataError, match="train/images-00004-of-00004.npy: not in the manifest"):
        ShardDataset(float32_copy, split, verify="hash")


@pytest.mark.parametrize("name", CARD_FILES)
def test_hash_verification_rejects_a_changed_card(name, float32_copy):
    flip_bit(float32_copy / name)
    assert len(ShardDataset(float32_copy)) == 100
    with pytest.raises(CorruptDataError, match=f"{name}: expected SHA-256"):
        ShardDataset(float32_copy, verify="hash")


def write_tiny_shards(set_dir, num_shards):
    """Write a set with one image in each shard, whose pixels are 25 times its label. Nothing is synced, to be fast."""
    (set_dir / "train").mkdir(parents=True)
    shards = []
    for number in range(num_shards):
        label = np.array([number % 10])
        files = {}
        for kind, array in (("images", np.full((1, 1, 2, 2), 25 * label, np.uint8)), ("labels", label)):
            path = f"train/{kind}-{number:05d}-of-{num_shards:05d}.npy"
            np.save(set_dir / path, array)
            content = (set_dir / path).read_bytes()
            files[kind] = SetFile(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        shards.append(Shard(samples=1, **files))
    splits = {"train": SplitShards(samples=num_shards, shards=tuple(shards))}
    save_manifest(make_manifest(splits, image_shape=(1, 2, 2), channels=("grey",)), set_dir)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")
def test_thousands_of_shards_need_few_open_files(tmp_path):
    write_tiny_shards(tmp_path / "set", 2000)
    (tmp_path / "odd.csv").write_text("index\n" + "\n".join(map(str, range(1, 2000, 2))))
    script = f"""if True:
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        from torch.utils.data import DataLoader
        from shardset import ShardDataset
        for options in ({{"preload": True}}, {{"indices": {str(tmp_path / "odd.csv")!r}}}, {{"verify": "hash"}}):
            dataset = ShardDataset({str(tmp_path / "set")!r}, **options)
            loaders = [DataLoader(dataset, 64), DataLoader(dataset, 64, shuffle=True)]
            if "verify" in options:
                loaders.append(DataLoader(dataset, 64, num_workers=2, multiprocessing_context="spawn"))
            for batches in ([dataset.tensors()], *loaders):
                for number, (images, labels) in enumerate(batches):
                    assert (255 * images[:, 0, 0, 0] == 25 * labels).all()
                print(number, len(labels))
    """
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    all_samples, odd_ones = ["0 2000", "31 16", "31 16"], ["0 1000", "15 40", "15 40"]  # the last batch, and its size
    assert result.stdout.splitlines() == [*all_samples, *odd_ones, *all_samples, "31 16"], result.stderr


def test_numpy_arrays_are_available_without_torch(normalized_dir, tiny):
    shards = open_shards(str(normalized_dir / "uint8"))
    images = np.concatenate([shards.images(shard) for shard in shards.shards("train")])
    assert np.array_equal(images, tiny.train[0])
    assert np.array_equal(shards.labels("train"), tiny.train[1])
