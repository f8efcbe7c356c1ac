"""What docs/installation.md says about pins, CPU wheels, uv and extras."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from zipfile import ZipFile

import pytest

from tests.helpers.workflows import jobs_of
from tests.helpers.workspace import REPOSITORY

PAGE = (REPOSITORY / "docs/installation.md").read_text()
INSTALL = "pip install --constraint constraints.txt --editable "
UV = shutil.which("uv")


@pytest.mark.slow
@pytest.mark.parametrize(
    "pip",
    [
        pytest.param([sys.executable, "-m", "pip", "install"], id="pip"),
        pytest.param(
            [UV, "pip", "install", "--python", sys.executable],
            id="uv",
            marks=pytest.mark.skipif(UV is None, reason="needs uv"),
        ),
    ],
)
def test_cpu_wheel_is_preferred_and_satisfies_the_pin(pip, tmp_path):
    pinned = re.search(r"^torch==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)[1]
    for version in (pinned, f"{pinned}+cpu", "99.0+cpu"):
        info = f"torch-{version}.dist-info"
        with ZipFile(tmp_path / f"torch-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    options = ["--dry-run", "--target", tmp_path / "target", "--no-index", "--find-links", tmp_path]
    done = subprocess.run(
        [*pip, *options, "--constraint", REPOSITORY / "constraints.txt", "torch"],
        env=os.environ | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(rf"torch(-|==){re.escape(pinned)}\+cpu$", done.stdout + done.stderr, re.MULTILINE)
    assert f"`torch {pinned}+cpu` to `torch {pinned}`" in PAGE


def test_commands_are_those_of_make_and_ci():
    assert f"$(PIP) {INSTALL.removeprefix('pip ')}.\n" in (REPOSITORY / "Makefile").read_text()
    assert f"\nuv {INSTALL}.\n" in PAGE
    assert f"\n.venv/Scripts/python -m {INSTALL}.\n" in PAGE
    commands = [step.get("run") for step in jobs_of("ci")["windows"]["steps"]]
    assert f'.venv/Scripts/python -m {INSTALL}".[test]"' in commands


def test_every_extra_is_listed():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    cells = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"\w+", cell)} == {*extras} - {"bench", "docs"}
