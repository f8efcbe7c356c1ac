import pytest
from torchvision.datasets import ImageFolder

from pipeline.sources.images.layout import MetadataRow, find_class_problems, plan_by_folders, plan_by_metadata, split_of
from tests.helpers.image_files import save_picture


def plan(*images):
    """Plan images, given by path, in the folders that hold them; a path that ends with a slash is an empty folder."""
    folders = {path.rstrip("/") for image in images for path in parents(image)}
    return plan_by_folders([image for image in images if not image.endswith("/")], folders)


def parents(path):
    parts = path.split("/")
    return ["/".join(parts[:stop]) for stop in range(1, len(parts))]


def problems_of(*images):
    layout = plan(*images)
    return [*layout.problems, *find_class_problems(layout.splits)]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Train", "train"),
        ("TRAIN", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("Validation", "val"),
        ("test", "test"),
        ("training", None),  # never guessed
        ("test_images", None),
        ("testing", None),
        ("dev", None),
        (" train", None),
    ],
)
def test_split_folder_has_exactly_a_known_name(name, split):
    assert split_of(name) == split


def test_splits_and_classes_come_from_folders():
    layout = plan("train/cat/b.jpg", "train/dog/a.jpg", "Valid/cat/c.jpg", "test/dog/deep/er/d.jpg", "train/cat/a.jpg")
    assert layout.splits == {
        "train": [("train/cat/a.jpg", "cat"), ("train/cat/b.jpg", "cat"), ("train/dog/a.jpg", "dog")],
        "val": [("Valid/cat/c.jpg", "cat")],
        "test": [("test/dog/deep/er/d.jpg", "dog")],
    }
    assert (layout.classes, layout.problems) == (("cat", "dog"), [])


def test_class_folders_without_splits_are_train():
    layout = plan("cat/test_1.jpg", "dog/val/1.jpg", "dog/train.jpg")
    assert layout.splits == {"train": [("cat/test_1.jpg", "cat"), ("dog/train.jpg", "dog"), ("dog/val/1.jpg", "dog")]}


def test_classes_and_order_are_those_of_image_folder(tmp_path):
    names = [
        "b/2.png",
        "b/10.png",
        "B/1.png",
        "é/1.png",
        "a b/1.png",
        "a/z.png",
        "a/s/1.png",
        "a/s-t/1.png",
        "a/S/1.png",
    ]
    for seed, name in enumerate(names):
        save_picture(tmp_path / name, seed, (4, 4))
    folder = ImageFolder(str(tmp_path))
    layout = plan(*names)
    expected = [path.removeprefix(f"{tmp_path}/") for path, _ in folder.samples]
    assert [name for name, _ in layout.splits["train"]] == expected
    assert layout.classes == tuple(folder.classes) == ("B", "a", "a b", "b", "é")


def test_classes_are_one_list_over_splits(tmp_path):
    names = ["train/bird/1.png", "train/cat/1.png", "train/dog/1.png", "test/bird/1.png", "test/dog/1.png"]
    for seed, name in enumerate(names):
        save_picture(tmp_path / name, seed, (4, 4))
    # ImageFolder numbers the classes of each split: dog is 2 in train and 1 in test.
    assert ImageFolder(str(tmp_path / "train")).class_to_idx["dog"] == 2
    assert ImageFolder(str(tmp_path / "test")).class_to_idx["dog"] == 1
    layout = plan(*names)
    assert layout.classes.index("dog") == 2
    assert layout.splits["test"][1] == ("test/dog/1.png", "dog")
    assert problems_of(*names) == []


NO_TRAIN = "no images for train: put class folders at the top, or into folders train, val and test"
TWO = ("train/a/1.jpg", "train/b/1.jpg")


@pytest.mark.parametrize(
    ("images", "problems"),
    [
        ((*TWO, "test/c/1.jpg"), ["test: train lacks these classes: c"]),
        ((*TWO, "val/d/1.jpg", "val/c/1.jpg"), ["val: train lacks these classes: c, d"]),
        ((*TWO, "train/c/"), ["train: class 'c' has no images; remove the folder or add some"]),
        ((*TWO, "test/b/1.jpg", "test/a/"), ["test: class 'a' has no images; remove the folder or add some"]),
        ((*TWO, "test/"), ["test: no images"]),
        (("a/1.jpg", "b/"), ["train: class 'b' has no images; remove the folder or add some"]),
        ((*TWO, "cat.jpg"), ["cat.jpg: an image outside of a class folder; move it into one"]),
        ((*TWO, "train/cat.jpg"), ["train/cat.jpg: an image outside of a class folder; move it into one"]),
        (("cat.jpg", "dog.jpg"), ["all images are at the top; put them into class folders, or give", NO_TRAIN]),
        (("test/a/1.jpg",), [NO_TRAIN]),
        ((), [NO_TRAIN]),
        ((*TWO, "TRAIN/a/1.jpg"), ["TRAIN, train: several folders for the split train; merge them"]),
        ((*TWO, "val/a/1.jpg", "valid/a/1.jpg"), ["val, valid: several folders for the split val; merge them"]),
        ((*TWO, "more/c/1.jpg"), ["more: neither train, val nor test, but next to train; move class folders into "]),
        (
            ("train/1.jpg", "bus/1.jpg"),
            ["bus: neither train, val nor test, but next to train; ", "train/1.jpg: an image out", "train: no images"],
        ),
        (("Cat/1.jpg", "cat/1.jpg"), ["classes 'Cat' and 'cat' differ only in case or encoding; rename one"]),
        (("STRASSE/1.jpg", "straße/1.jpg"), ["classes 'STRASSE' and 'straße' differ only in case or encoding"]),
        (
            ("caf\u00e9/1.jpg", "cafe\u0301/1.jpg"),
            ["classes 'cafe\u0301' and 'caf\u00e9' differ only in case or encod"],
        ),
        (
            ("train/A/1.jpg", "train/b/1.jpg", "test/a/1.jpg"),
            ["test: train lacks these classes: a", "classes 'A' and 'a'"],
        ),
        (("a\nb/1.jpg",), ["class 'a\\nb': the name is empty or has unprintable characters; rename it"]),
    ],
)
def test_problem_names_what_is_wrong(images, problems):
    found = problems_of(*images)
    assert len(found) == len(problems)
    for line, start in zip(found, problems, strict=True):
        assert line.startswith(start)
        assert "\n" not in line


def test_empty_class_folder_fails_late_or_shifts_labels_in_torchvision(tmp_path):
    for name in ("a", "c"):
        save_picture(tmp_path / name / "1.png", 1)
    (tmp_path / "b").mkdir()
    with pytest.raises(FileNotFoundError, match="Found no valid file for the classes b"):
        ImageFolder(str(tmp_path))
    assert ImageFolder(str(tmp_path), allow_empty=True).class_to_idx["c"] == 2
    assert problems_of("a/1.png", "b/", "c/1.png") == ["train: class 'b' has no images; remove the folder or add some"]


def rows(*triples):
    return [MetadataRow(path, label, split, f"line {number}") for number, (path, label, split) in enumerate(triples, 2)]


def test_metadata_gives_classes_splits_and_order():
    layout = plan_by_metadata(
        ["1.jpg", "2.jpg", "3.jpg", "test/4.jpg", "5.jpg"],
        rows(("3.jpg", "b", None), ("1.jpg", "a", "train"), ("2.jpg", "a", "val"), ("test/4.jpg", "b", None)),
    )
    assert layout.splits == {
        "train": [("3.jpg", "b"), ("1.jpg", "a")],
        "val": [("2.jpg", "a")],
        "test": [("test/4.jpg", "b")],
    }
    assert layout.ignored == {"5.jpg": "not in the metadata"}
    assert (layout.classes, layout.problems) == (("a", "b"), [])


def test_metadata_row_that_fits_no_image_is_a_problem():
    layout = plan_by_metadata(["1.jpg"], rows(("1.jpg", "a", None), ("1.jpg", "b", None), ("2.jpg", "a", None)))
    assert layout.problems == ["line 3: lists 1.jpg again", "line 4: no image 2.jpg"]
    assert layout.splits == {"train": [("1.jpg", "a")]}
