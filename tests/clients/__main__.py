"""Measure how fast each installed client reads a ShardDataset, compared with a TensorDataset of the same samples.

`python -m tests.clients [NAME ...]` measures the clients whose names contain one of the given words, by default all,
and updates their rows of the table in docs/reuse.md. It needs data/shards and data/raw of CIFAR-10.
"""

import statistics
import sys
import time
from importlib.util import find_spec

from shardset import ShardDataset
from tests.clients import CLIENTS, Client
from tests.clients.loaders import Tensors
from tests.clients.table import PAGE, read_ratios, replace_table

SPLIT = "test"
ROUNDS = 3


def measure_speed(client: Client, ds) -> float:
    """Return the samples per second that the client gets, from its first batch to its last."""
    times: list[float] = []
    counts: list[int] = []

    def use(images, labels):
        times.append(time.perf_counter())
        counts.append(len(labels))

    client.epoch(ds, use)
    return sum(counts[1:]) / (times[-1] - times[0])


def measure_ratio(client: Client) -> str:
    """Return the median of several interleaved rounds, as text with the speeds behind it on stderr."""

    def open_dataset():
        return ShardDataset("data/raw" if client.pixels else "data/shards", SPLIT, normalize=not client.pixels)

    rival = Tensors(open_dataset())
    rounds = [(measure_speed(client, open_dataset()), measure_speed(client, rival)) for _ in range(ROUNDS)]
    speeds = ", ".join(f"{ours:,.0f}/{theirs:,.0f}" for ours, theirs in rounds)
    print(f"{client.name}: {speeds} samples/s", file=sys.stderr, flush=True)
    return f"{statistics.median(ours / theirs for ours, theirs in rounds):.2f}"


def main() -> None:
    words = sys.argv[1:] or [""]
    for client in CLIENTS.values():
        wanted = any(word.lower() in client.name.lower() for word in words)
        if wanted and client.loops and find_spec(client.package):
            ratio = measure_ratio(client)
            page = PAGE.read_text(encoding="utf-8")  # each time, so that an interrupted run leaves what it measured
            PAGE.write_text(replace_table(page, read_ratios(page) | {client.name: ratio}), encoding="utf-8")


if __name__ == "__main__":
    main()
