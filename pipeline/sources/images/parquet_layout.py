"""Which parquet files belong to which split, decided by their paths in the layouts of the Hugging Face Hub."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from posixpath import basename, dirname, join

from pipeline.sources.images.layout import split_of
from shardset.errors import InputError
from shardset.manifest import SPLITS, Split

# Older versions of `datasets` append a fingerprint.
SHARD_NAME = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})(-[0-9a-f]{16})?\.parquet", re.IGNORECASE)
MAX_LISTED = 5


def plan_splits(root: Path, files: Sequence[str]) -> dict[Split, list[str]]:
    """Take the split of each file from its name, SPLIT-00000-of-00002.parquet, or else from the name of its folder.

    A single file may have any name, and is train then. Raises InputError if a file has no split, if files are missing,
    or if there is more than one config, which is what the Hub calls alternatives in folders of their own.
    """
    groups: dict[Split, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted(files):
        split, group = _find_split(root, name, is_only=len(files) == 1)
        groups[split][group].append(name)
    for split, of_split in groups.items():
        if len(of_split) > 1:
            raise InputError(f"source {root}: several alternatives for the split {split}: {_pick(of_split)}")
        for names in of_split.values():
            _check_shards(root, names)
    configs = sorted({dirname(group) for of_split in groups.values() for group in of_split})
    if len(configs) > 1:
        raise InputError(f"source {root}: several configs: {_pick([config or '.' for config in configs])}")
    return {split: [*groups[split].values()][0] for split in SPLITS if split in groups}  # noqa: RUF015 (there is one)


def _find_split(root: Path, name: str, *, is_only: bool) -> tuple[Split, str]:
    """Return the split of a file, and the path that all files of that split should have in common."""
    folder = dirname(name)
    shard = SHARD_NAME.fullmatch(basename(name))
    of_folder = split_of(basename(folder))
    of_name = split_of(shard[1]) if shard else None
    if shard and of_name and of_name != of_folder:
        return of_name, join(folder, shard[1])
    if of_folder:
        return of_folder, folder
    if is_only and not shard:
        return "train", name
    raise InputError(
        f"{root / name}: should say its split by its name, such as train-00000-of-00001.parquet, or by a folder train, "
        "val or test; rename or move it"
    )


def _check_shards(root: Path, names: Sequence[str]) -> None:
    """Raise InputError unless the files of a split are complete, where their names say how many there are."""
    shards = [SHARD_NAME.fullmatch(basename(name)) for name in names]
    series = sorted({f"{shard[1]}-*-of-{shard[3]}" if shard else "others" for shard in shards})
    if len(series) > 1:
        raise InputError(f"{root / dirname(names[0])}: several versions of one split: {_pick(series)}")
    if not (first := shards[0]):
        return
    indices = [int(shard[2]) for shard in shards if shard]
    if missing := sorted({*range(int(first[3]))} - {*indices}):
        listed = ", ".join(f"{first[1]}-{index:05}-of-{first[3]}.parquet" for index in missing[:MAX_LISTED])
        more = f" and {len(missing) - MAX_LISTED:,} more" if len(missing) > MAX_LISTED else ""
        raise InputError(f"{root / dirname(names[0])}: {listed}{more}: missing; download the dataset again")
    if len(indices) > int(first[3]):
        raise InputError(f"{root / dirname(names[0])}: more than {first[3]} files: {_pick(names)}")


def _pick(alternatives: Sequence[str] | dict[str, list[str]]) -> str:
    return f"{', '.join([*alternatives][:MAX_LISTED])}; keep one of them"
