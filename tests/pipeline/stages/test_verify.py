import pytest

from pipeline.stages.remedies import REPAIR_HINT
from pipeline.stages.verify import verify_set
from shardset.errors import CorruptDataError, InputError
from tests.helpers.shard_sets import make_images, write_raw_set


def test_undamaged_set_returns_its_manifest(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(6), val=make_images(2), test=make_images(3))
    assert verify_set(raw.dir) == raw.manifest


def test_progress_counts_all_images(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(6), val=make_images(2), test=make_images(3))
    shown: list[tuple] = []
    verify_set(raw.dir, lambda *progress: shown.append(progress))
    assert (len(shown), shown[-1]) == (3, ("Checking", 11, 11))


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_damaged_file_is_named_with_a_remedy(split, kind, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(6), val=make_images(2), test=make_images(3))
    path = raw.dir / getattr(raw.shards(split)[0], kind).path
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError) as failed:
        verify_set(raw.dir)
    assert f"{split}/{path.name}: expected SHA-256" in str(failed.value)
    assert str(failed.value).endswith(f"\n{REPAIR_HINT}")


def test_incomplete_set_is_named_with_a_remedy(tmp_path):
    with pytest.raises(CorruptDataError, match=r"manifest\.json: missing, so .* is not a complete shard set") as failed:
        verify_set(tmp_path)
    assert str(failed.value).endswith(f"\n{REPAIR_HINT}")


def test_unlisted_file_is_named_without_repair_hint(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(6))
    (raw.dir / "notes.txt").write_text("mine")
    with pytest.raises(CorruptDataError) as failed:
        verify_set(raw.dir)
    assert str(failed.value).endswith("notes.txt: not in the manifest\nMove these files out of the folder.")


def test_number_of_threads_is_checked(tmp_path, monkeypatch):
    raw = write_raw_set(tmp_path / "raw", make_images(6))
    monkeypatch.setenv("PIPELINE_THREADS", "zero")
    with pytest.raises(InputError, match="PIPELINE_THREADS"):
        verify_set(raw.dir)
