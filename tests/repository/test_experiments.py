"""docs/experiments.md: its commands, run in the order of the page in a real repository."""

import re
import time
from dataclasses import dataclass

import pytest

from tests.helpers.image_files import make_image_folder
from tests.helpers.pages import find_blocks
from tests.helpers.workspace import (
    REPOSITORY,
    Workspace,
    assert_succeeds,
    make_repository,
    make_workspace,
    register_dataset,
)

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs/experiments.md").read_text()
SHOWN = {
    command: output
    for block in find_blocks(PAGE, "console")
    for command, output in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
}
MAX_WIDTH = 120  # columns
MAX_WAIT = 120  # seconds
QUEUED = ("sweep-1", "sweep-2", "sweep-3", "sweep-4")


@dataclass(frozen=True)
class Done:
    """What a command printed, and what then differed from the last commit."""

    output: str
    changed: str  # by `git status`
    diff: str  # of params.yaml
    shards_are_raw: bool  # the same files


def run(workspace, command) -> Done:
    # Into a file: workers of the queue would keep a pipe open.
    assert_succeeds(
        workspace.run("bash", "-euc", f"{{ {command}\n}} > ../output.txt 2>&1 || {{ cat ../output.txt; false; }}")
    )
    shards = sorted(workspace.path.glob("data/shards/*/images-*.npy"))
    raw = [workspace.path / "data/raw" / path.relative_to(workspace.path / "data/shards") for path in shards]
    return Done(
        (workspace.path.parent / "output.txt").read_text(),
        assert_succeeds(workspace.run("git", "status", "--porcelain")),
        assert_succeeds(workspace.run("git", "diff", "--unified=0", "params.yaml")),
        bool(shards) and all(one.exists() and one.samefile(other) for one, other in zip(shards, raw, strict=True)),
    )


def experiments(workspace):
    return assert_succeeds(workspace.run("git", "for-each-ref", "refs/exps", "--format=%(refname:lstrip=4)")).split()


def wait_for_the_queue(workspace):
    end = time.monotonic() + MAX_WAIT
    # The status takes a second, so it is asked only when the results are there.
    while not {*QUEUED} <= {*experiments(workspace)} or "Running" in queue_status(workspace):
        assert time.monotonic() < end, queue_status(workspace)
        time.sleep(0.2)


def queue_status(workspace):
    return assert_succeeds(workspace.run("dvc", "queue", "status"))


@pytest.fixture(scope="module")
def repository(tiny, tmp_path_factory) -> Workspace:
    """A clone with a git remote, in which the pipeline has run on the tiny dataset."""
    folder = tmp_path_factory.mktemp("experiments")
    workspace = make_workspace(folder / "cifar-pipeline")
    register_dataset(workspace.path / "pipeline", "tiny", tiny.facts())
    workspace.set_param("dataset: cifar10", "dataset: tiny")
    workspace.repro(PIPELINE_SOURCE=str(tiny.write_files(folder / "source")))
    for command in (
        ["git", "branch", "--move", "main"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", "The tiny dataset"],
        ["git", "init", "--quiet", "--bare", "../origin.git"],
        ["git", "remote", "add", "origin", "../origin.git"],
        ["git", "push", "--quiet", "origin", "main"],
    ):
        assert_succeeds(workspace.run(*command))
    return workspace


@pytest.fixture(scope="module")
def done(repository) -> dict[str, Done]:
    """What each command of the page did."""
    done = {}
    for command in SHOWN:
        done[command] = run(repository, command)
        if command.startswith("dvc queue start"):
            wait_for_the_queue(repository)
    assert_succeeds(repository.run("dvc", "queue", "stop"))
    return done


def find(done, start):
    (found,) = [result for command, result in done.items() if command.startswith(start)]
    return found


def names(table):
    return re.findall(r"\[([\w-]+)\]", table)


def test_page_has_the_commands_that_people_look_for():
    parts = ("exp run --name", "--queue", "queue start", "--temp", "exp show", "exp diff", "exp apply", "exp branch")
    assert not [part for part in (*parts, "exp push", "exp remove") if part not in "\n".join(SHOWN)]


def test_experiment_runs_only_the_stages_that_read_the_key(done):
    ran = find(done, "dvc exp run --name").output
    assert re.findall(r"^Running stage '(\w+)'", ran, re.MULTILINE) == ["normalize", "report"]
    lines = [line for line in find(SHOWN, "dvc exp run --name").splitlines() if not line.startswith("data/shards: ")]
    assert [line for line in ran.splitlines() if line in lines] == lines


def test_experiment_changes_one_line_of_params_yaml(done):
    changed = [line for line in find(done, "dvc exp run --name").diff.splitlines() if re.match(r"[-+] ", line)]
    assert changed == ["-  scheme: dataset", "+  scheme: imagenet"]


@pytest.mark.parametrize("start", ["git restore", "dvc exp run --queue", "dvc exp run --temp", "git commit"])
def test_workspace_is_that_of_the_last_commit(start, done):
    assert find(done, start).changed == ""


def test_queue_has_every_combination(done):
    assert find(done, "dvc exp run --queue").output == find(SHOWN, "dvc exp run --queue")
    assert re.findall(r"(sweep-\d) .* Success$", find(done, "dvc queue status").output, re.MULTILINE) == [*QUEUED]


def test_table_of_experiments_is_readable_at_120_columns(done):
    table, shown = (find(page, "dvc exp show") for page in (done, SHOWN))
    for text in (table.output, shown):
        lines = text.splitlines()
        assert len(lines) == 12
        assert max(len(line.rstrip()) for line in lines) <= MAX_WIDTH
        header = ["Experiment", "train.mean", "train.std", "shards_mb", "normalize.scheme", "normalize.dtype"]
        assert lines[1].split() == header
        assert sorted(names(text)) == ["imagenet", "per-image", *QUEUED]


def test_difference_of_experiments_has_all_figures(done):
    output, shown = (find(page, "dvc exp diff").splitlines() for page in (to_text(done), SHOWN))
    assert [line.split()[:2] for line in output] == [line.split()[:2] for line in shown]
    assert output[-1].split() == shown[-1].split()


def to_text(done):
    return {command: result.output for command, result in done.items()}


def test_logs_of_the_queue_have_what_an_experiment_printed(repository, done):
    (command,) = re.findall(r"`(dvc queue logs .+?)`", PAGE)
    assert "data/shards: tiny, 100 train" in run(repository, command).output


def test_pushed_experiment_is_pulled_by_another_clone(repository, done, tmp_path):
    assert find(done, "dvc exp list").output == find(SHOWN, "dvc exp list")
    clone = Workspace(tmp_path / "clone", home=repository.path.parent / "home")
    origin = repository.path.parent / "origin.git"
    assert_succeeds(repository.run("git", "clone", "--quiet", "--branch", "main", origin, clone.path))
    (pull,) = re.findall(r"`(dvc exp pull .+?)`", PAGE)
    assert experiments(clone) == []
    assert_succeeds(clone.run(*pull.split()))
    assert_succeeds(clone.run("dvc", "exp", "apply", "imagenet"))
    assert_succeeds(clone.pipeline("verify", "data/shards"))
    assert "\n  scheme: imagenet\n" in (clone.path / "params.yaml").read_text()


def test_branch_and_commit_keep_an_experiment(repository, done):
    for revision, scheme in (("symmetric", "symmetric"), ("main", "unit")):
        params = assert_succeeds(repository.run("git", "show", f"{revision}:params.yaml"))
        assert f"\n  scheme: {scheme}\n" in params
        assert "\n  dtype: uint8\n" in params
    assert find(done, "dvc exp apply").changed != ""
    assert "up to date" in assert_succeeds(repository.run("dvc", "status"))


def test_uint8_shards_are_the_files_of_the_raw_set(done):
    assert find(done, "dvc exp apply").shards_are_raw
    assert not find(done, "dvc exp run --name").shards_are_raw


def test_experiments_are_removed_from_git_but_not_from_the_cache(repository, done):
    assert find(done, "dvc exp remove per-image").output == find(SHOWN, "dvc exp remove per-image")
    assert not {"imagenet", "per-image", *QUEUED} & {*experiments(repository)}
    manifests = [path.read_bytes() for path in repository.path.glob(".dvc/cache/files/md5/*/*") if path.is_file()]
    assert any(b'"scheme": "dataset_per_image"' in manifest for manifest in manifests)


def test_experiment_outside_of_the_workspace_needs_tracked_images(tmp_path):
    project = make_repository(tmp_path / "project")
    make_image_folder(project.path / "images")
    assert_succeeds(project.run("cifar-pipeline", "init", "images"))
    assert_succeeds(project.run("git", "add", "dvc.yaml", "params.yaml"))
    assert_succeeds(project.run("git", "commit", "--quiet", "--message", "Begin a project"))
    experiment = ("dvc", "exp", "run", "--temp", "download")
    failed = project.run(*experiment)
    assert failed.returncode != 0
    assert "/images'" in failed.stderr
    assert_succeeds(project.run("dvc", "add", "images"))
    assert_succeeds(project.run("git", "add", "--all"))
    assert_succeeds(project.run("git", "commit", "--quiet", "--message", "Track the images"))
    assert_succeeds(project.run(*experiment))
