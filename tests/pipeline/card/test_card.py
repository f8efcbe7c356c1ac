import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from msgspec.structs import replace

from pipeline.card.card import CARD_NAME, CROISSANT_NAME, ORIGINS, render_card
from pipeline.runtime.files import hash_file
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError
from shardset.shards import open_shards, verify_shards
from tests.helpers.shard_sets import make_params
from tests.helpers.workspace import REPOSITORY

# In a process of its own: mlcroissant and what it imports give warnings, which are errors here.
READ_CROISSANT = """
import json, logging, sys
import mlcroissant

dataset = mlcroissant.Dataset(sys.argv[1])
assert not dataset.metadata.ctx.issues.errors, dataset.metadata.ctx.issues.errors
text = lambda value: value.decode() if isinstance(value, bytes) else value
print(json.dumps({
    "files": {file.id: file.sha256 for file in dataset.metadata.distribution},
    "classes": [[int(it["classes/index"]), text(it["classes/name"])] for it in dataset.records("classes")],
}))
"""


@pytest.fixture(scope="module")
def shards_dir(tiny_raw, tmp_path_factory):
    path = tmp_path_factory.mktemp("card")
    write_stats(tiny_raw, path / "stats.json")
    normalize_shards(tiny_raw, path / "stats.json", path / "shards", make_params(samples_per_shard=40))
    return path / "shards"


def front_matter(text):
    _, yaml_text, _ = text.split("---\n", 2)
    return yaml.safe_load(yaml_text)


def test_croissant_validates_and_lists_each_file_with_its_hash_and_the_classes(shards_dir):
    done = subprocess.run(
        [sys.executable, "-c", READ_CROISSANT, shards_dir / CROISSANT_NAME], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    files = {path.relative_to(shards_dir).as_posix(): hash_file(path) for path in shards_dir.rglob("*.npy")}
    assert len(files) == 8
    assert read["files"] == files
    assert read["classes"] == list(map(list, enumerate(open_shards(shards_dir).manifest.classes)))


def test_the_card_has_features_splits_and_sizes(shards_dir):
    info = front_matter((shards_dir / CARD_NAME).read_text())["dataset_info"]
    image, label = info["features"]
    assert image == {"name": "image", "dtype": {"array3_d": {"dtype": "float32", "shape": [3, 32, 32]}}}
    assert label["dtype"]["class_label"]["names"]["3"] == "cat"
    assert [(split["name"], split["num_examples"]) for split in info["splits"]] == [("train", 100), ("test", 20)]
    assert info["dataset_size"] == sum(split["num_bytes"] for split in info["splits"])
    assert info["dataset_size"] == sum(path.stat().st_size for path in shards_dir.rglob("*.npy"))


def test_the_code_in_the_card_reads_the_shards(shards_dir):
    code = (shards_dir / CARD_NAME).read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code + "    print(len(images), labels.sum())"],
        cwd=shards_dir,
        capture_output=True,
        text=True,
        check=True,
    )
    labels = open_shards(shards_dir).labels("train")
    expected = [f"{len(part)} {part.sum()}" for part in np.split(labels, [40, 80])]
    assert done.stdout.splitlines() == expected


def test_the_card_of_a_known_dataset_cites_it(shards_dir):
    manifest = open_shards(shards_dir).manifest
    for name, origin in ORIGINS.items():
        texts = render_card(replace(manifest, dataset=name))
        assert front_matter(texts[CARD_NAME])["pretty_name"] == origin.name
        assert origin.citation in texts[CARD_NAME]
        assert json.loads(texts[CROISSANT_NAME])["citeAs"] == origin.citation
    assert "krizhevsky2009learning" in ORIGINS["cifar10"].citation
    assert origin.citation not in (shards_dir / CARD_NAME).read_text()


@pytest.mark.parametrize("name", ['a "quoted" one', "no", "back\\slash", "émile: #1", "{braces}"])
def test_names_with_special_characters_stay_what_they_are(name, shards_dir):
    manifest = open_shards(shards_dir).manifest
    texts = render_card(replace(manifest, dataset=name, classes=(name, "other")))
    matter = front_matter(texts[CARD_NAME])
    assert matter["pretty_name"] == name
    assert matter["dataset_info"]["features"][1]["dtype"]["class_label"]["names"] == {"0": name, "1": "other"}
    assert json.loads(texts[CROISSANT_NAME])["recordSet"][0]["data"][0]["classes/name"] == name


@pytest.mark.parametrize("name", [CARD_NAME, CROISSANT_NAME])
@pytest.mark.parametrize("fault", ["a changed byte", "one more byte", "no file"])
def test_verify_finds_what_is_not_the_card(name, fault, shards_dir, tmp_path):
    copy = tmp_path / "shards"
    shutil.copytree(shards_dir, copy)
    verify_shards(copy)
    content = (copy / name).read_bytes()
    (copy / name).unlink()
    if fault != "no file":
        (copy / name).write_bytes(content + b"\n" if fault == "one more byte" else content[:-3] + b"?" + content[-2:])
    with pytest.raises(CorruptDataError, match=f"{name}: missing, or not what the manifest says"):
        verify_shards(copy)


def test_raw_shards_have_no_card(tiny_raw):
    assert render_card(open_shards(tiny_raw).manifest) == {}
    assert not (tiny_raw / CARD_NAME).exists()


def test_the_citation_is_that_of_the_repository():
    assert "Learning Multiple Layers of Features from Tiny Images" in (REPOSITORY / "CITATION.cff").read_text()
