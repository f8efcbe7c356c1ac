"""One shuffled epoch of the train split in batches of 256 float32 tensors: the samples/s of each reader.

`python benchmarks/epoch.py ROUNDS NAME...` measures the named readers in one process, taking turns, and prints JSON.
Run it in the folder that contains data/shards.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

BATCH_SIZE = 256


def first_batch_seconds() -> float:
    """Measure the time from after `import torch` to the first batch, in a fresh process."""
    start = time.perf_counter()
    from shardset import ShardDataset

    next(iter(DataLoader(ShardDataset("data/shards"), BATCH_SIZE, shuffle=True)))
    return time.perf_counter() - start


def index_select():
    """Measure the limit: a single tensor in memory."""
    from shardset import ShardDataset

    images, labels = next(iter(DataLoader(ShardDataset("data/shards"), 50_000)))

    def batches():
        for indices in torch.randperm(len(images)).split(BATCH_SIZE):
            yield images.index_select(0, indices), labels.index_select(0, indices)

    return batches


def ours(*, preload):
    from shardset import ShardDataset

    loader = DataLoader(ShardDataset("data/shards", preload=preload), BATCH_SIZE, shuffle=True)
    return lambda: loader


def torchvision():
    from contenders import dataset

    loader = DataLoader(dataset("train", normalize=True), BATCH_SIZE, shuffle=True)
    return lambda: loader


def ffcv():
    from contenders import load, normalized
    from ffcv.fields import IntField, NDArrayField
    from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import Squeeze, ToTensor
    from ffcv.writer import DatasetWriter

    images, labels = normalized("train"), load("labels", "train")

    class Pairs:
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return images[index], int(labels[index])

    fields = {"image": NDArrayField(images.dtype, (3, 32, 32)), "label": IntField()}
    DatasetWriter("train.beton", fields, num_workers=1).from_indexed_dataset(Pairs())
    pipelines = {"image": [NDArrayDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor(), Squeeze()]}
    order = OrderOption.RANDOM
    loader = Loader("train.beton", BATCH_SIZE, num_workers=2, order=order, os_cache=True, pipelines=pipelines)
    return lambda: loader


def mds():
    from contenders import OUT_DIR, normalize_mds
    from streaming import StreamingDataset

    normalize_mds()
    data = StreamingDataset(local=str(OUT_DIR / "train"), shuffle=True, batch_size=BATCH_SIZE)
    return pairs(DataLoader(data, BATCH_SIZE))


def litdata():
    from contenders import OUT_DIR, normalize_litdata
    from litdata import StreamingDataLoader, StreamingDataset

    normalize_litdata()
    return pairs(StreamingDataLoader(StreamingDataset(str(OUT_DIR / "train"), shuffle=True), batch_size=BATCH_SIZE))


def huggingface():
    from contenders import OUT_DIR, normalize_huggingface

    normalize_huggingface()
    from datasets import load_from_disk

    data = load_from_disk(str(OUT_DIR / "train")).with_format("torch")
    return pairs(DataLoader(data, BATCH_SIZE, shuffle=True))


def pairs(loader):
    return lambda: ((batch["image"], batch["label"]) for batch in loader)


CONTENDERS = {
    "index_select": index_select,
    "ours, preload": lambda: ours(preload=True),
    "ours, memory-mapped": lambda: ours(preload=False),
    "ffcv": ffcv,
    "torchvision": torchvision,
    "huggingface": huggingface,
    "mds": mds,
    "litdata": litdata,
}


def samples_per_second(batches) -> float:
    start, seen = time.perf_counter(), 0
    for images, _ in batches():
        seen += len(images)
    return seen / (time.perf_counter() - start)


def main() -> None:
    rounds, *names = sys.argv[1:]
    results = {"first_batch_seconds": first_batch_seconds(), "samples_per_second": {}, "failures": {}}
    contenders = {}
    for number in range(int(rounds) + 1):
        for name in names:
            if name in results["failures"]:
                continue
            try:
                if name not in contenders:
                    contenders[name] = CONTENDERS[name]()
                rate = samples_per_second(contenders[name])
            except Exception as error:  # noqa: BLE001 (any reason why an alternative doesn't run is reported)
                results["failures"][name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                continue
            if number:
                results["samples_per_second"].setdefault(name, []).append(rate)
    Path("train.beton").unlink(missing_ok=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
