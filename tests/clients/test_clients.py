"""Each client gets the right samples, and docs/reuse.md shows the code that it was tried with."""

import ast
import inspect

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset import ShardDataset
from tests.clients import CLIENTS
from tests.clients.table import PAGE, find_table, read_ratios, render_table
from tests.helpers.shard_sets import make_params

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # those of the clients are not ours
]

NEED_PIXELS = {
    "AugMix": {},
    "AutoAugment": {},
    "ColorJitter": {"brightness": 0.2},
    "GaussianNoise": {},
    "RandAugment": {},
    "RandomAdjustSharpness": {"sharpness_factor": 2, "p": 1},
    "RandomAutocontrast": {"p": 1},
    "RandomEqualize": {"p": 1},
    "RandomPhotometricDistort": {"p": 1},
    "RandomPosterize": {"bits": 4, "p": 1},
    "RandomSolarize": {"threshold": 0.5, "p": 1},
    "TrivialAugmentWide": {},
}
WORK_ON_NORMALIZED_IMAGES = {
    "GaussianBlur": {"kernel_size": 3},
    "RandomAffine": {"degrees": 10},
    "RandomCrop": {"size": 32, "padding": 4},
    "RandomErasing": {"p": 1},
    "RandomGrayscale": {"p": 1},
    "RandomHorizontalFlip": {"p": 1},
    "RandomRotation": {"degrees": 15},
}


@pytest.fixture(scope="module")
def sets(tiny_raw, tmp_path_factory):
    """A folder with shard sets of the tiny dataset, float32 and uint8, in shards of 30 samples."""
    path = tmp_path_factory.mktemp("sets")
    write_stats(tiny_raw, path / "stats.json")
    for dtype in ("float32", "uint8"):
        normalize_shards(tiny_raw, path / "stats.json", path / dtype, make_params(dtype=dtype, samples_per_shard=30))
    return path


def run_epoch(client, ds):
    """Return the images and labels that a client's model gets in an epoch."""
    batches: list[tuple[np.ndarray, np.ndarray]] = []
    client.epoch(ds, lambda images, labels: batches.append((np.array(images), np.array(labels))))
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels


def find_samples(images, expected):
    """The position in `expected` of each image, which has to be there up to rounding."""
    distances = np.stack([abs(expected - image).max(axis=(1, 2, 3)) for image in images])
    assert distances.min(axis=1).max() < 1e-5
    return distances.argmin(axis=1)


@pytest.mark.parametrize("name", CLIENTS)
def test_client_gets_the_right_samples(name, sets):
    client = CLIENTS[name]
    pytest.importorskip(client.package)
    if client.package == "transformers":
        pytest.importorskip("accelerate")  # its Trainer needs it
    normalized = ShardDataset(sets / "uint8" if client.pixels else sets / "float32")
    expected_images, expected_labels = (tensor.numpy() for tensor in normalized.tensors())
    ds = ShardDataset(sets / "uint8", normalize=False) if client.pixels else normalized
    images, labels = run_epoch(client, ds)
    assert images.dtype == np.float32
    if client.check == "sums":
        np.testing.assert_allclose(images.sum(0), expected_images.sum(0), rtol=0, atol=1e-3)
        np.testing.assert_allclose(labels.sum(0), np.bincount(expected_labels, minlength=10), rtol=1e-4)
        return
    found = find_samples(images, expected_images)
    assert (labels == expected_labels[found]).all()
    if client.check == "each sample":
        assert len(set(np.bincount(found, minlength=len(ds)))) == 1


@pytest.mark.parametrize("name", CLIENTS)
def test_code_of_the_table_is_that_of_the_client(name):
    client = CLIENTS[name]
    tree = ast.parse(inspect.getsource(inspect.getmodule(client.epoch)))
    (function,) = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == client.epoch.__name__
    ]
    function.decorator_list = []
    assert ast.unparse(ast.parse(client.code)) in ast.unparse(function)


def test_table_lists_the_clients_and_their_speeds():
    page = PAGE.read_text(encoding="utf-8")
    ratios = read_ratios(page)
    assert find_table(page) == render_table(ratios)  # see tests/clients/__main__.py
    assert all(float(ratios[client.name]) > 0 for client in CLIENTS.values() if client.loops)


def transform_each(name, arguments, images):
    """Apply a v2 transform to each image on its own, with a fixed seed."""
    from torchvision.transforms import v2

    transform = getattr(v2, name)(**arguments)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.stack([transform(image) for image in images])


@pytest.mark.parametrize("name", NEED_PIXELS)
def test_transform_needs_pixels(name, sets):
    normalized, _ = ShardDataset(sets / "uint8").tensors()
    assert transform_each(name, NEED_PIXELS[name], normalized).std() < 0.8 * normalized.std()
    pixels, _ = ShardDataset(sets / "uint8", normalize=False).tensors()
    transformed = transform_each(name, NEED_PIXELS[name], pixels)
    assert transformed.dtype == torch.uint8
    assert transformed.float().std() > 0.8 * pixels.float().std()
    assert name in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", WORK_ON_NORMALIZED_IMAGES)
def test_transform_works_on_normalized_images(name, sets):
    normalized, _ = ShardDataset(sets / "uint8").tensors()
    transformed = transform_each(name, WORK_ON_NORMALIZED_IMAGES[name], normalized)
    assert transformed.min() < 0.5 * normalized.min() < 0
    assert transformed.max() > 0.5 * normalized.max() > 0
    assert name in PAGE.read_text(encoding="utf-8")


def test_timm_casts_normalized_images(sets):
    pytest.importorskip("timm")
    ds = ShardDataset(sets / "uint8")
    expected, _ = ds.tensors()
    images, _ = run_epoch(CLIENTS["timm `create_loader`"], ds)
    assert abs(images - expected.numpy()).max() > 1  # silently


class Doubled:
    """A wrapper that forwards all attributes."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        image, label = self.samples[index]
        return image * 2, label

    def __getattr__(self, name):
        return getattr(self.samples, name)


class CarefullyDoubled(Doubled):
    def __getattr__(self, name):
        if name.startswith("__") or name == "samples":
            raise AttributeError(name)
        return getattr(self.samples, name)


@pytest.mark.parametrize(("wrapper", "factor"), [(Doubled, 1), (CarefullyDoubled, 2)])
def test_wrapper_that_forwards_all_attributes_is_bypassed(wrapper, factor, sets):
    ds = ShardDataset(sets / "float32")
    ((images, _),) = DataLoader(wrapper(ds), batch_size=len(ds))
    assert torch.equal(images, ds.tensors()[0] * factor)
    assert wrapper(ds).classes == ds.classes
