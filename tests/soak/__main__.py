"""Run every experiment in full: `python -m tests.soak [SEED]`.

Progress goes to stderr, and at the end the table of docs/reliability.md to stdout.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.soak import HEADER, Experiment, WrongBytesError, render_row, render_total
from tests.soak.experiments import EXPERIMENTS


def run(experiment: Experiment, seed: int) -> tuple[int, int]:
    """Run all trials of an experiment, and count how many were survived and how many gave wrong bytes."""
    survived = wrong = 0
    for number in range(experiment.soak):
        with tempfile.TemporaryDirectory() as folder:
            try:
                experiment.trial(Random(f"{seed}/{experiment.fault}/{number}"), Path(folder))
            except Exception as error:  # noqa: BLE001 (any error means that the fault was not survived)
                wrong += isinstance(error, WrongBytesError)
                print(f"{experiment.fault}, trial {number}: {error!r}", file=sys.stderr)
            else:
                survived += 1
    return survived, wrong


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores Ctrl-C otherwise
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    begin = time.monotonic()
    rows = []
    all_tried = all_survived = all_wrong = 0
    for experiment in EXPERIMENTS:
        start = time.monotonic()
        survived, wrong = run(experiment, seed)
        rows.append(render_row(experiment, survived, wrong))
        print(f"{time.monotonic() - start:.0f} s: {rows[-1]}", file=sys.stderr, flush=True)
        all_tried, all_survived, all_wrong = all_tried + experiment.soak, all_survived + survived, all_wrong + wrong
    minutes = (time.monotonic() - begin) / 60
    print(f"Seed {seed}, {minutes:.0f} minutes on {os.cpu_count()} cores:\n\n{HEADER}", *rows, sep="\n")
    print(render_total(all_tried, all_survived, all_wrong))
    sys.exit(all_survived < all_tried)


if __name__ == "__main__":
    main()
