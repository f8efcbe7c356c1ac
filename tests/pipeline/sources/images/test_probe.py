import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from pipeline.errors import PipelineError
from pipeline.sources.images import probe
from pipeline.sources.images.probe import JPEGS, SHA256, check_decoder


def test_decoder_of_this_machine_is_the_expected_one():
    check_decoder()


def test_expected_pixels_are_those_of_torchvision():
    sha256 = hashlib.sha256()
    for jpeg in JPEGS:
        image = Image.open(io.BytesIO(base64.b64decode(jpeg)))
        assert image.size == (24, 16)
        pixels = np.asarray(CenterCrop(9)(Resize(11)(image)))
        sha256.update(np.ascontiguousarray(pixels.transpose(2, 0, 1)).data)
    assert sha256.hexdigest() == SHA256


def test_probe_is_a_baseline_and_a_progressive_jpeg():
    images = [Image.open(io.BytesIO(base64.b64decode(jpeg))) for jpeg in JPEGS]
    assert ["progressive" in image.info for image in images] == [False, True]
    assert [image.layer[0][1:3] for image in images] == [(2, 2), (1, 1)]


def encode(image):
    file = io.BytesIO()
    image.save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("jpeg", "message"),
    [
        (encode(Image.new("RGB", (24, 16), "red")), "Pillow decodes or resizes JPEGs to other pixels on this machine"),
        (JPEGS[1][:200], "Pillow can't read JPEGs on this machine: "),
    ],
)
def test_other_pixels_stop_the_stage(jpeg, message, monkeypatch):
    monkeypatch.setattr(probe, "JPEGS", (JPEGS[0], jpeg))
    with pytest.raises(PipelineError, match=f"^{message}"):
        check_decoder()
