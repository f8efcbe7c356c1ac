import json
import tarfile

import pytest

from pipeline.export.formats import Format
from tests.helpers.exports import export_in_process, load_program_output
from tests.helpers.shard_sets import read_images

# `datasets` reads tar files too: by the card, or given the files, without the class names.
LOAD = """
import json, sys
import numpy as np
from datasets import load_dataset

path, cache_dir = sys.argv[1:]
loaded = load_dataset(path, cache_dir=cache_dir)
bare = load_dataset("webdataset", data_files=f"{path}/train-*.tar", split="train", cache_dir=cache_dir)
print(json.dumps({
    "classes": loaded["train"].features["cls"].names,
    "bare": bare["cls"][:],
    "splits": {
        name: [[np.asarray(row["png"]).tolist(), row["cls"], row["json"]["source"]] for row in split]
        for name, split in loaded.items()
    },
}))
"""


@pytest.fixture(scope="module")
def exports(colour_set, grey_set, image_set, tmp_path_factory):
    path = tmp_path_factory.mktemp("exports")
    sets = {path / "colour": colour_set, path / "grey": grey_set, path / "images": image_set}
    export_in_process(Format.webdataset, sets)
    return path


@pytest.mark.slow
def test_tar_files_hold_sorted_samples_without_time_or_owner(exports, image_set):
    assert sorted(path.name for path in (exports / "images").iterdir()) == [
        "README.md",
        "classes.json",
        "test-000000.tar",
        "train-000000.tar",
        "validation-000000.tar",
    ]
    assert json.loads((exports / "images/classes.json").read_text()) == [*image_set.manifest.classes]
    for target_dir, suffixes in (("images", ("cls", "json", "png")), ("grey", ("cls", "png"))):
        with tarfile.open(exports / target_dir / "train-000000.tar") as tar:
            members = tar.getmembers()
        names = [f"{index:08d}.{suffix}" for index in range(len(members) // len(suffixes)) for suffix in suffixes]
        assert [member.name for member in members] == names
        assert {(it.mtime, it.uid, it.gid, it.uname, it.gname) for it in members} == {(0, 0, 0, "bigdata", "bigdata")}


@pytest.mark.slow
def test_readme_names_the_decoder_that_keeps_grey(exports):
    for name, mode in (("colour", "pil"), ("grey", "pill")):
        assert f'.decode("{mode}")' in (exports / name / "README.md").read_text()


@pytest.mark.slow
def test_datasets_reads_the_same_samples(exports, image_set, tmp_path):
    read = load_program_output(LOAD, exports / "images", tmp_path)
    assert read["classes"] == [*image_set.manifest.classes]
    assert read["bare"] == image_set.labels("train").tolist()
    assert [*read["splits"]] == ["train", "validation", "test"]
    for split, samples in zip(image_set.manifest.splits, read["splits"].values(), strict=True):
        pixels = read_images(image_set, split).transpose(0, 2, 3, 1).tolist()
        expected = zip(pixels, image_set.labels(split).tolist(), image_set.sources(split), strict=True)
        assert samples == [[*sample] for sample in expected]
