import pytest
import yaml
from msgspec.structs import replace

from pipeline.card.origins import ORIGINS
from pipeline.export.card import label_type, render_loading, render_readme
from pipeline.export.formats import Format
from pipeline.stages.export import export_set
from tests.helpers.exports import load_program_output

# What `datasets` says of an export whose card has another number of samples than its files.
LOAD = """
import json, sys
from datasets import load_dataset

try:
    load_dataset(sys.argv[1], cache_dir=sys.argv[2])
except Exception as error:
    print(json.dumps(type(error).__name__))
"""


def render(manifest):
    loading = render_loading(manifest, "data/{split}-*", {"image": "image", "label": label_type(manifest)})
    return render_readme(manifest, "A note.", loading)


def read_front_matter(text):
    _, yaml_text, _ = text.split("---\n", 2)
    return yaml.safe_load(yaml_text)


def test_front_matter_has_the_files_and_columns_of_each_split(colour_set):
    matter = read_front_matter(render(colour_set.manifest))
    splits = {"train": 7, "validation": 3, "test": 4}
    (config,) = matter["configs"]
    assert config["data_files"] == [{"split": split, "path": f"data/{split}-*"} for split in splits]
    assert matter["dataset_info"]["splits"] == [{"name": name, "num_examples": n} for name, n in splits.items()]
    assert matter["dataset_info"]["features"] == [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": {"0": "class_0", "1": "class_1", "2": "class_2"}}}},
    ]


@pytest.mark.parametrize("name", ['a "quoted" one', "no", "back\\slash", "émile: #1", "{braces}", "1e3", "- x", "🐸"])
def test_special_characters_in_names_are_kept(name, colour_set):
    matter = read_front_matter(render(replace(colour_set.manifest, dataset=name, classes=(name, "other"))))
    assert matter["pretty_name"] == name
    assert matter["dataset_info"]["features"][1]["dtype"]["class_label"]["names"] == {"0": name, "1": "other"}


def test_card_says_what_the_dataset_is(colour_set, image_set):
    text = render(replace(colour_set.manifest, dataset="cifar10"))
    origin = ORIGINS["cifar10"]
    for part in ("# CIFAR-10\n", origin.description, origin.citation, "PNG files of 8 x 12 pixels", "A note."):
        assert part in text
    assert f"`{colour_set.manifest.content_sha256}`" in text
    assert "a square of 32 pixels was cut from the centre" in render(image_set.manifest)


@pytest.mark.slow
def test_loading_fails_if_the_number_of_samples_differs(colour_set, tmp_path):
    export_set(colour_set.dir, tmp_path / "export", Format.parquet)
    card = tmp_path / "export/README.md"
    text = card.read_text()
    card.write_text(text.replace("num_examples: 7", "num_examples: 8"))
    assert load_program_output(LOAD, tmp_path / "export", tmp_path / "cache") == "NonMatchingSplitsSizesError"
