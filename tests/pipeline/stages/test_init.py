import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.params import load_params
from pipeline.project.files import LISTS, NAMES, PLOTS, read_template
from pipeline.sources.images.catalog import read_catalog
from pipeline.stages import init
from pipeline.stages.init import check_project_dir, next_steps, write_project
from pipeline.stages.inspect import inspect_source
from shardset.errors import InputError
from shardset.shards import open_shards, verify_shards
from tests.helpers.image_files import make_image_folder, save_picture
from tests.helpers.workspace import Workspace, assert_fails, assert_succeeds, hash_files, make_repository

STAGES = set(yaml.safe_load(read_template("dvc.yaml"))["stages"])
WRITTEN = [*LISTS, *(f".dvc/plots/{name}" for name in PLOTS), "params.yaml", "dvc.yaml"]


@pytest.fixture
def repository(tmp_path) -> Workspace:
    """A user's repository, with a `pipeline` of its own, and images."""
    repository = make_repository(tmp_path / "repository")
    for module in ("pipeline/__init__.py", "shardset.py"):
        path = repository.path / module
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise RuntimeError('the wrong module')\n")
    make_image_folder(repository.path / "images")
    return repository


@pytest.fixture
def project_dir(tmp_path, monkeypatch) -> Path:
    """The current folder, with images, that looks like a DVC repository."""
    project_dir = tmp_path / "project"
    (project_dir / ".dvc").mkdir(parents=True)
    make_image_folder(project_dir / "images")
    monkeypatch.chdir(project_dir)
    return project_dir


def start(project_dir, source):
    """What the command does."""
    check_project_dir(project_dir, source)
    return write_project(project_dir, source, inspect(source).check(allow_unreadable=True))


def inspect(source):
    return inspect_source(source, lambda action, done, total: None)


def files_in(folder):
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


@pytest.mark.slow
def test_repro_after_init_makes_every_output(repository):
    printed = assert_succeeds(repository.run("cifar-pipeline", "init", "images"))
    written = f"Written: {', '.join(WRITTEN)}\nNext:\n  dvc add images\n"
    assert printed.startswith(inspect(repository.path / "images").summary + "\n" + written)
    assert printed.endswith("\n  dvc repro\n")
    assert repository.repro() == STAGES
    raw, shards = (open_shards(repository.path / "data" / name) for name in ("raw", "shards"))
    assert {split: of_split.samples for split, of_split in raw.manifest.splits.items()} == dict.fromkeys(
        ("train", "val", "test"), 6
    )
    assert raw.manifest.content_sha256 == shards.manifest.content_sha256
    assert raw.manifest.image_shape == (3, 32, 32)
    verify_shards(shards.dir)
    assert json.loads((repository.path / "data/stats.json").read_text())
    assert "<html" in (repository.path / "data/report/report.html").read_text()
    drawn = json.loads(assert_succeeds(repository.run("dvc", "plots", "show", "--json")))
    assert "errors" not in drawn
    assert [len(plots) for plots in drawn["data"].values()] == [1] * 4
    assert repository.repro() == set()
    assert "up to date" in repository.run("dvc", "status").stdout


@pytest.mark.slow
def test_added_image_runs_download_again(repository):
    assert_succeeds(repository.run("cifar-pipeline", "init", "images"))
    assert_succeeds(repository.run("dvc", "add", "images"))
    repository.repro("stats")
    (repository.path / "images/train/cat/Thumbs.db").touch()  # in .dvcignore
    assert repository.repro("stats") == set()
    save_picture(repository.path / "images/train/cat/new.jpg", 99)
    assert repository.repro("stats") == {"download", "stats"}
    assert open_shards(repository.path / "data/raw").manifest.splits["train"].samples == 7


@pytest.mark.slow
def test_other_source_in_params_becomes_the_dep(repository):
    assert_succeeds(repository.run("cifar-pipeline", "init", "images"))
    shutil.move(repository.path / "images", repository.path / "other images")
    repository.set_param("source: images", "source: other images")
    assert repository.repro("download") == {"download"}
    lock = yaml.safe_load((repository.path / "dvc.lock").read_text())
    assert [dep["path"] for dep in lock["stages"]["download"]["deps"]] == ["other images"]


@pytest.mark.slow
@pytest.mark.parametrize("is_inside", [True, False])
def test_subfolder_of_a_repository_is_a_project(is_inside, repository, tmp_path):
    images = repository.path / "images"
    if not is_inside:
        images = images.rename(tmp_path / "my images")
    project = Workspace(repository.path / "a/b")
    project.path.mkdir(parents=True)
    site = {"DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    assert_succeeds(project.run("cifar-pipeline", "init", images, **site))
    source = load_params(project.path / "params.yaml").images.source
    assert source == ("../../images" if is_inside else str(images))
    assert project.repro("download", **site) == {"download"}
    assert open_shards(project.path / "data/raw").manifest.splits["train"].samples == 6
    assert project.repro("download", **site) == set()
    assert {*files_in(repository.path)} == {".dvcignore"}  # of `dvc init`
    assert {path.name for path in (repository.path / ".dvc/plots").iterdir()} == {*PLOTS}  # where DVC looks


@pytest.mark.slow
def test_moved_repository_runs_nothing_again(repository, tmp_path):
    assert_succeeds(repository.run("cifar-pipeline", "init", repository.path / "images"))
    assert repository.repro("download") == {"download"}
    repository.path.rename(tmp_path / "elsewhere")
    assert Workspace(tmp_path / "elsewhere").repro("download") == set()


@pytest.mark.slow
def test_dvc_freeze_changes_one_line_of_the_written_dvc_yaml(repository):
    assert_succeeds(repository.run("cifar-pipeline", "init", "images"))
    path = repository.path / "dvc.yaml"
    before = path.read_text()
    assert_succeeds(repository.run("dvc", "freeze", "stats"))
    assert path.read_text().replace("    frozen: true\n", "") == before


@pytest.mark.slow
def test_second_run_refuses_and_changes_nothing(repository):
    assert_succeeds(repository.run("cifar-pipeline", "init", "images"))
    (repository.path / "data/raw").mkdir(parents=True)
    before = hash_files(repository.path)
    assert_fails(
        repository.run("cifar-pipeline", "init", "images"),
        2,
        "Error: dvc.yaml: exists, and would be overwritten; move it away, or use another folder\nparams.yaml: exists",
        "data/raw: exists",
    )
    assert hash_files(repository.path) == before


@pytest.mark.slow
def test_problems_are_those_of_inspect_and_nothing_is_written(repository):
    save_picture(repository.path / "images/outside.jpg", 0)
    before = files_in(repository.path)
    inspected, done = (repository.run("cifar-pipeline", command, "images") for command in ("inspect", "init"))
    assert (done.returncode, done.stdout, done.stderr) == (2, inspected.stdout, inspected.stderr)
    assert "outside.jpg: an image outside of a class folder" in done.stderr
    assert files_in(repository.path) == before


@pytest.mark.slow
def test_unreadable_images_may_be_skipped_in_a_project(repository):
    (repository.path / "images/train/cat/0.jpg").write_text("no JPEG")
    done = repository.run("cifar-pipeline", "init", "images", "--size", "24")
    assert "1 of them can't be read" in assert_succeeds(done)
    assert "train/cat/0.jpg: not an image" in done.stderr
    assert load_params(repository.path / "params.yaml").images.size == 24
    done = repository.run("dvc", "repro", "download")
    assert done.returncode != 0
    assert "train/cat/0.jpg: not an image" in done.stderr
    repository.set_param("  unreadable: fail", "  unreadable: skip")
    repository.repro("download")
    assert 'train/cat/0.jpg,"not an image' in (repository.path / "data/raw/skipped.csv").read_text()


@pytest.mark.slow
def test_folder_outside_of_dvc_is_refused_in_one_line(tmp_path):
    make_image_folder(tmp_path / "images")
    done = Workspace(tmp_path).run("cifar-pipeline", "init", "images")
    assert_fails(done, 2, "Error: no DVC repository here; run `git init` and `dvc init` first\n")
    assert files_in(tmp_path) == {}


def test_suggested_params_are_written(project_dir):
    write = start(project_dir, Path("images"))
    params = load_params(project_dir / "params.yaml")
    suggestion = inspect(Path("images")).suggestion
    assert write == WRITTEN
    assert (params.images.size, params.images.resize) == (suggestion.size, suggestion.resize)
    assert params.normalize.samples_per_shard == suggestion.samples_per_shard
    assert files_in(project_dir)["dvc.yaml"].decode() == read_template("dvc.yaml")


def test_existing_lists_keep_their_lines_and_endings(project_dir):
    (project_dir / ".gitignore").write_bytes(b"/mine\r\n.*.tmp\r\n")
    (project_dir / ".gitattributes").write_text(read_template(".gitattributes"))
    assert ".gitattributes" not in start(project_dir, Path("images"))
    text = (project_dir / ".gitignore").read_bytes()
    assert text.startswith(b"/mine\r\n.*.tmp")
    assert text.count(b".*.tmp") == 1
    assert b"\n/data/archives/\n" in text


def test_existing_template_of_a_plot_is_kept(project_dir):
    path = project_dir / ".dvc/plots/splits.json"
    path.parent.mkdir()
    path.write_text("{}\n")
    assert ".dvc/plots/splits.json" not in start(project_dir, Path("images"))
    assert path.read_text() == "{}\n"


def test_link_in_place_of_a_list_stays_a_link(project_dir, tmp_path):
    (tmp_path / "shared").write_text("/mine\n")
    (project_dir / ".gitignore").symlink_to(tmp_path / "shared")
    start(project_dir, Path("images"))
    assert (project_dir / ".gitignore").is_symlink()
    assert (tmp_path / "shared").read_text().startswith("/mine\n\n")


def test_undecodable_list_is_named_and_nothing_is_written(project_dir):
    (project_dir / ".gitattributes").write_bytes(b"caf\xe9 text")
    with pytest.raises(InputError, match=r"\.gitattributes: not valid UTF-8"):
        start(project_dir, Path("images"))
    assert {*files_in(project_dir)} == {".gitattributes"}


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml", "data/raw", "data/stats.json", "data/report/report.md"])
def test_anything_that_would_be_overwritten_is_refused(name, project_dir):
    (project_dir / name).parent.mkdir(parents=True, exist_ok=True)
    (project_dir / name).symlink_to("broken link")
    with pytest.raises(InputError, match=f"^{name}: exists"):
        check_project_dir(project_dir, Path("images"))


@pytest.mark.parametrize(
    "source", [".", "..", "data", "data/raw", "data/raw/photos", "data/shards", "data/report/report.html"]
)
def test_source_that_repro_would_overwrite_is_refused(source, project_dir):
    (project_dir / source).mkdir(parents=True, exist_ok=True)
    with pytest.raises(InputError, match="^source .* overlaps data/.*, which `dvc repro` overwrites.*") as failed:
        check_project_dir(project_dir, Path(source))
    assert "\n" not in str(failed.value)


def test_source_next_to_the_outputs_is_accepted(project_dir):
    (project_dir / "images").rename(project_dir / "data")
    (project_dir / "data").rename(project_dir / "photos")
    (project_dir / "data").mkdir()
    (project_dir / "photos").rename(project_dir / "data/images")
    start(project_dir, Path("data/images"))
    assert load_params(Path("params.yaml")).images.source == "data/images"


def test_unprintable_path_is_refused(project_dir):
    with pytest.raises(InputError, match=r"source 'a\\x1bb': the path has unprintable characters"):
        check_project_dir(project_dir, Path("a\x1bb"))


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("images", "images"),
        ("./images/", "images"),
        ("{project}/images", "images"),
        ("../project/images", "images"),
        ("../outside", "{parent}/outside"),
        ("link", "link"),  # to images elsewhere, which others may link to as well
    ],
)
def test_source_is_relative_if_it_is_inside(source, written, project_dir):
    make_image_folder(project_dir.parent / "outside")
    (project_dir / "link").symlink_to(project_dir.parent / "outside")
    start(project_dir, Path(source.format(project=project_dir)))
    assert load_params(Path("params.yaml")).images.source == written.format(parent=project_dir.parent)


@pytest.mark.parametrize("num_written", range(len(NAMES)))
def test_killed_run_leaves_only_complete_files(num_written, project_dir, monkeypatch):
    start(project_dir, Path("images"))
    complete = files_in(project_dir)
    for name in NAMES:
        (project_dir / name).unlink()

    def write_or_die(path, text, write=init.write_text):
        if len(files_in(project_dir)) == num_written:
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(init, "write_text", write_or_die)
        with pytest.raises(KeyboardInterrupt):
            start(project_dir, Path("images"))
    assert files_in(project_dir) == {name: complete[name] for name in NAMES[:num_written]}
    if "params.yaml" in NAMES[:num_written]:
        with pytest.raises(InputError, match=r"^params\.yaml: exists"):
            start(project_dir, Path("images"))
    else:
        start(project_dir, Path("images"))
        assert files_in(project_dir) == complete
    assert not [*project_dir.glob(".*.tmp")]


@pytest.mark.parametrize("tracked_by", [None, "images.dvc", "git"])
def test_untracked_images_get_a_hint(tracked_by, project_dir):
    if tracked_by == "git":
        for command in (["git", "init", "--quiet"], ["git", "add", "images"]):
            subprocess.run(command, check=True)
    elif tracked_by:
        (project_dir / tracked_by).touch()
    steps = next_steps(project_dir, Path("images")).splitlines()
    assert ("  dvc add images" in steps) is (tracked_by is None)
    assert (steps[0], steps[-1]) == ("Next:", "  dvc repro")


def test_images_outside_of_the_repository_get_no_hint(project_dir):
    make_image_folder(project_dir.parent / "outside")
    assert next_steps(project_dir, Path("../outside")) == "Next:\n  dvc repro"


def test_many_files_get_the_commands_for_an_archive(project_dir, monkeypatch):
    monkeypatch.setattr(init, "MAX_FILES", 17)
    (project_dir / "images").rename(project_dir / "my images")
    steps = next_steps(project_dir, Path("my images")).splitlines()
    assert any("18 files" in step for step in steps)
    assert any("images.source to my images.tar" in step for step in steps)
    assert "  dvc add 'my images.tar'" in steps
    assert "  dvc add 'my images'" not in steps
    subprocess.run(steps[1], shell=True, check=True)
    names = [read_catalog(Path(f"my images{suffix}"), lambda *_: None).names for suffix in ("", ".tar")]
    assert names[0] == names[1]
    monkeypatch.setattr(init, "MAX_FILES", 18)
    assert "tar" not in next_steps(project_dir, Path("my images"))


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
@pytest.mark.slow
def test_odd_name_of_a_source_runs_through(repository):
    name = "it's 1e5: ${HOME} #"
    (repository.path / "images").rename(repository.path / name)
    assert_succeeds(repository.run("cifar-pipeline", "init", name))
    assert repository.repro("download") == {"download"}
