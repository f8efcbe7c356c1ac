import json
import sys
import tarfile

import numpy as np
import pytest

from benchmarks.growth import __main__ as growth
from benchmarks.growth import pictures
from benchmarks.growth.results import IMAGENET, cluster_lines, extrapolate, growth_lines
from tests.helpers.workspace import REPOSITORY, hash_files

STAGES = ("download", "stats", "audit", "normalize", "report")


@pytest.fixture(autouse=True)
def few_fields(monkeypatch):
    monkeypatch.setattr(pictures, "NUM_FIELDS", 4)
    pictures.fields.cache_clear()
    yield
    pictures.fields.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to run the benchmark in, with the results of this repository."""
    for name in ("results.json", "RESULTS.md"):
        (tmp_path / name).write_bytes((REPOSITORY / "benchmarks" / name).read_bytes())
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(growth, "HERE", tmp_path)
    monkeypatch.setattr("benchmarks.run.WORK_DIR", tmp_path / "work")
    return tmp_path


def make_sizes(seconds_of, counts=(10_000, 30_000, 100_000)):
    """Measured sizes, given the seconds of every stage as a function of the number of images."""
    return [
        {
            "images": count,
            "stages": {
                stage: {"seconds": seconds_of(count), "cpu_seconds": 1, "limit_seconds": 1, "peak_mb": 40 + count / 1e4}
                for stage in STAGES
            },
        }
        for count in counts
    ]


def test_same_number_of_images_gives_the_same_archive(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pictures.write_tar(tmp_path / name / "images.tar", 40)
    assert hash_files(tmp_path / "a") == hash_files(tmp_path / "b")
    with tarfile.open(tmp_path / "a/images.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert [member.name.partition("/")[0] for member in members] == ["train"] * 38 + ["val"] * 2
    assert 55_000 < np.mean([member.size for member in members]) < 70_000


def test_hundredth_picture_is_the_one_before_again():
    first, last = (pictures.draw_jpeg(number) for number in (98, 99))
    assert first != last
    assert pictures.draw_jpeg(97) != first
    assert 0.7 < len(last) / len(first) < 1


@pytest.mark.parametrize(
    ("stage", "seconds_of"),
    [
        ("download", lambda count: 2 + count / 400),
        ("download", lambda count: count / 400),
        ("audit", lambda count: count / 500),
        ("audit", lambda count: count / 500 + 2e-9 * count**2),
    ],
)
def test_extrapolation_follows_the_growth(stage, seconds_of):
    for counts in ((10_000, 30_000, 100_000), (10_000, 100_000)):
        assert extrapolate(make_sizes(seconds_of, counts), stage, IMAGENET) == pytest.approx(seconds_of(IMAGENET))


def test_times_that_bend_downwards_are_not_extrapolated_below_zero():
    sizes = make_sizes(lambda count: count**0.5)
    assert extrapolate(sizes, "audit", IMAGENET) > IMAGENET**0.5


def test_growth_has_a_row_of_each_stage_and_size():
    sizes = make_sizes(lambda count: count / 400)
    measured = {"machine": "Linux", "memory_gb": 25, "bare_mb": dict.fromkeys(STAGES, 20.0), "sizes": sizes}
    lines = growth_lines(measured)
    assert "| `download` | 10,000 | 25.0 | 400 | 25.00 | 1.0 | 21 |" in lines
    assert "| `report` | 100,000 | 250.0 | 400 | 250.00 | 1.0 | 30 |" in lines
    assert f"| `stats` | {IMAGENET / 400 / 3600:.2f} | 400 | 105 |" in lines  # 9 MiB of 90,000 images
    assert "All stages, one after the other, each once, as a process of its own, on 10,000, 30,000, 100,000" in lines[3]


def test_full_disk_is_noticed_before_anything_is_drawn(folder, monkeypatch):
    monkeypatch.setattr(growth, "SPARE_BYTES", 10**18)
    with pytest.raises(SystemExit, match="40 images need 1000000000 GB, "):
        growth.Project(40, "uint8")
    assert not list((folder / "work").rglob("*.tar"))


def test_workers_are_compared_with_threads():
    figures = {"threads_seconds": 9.0, "workers_seconds": 10.0, "client_mb": 60.4, "worker_mb": 1100.6}
    measured = {"machine": "Linux", "images": 5000, "rounds": 3, "stages": {"download": figures}}
    assert "| `download` | 9.0 | 10.0 | 0.90 | 1,101 | 60 |" in cluster_lines(measured)


@pytest.mark.slow
def test_stages_are_measured_on_workers(folder, monkeypatch):
    cluster = pytest.importorskip("benchmarks.growth.cluster", reason="the extra dask is not installed")
    monkeypatch.setattr(cluster, "HERE", folder)
    monkeypatch.setattr(cluster, "ROUNDS", 1)
    monkeypatch.setattr(cluster, "STAGE_OUTS", {name: cluster.STAGE_OUTS[name] for name in ("download", "stats")})
    monkeypatch.setattr(sys, "argv", ["cluster", "40"])
    cluster.main()
    measured = json.loads((folder / "results.json").read_bytes())["cluster"]
    assert [*measured["stages"]] == ["download", "stats"]
    assert all(figure > 0 for of_stage in measured["stages"].values() for figure in of_stage.values())
    assert "## Two workers of a cluster" in (folder / "RESULTS.md").read_text()


@pytest.mark.slow
def test_all_stages_are_measured_on_drawn_images(folder, monkeypatch):
    pytest.importorskip("matplotlib", reason="the extra bench is not installed")
    monkeypatch.setattr(sys, "argv", ["growth", "40"])
    growth.main()
    (measured,) = json.loads((folder / "results.json").read_bytes())["growth"]["sizes"]
    assert measured["images"] == 40
    assert tuple(measured["stages"]) == STAGES
    assert all(figure > 0 for of_stage in measured["stages"].values() for figure in of_stage.values())
    assert "## Growth to 40 images of 224 pixels" in (folder / "RESULTS.md").read_text()
    assert (folder / "growth.svg").exists()
    assert not list((folder / "work").rglob("*.npy"))
