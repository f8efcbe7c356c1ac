"""Contact sheets of pairs of near-duplicates, to judge by eye how many of them are the same photo.

    python -m benchmarks.contact_sheets data/audit/near_duplicates.csv [BEFORE.csv]

Draws up to 48 pairs, chosen at random, of each band of distances and pair of splits into build/contact_sheets, with the
indices below. Given the list of an earlier version, it also draws the pairs that only one of the lists has.
"""

import argparse
import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from shardset import open_shards

SHEETS_DIR = Path("build/contact_sheets")
BANDS = (0, 0.1, 0.2, 0.3, 0.35)
NUM_PAIRS = 48
COLUMNS = 6
SIDE = 96  # pixels of an image on a sheet
GAP, CAPTION = 12, 14


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("after", type=Path, help="near_duplicates.csv of data/audit")
    parser.add_argument("before", type=Path, nargs="?", help="the same file of an earlier version")
    arguments = parser.parse_args()
    raw = open_shards("data/raw")
    after = read_pairs(arguments.after)
    chosen = {"all": after}
    if arguments.before:
        before = read_pairs(arguments.before)
        chosen["new"] = {images: distance for images, distance in after.items() if images not in before}
        chosen["lost"] = {images: distance for images, distance in before.items() if images not in after}
    SHEETS_DIR.mkdir(parents=True, exist_ok=True)
    for name, pairs in chosen.items():
        for splits in sorted({(images[0], images[2]) for images in pairs}):
            of_splits = {images: distance for images, distance in pairs.items() if (images[0], images[2]) == splits}
            for low, high in pairwise(BANDS):
                draw_band(raw, of_splits, (low, high), SHEETS_DIR / f"{name}-{'-'.join(splits)}-{high}.png")


def read_pairs(path):
    """Read the distance of each pair, by split and index of both images."""
    with path.open(newline="") as file:
        return {
            (row["split"], int(row["index"]), row["other_split"], int(row["other_index"])): float(row["distance"])
            for row in csv.DictReader(file)
        }


def draw_band(raw, pairs, band, path):
    """Draw some pairs with a distance in a band: above its lower end, unless that is 0, up to its upper end."""
    low, high = band
    in_band = [images for images, distance in pairs.items() if low < distance <= high or distance == low == 0]
    numbers = np.random.default_rng(0).permutation(len(in_band))[:NUM_PAIRS]
    if len(numbers):
        drawn = sorted((pairs[in_band[number]], in_band[number]) for number in numbers)
        draw_sheet(raw, drawn).save(path)
        print(f"{path}: {len(numbers)} of {len(in_band)} pairs")


def draw_sheet(raw, drawn):
    """Draw pairs, (distance, images), in a grid, by distance."""
    width, height = 2 * SIDE + GAP, SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(drawn) // COLUMNS) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (distance, (split, index, other_split, other_index)) in enumerate(drawn):
        top, left = (place * size for place, size in zip(divmod(number, COLUMNS), (height, width), strict=True))
        for side, image in enumerate(((split, index), (other_split, other_index))):
            sheet.paste(draw_image(raw, *image), (left + side * SIDE, top))
        draw.text((left, top + SIDE), f"{number + 1}: {index} {other_index} {distance:.2f}", "black")
    return sheet


def draw_image(raw, split, index):
    """Draw one image, the first three channels of which are red, green and blue."""
    pixels = raw.take(split, np.array([index]))[0]
    rgb = pixels[:3] if len(pixels) >= len("rgb") else pixels[:1].repeat(3, axis=0)
    return Image.fromarray(rgb.transpose(1, 2, 0).copy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
