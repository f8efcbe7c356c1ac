"""Datasets of torchvision, compared with what torchvision itself reads from the same files."""

import errno
import json
import os
import sys
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.errors import PipelineError
from pipeline.runtime.tasks import imap_on_threads
from pipeline.sources.images.torchvision import read_torchvision
from shardset.errors import InputError
from shardset.manifest import Preparation
from shardset.shards import verify_shards
from tests.helpers.file_server import FileServer, serve
from tests.helpers.torchvision_files import (
    WRITERS,
    usps_file,
    write_clevr,
    write_dtd,
    write_food101,
    write_image,
    write_mnist,
    write_stl10,
    write_svhn,
    write_usps,
)
from tests.helpers.workspace import REPOSITORY, Workspace, assert_fails, assert_succeeds, hash_files

pytestmark = pytest.mark.slow  # torchvision takes seconds to import

# How each class is asked for its splits.
BY_TRAIN = {"train": {"train": True}, "test": {"train": False}}
IN_TWO = {"train": {"split": "train"}, "test": {"split": "test"}}
IN_THREE = {split: {"split": split} for split in ("train", "val", "test")}
SPLITS: dict[str, dict[str, dict]] = {
    "MNIST": BY_TRAIN,
    "FashionMNIST": BY_TRAIN,
    "KMNIST": BY_TRAIN,
    "QMNIST": BY_TRAIN,
    "USPS": BY_TRAIN,
    "SVHN": IN_TWO,
    "STL10": IN_TWO,
    "Food101": IN_TWO,
    "GTSRB": IN_TWO,
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
    "Imagenette": {"train": {"split": "train"}, "val": {"split": "val"}},
    "DTD": IN_THREE,
    "FGVCAircraft": IN_THREE,
    "RenderedSST2": IN_THREE,
    "Country211": IN_THREE | {"val": {"split": "valid"}},
    "EuroSAT": {"train": {}},
    "SUN397": {"train": {}},
    "Caltech101": {"train": {}},
}
# Of the images of the classes that have only one size.
SIZES = {"USPS": 16, "EuroSAT": 64, "SVHN": 32, "STL10": 96, "RenderedSST2": 56} | dict.fromkeys(
    ("MNIST", "FashionMNIST", "KMNIST", "QMNIST"), 28
)


def prepare(size, resize=None, orientation="ignore") -> Preparation:
    return Preparation(resize=resize, size=size, filter="bilinear", orientation=orientation, background="white")


def read(name, source, preparation):
    """Read from a folder, which must stay as it is."""
    before = hash_files(source), sorted(source.rglob("*"))
    try:
        opened = read_torchvision(name, source.parent / "archives" / name, str(source), preparation)
        return opened.store(source.parent / f"work-{os.urandom(8).hex()}")
    finally:
        assert (hash_files(source), sorted(source.rglob("*"))) == before
        assert not (source.parent / "archives").exists()


def labels_of(samples, split):
    return samples.reader.labels(split, 0, samples.num_samples[split])


def read_all(samples, split):
    blocks = [*samples.reader.blocks(split, 0, samples.num_samples[split], imap_on_threads)]
    return np.concatenate([pixels for pixels, _ in blocks]), [fact for _, facts in blocks for fact in facts]


def assert_equal_to_torchvision(samples, name, source, size, resize):
    from torchvision import datasets
    from torchvision.transforms import functional

    assert list(samples.num_samples) == list(SPLITS[name])
    assert samples.names is None
    for split, arguments in SPLITS[name].items():
        expected = getattr(datasets, name)(str(source), **arguments)
        order = [*range(len(expected))]
        if name == "SUN397":
            order.sort(key=lambda index: expected._image_files[index])
        pairs = [expected[index] for index in order]
        images = [image.copy() for image, _ in pairs]
        assert labels_of(samples, split).tolist() == [label for _, label in pairs]
        assert labels_of(samples, split).dtype == np.int64
        if resize:
            images = [functional.center_crop(functional.resize(image, resize), size) for image in images]
        pixels, facts = read_all(samples, split)
        assert np.array_equal(pixels, [functional.pil_to_tensor(image).numpy() for image in images])
        assert [fact.problem for fact in facts] == [None] * len(pixels)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", WRITERS)
def test_native_files_are_read_as_by_torchvision(name, source):
    WRITERS[name](source)
    resize, size = (None, SIZES[name]) if name in SIZES else (24, 20)
    samples = read(name, source, prepare(size, resize))
    assert_equal_to_torchvision(samples, name, source, size, resize)
    is_grey = name.endswith("MNIST") or name == "USPS"
    assert samples.image_shape == (1 if is_grey else 3, size, size)
    assert samples.channels == (("grey",) if is_grey else ("red", "green", "blue"))


@pytest.mark.parametrize("write", [write_svhn, write_stl10])
def test_files_with_published_hashes_are_read_as_by_torchvision(write, source, monkeypatch):
    """These classes check MD5s before they read, so those of the tiny files take the place of the published ones."""
    from torchvision import datasets

    md5 = write(source)
    if write is write_svhn:
        name = "SVHN"
        splits = {split: ["", f"{split}_32x32.mat", md5[f"{split}_32x32.mat"]] for split in ("train", "test")}
        monkeypatch.setattr(datasets.SVHN, "split_list", splits)
    else:
        name = "STL10"
        for table in ("train_list", "test_list"):
            names = [file for file, _ in getattr(datasets.STL10, table)]
            monkeypatch.setattr(datasets.STL10, table, [[file, md5[file]] for file in names])
    samples = read(name, source, prepare(SIZES[name]))
    assert_equal_to_torchvision(samples, name, source, SIZES[name], None)
    assert samples.classes == tuple(str(i) if name == "SVHN" else f"name {i}" for i in range(10))


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("USPS", tuple("0123456789")),  # has no names
        ("GTSRB", ("0", "1")),
        ("FashionMNIST", ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag")),
        ("Imagenette", ("tench, Tinca tinca", "parachute, chute")),
        ("Caltech101", ("Faces", "ant")),
        ("OxfordIIITPet", ("Abyssinian", "Great Pyrenees")),
    ],
)
def test_class_names_are_those_of_torchvision(name, classes, source):
    WRITERS[name](source)
    assert read(name, source, prepare(8, 9)).classes[: len(classes)] == classes


def test_files_without_an_order_are_sorted(source):
    WRITERS["SUN397"](source)
    labels = labels_of(read("SUN397", source, prepare(8, 9)), "train")
    assert labels.tolist() == [0] * 10 + [1] * 10


def test_images_are_converted_like_your_own(source):
    write_food101(source)
    path = source / "food-101/images/carrot_cake/9.jpg"  # the first of train
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(path) as image:
        image.save(path, exif=turned)
        assert image.size == (40, 30)
        expected = np.moveaxis(np.asarray(ImageOps.exif_transpose(Image.open(path)).crop((5, 10, 25, 30))), 2, 0)
    pixels, facts = read_all(read("Food101", source, prepare(20, 30, "exif")), "train")
    assert (facts[0].orientation, facts[0].width, facts[0].height) == (6, 40, 30)
    assert np.array_equal(pixels[0], expected)


def test_grey_file_among_coloured_ones_is_repeated(source):
    WRITERS["Caltech101"](source)
    path = source / "caltech101/101_ObjectCategories/Faces/image_0001.jpg"
    Image.new("L", (40, 30), 77).save(path)
    pixels, facts = read_all(read("Caltech101", source, prepare(8, 9)), "train")
    assert (pixels[0] == 77).all()
    assert pixels.shape == (4, 3, 8, 8)
    assert [fact.mode for fact in facts] == ["L", "RGB", "RGB", "RGB"]


def test_damaged_file_is_a_problem_of_its_sample(source):
    write_food101(source)
    path = source / "food-101/images/carrot_cake/8.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    pixels, facts = read_all(read("Food101", source, prepare(20, 20)), "train")
    assert [index for index, fact in enumerate(facts) if fact.problem] == [1]
    assert facts[1].problem.startswith("food-101/images/carrot_cake/8.jpg: image file is truncated")
    assert not pixels[1].any()
    path.write_bytes(b"<html>")
    assert "not an image" in read_all(read("Food101", source, prepare(20, 20)), "train")[1][1].problem


def test_split_without_labels_is_left_out(source, caplog):
    write_clevr(source)
    with caplog.at_level("INFO"):
        samples = read("CLEVRClassification", source, prepare(8, 9))
    assert {split: labels_of(samples, split).tolist() for split in samples.num_samples} == {
        "train": [0, 1, 2],
        "val": [0, 1, 2],
    }
    assert "Left out: test, which has no labels" in caplog.messages


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FashionMnist", "did you mean FashionMNIST?"),
        ("Nothing", "an example is FashionMNIST"),
        ("CocoDetection", "has no dataset of this name whose samples are an image and a class"),
        ("FakeData", "has no dataset of this name"),
        ("VisionDataset", "has no dataset of this name"),
        ("wrap_dataset_for_transforms_v2", "has no dataset of this name"),
        ("ImageNet", "set dataset to images, and images.source to the folder"),
        ("EMNIST", "its argument split has no value that means train"),
    ],
)
def test_unusable_class_is_rejected(name, words, source):
    with pytest.raises(InputError) as raised:
        read(name, source, prepare(28))
    message = str(raised.value)
    assert message.startswith(f"torchvision:{name}: ")
    assert words in message
    assert "\n" not in message


def test_samples_of_another_kind_are_rejected(source):
    (source / "MovingMNIST").mkdir()
    np.save(source / "MovingMNIST/mnist_test_seq.npy", np.zeros((20, 2, 64, 64), np.uint8))
    with pytest.raises(InputError, match=r"train sample 0: should be an image and an int, got Tensor$"):
        read("MovingMNIST", source, prepare(64))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MNIST", "Dataset not found"),
        ("USPS", "/usps.bz2: No such file or directory"),
        ("SVHN", "Dataset not found or corrupted"),
        ("Caltech101", "Dataset not found or corrupted"),  # creates a folder even so
        ("FER2013", "train.csv not found in"),
    ],
)
def test_missing_files_are_named(name, reason, source):
    with pytest.raises(InputError) as raised:
        read(name, source, prepare(28))
    message = str(raised.value)
    assert message.startswith(f"source {source}: no usable {name}: ")
    assert reason in message
    assert message.endswith(". The source should be the folder that torchvision calls root.")
    assert "download=True" not in message
    with pytest.raises(InputError, match="no such folder"):
        read_torchvision(name, source / "archives", str(source / "nowhere"), prepare(28))


def test_missing_split_is_rejected(source):
    write_usps(source)
    (source / "usps.t.bz2").unlink()
    with pytest.raises(InputError, match=r"no usable USPS: .*/usps\.t\.bz2: No such file or directory"):
        read("USPS", source, prepare(16))


def test_missing_image_is_named(source):
    write_food101(source)
    (source / "food-101/images/baklava/9.jpg").unlink()
    with pytest.raises(InputError, match=r"no usable Food101: .*/baklava/9\.jpg: No such file or directory"):
        read("Food101", source, prepare(8, 9))


def test_missing_library_is_named(source, monkeypatch):
    WRITERS["Caltech101"](source)
    monkeypatch.setitem(sys.modules, "scipy", None)  # so that importing it fails
    with pytest.raises(InputError, match=r"torchvision needs scipy for it: pip install scipy$"):
        read("Caltech101", source, prepare(8, 9))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that can't be read")
def test_failing_disk_is_not_reported_as_unusable_files(source):
    write_food101(source)
    path = source / "food-101/images/baklava/9.jpg"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # opens, but reading at 0 gives EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as raised:
        read_torchvision("Food101", source / "archives", str(source), prepare(8, 9))
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(path))


@pytest.mark.parametrize("content", [b"", b"BZh9 no bzip2", usps_file(0)[:200]])
def test_damaged_files_are_rejected(content, source):
    write_usps(source)
    (source / "usps.bz2").write_bytes(content)
    with pytest.raises(InputError, match=r"^source .*: .*USPS.* [^\n]*$"):
        read("USPS", source, prepare(16))


def test_classes_numbered_by_split_are_rejected(source):
    """The labels of DTD are places in the list of the classes that its split has."""
    write_dtd(source)
    labels_path = source / "dtd/dtd/labels/test1.txt"
    labels_path.write_text("\n".join(labels_path.read_text().splitlines()[1:]))
    with pytest.raises(InputError, match=r"^torchvision:DTD can't be used: test: other class names than train$"):
        read("DTD", source, prepare(8, 9))


def test_wrong_size_without_resize_says_what_to_set(source):
    write_mnist(source, "MNIST")
    with pytest.raises(InputError) as raised:
        read("MNIST", source, prepare(32))
    assert str(raised.value) == (
        "with images.resize null all images should be 32 x 32 pixels, as images.size says, but 30 of 30 are not: "
        "28 x 28 (30): set images.size to 28 in params.yaml"
    )
    write_food101(source)
    write_image(source / "food-101/images/carrot_cake/9.jpg", size=(50, 50))
    with pytest.raises(InputError, match=r"12 of 12 are not: 40 x 30 \(11\), 50 x 50 \(1\): set images\.resize, for"):
        read("Food101", source, prepare(32))


def test_native_size_is_suggested_when_images_are_resized(source, caplog):
    write_mnist(source, "MNIST")
    caplog.set_level("INFO")
    read("MNIST", source, prepare(28))
    assert not caplog.messages
    read("MNIST", source, prepare(224, 256))
    assert caplog.messages[0].endswith("set images.size to 28 and images.resize to null")


@pytest.fixture
def usps_server(monkeypatch):
    """A server from which torchvision's USPS downloads both of its files."""
    import hashlib

    from torchvision import datasets

    with serve(FileServer(usps_file(0))) as server:
        md5 = hashlib.md5(server.content).hexdigest()
        files = {"train": [server.url, "usps.bz2", md5], "test": [server.url, "usps.t.bz2", md5]}
        monkeypatch.setattr(datasets.USPS, "split_list", files)
        yield server


def test_download_is_kept(usps_server, tmp_path, capfd, monkeypatch):
    from torchvision import datasets

    @wraps(datasets.USPS.__init__)
    def init(*args, opened=datasets.USPS.__init__, **kwargs):
        print("Using downloaded and verified file")  # as older versions do
        opened(*args, **kwargs)

    monkeypatch.setattr(datasets.USPS, "__init__", init)
    root = tmp_path / "archives/USPS"
    samples = read_torchvision("USPS", root, None, prepare(16))
    assert {split: len(labels) for split, labels in samples.labels.items()} == {"train": 10, "test": 10}
    assert sorted(path.name for path in root.iterdir()) == ["usps.bz2", "usps.t.bz2"]
    assert [path.name for path in root.parent.iterdir()] == ["USPS"]
    num_requests = len(usps_server.requests)
    read_torchvision("USPS", root, None, prepare(16))
    assert len(usps_server.requests) == num_requests
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("failure", ["refused", "cut", "changed"])
def test_failed_download_leaves_nothing(failure, usps_server, tmp_path):
    usps_server.statuses = [200, 200, 404] if failure == "refused" else []
    usps_server.cuts = [10_000, 100] if failure == "cut" else []
    usps_server.content += b"x" if failure == "changed" else b""
    with pytest.raises(
        PipelineError, match=r"^torchvision could not download USPS: [^\n]*set PIPELINE_SOURCE to the f"
    ):
        read_torchvision("USPS", tmp_path / "archives/USPS", None, prepare(16))
    assert [*(tmp_path / "archives").iterdir()] == []
    if failure != "changed":
        assert len(read_torchvision("USPS", tmp_path / "archives/USPS", None, prepare(16)).labels["train"]) == 10


def test_damaged_download_says_to_remove_it(usps_server, tmp_path):
    root = tmp_path / "archives/USPS"
    read_torchvision("USPS", root, None, prepare(16))
    (root / "usps.bz2").unlink()
    with pytest.raises(InputError, match=rf"^{root}: no usable USPS: .* Remove the folder to download it again\.$"):
        read_torchvision("USPS", root, None, prepare(16))


def test_class_that_cannot_download_says_so(tmp_path):
    for name, error, words in (
        ("FER2013", InputError, "torchvision:FER2013: torchvision can't download it: get the files elsewhere and set "),
        ("StanfordCars", PipelineError, "torchvision could not download StanfordCars: The original URL is broken"),
    ):
        with pytest.raises(error, match=words):
            read_torchvision(name, tmp_path / name, None, prepare(8, 9))


@pytest.fixture
def command(tmp_path):
    """Run `download` in a folder of its own, with the params of this repository except for the given lines."""

    def run(dataset, *arguments, **env):
        text = (REPOSITORY / "params.yaml").read_text()
        for old, new in (
            ("dataset: cifar10", f"dataset: torchvision:{dataset}"),
            ("size: 224", "size: 28"),
            ("resize: 256", "resize: null"),
        ):
            assert text.count(old) == 1
            text = text.replace(old, new)
        (tmp_path / "params.yaml").write_text(text)
        env |= {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"}
        return Workspace(tmp_path).run(sys.executable, "-m", "pipeline", "download", *arguments, **env)

    return run


def test_command_stores_a_dataset_of_torchvision(command, source, tmp_path):
    write_mnist(source, "MNIST")
    stdout = assert_succeeds(command("MNIST", "--source", str(source)))
    assert stdout == "data/raw: torchvision:MNIST, 20 train, 10 test, 1x28x28 uint8, 0 MB in 2 shards\n"
    manifest = verify_shards(tmp_path / "data/raw").manifest
    assert manifest.classes[0] == "0 - zero"
    assert manifest.files == ()
    assert json.loads((tmp_path / "data/raw/manifest.json").read_text())["preparation"]["resize"] is None


def test_command_explains_errors_in_one_line(command, source):
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    for done, exit_code, words in (
        (command("MNIST", "--source", str(source)), 2, "no usable MNIST: Dataset not found. The source should be"),
        (command("MNIST", **offline), 1, "torchvision could not download MNIST: Error downloading train-images"),
    ):
        assert_fails(done, exit_code, "Error: ", words)
        assert sum(line.startswith("Error: ") for line in done.stderr.splitlines()) == 1
        assert done.stderr.splitlines()[-1].startswith("Error: ")
