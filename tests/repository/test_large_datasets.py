"""What docs/large-datasets.md says about DVC, on small data."""

import hashlib
import os
import re
import signal
import subprocess
import time
from math import ceil
from pathlib import Path

import pytest
import yaml

from pipeline.errors import PipelineError
from pipeline.runtime.files import check_free_space
from pipeline.shards.raw import samples_per_shard
from pipeline.stages.remedies import DTYPE_HINT
from tests.helpers.image_files import make_image_folder, make_tar
from tests.helpers.workspace import REPOSITORY, assert_succeeds, hash_files, make_workspace

IMAGENET = {"train": 1_281_167, "val": 50_000}
VALUES = 3 * 224 * 224  # of an image


@pytest.fixture(scope="module")
def page():
    """The page, on one line, so that line breaks don't matter."""
    return re.sub(r"\s+", " ", (REPOSITORY / "docs/large-datasets.md").read_text())


@pytest.fixture
def project(tmp_path):
    """A project for own images in a .tar, in a repository with a DVC remote."""
    workspace = make_workspace(tmp_path / "project")
    folder = make_image_folder(tmp_path / "images", each=6)
    make_tar(folder, workspace.path / "data/images.tar")
    params = yaml.safe_load((workspace.path / "params.yaml").read_text())
    params["dataset"] = "images"
    params["images"] |= {"source": "data/images.tar", "size": 32, "resize": 36}
    params["audit"]["ignore"] = None
    (workspace.path / "params.yaml").write_text(yaml.safe_dump(params))
    assert_succeeds(workspace.run("dvc", "remote", "add", "--default", "here", str(tmp_path / "remote")))
    return workspace


def set_params(workspace, **normalize):
    path = workspace.path / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["normalize"] |= normalize
    path.write_text(yaml.safe_dump(params))


def stored_files(folder):
    """The files in a cache or remote of DVC by their MD5; folders, which are lists of files, are left out."""
    paths = [path for path in (folder / "files/md5").rglob("*") if path.is_file() and path.suffix != ".dir"]
    return {path.parent.name + path.name: path for path in paths}


def is_npy(path):
    return path.read_bytes().startswith(b"\x93NUMPY")


def hash_md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_sizes_are_those_of_imagenet(page):
    num_images = sum(IMAGENET.values())
    for dtype, num_bytes in (("float32", 4), ("float16", 2), ("uint8", 1)):
        assert f"| {dtype} | {IMAGENET['train'] * VALUES * num_bytes / 1e9:.0f} GB |" in page
    assert f"{num_images:,} images" in page
    size = samples_per_shard((3, 224, 224))
    num_shards = sum(ceil(count / size) for count in IMAGENET.values())
    assert f"{size:,} images of 224 pixels" in page
    assert f"samples_per_shard: {size} " in page
    assert f"{num_shards} shards, {2 * num_shards:,} files" in page


def test_full_disk_is_reported_as_documented(page):
    with pytest.raises(PipelineError) as raised:
        check_free_space(Path("data/shards"), 10**18, DTYPE_HINT)
    message = re.sub(r"1,000,000,000.0 GB|has [0-9.,]+ GB", "# GB", str(raised.value))
    assert f"Error: {message} " in page.replace("771.4 GB", "# GB").replace("has 512.0 GB", "# GB")


@pytest.mark.slow
def test_uint8_shards_share_the_files_of_raw(project):
    set_params(project, dtype="uint8", samples_per_shard=10_000)
    project.repro("normalize")
    data_dir = project.path / "data"
    raw, shards = (hash_files(data_dir / name) for name in ("raw", "shards"))
    arrays = {name for name in raw if name.endswith(".npy")}
    assert len(arrays) == 6
    assert {name: shards[name] for name in arrays} == {name: raw[name] for name in arrays}
    for name in (name for name in arrays if "/images-" in name):  # one file on disk, in the cache and in both folders
        raw_stat, shards_stat = ((data_dir / folder / name).stat() for folder in ("raw", "shards"))
        assert raw_stat.st_ino == shards_stat.st_ino
        assert raw_stat.st_nlink == 3
    assert project.repro("normalize") == set()
    assert_succeeds(project.run("dvc", "push"))
    stored = {md5: path for md5, path in stored_files(project.path.parent / "remote").items() if is_npy(path)}
    assert stored.keys() == {hash_md5(data_dir / folder / name) for folder in ("raw", "shards") for name in arrays}
    assert len(stored) == len({raw[name] for name in arrays}) == 4  # the splits have equal labels
    assert {md5 for md5, path in stored_files(project.path / ".dvc/cache").items() if is_npy(path)} == stored.keys()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"dtype": "float32"}, {"dtype": "uint8", "samples_per_shard": 7}])
def test_other_shards_share_no_images_with_raw(change, project):
    set_params(project, **change)
    project.repro("normalize")
    files = [hash_files(project.path / "data" / name) for name in ("raw", "shards")]
    raw, shards = ({sha256 for name, sha256 in of_set.items() if "/images-0" in name} for of_set in files)
    assert raw & shards <= {sha256 for name, sha256 in files[1].items() if "00000-of-00001" in name}
    assert change["dtype"] == "uint8" or not raw & shards


@pytest.mark.slow
def test_pushed_files_are_counted_in_shards_not_in_images(project):
    project.repro("normalize")
    printed = assert_succeeds(project.run("dvc", "push"))
    num_images, num_arrays = 3 * 2 * 6, 2 * 3 * 2  # of each set: images and labels of three splits
    num_pushed = int(re.search(r"(\d+) files pushed", printed)[1])
    assert num_arrays < num_pushed < num_images
    assert assert_succeeds(project.run("dvc", "push")).strip() == "Everything is up to date."


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills processes")
def test_repro_goes_on_after_it_was_killed(project):
    set_params(project, dtype="float32", samples_per_shard=1)
    project.repro("stats")
    work_dir = project.path / "data/.shards.work.tmp"
    repro = subprocess.Popen(
        ["dvc", "repro", "normalize"], cwd=project.path, env=project.environment, start_new_session=True
    )
    while not [*work_dir.glob("set-*.records/*-*.npy")]:
        assert repro.poll() is None
        time.sleep(0.005)
    os.killpg(repro.pid, signal.SIGKILL)
    repro.wait()
    finished = [record.name.partition("-") for record in work_dir.glob("set-*.records/*-*.npy")]
    (set_dir,) = (path for path in work_dir.glob("set-*") if path.suffix != ".records")
    written = {name: (set_dir / name).stat().st_ino for name in (f"{s}/images-{n}" for s, _, n in finished)}
    assert 0 < len(written) < 36
    assert project.repro("normalize") == {"normalize"}
    assert {name: (project.path / "data/shards" / name).stat().st_ino for name in written} == written
    assert not work_dir.exists()
