"""Stages can be measured by themselves: those before them run too, uncounted."""

import shutil

import pytest

from benchmarks import run
from tests.helpers.workspace import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("jobs", [["audit"], ["stats", "report"]], ids="+".join)
def test_stages_are_measured_with_the_inputs_that_they_need(jobs, tiny_raw, tmp_path, monkeypatch):
    shutil.copytree(tiny_raw, tmp_path / "data/raw")
    for name in ("params.yaml", "data/not_duplicates.csv"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "WORK_DIR", tmp_path / "work")
    monkeypatch.setattr(run, "ROUNDS", 1)
    monkeypatch.setattr(run, "ALTERNATIVES", dict.fromkeys(run.ALTERNATIVES, ()))
    numbers: dict[str, dict] = {"compared": {}, "bare_mb": {}}
    run.measure_arrays(jobs, numbers)
    assert [*numbers["compared"]] == [*numbers["bare_mb"]] == [*numbers["machines"]] == jobs
    for (ours,) in numbers["compared"].values():
        assert (ours["name"], ours["failure"], len(ours["seconds"])) == ("ours", None, 1)
        assert ours["seconds"][0] > 0
    assert [*(tmp_path / "work").iterdir()] == []
