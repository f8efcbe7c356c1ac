"""Small shard sets, made by the pipeline's own writer."""

from pathlib import Path

import numpy as np

from pipeline.params import AuditParams, ImagesParams, NormalizeParams
from pipeline.runtime.resume import resume_dir
from pipeline.runtime.tasks import Progress, Tally, map_tasks
from pipeline.shards.raw import DecodedSet, open_decoded, use_as_set, write_samples
from pipeline.shards.writer import save_manifest
from pipeline.sources.source import ArraySamples
from pipeline.stages.audit import audit_images
from pipeline.stages.download import download_dataset
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset.content import hash_content, hash_images
from shardset.manifest import Manifest
from shardset.shards import ShardSet, open_shards
from shardset.threads import ignore

# Files that programs leave in a set, for each of IGNORED_NAMES at least one.
LITTER = [
    ".DS_Store",
    "._manifest.json",
    "Thumbs.db",
    "desktop.ini",
    ".nfs000000000000a1b200000003",
    ".ipynb_checkpoints/notes-checkpoint.ipynb",
    "__pycache__/read.cpython-311.pyc",
    ".cache/huggingface/download/manifest.json.metadata",
    ".gitattributes",
    ".manifest.json.new.tmp",
    ".images-00000-of-00001.npy.1f.tmp",
]


def make_params(**changes) -> NormalizeParams:
    custom = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)} if changes.get("scheme") == "custom" else {}
    defaults = {"scheme": "dataset", "mean": None, "std": None, "dtype": "float32", "samples_per_shard": 10_000}
    return NormalizeParams(**defaults | custom | changes)


def download(
    name: str,
    raw_dir: Path,
    archives_dir: Path,
    source: Path | str | None = None,
    *,
    progress: Progress = ignore,
    scheduler: str | None = None,
    fresh: bool = False,
    **images,
) -> Manifest:
    """Run the stage `download`; `images` are changes to the section of this name."""
    defaults = {
        "source": str(source),
        "size": 32,
        "resize": 36,
        "orientation": "exif",
        "unreadable": "fail",
        "test_fraction": None,
        "val_fraction": None,
    }
    params = ImagesParams(**defaults | images)
    source = None if source is None else str(source)
    return download_dataset(name, params, raw_dir, archives_dir, source, progress, scheduler, fresh=fresh)


def make_manifest(splits, **changes) -> Manifest:
    facts = {
        "format_version": 2,
        "dataset": "made up",
        "classes": tuple("abcdefghij"),
        "dtype": "uint8",
        "layout": "NCHW",
        "image_shape": (3, 32, 32),
        "channels": ("red", "green", "blue"),
        "content_sha256": "0" * 64,
        "normalization": None,
        "preparation": None,
        "skipped": 0,
        "files": (),
    }
    return Manifest(**facts | {"splits": splits} | changes)


def make_images(count, shape=(3, 32, 32), seed=0):
    """Smooth random scenes, with low frequencies like photographs, (count, *shape) uint8."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    small = rng.uniform(0, 255, (count, channels, height // 4 + 2, width // 4 + 2))
    fine = small.repeat(4, axis=2).repeat(4, axis=3)
    for axis in (2, 3):
        fine = (fine + np.roll(fine, 1, axis) + np.roll(fine, 2, axis) + np.roll(fine, 3, axis)) / 4
    return np.rint(fine[..., 4 : 4 + height, 4 : 4 + width]).astype(np.uint8)


def write_raw_set(
    raw_dir: Path, train: np.ndarray, test: np.ndarray | None = None, num_classes: int = 2, **other: np.ndarray
) -> ShardSet:
    """Write images, (N, C, H, W) uint8, as a raw shard set. Classes alternate; `other` may hold `val`."""
    names = ("red", "green", "blue") if train.shape[1] == 3 else tuple(f"band_{i}" for i in range(train.shape[1]))
    given = {"train": train, **other} | ({} if test is None else {"test": test})
    images = {split: given[split] for split in ("train", "val", "test") if split in given}
    labels = {split: np.arange(len(of_split)) % num_classes for split, of_split in images.items()}
    classes = tuple(f"class_{i}" for i in range(num_classes))
    write_array_set(raw_dir, "made", ArraySamples(classes, names, images, labels))
    return open_shards(raw_dir)


def write_array_set(raw_dir: Path, dataset: str, samples: ArraySamples) -> None:
    """Write a dataset in memory as a raw shard set."""
    with resume_dir(raw_dir) as work_dir:
        decoded = decode_arrays(work_dir, dataset, samples)
        save_manifest(decoded.manifest, decoded.step.dir)
        use_as_set(decoded.step)


def decode_arrays(work_dir: Path, dataset: str, samples: ArraySamples) -> DecodedSet:
    """Write the shards of a dataset in memory into a work folder."""
    stored = samples.store(work_dir / "source")
    tally = Tally(ignore, "Decoding", sum(stored.num_samples.values()))
    return write_samples(open_decoded(work_dir, dataset, stored), dataset, stored, map_tasks, tally)


def content_hash(images, labels) -> str:
    """The `content_sha256` of images, (N, C, H, W) uint8, and labels, (N,) int64, by split."""
    return hash_content((hash_images(images[split]), labels[split]) for split in images)


def read_images(shards, split):
    return np.concatenate([shards.images(shard) for shard in shards.shards(split)])


def audit_params(**changes) -> AuditParams:
    defaults = {"max_leaked": None, "max_exact_duplicates": None, "max_label_conflicts": None, "ignore": None}
    return AuditParams(**defaults | changes)


def audit(raw_dir: Path, audit_dir: Path, **changes) -> str:
    """Run the stage `audit`; `changes` are to its section of params.yaml."""
    metrics_path = audit_dir.with_suffix(".json")
    return audit_images(raw_dir, audit_dir, metrics_path, audit_params(**changes), lambda action, done, total: None)


def report_on(raw, path, scheme="dataset"):
    """Audit, normalize and report on a raw shard set of any shape."""
    audit(raw.dir, path / "audit")
    write_stats(raw.dir, path / "stats.json")
    normalize_shards(raw.dir, path / "stats.json", path / "shards", make_params(scheme=scheme))
    write_report(raw.dir, path / "audit", path / "shards", path / "report", decimals=4)
    return path / "report"
