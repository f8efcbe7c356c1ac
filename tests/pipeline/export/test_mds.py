import hashlib
import json

import pytest

from pipeline.export.card import HUB_SPLITS
from pipeline.export.formats import Format
from tests.helpers.exports import export_in_process, load_program_output

LOAD = """
import json, sys
from datasets import load_dataset

try:
    load_dataset(sys.argv[1], cache_dir=sys.argv[2])
except Exception as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.slow
def test_shards_are_listed_with_their_hashes(image_set, tmp_path):
    target_dir = tmp_path / "export"
    export_in_process(Format.mds, {target_dir: image_set})
    assert json.loads((target_dir / "classes.json").read_text()) == [*image_set.manifest.classes]
    for split, of_split in image_set.manifest.splits.items():
        (shard,) = json.loads((target_dir / HUB_SPLITS[split] / "index.json").read_text())["shards"]
        assert shard["samples"] == of_split.samples
        assert dict(zip(shard["column_names"], shard["column_encodings"], strict=True)) == {
            "image": "png",
            "label": "int",
            "source": "str",
        }
        content = (target_dir / HUB_SPLITS[split] / shard["raw_data"]["basename"]).read_bytes()
        assert shard["raw_data"]["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
    # `datasets` can't read them, and doesn't take index.json for the dataset.
    answer = load_program_output(LOAD, target_dir, tmp_path / "cache")
    assert answer == f"No (supported) data files found in {target_dir}"
