"""Shuffled epochs of the train split in batches of 256 float32 tensors: the samples/s of each reader.

`python -m benchmarks.epoch NAME...` measures the named readers in one process, taking turns, and prints JSON. Run it in
the folder that contains data/shards. A name may end in ", 2 workers" and in ", one core busy".
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

from benchmarks import normalize
from benchmarks.inputs import OUT_DIR, dataset
from benchmarks.rounds import ROUNDS, is_due
from shardset import ShardDataset

BATCH_SIZE = 256
MEASURED_SECONDS = 1.0  # fast readers repeat the epoch for this long
WORKERS, BUSY = ", 2 workers", ", one core busy"


def stock_loader(data, workers: int = 0):
    return DataLoader(data, BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def shards(*, preload: bool = False) -> ShardDataset:
    return ShardDataset("data/shards", "train", preload=preload)


@cache
def tensors():
    images, labels = next(iter(DataLoader(shards(), 50_000)))
    return images, labels


class IndexSelect:
    """The limit: batches of a tensor in memory."""

    def __iter__(self):
        images, labels = tensors()
        for indices in torch.randperm(len(images)).split(BATCH_SIZE):
            yield images.index_select(0, indices), labels.index_select(0, indices)


class Wrapper(Dataset):
    """What users write around a dataset: no more than these two methods."""

    def __init__(self, data) -> None:
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]


class AsPairs:
    """The batches of a loader that yields dicts."""

    def __init__(self, loader) -> None:
        self.loader = loader

    def __iter__(self):
        return ((batch["image"], batch["label"]) for batch in self.loader)


@cache
def written(name: str) -> str:
    """Write the set in the format of another library, and return the folder of its train split."""
    getattr(normalize, name)()
    return str(OUT_DIR / "train")


def torchvision(workers: int):
    return stock_loader(dataset("train", normalize=True), workers)


def ffcv(workers: int):
    from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import Squeeze, ToTensor

    path = OUT_DIR / "train.beton"
    normalize.write_ffcv("train", path)
    pipelines = {"image": [NDArrayDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor(), Squeeze()]}
    order = OrderOption.RANDOM
    return Loader(str(path), BATCH_SIZE, num_workers=workers, order=order, os_cache=True, pipelines=pipelines)


def mds(workers: int):
    from streaming import StreamingDataset

    data = StreamingDataset(local=written("mds"), shuffle=True, batch_size=BATCH_SIZE)
    return AsPairs(DataLoader(data, BATCH_SIZE, num_workers=workers, persistent_workers=workers > 0))


def litdata(workers: int):
    from litdata import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(written("litdata"), shuffle=True)
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    return AsPairs(StreamingDataLoader(data, batch_size=BATCH_SIZE, **options))


def huggingface(workers: int):
    return AsPairs(stock_loader(normalize.write_huggingface("train").with_format("torch"), workers))


READERS = {
    "index_select": lambda _: IndexSelect(),
    "TensorDataset": lambda workers: stock_loader(TensorDataset(*tensors()), workers),
    "ours, preload": lambda workers: stock_loader(shards(preload=True), workers),
    "ours, memory-mapped": lambda workers: stock_loader(shards(), workers),
    "ours in ConcatDataset": lambda workers: stock_loader(ConcatDataset([shards()]), workers),
    "ours in a wrapper": lambda workers: stock_loader(Wrapper(shards()), workers),
    "torchvision": torchvision,
    "ffcv": ffcv,
    "huggingface": huggingface,
    "mds": mds,
    "litdata": litdata,
}


@cache
def make_reader(name: str):
    base = name.removesuffix(WORKERS)
    return READERS[base](0 if base == name else 2)


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy with another process."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)  # until it has started
        yield
    finally:
        process.kill()
        process.wait()


def measure_epochs(batches) -> tuple[float, float]:
    """Return the samples/s, and the seconds of an epoch."""
    start, samples, epochs = time.perf_counter(), 0, 0
    while not epochs or time.perf_counter() - start < MEASURED_SECONDS:
        for images, _ in batches:
            samples += len(images)
        epochs += 1
    seconds = time.perf_counter() - start
    return samples / seconds, seconds / epochs


def measure(name: str) -> tuple[float, float]:
    reader = make_reader(name.removesuffix(BUSY))
    if not name.endswith(BUSY):
        return measure_epochs(reader)
    with busy_core():
        return measure_epochs(reader)


def first_batch_seconds() -> float:
    """Measure the time from after the imports to the first batch."""
    start = time.perf_counter()
    next(iter(stock_loader(shards())))
    return time.perf_counter() - start


def main() -> None:
    names, rates, failures, seconds = sys.argv[1:], {}, {}, {}
    first_batch = first_batch_seconds()
    OUT_DIR.mkdir(exist_ok=True)
    for number in range(ROUNDS + 1):
        for name in names:
            if name in failures or not is_due(number, seconds.get(name, 0)):
                continue
            try:
                rate, seconds[name] = measure(name)
            except Exception as error:  # noqa: BLE001 (any reason why an alternative doesn't run is reported)
                failures[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                continue
            print(f"epoch {number}/{ROUNDS} {name}: {rate:,.0f} samples/s", file=sys.stderr, flush=True)
            if number:
                rates.setdefault(name, []).append(rate)
    print(json.dumps({"first_batch_seconds": first_batch, "samples_per_second": rates, "failures": failures}))


if __name__ == "__main__":
    main()
