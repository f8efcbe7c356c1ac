"""A check that this machine decodes and resizes JPEGs to the same pixels as every other."""

import base64
import hashlib
import io

from pipeline.errors import PipelineError, UnreadableImageError
from pipeline.sources.images.decode import decode_image, open_image, silence_decoders
from shardset.manifest import Preparation

# 24 x 16 pixels: one baseline JPEG with subsampled colours, one progressive with full ones.
JPEGS = (
    (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19i"
        "Z2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
        "Y2NjY2NjY2P/wAARCAAQABgDASIAAhEBAxEB/8QAFwAAAwEAAAAAAAAAAAAAAAAAAAMFBv/EABwQAAAHAQEAAAAAAAAAAAAAAAAD"
        "BBESE0GBIf/EABUBAQEAAAAAAAAAAAAAAAAAAAQF/8QAHxEAAAUEAwAAAAAAAAAAAAAAAAEDERICBIGhQWKy/9oADAMBAAIRAxEA"
        "PwDMEJqW8k4oEJqclIPITU5KXBRITUt478ClV49Y5i/qWgVG4CCE1OO/ACuQmpyUuAE+u7JI4Tg3DO2dilRcOQ//2Q=="
    ),
    (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19i"
        "Z2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
        "Y2NjY2NjY2P/wgARCAAQABgDAREAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAABAMF/8QAFwEBAAMAAAAAAAAAAAAAAAAAAwIE"
        "Bf/aAAwDAQACEAMQAAABy7RoNUkspZqDVBt//8QAFxAAAwEAAAAAAAAAAAAAAAAAAAECEf/aAAgBAQABBQJTgpwU4KcFOCnD/8QA"
        "FxEAAwEAAAAAAAAAAAAAAAAAAAECEf/aAAgBAwEBPwFVoq0VaKtFWirT/8QAGhEAAgMBAQAAAAAAAAAAAAAAAAERE2EUAv/aAAgB"
        "AgEBPwFvn2RujZG+fZG6NkfqjZH659k//8QAFBABAAAAAAAAAAAAAAAAAAAAIP/aAAgBAQAGPwJf/8QAFxAAAwEAAAAAAAAAAAAA"
        "AAAAABFxEP/aAAgBAQABPyG0teW15bWf/9oADAMBAAIAAwAAABD1vz//xAAUEQEAAAAAAAAAAAAAAAAAAAAg/9oACAEDAQE/EFZZ"
        "L//EABsRAAEFAQEAAAAAAAAAAAAAAAABMVGR8BHh/9oACAECAQE/EMhGuTn8GuTIRrk3E5y5MRGuTQRrk//EABkQAAIDAQAAAAAA"
        "AAAAAAAAAAAhEVGBof/aAAgBAQABPxBZMVgrTOFbgLKZwrcD/9k="
    ),
)
SHA256 = "62a36d87e4c6d4823744f1df270d4b08d9954f599ae20a65051fef08f8321df2"


def check_decoder() -> None:
    """Silence the decoder, and decode two embedded JPEGs. Raises PipelineError if their pixels are wrong."""
    silence_decoders()
    preparation = Preparation(resize=11, size=9, filter="bilinear", orientation="ignore", background="white")
    sha256 = hashlib.sha256()
    for jpeg in JPEGS:
        try:
            pixels, _ = decode_image(open_image(io.BytesIO(base64.b64decode(jpeg))), "RGB", preparation)
        except UnreadableImageError as error:
            raise PipelineError(f"Pillow can't read JPEGs on this machine: {error}. Install it from PyPI.") from None
        sha256.update(pixels.data)
    if sha256.hexdigest() != SHA256:
        raise PipelineError(
            "Pillow decodes or resizes JPEGs to other pixels on this machine than on others, so the dataset would be "
            "another one. Install Pillow from PyPI, in the version of constraints.txt, instead of Pillow-SIMD or a "
            "version of your own."
        )
