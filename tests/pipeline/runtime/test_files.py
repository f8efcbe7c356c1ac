import csv
import errno
import io
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.runtime.files import render_csv, replace_dir, write_csv, write_json, write_text
from shardset.shards import verify_shards
from tests.helpers.workspace import hash_files


@pytest.fixture
def normalized_workspace(workspace, tiny_raw):
    """A workspace with the tiny dataset's data/raw, stats.json and shards."""
    shutil.copytree(tiny_raw, workspace.path / "data/raw")
    for stage in ("stats", "normalize"):
        assert workspace.pipeline(stage).returncode == 0
    return workspace


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_is_utf8_with_lf(tmp_path):
    write_text(tmp_path / "new/folder/text", "café\n")
    assert (tmp_path / "new/folder/text").read_bytes() == b"caf\xc3\xa9\n"
    write_json(tmp_path / "json", {"b": 1, "a": [0.1, None]})
    assert (tmp_path / "json").read_bytes() == b'{\n  "b": 1,\n  "a": [\n    0.1,\n    null\n  ]\n}\n'


def test_concurrent_texts_never_mix(tmp_path):
    path = tmp_path / "text"
    texts = [f"{number}\n" * 10_000 for number in range(8)]
    with ThreadPoolExecutor(len(texts)) as pool:
        futures = [pool.submit(write_text, path, text) for text in texts for _ in range(5)]
        while not all(future.done() for future in futures):
            assert not path.exists() or path.read_text() in texts
    assert [future.result() for future in futures] == [None] * 40
    assert path.read_text() in texts
    assert names_in(tmp_path) == ["text"]


def test_unwritable_text_names_its_file(tmp_path):
    (tmp_path / "text").mkdir()
    with pytest.raises(OSError, match="Is a directory|Permission denied|File exists") as raised:
        write_text(tmp_path / "text", "written")
    assert raised.value.filename == str(tmp_path / "text")
    assert names_in(tmp_path) == ["text"]


def test_replaced_folder_holds_only_new_files(tmp_path):
    for name in ("first", "second"):
        with replace_dir(tmp_path / "set") as new_dir:
            (new_dir / name).touch()
            assert names_in(new_dir) == [name]
    assert names_in(tmp_path) == ["set"]
    assert names_in(tmp_path / "set") == ["second"]


def test_failed_block_keeps_the_previous_folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/good").touch()
    with suppress(ZeroDivisionError), replace_dir(tmp_path / "set") as new_dir:
        (new_dir / "bad").touch()
        raise ZeroDivisionError
    assert names_in(tmp_path) == ["set"]
    assert names_in(tmp_path / "set") == ["good"]


def test_file_that_cannot_be_made_is_named_by_its_folder(tmp_path):
    message = f"^{tmp_path}/set: can't be written: No such file or directory$"
    with pytest.raises(PipelineError, match=message), replace_dir(tmp_path / "set") as new_dir:
        (new_dir / "absent/file").touch()


@pytest.mark.parametrize("name", [".set.raw/images", "set/images", "other"])
def test_error_of_another_file_stays_what_it_is(name, tmp_path):
    with pytest.raises(FileNotFoundError) as raised, replace_dir(tmp_path / "set"):
        (tmp_path / name).read_bytes()
    assert raised.value.filename == str(tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that can't be read")
def test_failing_read_is_not_reported_as_failing_write(tmp_path):
    file = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)) as raised, replace_dir(tmp_path / "set"):
            os.read(file, 1)
    finally:
        os.close(file)
    assert raised.value.errno == errno.EIO


def test_link_to_folder_elsewhere_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "elsewhere")
    with replace_dir(tmp_path / "set") as new_dir:
        (new_dir / "good").touch()
    assert (tmp_path / "set").is_symlink()
    assert names_in(tmp_path / "elsewhere") == ["good"]


def test_concurrent_replacements_never_mix(tmp_path):
    def replace(number):
        with replace_dir(tmp_path / "set") as new_dir:
            for name in "abc":
                (new_dir / name).write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(replace, number) for number in range(100)]
    errors = [str(future.exception()) for future in futures if future.exception()]
    assert len(errors) < 100
    assert all("another process is writing to it" in error for error in errors), errors
    assert len({(tmp_path / "set" / name).read_text() for name in "abc"}) == 1
    assert names_in(tmp_path) == ["set"]


def test_kill_between_two_renames_loses_nothing(tmp_path):
    (tmp_path / ".set.old.tmp").mkdir()
    (tmp_path / ".set.old.tmp/good").touch()
    with suppress(ZeroDivisionError), replace_dir(tmp_path / "set"):
        assert names_in(tmp_path / "set") == ["good"]
        raise ZeroDivisionError
    assert names_in(tmp_path) == ["set"]
    assert names_in(tmp_path / "set") == ["good"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_cleanup_waits_for_its_end(number, tmp_path, monkeypatch):
    def stop_and_remove(*args, **kwargs):
        signal.raise_signal(number)
        return rmtree(*args, **kwargs)

    def stop(number, frame):
        raise InterruptedError

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", stop_and_remove)
    handler = signal.signal(number, stop)
    try:
        with pytest.raises((InterruptedError, PipelineError)), replace_dir(tmp_path / "set"):
            raise ZeroDivisionError
    finally:
        signal.signal(number, handler)
    assert names_in(tmp_path) == []


@pytest.mark.slow
def test_leftovers_of_killed_process_are_removed(normalized_workspace):
    data_dir = normalized_workspace.path / "data"
    before = names_in(data_dir)
    for role in ("work", "old", "gone"):
        (data_dir / f".shards.{role}.tmp/train").mkdir(parents=True)
        (data_dir / f".shards.{role}.tmp/train/images-00000-of-00001.npy").touch()
    for name in ("shards.lock", "stats.json.lock", "stats.json.new"):
        (data_dir / f".{name}.tmp").write_text("left")
    for stage in ("stats", "normalize"):
        assert normalized_workspace.pipeline(stage).returncode == 0
    assert names_in(data_dir) == before
    verify_shards(data_dir / "shards")


@pytest.mark.slow
def test_links_into_dvc_cache_are_never_written_into(normalized_workspace):
    stages = ("stats", "audit", "normalize", "report")
    workspace = normalized_workspace
    cache_dir = workspace.path / ".dvc/cache/files"
    assert workspace.run("dvc", "repro", "--single-item", *stages).returncode == 0
    before = hash_files(cache_dir)
    shard = workspace.path / "data/shards/train/images-00000-of-00001.npy"
    assert shard.stat().st_nlink == 2
    assert not shard.stat().st_mode & 0o222
    workspace.set_param("scheme: dataset", "scheme: unit")
    # By hand: DVC would remove the outs first.
    for stage in stages:
        done = workspace.pipeline(stage)
        assert done.returncode == 0, done.stderr
    assert shard.stat().st_nlink == 1
    assert hash_files(cache_dir) == before
    assert workspace.run("dvc", "checkout", "--force", "normalize", "report").returncode == 0
    workspace.set_param("scheme: unit", "scheme: dataset")
    assert workspace.pipeline("report").returncode == 0
    assert workspace.run("dvc", "status", *stages).stdout.startswith("Data and pipelines are")
    assert hash_files(cache_dir) == before


def test_csv_keeps_line_breaks_within_fields(tmp_path):
    rows = [["Icon\r", "a\nb", "c\r\nd", 'e"f', "g,h"], ["", "1", "2.5", "é", "last"]]
    write_csv(tmp_path / "rows.csv", rows)
    text = render_csv(rows)
    assert (tmp_path / "rows.csv").read_bytes() == text.encode()
    assert text == '"Icon\r","a\nb","c\r\nd","e""f","g,h"\n,1,2.5,é,last\n'
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
