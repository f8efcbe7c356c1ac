"""The commands of docs/hub.md, run with the clients themselves against a hub on loopback."""

import doctest
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.shards import open_shards
from tests.helpers.hub_server import REPO, serve_hub
from tests.helpers.pages import find_blocks, read_sections
from tests.helpers.shard_sets import make_params
from tests.helpers.workspace import hash_files

pytestmark = pytest.mark.slow

# Not run: this environment has everything, and no account.
NOT_RUN = ("pip install ", "hf auth login")


@pytest.fixture(scope="module")
def project(tiny_raw, tmp_path_factory):
    """A folder with data/raw and data/shards of the tiny dataset, and what was exported from it."""
    path = tmp_path_factory.mktemp("project")
    shutil.copytree(tiny_raw, path / "data/raw")
    write_stats(tiny_raw, path / "stats.json")
    normalize_shards(tiny_raw, path / "stats.json", path / "data/shards", make_params(samples_per_shard=40))
    (path / "build").mkdir()
    for command in commands_of("Export"):
        run(path, command)
    return path


def commands_of(section):
    """The commands of a section of the page that are run."""
    lines = [line for block in find_blocks(read_sections("hub.md")[section], "console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [command for command in commands if not command.startswith(NOT_RUN)]


def programs_of(section):
    """The Python examples of a section, without their output."""
    blocks = find_blocks(read_sections("hub.md")[section], "pycon")
    return ["".join(it.source for it in doctest.DocTestParser().get_examples(block)) for block in blocks]


def run(project, command, hub="http://127.0.0.1:9", home="hf-home"):
    """Run a command, with the project's programs on the PATH, and return its output."""
    env = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HF_ENDPOINT": hub,
        "HF_HOME": str(project / home),
        "HF_TOKEN": "hf_token",
        "HF_HUB_DISABLE_XET": "1",
    }
    arguments = shlex.split(command)
    done = subprocess.run(arguments, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(project, program, **options):
    return run(project, shlex.join([sys.executable, "-c", program]), **options)


def test_page_names_every_format(project):
    assert sorted(path.name for path in (project / "build").iterdir()) == ["mds", "parquet", "tars"]


@pytest.mark.parametrize("number", range(3))
def test_examples_read_the_exports(number, project):
    # The tiny dataset has one tar file for each split.
    program = programs_of("Read")[number].replace("{000000..000004}", "000000")
    if "webdataset" in program:  # which gives them in another order
        expected, result = "(32, 32) <class 'int'>", "image.size, type(label)"
    else:
        expected, result = f"{tiny_label(project, 99)} 100", "train[99]['label'], len(train)"
    assert python(project, f"{program}print({result})").splitlines()[-1] == expected


def tiny_label(project, index):
    return open_shards(project / "data/raw").labels("train")[index]


def test_uploaded_export_loads_by_its_name(project, tmp_path):
    (upload,), (load,) = commands_of("Upload"), programs_of("Upload")
    with serve_hub(tmp_path / "hub") as url:
        run(project, upload.replace("USER/NAME", REPO), hub=url)
        assert hash_files(tmp_path / "hub").items() >= hash_files(project / "build/parquet").items()
        program = load.replace("USER/NAME", REPO) + "print(len(train), train[99]['label'], train[0]['image'].size)"
        answer = python(project, program, hub=url, home=tmp_path)
    assert answer.splitlines()[-1] == f"100 {tiny_label(project, 99)} (32, 32)"


def test_uploaded_shards_are_verified_after_download(project, tmp_path):
    section = "Upload the shards themselves"
    (upload,), (load,) = commands_of(section), programs_of(section)
    with serve_hub(tmp_path / "hub") as url:
        run(project, upload.replace("USER/NAME-shards", REPO), hub=url)
        program = load.replace("USER/NAME-shards", REPO)
        program += "import os; print(os.path.exists(f'{path}/.gitattributes'), shards.manifest.content_sha256)"
        has_attributes, content_sha256 = python(project, program, hub=url, home=tmp_path).split()[-2:]
        assert has_attributes == "True"
        assert content_sha256 in (project / "data/raw/manifest.json").read_text()


def test_croissant_example_loads_a_record(project):
    (program,) = programs_of("Croissant")
    answer = python(project, f"{program}print(next(iter(records))['train/label'])")
    assert answer.split()[-1] == str(tiny_label(project, 0))
