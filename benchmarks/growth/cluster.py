"""Compare two single-threaded workers of a cluster on this machine with two threads, and watch the workers' memory.

    python -m benchmarks.growth.cluster 10000

`normalize` stores float32 here, which takes the most memory. Adds the figures to the results.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from distributed import Client, LocalCluster

from benchmarks.growth.__main__ import WATCH_INTERVAL, Project
from benchmarks.memory import tree_kilobytes
from benchmarks.results import describe_machine, write_results
from benchmarks.run import HERE, STAGE_OUTS, stage

NUM_WORKERS = 2
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("num_images", metavar="NUM_IMAGES", type=int)
    num_images = parser.parse_args().num_images
    numbers = json.loads((HERE / "results.json").read_bytes())
    with Project(num_images, dtype="float32") as project:
        stages = {name: measure_stage(name, project.folder) for name in STAGE_OUTS}
    machine = describe_machine(("numpy", "pillow", "distributed"))
    numbers["cluster"] = {"machine": machine, "images": num_images, "rounds": ROUNDS, "stages": stages}
    write_results(numbers, HERE)


def measure_stage(name: str, folder: Path) -> dict[str, Any]:
    """Run a stage on threads and on workers, taking turns; exit if it fails."""
    on_threads, on_workers = stage(name, folder, "threads"), stage(name, folder, "workers")
    on_threads.env = {"PIPELINE_THREADS": str(NUM_WORKERS)}
    with LocalCluster(n_workers=NUM_WORKERS, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster:
        on_workers.env = {"PIPELINE_SCHEDULER": cluster.scheduler_address}
        with Client(cluster, set_as_default=False) as client:
            process_ids = [*client.run(os.getpid).values()]
        with watch_peaks(process_ids) as peaks:
            for _ in range(ROUNDS):
                for it in (on_threads, on_workers):
                    it.run(watch_interval=WATCH_INTERVAL)
                    if it.failure:
                        sys.exit(f"{name}: on {it.name}: {it.failure}")
                    print(
                        f"{name} on {it.name}: {it.seconds[-1]:.1f} s, workers {max(peaks.values()):,.0f} MB",
                        flush=True,
                    )
    return {
        "threads_seconds": statistics.median(on_threads.seconds),
        "workers_seconds": statistics.median(on_workers.seconds),
        "client_mb": on_workers.peak_mb,
        "worker_mb": max(peaks.values()),
    }


@contextmanager
def watch_peaks(process_ids: list[int]) -> Iterator[dict[int, float]]:
    """Watch the memory of some processes, and keep the peak of each, in MB."""
    peaks = dict.fromkeys(process_ids, 0.0)
    stopped = Event()

    def watch() -> None:
        while not stopped.is_set():
            for process_id in process_ids:
                peaks[process_id] = max(peaks[process_id], tree_kilobytes(process_id) / 1024)
            time.sleep(WATCH_INTERVAL)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        stopped.set()
        thread.join()


if __name__ == "__main__":
    main()
