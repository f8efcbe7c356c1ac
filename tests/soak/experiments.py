"""All experiments, in the order of the table in docs/reliability.md."""

from tests.soak import Experiment, corruption, download, interruption, resumption

EXPERIMENTS: tuple[Experiment, ...] = (
    *download.EXPERIMENTS,
    *interruption.EXPERIMENTS,
    *resumption.EXPERIMENTS,
    *corruption.EXPERIMENTS,
)
