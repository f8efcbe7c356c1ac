import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from msgspec.structs import replace

from pipeline.card.origins import ORIGINS
from pipeline.card.readme import render_readme
from shardset.manifest import Preparation
from tests.helpers.workspace import REPOSITORY


def read_front_matter(text):
    _, yaml_text, _ = text.split("---\n", 2)
    return yaml.safe_load(yaml_text)


def render(manifest):
    return render_readme(manifest, manifest.normalization)


def test_front_matter_has_features_splits_and_sizes(normalized_tiny):
    info = read_front_matter((normalized_tiny.dir / "README.md").read_text())["dataset_info"]
    image, label = info["features"]
    assert image == {"name": "image", "dtype": {"array3_d": {"dtype": "float32", "shape": [3, 32, 32]}}}
    assert label["dtype"]["class_label"]["names"]["3"] == "cat"
    assert [(split["name"], split["num_examples"]) for split in info["splits"]] == [("train", 100), ("test", 20)]
    assert info["dataset_size"] == info["download_size"] == sum(split["num_bytes"] for split in info["splits"])
    assert info["dataset_size"] == sum(path.stat().st_size for path in normalized_tiny.dir.rglob("*.npy"))


def test_each_split_is_in_front_matter_and_table(normalized_splits):
    text = (normalized_splits.dir / "README.md").read_text()
    splits = normalized_splits.manifest.splits
    info = read_front_matter(text)["dataset_info"]
    assert [(split["name"], split["num_examples"]) for split in info["splits"]] == [
        (split, of_split.samples) for split, of_split in splits.items()
    ]
    table = [line for line in text.splitlines() if line.startswith("| ") and "samples" not in line]
    assert table == [
        f"| {split} | {of_split.samples} | {len(of_split.shards)} | {of_split.num_bytes:,} |"
        for split, of_split in splits.items()
    ]


def test_card_says_how_image_files_were_prepared(normalized_tiny):
    assert "image files" not in render(normalized_tiny.manifest)
    facts = {"size": 24, "filter": "bilinear", "orientation": "exif", "background": "white"}
    for resize, phrase in (
        (31, "the short side was resized to 31 pixels, and a square of 24"),
        (None, ": a square of 24"),
    ):
        manifest = replace(normalized_tiny.manifest, preparation=Preparation(resize=resize, **facts))
        assert phrase in " ".join(render(manifest).split())


@pytest.mark.parametrize(
    ("dtype", "phrase"),
    [
        ("float32", "Each value is (v / 255 - mean) / std of a pixel v"),
        ("float16", "Each value is (v / 255 - mean) / std of a pixel v"),
        ("uint8", "To normalize a pixel v, compute (v / 255 - mean) / std"),
    ],
)
def test_formula_fits_the_dtype(dtype, phrase, normalized_tiny):
    text = " ".join(render(replace(normalized_tiny.manifest, dtype=dtype)).split())
    normalization = normalized_tiny.manifest.normalization
    assert phrase in text
    assert f"mean {list(normalization.mean)} and std {list(normalization.std)} " in text
    assert f"(scheme `{normalization.scheme}`)" in text
    assert f"`{normalized_tiny.manifest.content_sha256}`" in text


def test_code_of_the_card_reads_the_shards(normalized_tiny):
    code = (normalized_tiny.dir / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code + "    print(len(images), images.dtype, labels.sum())"],
        cwd=normalized_tiny.dir,
        capture_output=True,
        text=True,
        check=True,
    )
    labels = normalized_tiny.labels("train")
    expected = [f"{len(part)} float32 {part.sum()}" for part in np.split(labels, [40, 80])]
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("name", ORIGINS)
def test_card_of_a_known_dataset_cites_it(name, normalized_tiny):
    text = render(replace(normalized_tiny.manifest, dataset=name))
    origin = ORIGINS[name]
    assert read_front_matter(text)["pretty_name"] == origin.name
    assert f"# {origin.name}, normalized" in text
    assert origin.description in text
    assert f"```bibtex\n{origin.citation}\n```\n" in text
    assert "bibtex" not in render(normalized_tiny.manifest)


def test_cifar10_is_cited_as_its_author_asks():
    citation = ORIGINS["cifar10"].citation
    title = "Learning Multiple Layers of Features from Tiny Images"
    assert "krizhevsky2009learning" in citation
    assert title in citation
    assert title in (REPOSITORY / "CITATION.cff").read_text()


@pytest.mark.parametrize(
    "name", ['a "quoted" one', "no", "back\\slash", "émile: #1", "{braces}", "1e3", "- x", "🐸", "数据"]
)
def test_special_characters_in_names_are_kept(name, normalized_tiny):
    matter = read_front_matter(render(replace(normalized_tiny.manifest, dataset=name, classes=(name, "other"))))
    assert matter["pretty_name"] == name
    assert matter["dataset_info"]["features"][1]["dtype"]["class_label"]["names"] == {"0": name, "1": "other"}


# What `datasets` makes of a folder, in a process of its own, because it gives warnings, which are errors here.
LOAD = """
import json, sys
from datasets import load_dataset

try:
    loaded = load_dataset(sys.argv[1], cache_dir=sys.argv[2])
    print(json.dumps({split: part.to_dict() for split, part in loaded.items()}))
except Exception as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def load_with_datasets(set_dir, cache_dir):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, set_dir, cache_dir],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_datasets_finds_no_files_that_it_can_read(normalized_tiny, tmp_path):
    answer = load_with_datasets(normalized_tiny.dir, tmp_path)
    assert answer == f"DataFilesNotFoundError: No (supported) data files found in {normalized_tiny.dir}"
    assert "so `load_dataset` finds no data files here" in (normalized_tiny.dir / "README.md").read_text()


@pytest.mark.slow
def test_datasets_reads_samples_csv(normalized_images, tmp_path):
    loaded = load_with_datasets(normalized_images.dir, tmp_path)
    assert list(loaded) == list(normalized_images.manifest.splits)
    for split, columns in loaded.items():
        assert tuple(columns["source"]) == normalized_images.sources(split)
        assert columns["label"] == normalized_images.labels(split).tolist()


def test_card_of_image_files_names_their_table(normalized_images, normalized_tiny):
    text = (normalized_images.dir / "README.md").read_text()
    assert "`samples.csv` of each split names the file of each sample." in text
    assert read_front_matter(text)["configs"] == [
        {
            "config_name": "samples",
            "data_files": [
                {"split": split, "path": f"{split}/samples.csv"} for split in normalized_images.manifest.splits
            ],
        }
    ]
    assert "samples.csv" not in render(normalized_tiny.manifest)


def test_hub_accepts_the_card(normalized_tiny, normalized_images):
    from huggingface_hub import DatasetCard

    for shards in (normalized_tiny, normalized_images):
        data = DatasetCard.load(shards.dir / "README.md").data
        assert data.task_categories == ["image-classification"]
        assert data.license == "unknown"
