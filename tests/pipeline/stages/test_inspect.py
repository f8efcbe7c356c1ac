import pytest

from pipeline.stages.inspect import inspect_source
from shardset.errors import InputError
from tests.helpers.image_files import make_image_folder, make_tar, make_zip, save_picture
from tests.helpers.workspace import assert_fails, assert_succeeds


def inspect(path):
    return inspect_source(path, lambda action, done, total: None)


@pytest.mark.parametrize("pack", [None, make_tar, make_zip])
def test_folder_and_archives_give_the_same_summary(pack, tmp_path):
    folder = make_image_folder(tmp_path / "images")
    inspection = inspect(pack(folder, tmp_path / "packed") if pack else folder)
    assert inspection.summary.startswith("images      18 in 2 classes: 6 train, 6 val, 6 test\n")
    assert inspection.summary == inspect(folder).summary
    assert inspection.check(allow_unreadable=False) == inspection.suggestion


def test_all_problems_and_unreadable_images_are_listed(tmp_path):
    folder = make_image_folder(tmp_path / "images")
    save_picture(folder / "test/bird/0.jpg", 0)
    (folder / "val/cow").mkdir()
    for number in range(2):
        (folder / f"train/cat/{number}.jpg").write_text("no JPEG")
    (folder / "train/cat/notes.txt").write_text("mine")
    inspection = inspect(folder)
    assert "images      19 in 3 classes" in inspection.summary
    assert "1 not an image: train/cat/notes.txt" in inspection.summary
    with pytest.raises(InputError) as failed:
        inspection.check(allow_unreadable=False)
    lines = str(failed.value).splitlines()
    assert lines[:3] == [
        f"source {folder} can't be used:",
        "  val: class 'cow' has no images; remove the folder or add some",
        "  test: train lacks these classes: bird",
    ]
    assert lines[3] == "2 images can't be read:"
    assert [line.partition(": ")[0] for line in lines[4:6]] == ["  train/cat/0.jpg", "  train/cat/1.jpg"]
    assert lines[6].startswith("Repair or remove them.")


def test_images_that_belong_to_no_split_change_no_suggestion(tmp_path):
    folder = make_image_folder(tmp_path / "images")
    expected = inspect(folder).suggestion
    for number in range(20):
        save_picture(folder / f"{number}.png", number, (400, 400))
    inspection = inspect(folder)
    assert inspection.suggestion == expected
    assert "PNG" not in inspection.summary


def test_folder_without_images_is_an_input_error(tmp_path):
    inspection = inspect(tmp_path)
    assert (inspection.suggestion, inspection.summary) == (None, "")
    with pytest.raises(InputError, match="no images"):
        inspection.check(allow_unreadable=False)


def test_missing_source_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="absent: no such file or folder"):
        inspect(tmp_path / "absent")


@pytest.mark.slow
def test_command_prints_the_summary_and_then_the_problems(workspace):
    folder = make_image_folder(workspace.path / "images")
    done = workspace.pipeline("inspect", "images")
    assert (done.stdout, done.stderr) == (f"{inspect(folder).summary}\n", "")
    assert_succeeds(done)
    (folder / "train/cat/0.jpg").write_text("no JPEG")
    done = workspace.pipeline("inspect", "images")
    assert done.returncode == 2
    assert done.stdout == f"{inspect(folder).summary}\n"
    assert done.stderr.startswith("Error: 1 image can't be read:\n  train/cat/0.jpg: ")


@pytest.mark.slow
def test_command_leaves_no_files_and_needs_no_params(workspace):
    make_image_folder(workspace.path / "images")
    (workspace.path / "params.yaml").unlink()
    before = workspace.run("git", "status", "--porcelain").stdout
    assert_succeeds(workspace.pipeline("inspect", "images"))
    assert workspace.run("git", "status", "--porcelain").stdout == before


@pytest.mark.slow
def test_messages_of_pillow_are_not_printed(workspace):
    folder = make_image_folder(workspace.path / "images")
    # Pillow warns about a tag that is larger than the file, and logs an error about 65,535 samples per pixel.
    tag = b"\x00\x01\x03\x00\xff\xff\xff\x7f\x08\x00\x00\x00"
    (folder / "train/cat/tag.tif").write_bytes(b"II*\x00\x08\x00\x00\x00\x01\x00" + tag + bytes(4))
    path = save_picture(folder / "train/cat/samples.tif", 0)
    samples_per_pixel = b"\x15\x01\x03\x00\x01\x00\x00\x00"
    before = path.read_bytes()
    assert before.count(samples_per_pixel + b"\x03\x00") == 1
    path.write_bytes(before.replace(samples_per_pixel + b"\x03\x00", samples_per_pixel + b"\xff\xff"))
    done = workspace.pipeline("inspect", "images")
    assert done.returncode == 2
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()[:3]] == [
        "Error",
        "  train/cat/samples.tif",
        "  train/cat/tag.tif",
    ]
    assert done.stderr.count("\n") == 4


@pytest.mark.slow
def test_missing_source_of_the_command_is_one_line(workspace):
    assert_fails(workspace.pipeline("inspect", "absent"), 2, "Error: source absent: no such file or folder\n")
