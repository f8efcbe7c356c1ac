"""Fault injection with real faults: killed processes, misbehaving servers, full disks, flipped bits.

A trial injects one random fault and checks that the pipeline survives it. tests/repository/test_soak.py runs each trial
a few times. `make soak` runs each many times, from a seed, and prints the table of docs/reliability.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


class WrongBytesError(AssertionError):
    """The pipeline presented wrong bytes as correct ones."""


@dataclass(frozen=True)
class Experiment:
    """A kind of fault.

    `trial` injects it, using an empty folder. It raises AssertionError if the result is not what `outcome` says, and
    WrongBytesError if wrong bytes were presented as correct. `quick` and `soak` are numbers of trials.
    """

    fault: str
    outcome: str
    trial: Callable[[Random, Path], None]
    quick: int
    soak: int


HEADER = "| fault | tried | survived | wrong bytes | outcome |\n|---|--:|--:|--:|---|"


def render_row(experiment: Experiment, survived: int, wrong: int) -> str:
    return f"| {experiment.fault} | {experiment.soak:,} | {survived:,} | {wrong:,} | {experiment.outcome} |"


def render_total(tried: int, survived: int, wrong: int) -> str:
    return f"| **all** | **{tried:,}** | **{survived:,}** | **{wrong:,}** | |"
