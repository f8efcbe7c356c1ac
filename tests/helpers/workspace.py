"""Repositories on disk, and commands run in them as a user runs them."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# The files of a clone that `dvc repro` needs.
WORKSPACE_FILES = (
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
    "data/not_duplicates.csv",
    "dvc.yaml",
    "params.yaml",
    "pipeline",
    "shardset",
)


@dataclass(frozen=True)
class Workspace:
    """A git repository with the pipeline in it, to run commands in as a user does.

    `home` is the user's home directory, which has the default remote. Workspaces in one folder have the same user.
    """

    path: Path
    home: Path | None = None  # the folder "home" next to the workspace

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.home or self.path.parent / "home")
        return os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": home,
            "USERPROFILE": home,  # on Windows
            "DVC_SITE_CACHE_DIR": str(self.path / ".dvc/tmp/site"),
            "DVC_NO_ANALYTICS": "1",
        }

    @property
    def default_remote(self) -> Path:
        """Where `dvc push` stores data unless the workspace's configuration was changed."""
        return Path(self.environment["HOME"]) / ".local/share/cifar-pipeline/remote"

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


def make_repository(path: Path, home: Path | None = None) -> Workspace:
    path.mkdir()
    workspace = Workspace(path, home)
    for command in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.name", "Test"],
        ["git", "config", "user.email", "test@example.com"],
        ["dvc", "init", "--quiet"],
    ):
        assert_succeeds(workspace.run(*command))
    return workspace


def assert_succeeds(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(workspace, message, tag):
    for command in (
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", message],
        ["git", "tag", "--annotate", tag, "--message", message],
        ["dvc", "push", "--quiet"],
    ):
        assert_succeeds(workspace.run(*command))


def assert_fails(done, exit_code, *parts):
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def hash_files(path):
    assert path.is_dir(), path
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def register_dataset(package_dir, name, facts):
    """Add a dataset to a copy of the registry."""
    registry = package_dir / "sources/registry.py"
    registry.write_text(f"{registry.read_text()}\nDATASETS[{name!r}] = {facts!r}\n")
