import json
import subprocess
import sys

import pytest
from msgspec.structs import replace

from pipeline.card.croissant import render_croissant
from pipeline.card.origins import ORIGINS
from pipeline.runtime.files import hash_file

# In a process of its own, because mlcroissant and what it imports give warnings, which are errors here.
READ_CROISSANT = """
import json, sys
import mlcroissant

dataset = mlcroissant.Dataset(sys.argv[1])
assert not dataset.metadata.ctx.issues.errors, dataset.metadata.ctx.issues.errors

def decode(value):
    return value.decode() if isinstance(value, bytes) else value

print(json.dumps({
    "warnings": sorted(dataset.metadata.ctx.issues.warnings),
    "files": {file.id: file.sha256 for file in dataset.metadata.distribution},
    "classes": [[int(it["classes/index"]), decode(it["classes/name"])] for it in dataset.records("classes")],
}))
"""


def read_with_mlcroissant(path):
    done = subprocess.run(
        [sys.executable, "-c", READ_CROISSANT, path], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_croissant_lists_each_shard_and_the_classes(normalized_tiny):
    read = read_with_mlcroissant(normalized_tiny.dir / "croissant.json")
    files = {
        path.relative_to(normalized_tiny.dir).as_posix(): hash_file(path) for path in normalized_tiny.dir.rglob("*.npy")
    }
    assert len(files) == 8
    assert read["files"] == files
    assert read["classes"] == list(map(list, enumerate(normalized_tiny.manifest.classes)))


@pytest.mark.slow
def test_croissant_of_any_splits_is_valid(normalized_splits):
    read = read_with_mlcroissant(normalized_splits.dir / "croissant.json")
    assert list(read["files"]) == [file.path for file in normalized_splits.manifest.shard_files()]
    assert {path.split("/")[0] for path in read["files"]} == set(normalized_splits.manifest.splits)
    assert read["classes"] == [[0, "class_0"], [1, "class_1"]]


def test_croissant_has_the_size_of_each_shard(normalized_tiny):
    data = json.loads(render_croissant(normalized_tiny.manifest))
    for entry in data["distribution"]:
        assert entry["contentSize"] == f"{(normalized_tiny.dir / entry['contentUrl']).stat().st_size} B"
    assert data["description"] == f"tiny {normalized_tiny.manifest.summary()}."


@pytest.mark.parametrize("name", ORIGINS)
def test_croissant_of_a_known_dataset_cites_it(name, normalized_tiny):
    data = json.loads(render_croissant(replace(normalized_tiny.manifest, dataset=name)))
    origin = ORIGINS[name]
    assert (data["citeAs"], data["url"], data["datePublished"]) == (origin.citation, origin.url, origin.published)
    assert [person["name"] for person in data["creator"]] == list(origin.creators)
    assert data["description"].startswith(origin.description)
    other = json.loads(render_croissant(normalized_tiny.manifest))
    assert other["citeAs"] == f"tiny, content SHA-256 {normalized_tiny.manifest.content_sha256}"
    assert "datePublished" not in other


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        ("cifar10", []),
        ("synthetic", []),
        # Nobody but the owner of images knows when they were published.
        (
            "images",
            ['[Metadata(images)] Property "https://schema.org/datePublished" is recommended, but does not exist.'],
        ),
    ],
)
def test_croissant_is_valid_without_warning(name, warnings, normalized_tiny, tmp_path):
    path = tmp_path / "croissant.json"
    path.write_text(render_croissant(replace(normalized_tiny.manifest, dataset=name)))
    assert read_with_mlcroissant(path)["warnings"] == warnings


def test_license_is_a_url_that_says_no_more_than_is_known(normalized_tiny):
    for name, term in (("cifar10", "None"), ("cifar100", "None"), ("synthetic", "NoAssertion"), ("x", "NoAssertion")):
        data = json.loads(render_croissant(replace(normalized_tiny.manifest, dataset=name)))
        assert data["license"] == f"https://spdx.org/rdf/3.0.1/terms/Licensing/{term}"


def test_version_changes_with_the_content(normalized_tiny):
    for content in ("0123456789abcdef", "fedcba9876543210"):
        data = json.loads(render_croissant(replace(normalized_tiny.manifest, content_sha256=content * 4)))
        assert data["version"] == f"2.0.0+{content[:12]}"


@pytest.mark.parametrize("name", ['a "quoted" one', "no", "back\\slash", "émile: #1", "{braces}", "🐸", "数据"])
def test_special_characters_in_names_are_kept(name, normalized_tiny):
    data = json.loads(render_croissant(replace(normalized_tiny.manifest, dataset=name, classes=(name, "other"))))
    assert data["name"] == name
    assert [record["classes/name"] for record in data["recordSet"][0]["data"]] == [name, "other"]
