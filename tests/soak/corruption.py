"""Silent corruption: bits, files and labels of a shard set that are not what was written."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random

import numpy as np
from msgspec.structs import replace

from pipeline import synthetic
from pipeline.card.card import CARD_NAME, CROISSANT_NAME
from pipeline.errors import PipelineError
from pipeline.params import NormalizeParams, ReportParams
from pipeline.stages.download import write_raw
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset.dataset import ShardDataset
from shardset.errors import CorruptDataError
from shardset.manifest import SPLITS, save_manifest
from shardset.shards import hash_content, open_shards, verify_shards, write_shards
from tests.helpers.shard_sets import save_card
from tests.soak import Experiment, WrongBytesError

PARAMS = NormalizeParams(scheme="dataset", mean=None, std=None, dtype="float32", samples_per_shard=20)
MANIFEST_BITS = 25_984


@cache
def whole_sets() -> Path:
    """A folder with raw, stats.json and shards of each dtype, all of them small, to be read only."""
    path = Path(tempfile.mkdtemp(prefix="soak-corruption-"))
    atexit.register(shutil.rmtree, path)
    splits = synthetic.generate({"train": 60, "test": 40})
    write_raw(path / "raw", "synthetic", synthetic.CLASSES, hash_content(splits[split] for split in SPLITS), splits)
    write_stats(path / "raw", path / "stats.json")
    for dtype in ("float32", "float16", "uint8"):
        normalize_shards(path / "raw", path / "stats.json", path / dtype, replace(PARAMS, dtype=dtype))
    return path


def expect_refusal(what: Callable[[], object], *names: str) -> None:
    """Raise AssertionError unless `what` ends in one of our errors that has all the names in it."""
    try:
        what()
    except CorruptDataError as error:
        message = str(error)
    else:
        raise WrongBytesError(f"{names} passed for right ones")
    assert all(name in message for name in names), f"{names} should be named: {message}"


def flip_each_bit_of_a_manifest(random: Random, path: Path) -> None:
    content = (whole_sets() / "float32/manifest.json").read_bytes()
    assert 8 * len(content) == MANIFEST_BITS, f"the manifest has {8 * len(content)} bits"
    manifest_path = path / "manifest.json"
    manifest_path.write_bytes(content)
    with manifest_path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(content):
            for written in (*(byte ^ 1 << bit for bit in range(8)), byte):
                file.seek(position)
                file.write(bytes([written]))
                if written != byte:
                    expect_refusal(partial(open_shards, path), str(manifest_path))
    open_shards(path)


def flip_a_bit(random: Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def cut_the_end(random: Random, path: Path) -> None:
    path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])


def zero_a_page(random: Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = random.randrange(len(content) - 1)
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    if content == path.read_bytes():
        content[start] = 1
    path.write_bytes(content)


def swap_two_samples(random: Random, path: Path) -> None:
    array = np.load(path)
    one, other = next((i, j) for i in range(len(array)) for j in range(i) if not np.array_equal(array[i], array[j]))
    array[[one, other]] = array[[other, one]]
    np.save(path, array)


def remove_it(random: Random, path: Path) -> None:
    path.unlink()


OF_ONE_FILE = {
    "a bit of a shard flipped": flip_a_bit,
    "the end of a shard cut off": cut_the_end,
    "a page of zeros in a shard": zero_a_page,
    "two images or labels of a shard swapped": swap_two_samples,
    "a shard missing": remove_it,
}


def damage_a_file(damage: Callable[[Random, Path], None], random: Random, path: Path) -> None:
    dtype = random.choice(("float32", "float16", "uint8"))
    shards_dir = shutil.copytree(whole_sets() / dtype, path / "shards")
    damaged = random.choice(sorted(shards_dir.glob("*/*.npy")))
    damage(random, damaged)
    expect_set_is_refused(path, damaged.parent.name, str(damaged))


def swap_two_files(random: Random, path: Path) -> None:
    shards_dir = shutil.copytree(whole_sets() / "float32", path / "shards")
    kind = random.choice(("images", "labels"))
    one, other = random.sample(sorted(shards_dir.glob(f"*/{kind}-*.npy")), 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    expect_set_is_refused(path, one.parent.name, str(one))
    expect_refusal(partial(verify_shards, shards_dir), str(one), str(other))


def add_a_file(random: Random, path: Path) -> None:
    shards_dir = shutil.copytree(whole_sets() / "uint8", path / "shards")
    extra = shards_dir / random.choice((".", *SPLITS)) / f"images-{random.randrange(10**5):05d}-of-00007.npy"
    shutil.copyfile(shards_dir / "train/images-00000-of-00003.npy", extra)
    expect_set_is_refused(path, "train", str(extra))


def damage_the_card(random: Random, path: Path) -> None:
    shards_dir = shutil.copytree(whole_sets() / "float32", path / "shards")
    damaged = shards_dir / random.choice((CARD_NAME, CROISSANT_NAME))
    random.choice((flip_a_bit, cut_the_end, remove_it))(random, damaged)
    expect_set_is_refused(path, "train", str(damaged))


def expect_set_is_refused(path: Path, split: str, name: str) -> None:
    shards_dir = path / "shards"
    expect_refusal(partial(verify_shards, shards_dir), name)
    expect_refusal(partial(ShardDataset, shards_dir, split, verify="hash"), name)
    report = partial(write_report, whole_sets() / "raw", shards_dir, path / "report", ReportParams(decimals=4))
    expect_refusal(report, name)
    assert not (path / "report").exists(), "a report was written"


def damage_raw(random: Random, path: Path) -> None:
    """Damage an input of the stages: normalize writes nothing, nor does stats where it is images of train."""
    sets = whole_sets()
    raw_dir = shutil.copytree(sets / "raw", path / "raw")
    damaged = random.choice(sorted(raw_dir.glob("*/*.npy")))
    random.choice(list(OF_ONE_FILE.values()))(random, damaged)
    params = replace(PARAMS, samples_per_shard=random.randrange(1, 80))
    expect_refusal(partial(normalize_shards, raw_dir, sets / "stats.json", path / "shards", params), str(damaged))
    if damaged.name.startswith("images") and damaged.parent.name == "train":
        expect_refusal(partial(write_stats, raw_dir, path / "stats.json"), str(damaged))
    report = partial(write_report, raw_dir, sets / "float32", path / "report", ReportParams(decimals=4))
    expect_refusal(report, str(damaged))
    assert [file.name for file in path.iterdir()] == ["raw"], "something was written"


def flip_a_bit_of_the_statistics(random: Random, path: Path) -> None:
    """Normalize with them: it is refused, or `report` refuses the shards, or the shards are what they should be."""
    sets = whole_sets()
    shutil.copy(sets / "stats.json", path)
    flip_a_bit(random, path / "stats.json")
    try:
        normalize_shards(sets / "raw", path / "stats.json", path / "shards", PARAMS)
        write_report(sets / "raw", path / "shards", path / "report", ReportParams(decimals=4))
    except PipelineError:
        return
    names = [file.relative_to(path) for file in (path / "shards").rglob("*") if file.is_file()]
    if any(
        (path / name).read_bytes() != (sets / "float32" / name.relative_to("shards")).read_bytes() for name in names
    ):
        raise WrongBytesError("shards of other statistics passed for right ones")


def forge_a_set(random: Random, path: Path) -> None:
    """Write a set whose files all have the right hashes, but whose samples are in another order."""
    dtype = random.choice(("float32", "uint8"))
    whole = open_shards(whole_sets() / dtype)
    order = {split: list(range(whole.manifest.splits[split].samples)) for split in SPLITS}
    of_split = order[random.choice(SPLITS)]
    start = random.randrange(len(of_split) - 1)
    of_split[start : start + 2] = reversed(of_split[start : start + 2])
    images = {split: np.concatenate([*map(whole.images, whole.shards(split))])[order[split]] for split in SPLITS}
    labels = {split: whole.labels(split)[order[split]] for split in SPLITS}
    forged_dir = path / "shards"
    forged_dir.mkdir()
    splits = write_shards(
        forged_dir,
        labels,
        lambda split, start, stop: [images[split][start:stop]],
        dtype=dtype,
        image_shape=whole.manifest.image_shape,
        samples_per_shard=20,
    )
    save_manifest(replace(whole.manifest, splits=splits), forged_dir)
    save_card(open_shards(forged_dir))
    if dtype == "uint8":
        expect_refusal(partial(verify_shards, forged_dir), "content_sha256")
    report = partial(write_report, whole_sets() / "raw", forged_dir, path / "report", ReportParams(decimals=4))
    expect_refusal(report, str(forged_dir))


NAMED = 'named by `verify`, by the reader with `verify="hash"` and by `report`'

EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "each single bit of a manifest flipped",
        f"each of the {MANIFEST_BITS:,} flips found when the set is opened",
        flip_each_bit_of_a_manifest,
        quick=1,
        soak=1,
    ),
    *(
        Experiment(
            fault,
            NAMED,
            partial(damage_a_file, damage),
            quick=2,
            soak=1000 if damage is flip_a_bit else 200,
        )
        for fault, damage in OF_ONE_FILE.items()
    ),
    Experiment("two shards swapped", NAMED, swap_two_files, quick=2, soak=200),
    Experiment("the dataset card damaged or missing", NAMED, damage_the_card, quick=2, soak=200),
    Experiment("a file too many", NAMED, add_a_file, quick=2, soak=200),
    Experiment(
        "any of these in data/raw",
        "named by `stats`, `normalize` and `report`, which write nothing",
        damage_raw,
        quick=5,
        soak=500,
    ),
    Experiment(
        "a bit of stats.json flipped before `normalize`",
        "refused there or by `report`, or the same shards as without",
        flip_a_bit_of_the_statistics,
        quick=2,
        soak=500,
    ),
    Experiment(
        "neighbours swapped, and all hashes but the content's made anew",
        "found by `verify` in pixels, by `report` in values",
        forge_a_set,
        quick=2,
        soak=200,
    ),
)
