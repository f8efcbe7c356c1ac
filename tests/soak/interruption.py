"""Faults of this kind."""

from tests.soak import Experiment

EXPERIMENTS: tuple[Experiment, ...] = ()
