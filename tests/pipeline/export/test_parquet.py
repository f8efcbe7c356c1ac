import json

import pyarrow as pa
import pytest
from pyarrow.parquet import ParquetFile, read_schema

from pipeline.export.formats import Format
from pipeline.export.parquet import rows_per_group
from pipeline.stages.export import export_set
from shardset.shards import open_shards
from tests.helpers.exports import load_program_output
from tests.helpers.shard_sets import download, make_images, write_raw_set

# What `datasets` itself writes into the metadata for the same features.
FEATURES = """
import sys
from datasets import ClassLabel, Features, Image, Value

features = Features({"image": Image(), "label": ClassLabel(names=sys.argv[1:]), "source": Value("string")})
print(features.arrow_schema.metadata[b"huggingface"].decode())
"""


@pytest.fixture
def export_parquet(tmp_path):
    def export(shards):
        export_set(shards.dir, tmp_path / "export", Format.parquet)
        return tmp_path / "export"

    return export


def test_files_have_the_names_that_the_hub_expects(export_parquet, colour_set):
    target_dir = export_parquet(colour_set)
    assert sorted(path.relative_to(target_dir).as_posix() for path in target_dir.rglob("*.*")) == [
        "README.md",
        "croissant.json",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
    ]


@pytest.mark.slow
def test_metadata_are_those_of_datasets(export_parquet, image_set):
    schema = read_schema(export_parquet(image_set) / "data/train-00000-of-00001.parquet")
    expected = load_program_output(FEATURES, *image_set.manifest.classes)
    assert json.loads(schema.metadata[b"huggingface"]) == expected
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert schema.field("label").type == pa.int64()
    assert schema.field("source").type == pa.string()


@pytest.mark.parametrize(
    ("image_shape", "num_rows"),
    [
        ((3, 32, 32), 1_000),
        ((3, 224, 224), 212),  # 32 MB of pixels
        ((3, 4096, 4096), 1),  # 50 MB each
    ],
)
def test_row_groups_stay_small(image_shape, num_rows):
    assert rows_per_group(image_shape) == num_rows


def test_files_are_written_in_row_groups(export_parquet, tmp_path):
    target_dir = export_parquet(write_raw_set(tmp_path / "small", make_images(1_001, (1, 4, 4))))
    with ParquetFile(target_dir / "data/train-00000-of-00001.parquet") as file:
        assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [1_000, 1]
        assert file.metadata.row_group(0).column(0).has_offset_index  # so that a viewer reads single pages


def test_download_reads_the_same_dataset_back(export_parquet, image_set, tmp_path):
    """The pipeline takes parquet files as a source of images."""
    target_dir = export_parquet(image_set)
    download("images", tmp_path / "raw", tmp_path / "archives", target_dir / "data", size=32, resize=None)
    assert open_shards(tmp_path / "raw").manifest.content_sha256 == image_set.manifest.content_sha256
