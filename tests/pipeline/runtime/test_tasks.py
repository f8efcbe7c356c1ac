import pytest

from pipeline.runtime.tasks import Tally, map_tasks
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset.errors import InputError
from shardset.threads import ignore
from tests.helpers.shard_sets import audit, make_images, make_params, write_raw_set
from tests.helpers.task_sizes import recording_sizes
from tests.helpers.workspace import hash_files


def run_all(raw_dir, path):
    """Run the stages after download, and return the hash of every file."""
    write_stats(raw_dir, path / "stats.json", ignore)
    params = make_params(samples_per_shard=1500)
    normalize_shards(raw_dir, path / "stats.json", path / "shards", params, ignore)
    audit(raw_dir, path / "audit")
    write_report(raw_dir, path / "audit", path / "shards", path / "report", 4, ignore)
    return hash_files(path)


@pytest.fixture(scope="module")
def expected(synthetic_raw, tmp_path_factory):
    return run_all(synthetic_raw, tmp_path_factory.mktemp("expected"))


@pytest.mark.slow
@pytest.mark.parametrize("num_threads", ["1", "2", "7"])
def test_result_is_the_same_with_any_number_of_threads(num_threads, expected, synthetic_raw, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", num_threads)
    assert run_all(synthetic_raw, tmp_path) == expected
    assert len(expected) == 1 + (2 * (8 + 2) + 3) + (6 + 1) + 5  # of stats, normalize, audit and report


@pytest.mark.parametrize("setting", ["0", "-1", "two", "1.5"])
def test_wrong_number_of_threads_is_refused(setting, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", setting)
    with pytest.raises(InputError, match=f"PIPELINE_THREADS: should be a whole number from 1 to 9999, got '{setting}'"):
        map_tasks(str, [1])


def test_results_are_in_the_order_of_the_items():
    assert map_tasks(lambda item: item * item, range(50)) == [item * item for item in range(50)]
    assert map_tasks(str, []) == []


def test_first_error_ends_the_tasks():
    done = []

    def divide(item):
        done.append(item)
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        map_tasks(divide, [3, 0, *range(1, 10_000)])
    assert len(done) < 10_000


def test_each_finished_item_is_reported_once():
    reported: list[int] = []
    map_tasks(lambda item: item + 1, range(100), reported.append)
    assert sorted(reported) == [*range(100)]


def test_failed_item_is_not_reported():
    reported: list[int] = []
    with pytest.raises(ZeroDivisionError):
        map_tasks(lambda item: 1 // item, [0], reported.append)
    assert reported == []


def test_tally_counts_on_all_threads():
    shown = []
    tally = Tally(lambda *progress: shown.append(progress), "Counting", 300)
    map_tasks(tally.add, [3] * 100)
    assert shown == [("Counting", count, 300) for count in range(3, 301, 3)]


def test_task_carries_only_its_own_part_of_the_set(tmp_path, monkeypatch):
    sizes: list[int] = []

    monkeypatch.setattr(
        "pipeline.runtime.cluster.map_tasks", recording_sizes(sizes)
    )  # what stages get without a scheduler
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 10)
    raw = write_raw_set(tmp_path / "raw", make_images(2000, (3, 4, 4)))
    sizes.clear()
    write_stats(raw.dir, tmp_path / "stats.json", ignore)
    normalize_shards(raw.dir, tmp_path / "stats.json", tmp_path / "shards", make_params(samples_per_shard=10), ignore)
    assert len(sizes) >= 200 + 200
    assert max(sizes) < 3000  # the labels of all samples alone have 16 kB, the manifest 80 kB
