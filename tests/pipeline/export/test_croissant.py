import pytest

from pipeline.export.formats import Format
from pipeline.runtime.files import hash_file
from pipeline.stages.export import export_set
from tests.helpers.exports import load_program_output
from tests.helpers.shard_sets import read_images

READ = """
import json, sys
import mlcroissant
import numpy as np

dataset = mlcroissant.Dataset(sys.argv[1])
issues = dataset.metadata.ctx.issues
assert not issues.errors, issues.errors

def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    return np.asarray(value).tolist() if hasattr(value, "getbands") else value

print(json.dumps({
    "warnings": sorted(issues.warnings),
    "files": {file.id: file.sha256 for file in dataset.metadata.distribution if hasattr(file, "sha256")},
    "records": {
        records.id: [
            {key.split("/")[1]: plain(value) for key, value in record.items()} for record in dataset.records(records.id)
        ]
        for records in dataset.metadata.record_sets
    },
}))
"""
SPLITS = {"train": "train", "val": "validation", "test": "test"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["colour_set", "image_set", "grey_set"])
def test_records_are_the_samples_in_order(name, request, tmp_path):
    shards = request.getfixturevalue(name)
    export_set(shards.dir, tmp_path / "export", Format.parquet)
    read = load_program_output(READ, tmp_path / "export/croissant.json")
    assert read["records"].pop("classes") == [
        {"index": index, "name": name} for index, name in enumerate(shards.manifest.classes)
    ]
    assert [*read["records"]] == [SPLITS[split] for split in shards.manifest.splits]
    for split in shards.manifest.splits:
        images = read_images(shards, split)
        pixels = images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images[:, 0]
        records = read["records"][SPLITS[split]]
        assert [record["image"] for record in records] == pixels.tolist()
        assert [record["label"] for record in records] == shards.labels(split).tolist()
        if name == "image_set":
            assert tuple(record["source"] for record in records) == shards.sources(split)
    files = (tmp_path / "export").rglob("*.parquet")
    assert read["files"] == {path.relative_to(tmp_path / "export").as_posix(): hash_file(path) for path in files}
    assert [line for line in read["warnings"] if "datePublished" not in line] == []
