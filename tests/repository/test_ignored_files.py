"""DVC, `verify` and a reader written from docs/format.md ignore the same litter of programs."""

import shutil

import pytest

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.shards import IGNORED_NAMES, verify_shards
from tests.helpers.second_reader import read_set
from tests.helpers.shard_sets import LITTER, make_params
from tests.helpers.workspace import REPOSITORY, assert_succeeds, make_repository


def test_dvcignore_has_the_ignored_names():
    lines = (REPOSITORY / ".dvcignore").read_text().splitlines()
    anywhere = [line for line in lines if not line.startswith(("#", "/"))]
    assert anywhere == [*IGNORED_NAMES]


@pytest.mark.slow
def test_litter_in_a_set_changes_no_status(tiny_raw, tmp_path):
    repository = make_repository(tmp_path / "repository")
    shutil.copy(REPOSITORY / ".dvcignore", repository.path)
    sets = [repository.path / "raw", repository.path / "shards"]
    shutil.copytree(tiny_raw, sets[0])
    write_stats(sets[0], tmp_path / "stats.json")
    normalize_shards(sets[0], tmp_path / "stats.json", sets[1], make_params())
    assert_succeeds(repository.run("dvc", "stage", "add", "--name", "normalize", "-d", "raw", "-o", "shards", "true"))
    assert_succeeds(repository.run("dvc", "commit", "--force"))
    for name in LITTER:
        for folder in (*sets, *(set_dir / "train" for set_dir in sets)):
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_text("left")
    assert "up to date" in assert_succeeds(repository.run("dvc", "status"))
    for set_dir in sets:
        verify_shards(set_dir)
        read_set(set_dir)
    (sets[0] / "train/other").touch()
    assert "modified" in assert_succeeds(repository.run("dvc", "status"))
