import numpy as np
import pytest

from pipeline.sources.registry import DATASETS
from pipeline.sources.synthetic import CLASSES, NUM_SAMPLES, generate
from tests.helpers.shard_sets import content_hash


@pytest.fixture(scope="module")
def generated():
    return generate()


def test_generated_pixels_are_the_registered_ones(generated):
    images, labels, classes = generated
    assert content_hash(images, labels) == DATASETS["synthetic"].content_sha256
    assert classes == CLASSES


def test_generated_classes_are_balanced(generated):
    _, labels, _ = generated
    for split, num_samples in NUM_SAMPLES.items():
        assert np.bincount(labels[split]).tolist() == [num_samples // 10] * 10


def test_generated_classes_can_be_learned(generated):
    images, labels, _ = generated
    class_means = [images["train"][labels["train"] == label].mean(axis=0) for label in range(10)]
    test_images = images["test"][:500].astype(float)
    nearest = [min(range(10), key=lambda label: ((image - class_means[label]) ** 2).sum()) for image in test_images]
    assert (nearest == labels["test"][:500]).mean() > 0.9
