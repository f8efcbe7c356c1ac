import hashlib
import mmap
import pickle
import shutil
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from pipeline.runtime.tasks import imap_on_threads
from pipeline.sources.images.catalog import read_catalog
from pipeline.sources.images.decode import Header
from pipeline.sources.images.samples import ImageSource, check_sizes, choose_mode
from pipeline.sources.images.stored_catalog import LARGE_PIXELS
from shardset.errors import InputError
from shardset.manifest import Preparation
from shardset.threads import ignore
from tests.helpers.image_files import make_image_folder, make_parquet, make_tar, make_zip, save_picture

requires_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")


def prepare(resize: int | None = 20, size=16, orientation="exif"):
    return Preparation(resize=resize, size=size, filter="bilinear", orientation=orientation, background="white")


@pytest.fixture
def open_samples(tmp_path_factory):
    """Open and store the images of a source."""

    def run(path, preparation=None):
        preparation = preparation or prepare()
        catalog = read_catalog(path, ignore)
        catalog.check(path)
        source = ImageSource(catalog, choose_mode(catalog.sample_headers(), preparation), preparation)
        return source.store(tmp_path_factory.mktemp("work") / "source")

    return run


def read_split(samples, split="train", start=0, stop=None, imap=imap_on_threads):
    """Pixels, (N, C, H, W), and facts."""
    stop = samples.num_samples[split] if stop is None else stop
    blocks = [*samples.reader.blocks(split, start, stop, imap)]
    return np.concatenate([pixels for pixels, _ in blocks]), [fact for _, facts in blocks for fact in facts]


@pytest.mark.parametrize("pack", [None, make_tar, make_zip])
def test_samples_equal_those_of_torchvision_in_its_order(open_samples, pack, tmp_path):
    root = make_image_folder(tmp_path / "source", ("train", "test"), ("b", "a", "C"), each=4)
    samples = open_samples(pack(root, tmp_path / "archive") if pack else root, prepare(orientation="ignore"))
    transform = Compose([Resize(20), CenterCrop(16), PILToTensor()])
    for split in ("train", "test"):
        folder = ImageFolder(str(root / split), transform)
        pixels, facts = read_split(samples, split)
        np.testing.assert_array_equal(pixels, np.stack([image.numpy() for image, _ in folder]))
        assert samples.reader.labels(split, 0, len(folder)).tolist() == folder.targets
        assert samples.classes == tuple(folder.classes)
        for (path, _), name, fact in zip(folder.samples, samples.names[split], facts, strict=True):
            assert path == str(root / name)
            assert fact.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
            with Image.open(path) as image:
                assert (fact.width, fact.height, fact.mode) == (*image.size, "RGB")
            assert (fact.orientation, fact.problem, fact.has_more_frames) == (1, None, False)


def test_part_of_a_split_is_the_same(open_samples, tmp_path):
    samples = open_samples(make_image_folder(tmp_path / "source", ("",), each=20))
    pixels, facts = read_split(samples)
    for start, stop, imap in ((7, 30, imap_on_threads), (0, 9, map), (39, 40, map)):
        part, part_facts = read_split(samples, "train", start, stop, imap)
        np.testing.assert_array_equal(part, pixels[start:stop])
        assert part_facts == facts[start:stop]
        assert samples.reader.labels("train", start, stop).tolist() == ([0] * 20 + [1] * 20)[start:stop]


@pytest.mark.parametrize(
    ("modes", "channels"),
    [
        (("L", "L"), ("grey",)),
        (("L", "1"), ("grey",)),
        (("L", "LA"), ("grey",)),
        (("L", "RGB"), ("red", "green", "blue")),
    ],
)
def test_grey_stays_grey_only_if_all_images_are(open_samples, modes, channels, tmp_path):
    for number, mode in enumerate(modes):
        save_picture(tmp_path / f"class/{number}.png", 1, (20, 20), mode)
    samples = open_samples(tmp_path, prepare(None, 20))
    assert (samples.channels, samples.image_shape) == (channels, (len(channels), 20, 20))
    pixels, _ = read_split(samples)
    grey = np.asarray(Image.open(tmp_path / "class/0.png"))
    assert (pixels[0] == grey).all()
    # torchvision makes three channels of all.
    assert ImageFolder(str(tmp_path), PILToTensor())[0][0].shape == (3, 20, 20)


def test_unreadable_image_is_black_and_told(open_samples, tmp_path):
    path = save_picture(tmp_path / "cat/2.jpg", 1, (200, 200))
    path.write_bytes(path.read_bytes()[:-200])
    save_picture(tmp_path / "cat/1.jpg", 1)
    (tmp_path / "cat/3.jpg").write_text("text")
    samples = open_samples(tmp_path)
    pixels, facts = read_split(samples)
    assert [bool(image.any()) for image in pixels] == [True, False, False]
    assert [fact.problem and fact.problem[:20] for fact in facts] == [
        None,
        "image file is trunca",
        "not an image of a kn",
    ]
    assert (facts[1].width, facts[1].mode) == (200, "RGB")


def test_unreadable_image_is_not_read_again(open_samples, tmp_path):
    save_picture(tmp_path / "cat/1.jpg", 1)
    (tmp_path / "cat/2.jpg").write_text("text")
    samples = open_samples(tmp_path)
    (tmp_path / "cat/2.jpg").unlink()
    assert read_split(samples)[1][1].problem.startswith("not an image")
    (tmp_path / "cat/1.jpg").unlink()
    with pytest.raises(FileNotFoundError) as raised:
        read_split(samples)
    assert raised.value.filename == str(tmp_path / "cat/1.jpg")


@requires_proc
def test_fault_of_the_disk_names_the_file(open_samples, tmp_path):
    save_picture(tmp_path / "cat/1.jpg", 1)
    samples = open_samples(tmp_path)
    (tmp_path / "cat/1.jpg").unlink()
    (tmp_path / "cat/1.jpg").symlink_to("/proc/self/mem")  # whose first bytes can't be read
    with pytest.raises(OSError, match="Input/output error") as raised:
        read_split(samples)
    assert raised.value.filename == "cat/1.jpg"


def test_reader_is_small_whatever_the_number_of_images(open_samples, tmp_path):
    """Each task on a cluster carries one."""
    (tmp_path / "few/a").mkdir(parents=True)
    save_picture(tmp_path / "few/a/1.png", 1, (16, 16))
    for number in range(300):
        path = tmp_path / f"many/class with a long name {number}/1.png"
        path.parent.mkdir(parents=True)
        path.symlink_to(tmp_path / "few/a/1.png")
    sizes = [len(pickle.dumps(open_samples(source).reader)) for source in (tmp_path / "few", tmp_path / "many")]
    assert sizes[0] == sizes[1] - len("many") + len("few")
    assert len(pickle.dumps(open_samples(make_zip(tmp_path / "many", tmp_path / "many.zip")).reader)) < 1500


@pytest.mark.parametrize("pack", [None, make_tar, make_zip, make_parquet])
def test_worker_without_the_source_is_told_the_path(pack, open_samples, tmp_path):
    root = make_image_folder(tmp_path / "source", ("train",))
    source = pack(root, tmp_path / "packed") if pack else root
    samples = open_samples(source)
    facts = msgspec.msgpack.encode(read_split(samples)[1])
    source.rename(tmp_path / "elsewhere")
    message = f"^source {source}: not found on .*: all workers need the same files, under the same path$"
    with pytest.raises(InputError, match=message):
        read_split(samples)
    with pytest.raises(InputError, match=message):
        samples.reader.is_unchanged("train", 0, 6, facts, map)


@pytest.mark.parametrize("pack", [None, make_tar, make_zip, make_parquet])
def test_facts_of_unchanged_files_are_proven(pack, open_samples, tmp_path):
    root = make_image_folder(tmp_path / "source", ("train",))
    damaged = root / "train/cat/1.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    (root / "train/dog/2.jpg").write_text("text")

    def open_packed():
        if (tmp_path / "packed").is_dir():
            shutil.rmtree(tmp_path / "packed")
        return open_samples(pack(root, tmp_path / "packed") if pack else root)

    samples = open_packed()
    facts = read_split(samples)[1]
    assert [bool(fact.problem) for fact in facts] == [False, True, False, False, False, True]
    of_all, of_some = msgspec.msgpack.encode(facts), msgspec.msgpack.encode(facts[1:4])
    assert open_packed().reader.is_unchanged("train", 0, 6, of_all, imap_on_threads)
    assert samples.reader.is_unchanged("train", 1, 4, of_some, map)
    assert not samples.reader.is_unchanged("train", 0, 3, of_some, map)
    for name in ("train/cat/1.jpg", "train/dog/2.jpg", "train/cat/0.jpg"):
        before = (root / name).read_bytes()
        save_picture(root / name, 50)
        assert not open_packed().reader.is_unchanged("train", 0, 6, of_all, imap_on_threads)
        (root / name).write_bytes(before)


def header(width, height):
    return Header("PNG", "RGB", width, height)


@pytest.mark.parametrize(
    ("sizes", "remedy"),
    [
        ([(16, 16), (20, 16)], "1 of 2 are not: 16 x 16 (1), 20 x 16 (1): set images.resize, for example to 16"),
        ([(20, 20)] * 3, "3 of 3 are not: 20 x 20 (3): set images.size to 20"),
        ([(20, 10)] * 3, "3 of 3 are not: 20 x 10 (3): set images.resize, for example to 16"),
        (
            [(9, n) for n in range(1, 9)] + [(9, 8)],
            "9 of 9 are not: 9 x 8 (2), 9 x 1 (1), 9 x 2 (1), 9 x 3 (1), 9 x 4 (1), ...: set images.resize",
        ),
    ],
)
def test_other_sizes_are_told_with_counts_if_not_resized(sizes, remedy):
    headers = [header(*size) for size in sizes]
    message = "with images.resize null all images should be 16 x 16 pixels, as images.size says, but "
    with pytest.raises(InputError) as raised:
        check_sizes(headers, prepare(None))
    assert str(raised.value).startswith(message + remedy)
    check_sizes(headers, prepare())
    check_sizes([header(16, 16)], prepare(None))
    check_sizes([], prepare(None))


def test_sizes_are_checked_before_decoding(open_samples, tmp_path):
    path = save_picture(tmp_path / "cat/1.jpg", 1, (200, 200))
    path.write_bytes(path.read_bytes()[:-200])  # can't be decoded
    with pytest.raises(InputError, match=r"1 of 1 are not: 200 x 200 \(1\): set images.size to 200 in params.yaml$"):
        open_samples(tmp_path, prepare(None))


@requires_proc
@pytest.mark.slow
def test_large_images_are_decoded_one_at_a_time(open_samples, tmp_path, monkeypatch):
    """With several at once the memory would grow by 150 MB for each."""
    monkeypatch.setenv("PIPELINE_THREADS", "6")
    side = int(LARGE_PIXELS**0.5) + 1
    (tmp_path / "cat").mkdir()
    for number in range(6):
        Image.new("RGB", (side, side), "red").save(tmp_path / f"cat/{number}.jpg")
    samples = open_samples(tmp_path)
    before, peak, is_done = resident_bytes(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not is_done.is_set():
            peak = max(peak, resident_bytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        read_split(samples)
    finally:
        is_done.set()
        watcher.join()
    assert 100e6 < peak - before < 300e6


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
