"""Run every experiment in full and print the table of docs/reliability.md: `python -m tests.soak [SEED]`."""

import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.soak import Experiment, WrongBytesError
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
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    print(f"Seed {seed}.\n\n| fault | tried | survived | wrong bytes | outcome |\n|---|--:|--:|--:|---|")
    all_tried = all_survived = all_wrong = 0
    for experiment in EXPERIMENTS:
        start = time.monotonic()
        survived, wrong = run(experiment, seed)
        print(
            f"| {experiment.fault} | {experiment.soak:,} | {survived:,} | {wrong:,} | {experiment.outcome} |",
            flush=True,
        )
        print(f"{experiment.fault}: {time.monotonic() - start:.0f} s", file=sys.stderr)
        all_tried, all_survived, all_wrong = all_tried + experiment.soak, all_survived + survived, all_wrong + wrong
    print(f"| **all** | **{all_tried:,}** | **{all_survived:,}** | **{all_wrong:,}** | |")
    sys.exit(all_survived < all_tried)


if __name__ == "__main__":
    main()
