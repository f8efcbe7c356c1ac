"""Scenes with outlines on smooth grounds, like photographs, and views of them, like copies of these."""

import io

import numpy as np
from PIL import Image, ImageDraw

CANVAS = 160  # pixels of a scene, so that a view can be shifted or show more
VIEW = 128  # pixels of a scene that a plain view shows
NUM_SHAPES = 25


def draw_scene(rng: np.random.Generator) -> Image.Image:
    """Draw a scene: small ellipses and polygons on a smooth ground."""
    ground = rng.integers(40, 216, (4, 4, 3), np.uint8)
    scene = Image.fromarray(ground).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(scene)
    for number in range(NUM_SHAPES):
        middle, size = rng.uniform(0.05, 0.95, 2) * CANVAS, rng.uniform(0.05, 0.15, 2) * CANVAS
        colour = tuple(rng.integers(0, 256, 3).tolist())
        if number % 2:
            draw.ellipse((*(middle - size / 2), *(middle + size / 2)), colour)
        else:
            draw.polygon([tuple(middle + rng.uniform(-1, 1, 2) * size) for _ in range(4)], colour)
    return scene


def take_view(scene: Image.Image, zoom=(1.0, 1.0), shift=(0, 0), size=(32, 32)) -> np.ndarray:
    """Reduce the middle of a scene to an image, (3, H, W) uint8. `zoom` and `shift`, in pixels, are across and down."""
    half = [VIEW / 2 / of_axis for of_axis in zoom]
    middle = [CANVAS / 2 + pixels * VIEW / side for pixels, side in zip(shift, size[::-1], strict=True)]
    box = middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]
    return np.asarray(scene.resize(size[::-1], Image.Resampling.BILINEAR, box)).transpose(2, 0, 1)


def recompress(image: np.ndarray, quality: int) -> np.ndarray:
    """Save an image, (3, H, W) uint8, as a JPEG and open that."""
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def draw_noise(seed: int, count: int, channels: int, extreme: bool) -> np.ndarray:
    """Draw random pixels, (count, channels, 32, 32) uint8, if `extreme` of only 0 and 255."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, channels, 32, 32), np.uint8)
    return (pixels >> 7) * np.uint8(255) if extreme else pixels
