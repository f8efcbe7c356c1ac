"""Small image files in class folders, and archives of them."""

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.shard_sets import make_images


def make_picture(seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """A smooth random scene of width x height."""
    width, height = size
    (pixels,) = make_images(1, (3, height, width), seed)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert(mode)


def save_picture(path: Path, seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    """Save a picture in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_picture(seed, size, mode).save(path)
    return path


def make_image_folder(
    root: Path,
    splits: tuple[str, ...] = ("train", "val", "test"),
    classes: tuple[str, ...] = ("cat", "dog"),
    each: int = 3,
) -> Path:
    """Make class folders of JPEGs of different sizes, in a folder for each split; "" stands for the top."""
    seed = 0
    for split in splits:
        for label in classes:
            for number in range(each):
                seed += 1
                save_picture(root / split / label / f"{number}.jpg", seed, (30 + 7 * seed % 40, 50 - seed % 20))
    return root


def make_tar(folder: Path, path: Path) -> Path:
    """Pack a folder under its own name."""
    with tarfile.open(path, "w") as archive:
        archive.add(folder, folder.name)
    return path


def make_zip(folder: Path, path: Path) -> Path:
    """Pack what is in a folder, without its name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def make_parquet(folder: Path, path: Path) -> Path:
    """Pack a folder of splits and classes into a folder of parquet files, as Hugging Face's `datasets` does."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    classes = sorted({file.parent.name for file in folder.rglob("*.*")})
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata=metadata)
    path.mkdir()
    for split in folder.iterdir():
        files = sorted(split.rglob("*.*"))
        images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        table = pa.table({"image": images, "label": [classes.index(file.parent.name) for file in files]}, schema)
        write_table(table, path / f"{split.name}-00000-of-00001.parquet", row_group_size=8)
    return path
