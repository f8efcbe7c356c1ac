import pytest

from tests.helpers.exports import run_program, write_colour_set, write_grey_set, write_image_set
from tests.helpers.shard_sets import read_images, write_raw_set

# Exports sets and compares each with what the format's library reads. The last one differs from what is exported.
ROUND_TRIPS = """
import sys
from pathlib import Path
from benchmarks.exports import compare
from pipeline.export.formats import Format
from pipeline.stages.export import export_set
from shardset import open_shards

name, target_dir, *sets, other = sys.argv[1:]
for number, path in enumerate(sets):
    export_dir = Path(target_dir) / name / str(number)
    export_set(Path(path), export_dir, Format(name))
    print("compared", compare(open_shards(path), export_dir, name))
try:
    compare(open_shards(other), Path(target_dir) / name / "0", name)
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def exported_sets(tmp_path_factory):
    """Three sets to export, and one that differs from the first in a single pixel of the last test sample."""
    path = tmp_path_factory.mktemp("sets")
    colour = write_colour_set(path / "colour")
    images = {split: read_images(colour, split) for split in ("train", "val", "test")}
    images["test"] = images["test"].copy()
    images["test"][-1, 2, 7, 11] ^= 1
    other = write_raw_set(path / "other", num_classes=3, **images)
    return [colour.dir, write_grey_set(path / "grey").dir, write_image_set(path / "images").dir, other.dir]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parquet", "webdataset", "mds"])
def test_library_reads_each_sample_as_exported(name, exported_sets, tmp_path):
    lines = run_program(ROUND_TRIPS, name, tmp_path, *exported_sets).splitlines()
    assert [line for line in lines if line.startswith("compared")] == ["compared 14", "compared 10", "compared 18"]
    assert lines[-1] == "test: sample 3: expected (0, None), got (0, None), or other pixels"
