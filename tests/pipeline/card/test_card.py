import hashlib
import shutil

import pytest
from msgspec.structs import replace

from pipeline.card.card import render_card
from shardset.errors import CorruptDataError
from shardset.shards import open_shards, verify_shards

CARD_NAMES = ["README.md", "croissant.json"]


def test_card_on_disk_is_that_of_the_manifest(normalized_tiny, normalized_splits):
    for shards in (normalized_tiny, normalized_splits):
        texts = render_card(replace(shards.manifest, files=()))
        assert list(texts) == CARD_NAMES
        for name, text in texts.items():
            assert (shards.dir / name).read_bytes() == text.encode()


def test_manifest_has_size_and_hash_of_the_card(normalized_splits):
    assert [file.path for file in normalized_splits.manifest.files] == CARD_NAMES
    for file in normalized_splits.manifest.files:
        content = (normalized_splits.dir / file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_card_does_not_depend_on_its_own_files(normalized_tiny):
    assert render_card(normalized_tiny.manifest) == render_card(replace(normalized_tiny.manifest, files=()))


@pytest.mark.parametrize("name", CARD_NAMES)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("a changed byte", "expected SHA-256 "),
        ("one more byte", r"expected [\d,]+ bytes, got "),
        ("no file", "missing"),
    ],
)
def test_changed_card_is_found_by_verify(name, fault, message, normalized_tiny, tmp_path):
    copy = shutil.copytree(normalized_tiny.dir, tmp_path / "shards")
    verify_shards(copy)
    content = (copy / name).read_bytes()
    (copy / name).unlink()
    if fault != "no file":
        (copy / name).write_bytes(content + b"\n" if fault == "one more byte" else content[:-3] + b"?" + content[-2:])
    with pytest.raises(CorruptDataError, match=f"/{name}: {message}"):
        verify_shards(copy)


def test_raw_shards_have_no_card(tiny_raw):
    manifest = open_shards(tiny_raw).manifest
    assert render_card(manifest) == {}
    assert manifest.files == ()
    assert sorted(path.name for path in tiny_raw.iterdir()) == ["manifest.json", "test", "train"]
