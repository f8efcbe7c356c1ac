"""Silent corruption: bits, labels and files of a shard set that changed after it was written."""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from random import Random
from typing import cast

import numpy as np
from msgspec.structs import replace

from pipeline.card.card import render_card
from pipeline.params import NormalizeParams
from pipeline.shards.writer import save_manifest, write_set_file
from pipeline.sources import synthetic
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset.dataset import ShardDataset
from shardset.errors import CorruptDataError, ShardSetError
from shardset.manifest import SPLITS, Dtype, Split
from shardset.shards import open_shards, verify_shards
from tests.helpers.array_shards import write_arrays
from tests.helpers.shard_sets import audit, write_raw_set
from tests.soak import Experiment, WrongBytesError

PARAMS = NormalizeParams(scheme="dataset", mean=None, std=None, dtype="float32", samples_per_shard=23)
MANIFEST_BITS = 32_736


@cache
def reference_sets() -> Path:
    """A folder with small sets, to be read only: raw, stats.json, audit, and shards of each dtype."""
    path = Path(tempfile.mkdtemp(prefix="soak-corruption-"))
    atexit.register(shutil.rmtree, path)
    images, _, _ = synthetic.generate({"train": 60, "val": 20, "test": 40})
    write_raw_set(path / "raw", images["train"], images["test"], num_classes=10, val=images["val"])
    write_stats(path / "raw", path / "stats.json")
    audit(path / "raw", path / "audit")
    for dtype in ("float32", "float16", "uint8"):
        normalize_shards(path / "raw", path / "stats.json", path / dtype, replace(PARAMS, dtype=dtype))
    return path


def report_on_shards(raw_dir: Path, shards_dir: Path, path: Path) -> None:
    """Write a report on sets of the same data as the reference sets into a folder in `path`."""
    write_report(raw_dir, reference_sets() / "audit", shards_dir, path / "report", decimals=4)


def assert_detected(action: Callable[[], object], *names: str, named: Callable[[Iterable[bool]], bool] = all) -> None:
    """Raise AssertionError unless `action` raises CorruptDataError with all of `names` in its message, or any."""
    try:
        action()
    except CorruptDataError as error:
        message = str(error)
    else:
        raise WrongBytesError(f"damage to {names} was not detected")
    assert named(name in message for name in names), f"the message should name {named.__name__} of {names}: {message}"


def flip_each_bit_of_a_manifest(random: Random, path: Path) -> None:
    content = (reference_sets() / "float32/manifest.json").read_bytes()
    assert 8 * len(content) == MANIFEST_BITS, f"the manifest has {8 * len(content)} bits"
    manifest_path = path / "manifest.json"
    manifest_path.write_bytes(content)
    with manifest_path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(content):
            for written in (*(byte ^ 1 << bit for bit in range(8)), byte):
                file.seek(position)
                file.write(bytes([written]))
                if written != byte:
                    assert_detected(partial(open_shards, path), str(manifest_path))
    open_shards(path)


def flip_a_bit(random: Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def truncate(random: Random, path: Path) -> None:
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


def remove(random: Random, path: Path) -> None:
    path.unlink()


FILE_DAMAGE = {
    "a bit of a shard flipped": flip_a_bit,
    "a shard truncated": truncate,
    "a page of a shard zeroed": zero_a_page,
    "two images or labels of a shard swapped": swap_two_samples,
    "a shard missing": remove,
}


def damage_a_file(damage: Callable[[Random, Path], None], random: Random, path: Path) -> None:
    dtype = random.choice(("float32", "float16", "uint8"))
    shards_dir = shutil.copytree(reference_sets() / dtype, path / "shards")
    damaged = random.choice(sorted(shards_dir.glob("*/*.npy")))
    damage(random, damaged)
    assert_set_is_rejected(path, damaged.parent.name, str(damaged))


def swap_two_files(random: Random, path: Path) -> None:
    shards_dir = shutil.copytree(reference_sets() / "float32", path / "shards")
    kind = random.choice(("images", "labels"))
    pairs = combinations(sorted(shards_dir.glob(f"*/{kind}-*.npy")), 2)
    one, other = random.choice([(a, b) for a, b in pairs if a.read_bytes() != b.read_bytes()])
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert_set_is_rejected(path, one.parent.name, str(one), str(other))


def add_a_file(random: Random, path: Path) -> None:
    shards_dir = shutil.copytree(reference_sets() / "uint8", path / "shards")
    extra = shards_dir / random.choice((".", *SPLITS)) / f"images-{random.randrange(10**5):05d}-of-00007.npy"
    shutil.copyfile(shards_dir / "train/images-00000-of-00003.npy", extra)
    assert_set_is_rejected(path, "train", str(extra))


def damage_the_card(random: Random, path: Path) -> None:
    shards_dir = shutil.copytree(reference_sets() / "float32", path / "shards")
    damaged = shards_dir / random.choice(("README.md", "croissant.json"))
    random.choice((flip_a_bit, truncate, remove))(random, damaged)
    assert_set_is_rejected(path, "train", str(damaged))


def assert_set_is_rejected(path: Path, split: str, *names: str) -> None:
    """Check that `verify` names all damaged files, and that the reader and the report, which stop at one, name one."""
    shards_dir = path / "shards"
    assert_detected(partial(verify_shards, shards_dir), *names)
    assert_detected(partial(ShardDataset, shards_dir, cast("Split", split), verify="hash"), *names, named=any)
    assert_detected(partial(report_on_shards, reference_sets() / "raw", shards_dir, path), *names, named=any)
    assert not (path / "report").exists(), "a report was written nevertheless"


def damage_raw(random: Random, path: Path) -> None:
    """Damage data/raw. All stages after stats must fail and write nothing, and so must stats for images of train.

    stats reads nothing else, so other damage must leave its result unchanged.
    """
    sets = reference_sets()
    raw_dir = shutil.copytree(sets / "raw", path / "raw")
    chosen = random.choice(sorted(raw_dir.glob("*/*.npy")))
    damage = random.choice((*FILE_DAMAGE.values(), None))
    if damage:
        damage(random, chosen)
        named = str(chosen)
    else:
        named = str(shutil.copyfile(chosen, chosen.with_name("images-00000-of-00009.npy")))
    params = replace(PARAMS, samples_per_shard=random.randrange(1, 80))
    assert_detected(partial(normalize_shards, raw_dir, sets / "stats.json", path / "shards", params), named)
    assert_detected(partial(audit, raw_dir, path / "audit"), named)
    assert_detected(partial(report_on_shards, raw_dir, sets / "float32", path), named)
    write = partial(write_stats, raw_dir, path / "stats.json")
    if damage and chosen.name.startswith("images") and chosen.parent.name == "train":
        assert_detected(write, named)
    else:
        write()
        if (path / "stats.json").read_bytes() != (sets / "stats.json").read_bytes():
            raise WrongBytesError("stats of damaged data were accepted")
        (path / "stats.json").unlink()
    left = {file.name for file in path.iterdir()} - {".audit.work.tmp", ".shards.work.tmp"}
    assert left == {"raw"}, "a stage wrote output nevertheless"


def damage_the_audit(random: Random, path: Path) -> None:
    audit_dir = shutil.copytree(reference_sets() / "audit", path / "audit")
    damaged = random.choice(sorted(audit_dir.iterdir()))
    random.choice((flip_a_bit, truncate, remove))(random, damaged)
    raw_dir, shards_dir = (reference_sets() / name for name in ("raw", "float32"))
    assert_detected(partial(write_report, raw_dir, audit_dir, shards_dir, path / "report", 4), str(audit_dir))
    assert not (path / "report").exists(), "a report was written nevertheless"


def flip_a_bit_of_the_statistics(random: Random, path: Path) -> None:
    """Normalize with a changed figure. Unless normalize or report rejects it, the shards must be unchanged."""
    sets = reference_sets()
    shutil.copy(sets / "stats.json", path)
    flip_a_bit(random, path / "stats.json")
    try:
        normalize_shards(sets / "raw", path / "stats.json", path / "shards", PARAMS)
        report_on_shards(sets / "raw", path / "shards", path)
    except ShardSetError:
        return
    names = [file.relative_to(path) for file in (path / "shards").rglob("*") if file.is_file()]
    if any(
        (path / name).read_bytes() != (sets / "float32" / name.relative_to("shards")).read_bytes() for name in names
    ):
        raise WrongBytesError("shards with wrong statistics were accepted")


def forge_a_set(random: Random, path: Path) -> None:
    """Swap two neighbours and write a set whose hashes all match, except content_sha256."""
    dtype: Dtype = random.choice(("float32", "uint8"))
    original = open_shards(reference_sets() / dtype)
    order = {split: list(range(original.manifest.splits[split].samples)) for split in SPLITS}
    of_split = order[random.choice(SPLITS)]
    start = random.randrange(len(of_split) - 1)
    of_split[start : start + 2] = reversed(of_split[start : start + 2])
    images = {split: np.concatenate([*map(original.images, original.shards(split))])[order[split]] for split in SPLITS}
    labels = {split: original.labels(split)[order[split]] for split in SPLITS}
    forged_dir = path / "shards"
    splits = write_arrays(forged_dir, images, labels, PARAMS.samples_per_shard, dtype)
    manifest = replace(original.manifest, splits=splits)
    card = [write_set_file(forged_dir, name, text) for name, text in render_card(manifest).items()]
    save_manifest(replace(manifest, files=tuple(card)), forged_dir)
    if dtype == "uint8":
        assert_detected(partial(verify_shards, forged_dir), "content_sha256")
    assert_detected(partial(report_on_shards, reference_sets() / "raw", forged_dir, path), str(forged_dir))


NAMED = 'file named by `verify`, by `ShardDataset` with `verify="hash"` and by `report`'

EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "each single bit of a manifest flipped",
        f"all {MANIFEST_BITS:,} flips detected when the set is opened",
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
        for fault, damage in FILE_DAMAGE.items()
    ),
    Experiment("two shards swapped", NAMED, swap_two_files, quick=2, soak=200),
    Experiment("the dataset card damaged or missing", NAMED, damage_the_card, quick=2, soak=200),
    Experiment("an extra file", NAMED, add_a_file, quick=2, soak=200),
    Experiment(
        "a shard of data/raw damaged or missing, or an extra file",
        "file named by `audit`, `normalize` and `report`, and for images of train by `stats`; nothing is written",
        damage_raw,
        quick=5,
        soak=500,
    ),
    Experiment(
        "a file of data/audit damaged or missing",
        "detected by `report`; nothing is written",
        damage_the_audit,
        quick=5,
        soak=500,
    ),
    Experiment(
        "a bit of stats.json flipped before `normalize`",
        "rejected by `normalize` or `report`, or without effect on the shards",
        flip_a_bit_of_the_statistics,
        quick=2,
        soak=500,
    ),
    Experiment(
        "two neighbours swapped and all hashes recomputed except content_sha256",
        "detected by `verify` in pixels, by `report` in values",
        forge_a_set,
        quick=2,
        soak=200,
    ),
)
