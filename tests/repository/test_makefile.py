"""The Makefile, in folders with a space and with stubs in place of Python and all that is installed."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.helpers.workspace import REPOSITORY, make_workspace

pytestmark = pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="needs make")

# Makes a .venv like `python -m venv`, except that all of its programs are copies of this one, which prints its calls.
STUB = """#!/bin/sh
test "$1" = config || echo "called: $(basename "$0") $*"
test "$1" = -c && exec {python} "$@"
case "$(basename "$0") $1 $2" in
  "python -m venv")
    rm -rf .venv && mkdir -p .venv/bin && touch .venv/bin/activate
    for name in python dvc pytest ruff mypy codespell proselint check-jsonschema; do cp "$0" .venv/bin/$name; done
    echo "#!$(pwd -P)/.venv/bin/python" > .venv/bin/pip ;;
  "python -m benchmarks.run") echo "HUGGINGFACE_DIR is $HUGGINGFACE_DIR" ;;
  "dvc init "*) mkdir .dvc ;;
  "dvc config core.no_scm") ! test -e no_scm || echo true ;;
  "dvc repro "*) ! test -e broken ;;
esac
"""
NEW_VENV = "called: python -m venv --clear .venv\n"


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that runs make in a copy of the repository, in a folder whose name has a space."""
    folder = make_workspace(tmp_path / "a folder").path
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)
    stub = tmp_path / "python"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))

    def run(target, folder=folder):
        return subprocess.run(
            ["make", f"PYTHON={stub}", target], cwd=folder, capture_output=True, text=True, check=False, timeout=60
        )

    run.folder = folder
    return run


@pytest.mark.parametrize("target", ["repro", "demo", "test", "test-fast", "soak", "check", "bench"])
def test_target_runs_in_a_folder_with_a_space(target, make):
    done = make(target)
    assert (done.returncode, done.stderr) == (0, "")
    assert NEW_VENV in done.stdout
    assert (f"HUGGINGFACE_DIR is {make.folder}/build/bench/huggingface\n" in done.stdout) == (target == "bench")


def test_check_covers_workflows_citation_and_docs_site(make):
    output = make("check").stdout
    for schema, file in [
        ("github-workflows", ".github/workflows/*.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("citation-file-format", "CITATION.cff"),
    ]:
        assert f"called: check-jsonschema --builtin-schema vendor.{schema} {file}\n" in output
    assert "called: python -m mkdocs build --strict\n" in output


def test_growth_is_measured_on_request(make, monkeypatch):
    assert "called: python -m benchmarks.growth" not in make("bench").stdout
    monkeypatch.setenv("BENCH_GROWTH", "1000 3000")
    assert "called: python -m benchmarks.growth 1000 3000\n" in make("bench").stdout


def test_copies_have_the_files_that_stages_read(make, monkeypatch):
    stages = yaml.safe_load((make.folder / "dvc.yaml").read_text())["stages"].values()
    outs = {name for stage in stages for out in stage["outs"] for name in out}
    deps = {dep for stage in stages for dep in stage["deps"]} - outs
    assert "data/not_duplicates.csv" in deps
    (make.folder / "dvc.lock").touch()
    subprocess.run(["git", "add", "dvc.lock"], cwd=make.folder, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "A lock"], cwd=make.folder, check=True)
    monkeypatch.setenv("PIPELINE_SOURCE", "https://host/archive")
    make("demo")
    make("from-scratch")  # fails in the end, because the stub in place of dvc writes no lock
    for name in ("demo", "from-scratch"):
        assert [dep for dep in deps if not (make.folder / "build" / name / dep).exists()] == []


def test_usable_venv_is_kept(make):
    assert NEW_VENV in make("repro").stdout
    assert "called: python" not in make("repro").stdout
    os.utime(make.folder / "pyproject.toml")
    updated = make("repro").stdout
    assert "called: python -m pip install" in updated
    assert NEW_VENV not in updated


@pytest.mark.parametrize("missing", ["pip", "activate", "python"])
def test_incomplete_venv_is_made_again(missing, make):
    make("test")
    (make.folder / ".venv/bin" / missing).unlink()
    done = make("test")
    assert done.returncode == 0
    assert NEW_VENV in done.stdout
    assert "python -m pip install --constraint constraints.txt --editable .[test]" in done.stdout


@pytest.mark.parametrize("change", [shutil.move, shutil.copytree])
def test_moved_venv_is_made_again(change, make, tmp_path):
    make("repro")
    change(make.folder, tmp_path / "elsewhere")
    assert NEW_VENV in make("repro", tmp_path / "elsewhere").stdout


def test_venv_made_by_uv_is_kept_and_filled_by_uv(make, tmp_path):
    make("repro")
    venv = make.folder / ".venv"
    (venv / "bin/pip").unlink()
    (venv / "pyvenv.cfg").write_text("uv = 0.13.9\n")
    (venv / "bin/activate").write_text(f"VIRTUAL_ENV='{venv}'\n")
    (venv / "installed").unlink()
    shutil.copy(venv / "bin/python", venv / "bin/uv")  # stands for the one on PATH
    done = make("repro")
    assert (done.returncode, done.stderr) == (0, "")
    assert NEW_VENV not in done.stdout
    assert "called: uv pip install --constraint constraints.txt --editable .\n" in done.stdout
    assert "pip install" not in make("repro").stdout
    shutil.move(make.folder, tmp_path / "elsewhere")
    assert NEW_VENV in make("repro", tmp_path / "elsewhere").stdout


# pip words its first lines in another way where the path of Python has a space or is long.
@pytest.mark.slow
@pytest.mark.parametrize("path", ["a real folder", "d" * 150])
@pytest.mark.parametrize(
    ("command", "pip"),
    [
        pytest.param([sys.executable, "-m", "venv"], ".venv/bin/python -m pip install", id="venv"),
        pytest.param(
            ["uv", "venv", "--quiet", "--offline", "--python", sys.executable],
            "UV_PYTHON=.venv uv pip install",
            id="uv",
            marks=pytest.mark.skipif(not shutil.which("uv"), reason="needs uv"),
        ),
    ],
)
def test_real_venv_is_recognized(command, pip, path, tmp_path):
    folder = tmp_path / path
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)
    subprocess.run([*command, ".venv"], cwd=folder, check=True)
    done = subprocess.run(["make", "-n", "repro"], cwd=folder, capture_output=True, text=True, check=True)
    assert "-m venv" not in done.stdout
    assert pip in done.stdout


def test_folder_without_git_is_told_how_to_go_on(make):
    shutil.rmtree(make.folder / ".git")
    done = make("repro")
    assert done.returncode == 2
    assert "called: dvc repro" not in done.stdout
    assert done.stderr.splitlines()[0] == (
        "This is not a git repository. To use DVC without git: .venv/bin/dvc config --local core.no_scm true"
    )
    (make.folder / "no_scm").touch()
    done = make("repro")
    assert (done.returncode, done.stderr) == (0, "")
    assert "called: dvc repro" in done.stdout


def test_failed_run_says_how_to_get_dvc_on_the_path(make, monkeypatch):
    (make.folder / "broken").touch()
    hint = "To run dvc yourself, first run: source .venv/bin/activate\n"
    done = make("repro")
    assert done.returncode == 2
    assert hint in done.stderr
    monkeypatch.setenv("VIRTUAL_ENV", str(make.folder / ".venv"))
    assert hint not in make("repro").stderr
