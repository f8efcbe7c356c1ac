"""Generated photographs, packed into one .tar with a folder for each split and class.

A picture has 500 x 375 pixels. Its brightness is the sum of random parts of two of 200 noise fields, whose amplitude
falls as 1/f like that of photographs. Each channel adds a part of a third field, weaker, because colours vary less than
brightness. Parts are flipped at random. At quality 75 a file has about 62 kB, 0.33 bytes per pixel; files of ImageNet
have 0.5. Every hundredth picture is the one before, stored again at quality 65, because real data have near-duplicates.
"""

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.inputs import CORES

WIDTH, HEIGHT = 500, 375
NUM_FIELDS, FIELD_SIDE = 200, 768
QUALITY, QUALITY_OF_COPIES = 75, 65
NUM_CLASSES = 100
VAL_SHARE = 20  # one image of so many is in val
COPY_SHARE = 100  # one image of so many is the one before again
CHUNK = 32  # pictures that a process draws at a time


def write_tar(path: Path, num_images: int) -> None:
    """Write the first `num_images` pictures, of which a part goes to val. The same number gives the same bytes."""
    num_val = num_images // VAL_SHARE
    counts = {"train": num_images - num_val, "val": num_val}
    names = [
        f"{split}/class_{index * NUM_CLASSES // count:02}/{index:07}.jpg"
        for split, count in counts.items()
        for index in range(count)
    ]
    fields()  # before the processes fork, so that they share them
    with ProcessPoolExecutor(CORES) as pool, tarfile.open(path, "w") as archive:
        pictures = pool.map(draw_jpeg, range(num_images), chunksize=CHUNK)
        for name, picture in zip(names, pictures, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(picture)
            archive.addfile(member, io.BytesIO(picture))


def draw_jpeg(number: int) -> bytes:
    """Draw a picture and encode it."""
    is_copy = number % COPY_SHARE == COPY_SHARE - 1
    file = io.BytesIO()
    pixels = draw_picture(number - is_copy)
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY_OF_COPIES if is_copy else QUALITY)
    return file.getvalue()


def draw_picture(seed: int) -> np.ndarray:
    """Draw a picture, (HEIGHT, WIDTH, 3) uint8."""
    rng = np.random.default_rng(seed)
    parts = _random_parts(rng)
    brightness = next(parts) + next(parts)  # of int16, which is twice as fast as float32
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for channel in range(3):
        pixels[..., channel] = ((brightness * 2 + next(parts)) // 3 + 128).clip(0, 255)
    return pixels


def _random_parts(rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        top, left = rng.integers(FIELD_SIDE - HEIGHT), rng.integers(FIELD_SIDE - WIDTH)
        field = fields()[rng.integers(NUM_FIELDS)]
        yield field[top : top + HEIGHT, left : left + WIDTH][:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]


@cache
def fields() -> np.ndarray:
    """Make the noise fields, (NUM_FIELDS, FIELD_SIDE, FIELD_SIDE) int16, with mean 0 and a std of 40."""
    frequency = np.hypot(np.fft.fftfreq(FIELD_SIDE)[:, None], np.fft.rfftfreq(FIELD_SIDE)).astype(np.float32)
    frequency[0, 0] = np.inf
    made = np.empty((NUM_FIELDS, FIELD_SIDE, FIELD_SIDE), np.int16)
    rng = np.random.default_rng(0)
    for field in made:
        noise = np.fft.rfft2(rng.standard_normal((FIELD_SIDE, FIELD_SIDE), np.float32))
        values = np.fft.irfft2(noise / frequency, (FIELD_SIDE, FIELD_SIDE))
        field[:] = np.rint(40 / values.std() * values)
    return made
