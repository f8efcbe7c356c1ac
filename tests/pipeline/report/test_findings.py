import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.report.findings import MARKS, find_findings, raw_bytes
from pipeline.report.proof import ValueFigures
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.shards import open_shards
from tests.helpers.audits import audit_with, make_pair
from tests.helpers.shard_sets import make_images, make_params, write_raw_set

SAMPLES = {"train": 40, "val": 8, "test": 20}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw set of three splits whose classes alternate. Train image 4 equals train 2, and test 1 equals train 7."""
    images = {split: make_images(count, seed=count) for split, count in SAMPLES.items()}
    images["train"][4], images["test"][1] = images["train"][2], images["train"][7]
    return write_raw_set(tmp_path_factory.mktemp("findings") / "raw", **images)


@pytest.fixture(scope="module")
def manifest(raw, tmp_path_factory):
    path = tmp_path_factory.mktemp("shards")
    write_stats(raw.dir, path / "stats.json")
    normalize_shards(raw.dir, path / "stats.json", path / "shards", make_params())
    return open_shards(path / "shards").manifest


def normalized_as(**by_split):
    """Figures of two channels of each split, from their means and stds."""
    return {
        split: {str(mean): ValueFigures(-2, 2, mean, std) for mean, std in channels}
        for split, channels in by_split.items()
    }


UNIT = normalized_as(train=[(1e-9, 1.0), (-1e-9, 1.0)], test=[(0.0114, 0.9985), (0.0148, 1.0002)])


def found(manifest, audited, normalized=UNIT):
    details, pairs = audited
    return find_findings(manifest, details, pairs, normalized)


def finding_with(text, findings):
    (finding,) = [finding for finding in findings if text in finding.text]
    return finding


def test_findings_that_need_a_look_come_first(raw, manifest):
    near = [make_pair(("val", 2), ("val", 0)), make_pair(("train", 9), ("train", 0))]
    findings = found(manifest, audit_with(raw, near))
    marks = [finding.mark for finding in findings]
    assert marks == sorted(marks, key=MARKS.index)
    assert set(marks) == {"look", "note", "good"}
    first, second, *_ = (finding.text for finding in findings if finding.mark == "good")
    assert first.startswith("The files are intact")
    assert second.startswith("Normalized train values")


def test_proof_is_described(raw, manifest):
    findings = found(manifest, audit_with(raw))
    first, second = finding_with("intact", findings), finding_with("Normalized train values", findings)
    assert (first.mark, first.section) == ("good", "values")
    assert f"all {68 * 3072:,} values equal (v / 255 - mean) / std of their pixel, bit for bit" in first.advice
    assert raw_bytes(manifest) == sum(SAMPLES.values()) * (3072 + 8)
    assert second.text == "Normalized train values have mean 0 and std 1 in each channel."
    assert second.advice == "In test the mean is 0.011 to 0.015 and the std 0.999 to 1.000."


def test_stored_pixels_are_compared_with_pixels(raw, manifest):
    finding = finding_with("intact", found(replace(manifest, dtype="uint8"), audit_with(raw)))
    assert "values equal their pixel, bit for bit" in finding.advice


def test_other_schemes_do_not_claim_mean_0_and_std_1(raw, manifest):
    other = replace(manifest, normalization=replace(manifest.normalization, scheme="imagenet"))
    figures = normalized_as(train=[(-0.25, 1.0), (0.5, 1.25)])
    finding = finding_with("Normalized train values", found(other, audit_with(raw), figures))
    assert finding.mark == "note"
    assert finding.text == "Normalized train values have mean -0.250 to 0.500 and std 1.000 to 1.250."
    assert finding.advice == "Scheme imagenet doesn't give mean 0 and std 1."


def test_set_without_duplicates_is_called_clean(manifest, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(8), make_images(4, seed=1))
    findings = found(manifest, audit_with(raw))
    for text in (
        "No test image has a near-duplicate in train.",
        "No split has near-duplicates within itself.",
        "No image occurs twice, bit for bit.",
        "Classes are balanced.",
    ):
        assert finding_with(text, findings).mark == "good"
    assert not any("labels" in finding.text for finding in findings)


@pytest.mark.parametrize("num_shared", [0, 1])
def test_tiny_images_are_not_called_free_of_near_duplicates(num_shared, manifest, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 5, 9), np.uint8)
    raw = write_raw_set(tmp_path / "raw", images[:10], images[10 - num_shared :])
    findings = found(manifest, audit_with(raw))
    assert finding_with("Only exact duplicates were searched.", findings).mark == "note"
    leaks = [finding.text for finding in findings if "in train" in finding.text]
    assert leaks == ["1 of 11 test images (9.1%) has a close near-duplicate in train."] * num_shared
    assert not any("within itself" in finding.text for finding in findings)


def test_train_alone_has_no_leaks(manifest, tmp_path):
    findings = found(manifest, audit_with(write_raw_set(tmp_path / "raw", make_images(8))))
    assert not any("in train" in finding.text for finding in findings)


def test_unbalanced_and_empty_classes_are_named(manifest, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(8), make_images(3, seed=1), num_classes=5)
    findings = found(manifest, audit_with(raw))
    assert finding_with("Classes are unbalanced.", findings).mark == "look"
    assert finding_with("2 classes have no test image.", findings).advice == "class_3, class_4."
    assert not any("no train image" in finding.text for finding in findings)


def test_unbalanced_split_other_than_train_is_noted(manifest, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(8), make_images(3, seed=1))
    findings = found(manifest, audit_with(raw))
    unbalanced = finding_with("Classes are unbalanced in test.", findings)
    assert unbalanced.mark == "note"
    assert unbalanced.advice.startswith("Each class has 4 train images and 1 (class_1) to 2 (class_0) test images.")
    shifted = finding_with("Class shares in test differ from those in train.", findings)
    assert (shifted.mark, shifted.advice) == ("note", "class_0: 50% of train, 67% of test.")
    assert not any("Classes are balanced." in finding.text for finding in findings)


def test_odd_images_are_counted_and_shown(manifest, tmp_path):
    images = make_images(20)
    images[[3, 5]] = images[[3, 5], :1]
    finding = finding_with("stand out: grey", found(manifest, audit_with(write_raw_set(tmp_path / "raw", images))))
    assert (finding.mark, finding.section) == ("note", "oddities")
    assert "train: grey 2." in finding.advice
    assert finding.examples[0] in {(("train", 3),), (("train", 5),)}


@pytest.mark.parametrize(
    ("skipped", "text"),
    [(1, "1 image file could not be read and was"), (1200, "1,200 image files could not be read and were")],
)
def test_skipped_files_are_reported(skipped, text, raw, manifest):
    finding = finding_with("skipped", found(replace(manifest, skipped=skipped), audit_with(raw)))
    assert finding.text == f"{text} skipped."
    assert finding.mark == "look"
