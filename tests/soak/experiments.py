"""All kinds of faults, in the order of the table."""

from tests.soak import Experiment, corruption, download, interruption

EXPERIMENTS: tuple[Experiment, ...] = (*download.EXPERIMENTS, *interruption.EXPERIMENTS, *corruption.EXPERIMENTS)
