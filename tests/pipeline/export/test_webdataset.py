import json
import tarfile

import pytest

from pipeline.export.formats import Format
from tests.helpers.exports import export_in_process


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
