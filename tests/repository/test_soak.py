from random import Random

import pytest

from tests.helpers.workspace import REPOSITORY
from tests.soak import HEADER, render_row, render_total
from tests.soak.experiments import EXPERIMENTS
from tests.soak.fuzz import SHARES, VALUE_SHARES, fuzz, fuzz_values

TRIALS = [
    pytest.param(experiment.trial, number, id=f"{experiment.fault}, {number}")
    for experiment in EXPERIMENTS
    for number in range(experiment.quick)
]


@pytest.mark.slow
@pytest.mark.parametrize(("trial", "number"), TRIALS)
def test_fault_is_survived(trial, number, tmp_path):
    trial(Random(number), tmp_path)


def test_table_of_the_docs_is_that_of_a_soak_without_a_failure():
    total = sum(experiment.soak for experiment in EXPERIMENTS)
    rows = [render_row(experiment, experiment.soak, 0) for experiment in EXPERIMENTS]
    table = "\n".join([HEADER, *rows, render_total(total, total, 0)])
    assert table in (REPOSITORY / "docs/reliability.md").read_text()


@pytest.mark.slow
def test_damaged_text_files_give_documented_errors():
    assert [fault for name in SHARES for fault in fuzz(name, 300, "0")] == []
    assert [fault for name in VALUE_SHARES for fault in fuzz_values(name, 30, "0")] == []
