"""Feed damaged and generated inputs to everything that parses text files: `python -m tests.soak.fuzz [SEED] [INPUTS]`.

Each input has to give a value or the documented exception within a second. Others are printed with their seed.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec
import numpy as np
import yaml
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from pipeline.audit.details import DETAILS_NAME, load_details
from pipeline.audit.lists import NEAR_DUPLICATES_NAME, load_ignored, load_pairs
from pipeline.params import Params, load_params
from shardset.errors import CorruptDataError, InputError
from shardset.manifest import Manifest, _parse_manifest, render_manifest
from shardset.models import parse, parse_json
from shardset.shards import ShardSet
from shardset.statistics import Statistics
from tests.helpers.shard_sets import audit, make_images, write_raw_set
from tests.helpers.workspace import REPOSITORY

Input = TypeVar("Input")

MAX_SECONDS = 1.0  # of CPU time, for an input of a few kilobytes
INTERESTING = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"(",
    b".",
    b"t",
    b"R",
    b"b",
    b"[",
    b"{",
    b'"',
    b"\xff" * 10 + b"\xfe\x00",
    b"\x80" + b"\x7f" * 11,
)


def mutate(random: Random, samples: list[bytes]) -> bytes:
    """Damage a valid input in one to six places: flip bits, replace bytes, cut, repeat or insert pieces."""
    content = bytearray(random.choice(samples))
    for _ in range(random.randint(1, 6)):
        start = random.randrange(min(random.choice((200, 1000, len(content))), len(content)) + 1)
        stop = min(len(content), start + int(random.paretovariate(0.7)))
        match random.randrange(8):
            case 0 if start < len(content):
                content[start] ^= 1 << random.randrange(8)
            case 1 if start < len(content):
                content[start] = random.randrange(256)
            case 2:
                del content[start:stop]
            case 3:
                content[start:start] = content[start:stop]
            case 4:
                content[start:stop] = random.randbytes(min(16, stop - start))
            case 5:
                piece = random.choice(INTERESTING) * random.choice((1, 1, 1, 2, 100))
                content[start : start + random.choice((0, len(piece)))] = piece
            case 6:
                other = random.choice(samples)
                begin = random.randrange(len(other))
                content[start:stop] = other[begin : begin + random.randrange(200)]
            case 7:
                del content[start:]
    return bytes(content)


def load_bytes(load: Callable[[Path], object], path: Path, content: bytes) -> None:
    path.write_bytes(content)
    load(path)


def audited_set(folder: Path) -> ShardSet:
    """Write a small raw set with near-duplicates of all kinds and the audit of it, `folder`/audit."""
    images = make_images(20, (3, 8, 8))
    raw = write_raw_set(folder / "raw", images, np.concatenate([images[[3, 3]], images[[5]][..., ::-1]]))
    audit(raw.dir, folder / "audit")
    return raw


def make_targets(folder: Path) -> dict[str, tuple[Callable[[bytes], object], type[Exception], list[bytes]]]:
    """Return, by name, what parses the input, the exception that it documents, and valid inputs."""
    params = (REPOSITORY / "params.yaml").read_bytes()
    custom = yaml.safe_load(params)
    custom["normalize"] |= {"scheme": "custom", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    file = {"path": "train/images-00000-of-00001.npy", "bytes": 100, "sha256": "0" * 64}
    shards = {"samples": 10, "shards": [{"samples": 10, "images": file, "labels": file}]}
    manifest = {
        "format_version": 2, "dataset": "tiny", "classes": ["a", "b"], "dtype": "uint8", "layout": "NCHW",
        "image_shape": [3, 32, 32], "channels": ["red", "green", "blue"], "content_sha256": "0" * 64,
        "normalization": {"scheme": "unit", "mean": [0, 0, 0], "std": [1, 1, 1]},
        "preparation": {
            "resize": 36, "size": 32, "filter": "bilinear", "orientation": "exif", "background": "white"
        },
        "skipped": 1, "splits": {"train": shards, "test": shards}, "files": [file | {"path": "README.md"}],
    }  # fmt: skip
    texts = [msgspec.json.encode(manifest), render_manifest(parse(manifest, Manifest)).encode()]
    stats = (REPOSITORY / "data/stats.json").read_bytes()
    raw, audit_dir = audited_set(folder), folder / "audit"
    details, pairs = ((audit_dir / name).read_bytes() for name in (DETAILS_NAME, NEAR_DUPLICATES_NAME))
    return {
        "manifest": (lambda content: _parse_manifest(content, msgspec.json.decode(content)), ValueError, texts),
        "statistics": (partial(parse_json, model=Statistics), ValueError, [stats]),
        "params": (
            partial(load_bytes, load_params, folder / "c"),
            InputError,
            [params, yaml.safe_dump(custom).encode()],
        ),
        "details": (
            partial(load_bytes, lambda path: load_details(path.parent), audit_dir / DETAILS_NAME),
            CorruptDataError,
            [details],
        ),
        "pairs": (
            partial(load_bytes, lambda path: load_pairs(path.parent, raw), audit_dir / NEAR_DUPLICATES_NAME),
            CorruptDataError,
            [pairs],
        ),
        "ignored pairs": (partial(load_bytes, load_ignored, folder / "c"), InputError, [pairs, b"pair\n" + b"0" * 16]),
    }


def attempt(read: Callable[[Input], object], expected: type[Exception], content: Input) -> str | None:
    """Parse an input, and describe what went wrong, or return None."""
    start = time.process_time()
    try:
        read(content)
    except expected as error:
        if expected is not ValueError and not str(error).isprintable():
            return f"not one line: {error}"
    except Exception as error:  # noqa: BLE001 (fuzzing is meant to find these)
        return repr(error)
    seconds = time.process_time() - start
    return f"took {seconds:.1f} s" if seconds > MAX_SECONDS else None


def fuzz(name: str, number: int, run: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        read, expected, samples = make_targets(Path(folder))[name]
        faults = []
        for index in range(number):
            label = f"{run}/{name}/{index}"
            if fault := attempt(read, expected, mutate(Random(label), samples)):
                faults.append(f"{label}: {fault}")
        return faults


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def similar_to(model: type) -> st.SearchStrategy[object]:
    """Data with keys of a model and values of any type."""
    return st.fixed_dictionaries({}, optional={field.encode_name: DATA for field in msgspec.structs.fields(model)})


def fuzz_values(name: str, number: int, run: str) -> list[str]:
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        model = Params if "params" in name else Manifest

        def read(data: object) -> None:
            if name == "params as YAML":
                load_bytes(load_params, path, yaml.safe_dump(data).encode())
            else:
                parse(data, model)

        expected = InputError if name == "params as YAML" else ValueError

        @seed(run)
        @settings(
            max_examples=number, database=None, deadline=None, phases=[Phase.generate], verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(DATA | similar_to(model) | st.fixed_dictionaries({"normalize": DATA, "report": DATA, "dataset": DATA}))
        def check(data: object) -> None:
            if fault := attempt(read, expected, data):
                faults.append(f"{run}/{name}: {fault}: {data!r}")

        check()
    return faults


# How many of a thousand inputs are for each target. Slow targets get fewer.
SHARES = {"manifest": 460, "statistics": 140, "params": 160, "details": 80, "pairs": 80, "ignored pairs": 40}
VALUE_SHARES = {"params as data": 16, "manifest as data": 16, "params as YAML": 8}
STEP = 5000


def main() -> None:
    run = sys.argv[1] if len(sys.argv) > 1 else "0"
    total = int(sys.argv[2]) if len(sys.argv) > 2 else 250_000
    start = time.monotonic()
    tasks = [
        (function, name, min(STEP, number - begin), f"{run}-{begin}")
        for function, shares in ((fuzz, SHARES), (fuzz_values, VALUE_SHARES))
        for name, share in shares.items()
        for number in [total * share // 1000]
        for begin in range(0, number, STEP)
    ]
    faults = []
    counts = dict.fromkeys([*SHARES, *VALUE_SHARES], 0)
    with ProcessPoolExecutor(2) as pool:
        futures = [
            (pool.submit(function, name, number, label), name, number) for function, name, number, label in tasks
        ]
        for future, name, number in futures:
            faults += future.result()
            counts[name] += number
            print(f"{sum(counts.values()):,} inputs, {len(faults)} faults", end="\r", file=sys.stderr)
    print("\n".join(faults[:50]))
    print(f"Seed {run}, {sum(counts.values()):,} inputs in {time.monotonic() - start:.0f} s, {len(faults):,} faults:")
    print("\n".join(f"  {name}: {count:,}" for name, count in counts.items()))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
