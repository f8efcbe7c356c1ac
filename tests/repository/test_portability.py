"""The same bytes in every folder, locale and environment."""

import re
import shutil
import sys

import pytest

from pipeline.sources.registry import DATASETS
from tests.helpers.shard_sets import download
from tests.helpers.workspace import REPOSITORY, Workspace, hash_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs sh, a umask, and names that Windows doesn't allow"),
]

ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ODD_NAME = "a b/ünïcödé 数据 🐸/it's $HOME; [x]* 100%"
LONG_NAME = "/".join(["d" * 200] * (8 if sys.platform == "linux" else 3))  # macOS allows 1,024 bytes


def run(workspace, *args, umask="022", **env):
    command = 'umask $0; exec python -m pipeline "$@"'
    return workspace.run("sh", "-c", command, umask, *args, PYTHONPATH=str(REPOSITORY), **env)


def run_all(raw_dir, path, **settings):
    """Run all stages in a folder and return it as a workspace."""
    workspace = Workspace(path)
    (path / "data").mkdir(parents=True)
    shutil.copytree(raw_dir, path / "data/raw")
    for name in ("params.yaml", "data/not_duplicates.csv"):
        shutil.copy(REPOSITORY / name, path / name)
    for args in (["stats"], ["audit"], ["normalize"], ["report"], ["verify", path / "data/shards"]):
        done = run(workspace, *args, **settings)
        assert (done.returncode, done.stderr) == (0, "")
    return workspace


@pytest.fixture(scope="module")
def expected_hashes(tiny_raw, tmp_path_factory):
    """The SHA-256 of each file of a run in ordinary circumstances."""
    return hash_files(run_all(tiny_raw, tmp_path_factory.mktemp("expected") / "here").path)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (ODD_NAME, {}),
        (ODD_NAME, ASCII_ONLY),
        (LONG_NAME, {"umask": "077", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1", "PIPELINE_THREADS": "1"}),
        ("data", {"PYTHONDEVMODE": "1", "PYTHONHASHSEED": "2", "PIPELINE_THREADS": "7"}),
    ],
    ids=["odd names", "odd names in ASCII", "long names, private files", "development mode"],
)
def test_bytes_do_not_depend_on_the_environment(name, settings, expected_hashes, tiny_raw, tmp_path):
    workspace = run_all(tiny_raw, tmp_path / name, **settings)
    assert hash_files(workspace.path) == expected_hashes
    files = [file for name in ("audit", "shards") for file in (workspace.path / "data" / name).rglob("*")]
    modes = {file.stat().st_mode & 0o077 for file in files}
    assert modes == ({0} if "umask" in settings else {0o044, 0o055})


def test_error_with_a_non_ascii_path_is_printed_in_ascii(tiny_raw, tmp_path):
    workspace = Workspace(tmp_path / ODD_NAME)
    shutil.copytree(tiny_raw, workspace.path / "data/raw")
    shutil.rmtree(workspace.path / "data/raw/test")
    done = run(workspace, "verify", workspace.path / "data/raw", **ASCII_ONLY)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "images-00000-of-00001.npy: missing" in done.stderr


def test_path_outside_the_output_encoding_is_escaped(tiny_raw, tmp_path):
    shutil.copytree(tiny_raw, tmp_path / "数据")
    done = run(Workspace(tmp_path), "verify", tmp_path / "数据", PYTHONIOENCODING="cp1252:strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u6570\u636e: tiny" in done.stdout


def test_file_names_are_portable(expected_hashes):
    assert len({name.casefold() for name in expected_hashes}) == len(expected_hashes)
    assert all(re.fullmatch(r"[A-Za-z0-9./_-]+", name) for name in expected_hashes)


def test_read_only_source_is_left_unchanged(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "tiny", tiny.facts())
    source = tiny.write_files(tmp_path / "source")
    paths = sorted([source, *source.rglob("*")])
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = [path.stat() for path in paths]
    try:
        download("tiny", tmp_path / "raw", tmp_path / "archives", source)
        after = [path.stat() for path in sorted([source, *source.rglob("*")])]
        assert [(it.st_mtime_ns, it.st_size) for it in after] == [(it.st_mtime_ns, it.st_size) for it in before]
    finally:
        for path in paths:
            path.chmod(0o755)
