import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from pipeline.card import render_card
from pipeline.datasets import DATASETS
from pipeline.download import download_dataset
from pipeline.manifest import Manifest, save_manifest
from pipeline.shards import ShardSet, hash_content, open_shards, write_shards
from tests.cifar_format import TinyCifar, make_tiny_cifar

REPOSITORY = Path(__file__).parent.parent
# What a clone holds of what `dvc repro` needs.
WORKSPACE_FILES = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "pipeline")

# A proxy or a source meant for people must not reach the tests; the real dataset is found by tests/test_real_data.py.
if "PIPELINE_SOURCE" in os.environ:
    os.environ["REAL_SOURCE"] = os.environ.pop("PIPELINE_SOURCE")
REAL_SOURCE = os.environ.get("REAL_SOURCE")
os.environ["NO_PROXY"] = "*"
# How long an example takes says more of what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@dataclass(frozen=True)
class Workspace:
    """A git repository with the pipeline in it, where commands are run as a user runs them."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        search_path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return os.environ | {"PATH": search_path, "DVC_SITE_CACHE_DIR": str(self.path / ".dvc/tmp/site")}

    def run(self, *command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a command of the pipeline, to be sent a signal."""
        command = (sys.executable, "-m", "pipeline", *args)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.path, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def pipeline(self, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-m", "pipeline", *args, **env)

    def repro(self, *targets: str, **env: str) -> set[str]:
        """Run `dvc repro` and return the stages that ran."""
        done = self.run("dvc", "repro", *targets, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}

    def set_param(self, line: str, new_line: str) -> None:
        params_path = self.path / "params.yaml"
        text = params_path.read_text()
        assert text.count(f"{line}\n") == 1 or text.count(f"{line}  #") == 1
        params_path.write_text(text.replace(line, new_line))


def make_workspace(path: Path) -> Workspace:
    for name in WORKSPACE_FILES:
        source, target = REPOSITORY / name, path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    workspace = Workspace(path)
    for command in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.name", "Test"],
        ["git", "config", "user.email", "test@example.com"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", "A clone"],
    ):
        assert workspace.run(*command).returncode == 0
    return workspace


def make_repository(path) -> Workspace:
    path.mkdir()
    workspace = Workspace(path)
    for command in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.name", "Test"],
        ["git", "config", "user.email", "test@example.com"],
        ["dvc", "init", "--quiet"],
        ["dvc", "config", "core.analytics", "false"],
    ):
        check(workspace.run(*command))
    return workspace


def check(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(workspace, message, tag):
    for command in (
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", message],
        ["git", "tag", "--annotate", tag, "--message", message],
        ["dvc", "push", "--quiet"],
    ):
        check(workspace.run(*command))


def write_raw_set(raw_dir: Path, train: np.ndarray, test: np.ndarray, num_classes: int = 2) -> ShardSet:
    """Write images, (N, C, H, W) uint8, as a raw shard set; classes take turns."""
    names = ("red", "green", "blue") if train.shape[1] == 3 else tuple(f"band_{i}" for i in range(train.shape[1]))
    images = {"train": train, "test": test}
    labels = {split: np.arange(len(images[split])) % num_classes for split in images}
    raw_dir.mkdir()
    splits = write_shards(
        raw_dir,
        labels,
        lambda split, start, stop: [images[split][start:stop]],
        dtype="uint8",
        image_shape=train.shape[1:],
        samples_per_shard=10_000,
    )
    manifest = Manifest(
        format_version=1,
        dataset="made",
        classes=tuple(f"class_{i}" for i in range(num_classes)),
        dtype="uint8",
        layout="NCHW",
        image_shape=train.shape[1:],
        channels=names,
        content_sha256=hash_content((images[split], labels[split]) for split in images),
        normalization=None,
        splits=splits,
    )
    save_manifest(manifest, raw_dir)
    return open_shards(raw_dir)


def save_card(shards: ShardSet) -> None:
    for name, text in render_card(shards.manifest).items():
        (shards.dir / name).write_text(text)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "a workspace")


@pytest.fixture(scope="session")
def synthetic_raw(tmp_path_factory) -> Path:
    """The raw shard set of the synthetic dataset, to be read only."""
    raw_dir = tmp_path_factory.mktemp("synthetic") / "raw"
    download_dataset("synthetic", raw_dir, raw_dir, None, lambda done, total: None)
    return raw_dir


@pytest.fixture(scope="session")
def tiny() -> TinyCifar:
    return make_tiny_cifar()


@pytest.fixture(scope="session")
def tiny_raw(tiny, tmp_path_factory) -> Path:
    """The raw shard set of the tiny dataset, 100 train and 20 test samples, to be read only."""
    path = tmp_path_factory.mktemp("tiny")
    tiny.install_reader(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path)
        patch.setitem(DATASETS, "tiny", tiny.facts())
        source = tiny.write_files(path / "source")
        download_dataset("tiny", path / "raw", path / "archives", str(source), lambda done, total: None)
    return path / "raw"


@pytest.fixture(scope="session")
def cifar10_source() -> Path:
    """The folder that holds the real CIFAR-10, where PIPELINE_SOURCE names one."""
    if REAL_SOURCE is None or not Path(REAL_SOURCE).is_dir():
        pytest.skip("PIPELINE_SOURCE names no folder with the real CIFAR-10")
    return Path(REAL_SOURCE).resolve()
