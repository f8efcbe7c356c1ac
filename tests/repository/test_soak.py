from random import Random

import pytest

from tests.soak.experiments import EXPERIMENTS

TRIALS = [
    pytest.param(experiment.trial, number, id=f"{experiment.fault}, {number}")
    for experiment in EXPERIMENTS
    for number in range(experiment.quick)
]


@pytest.mark.parametrize(("trial", "number"), TRIALS)
def test_a_fault_is_survived(trial, number, tmp_path):
    trial(Random(number), tmp_path)
