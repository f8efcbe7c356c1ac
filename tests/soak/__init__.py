"""Faults, really made: killed processes, servers that misbehave, disks that fill up, bits that flip.

A trial makes one fault, by chance, and says whether the pipeline survived it. tests/test_soak.py runs each trial a few
times, `make soak` many times, from a seed, and prints the table of docs/reliability.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


class WrongBytesError(AssertionError):
    """The pipeline handed out bytes that are not the right ones, as if they were."""


@dataclass(frozen=True)
class Experiment:
    """A kind of fault.

    `trial` makes one, with what it needs in an empty folder, and raises AssertionError unless what `outcome` says came
    of it, WrongBytesError where wrong bytes passed for right ones. `quick` and `soak` are how often it is made.
    """

    fault: str
    outcome: str
    trial: Callable[[Random, Path], None]
    quick: int
    soak: int
