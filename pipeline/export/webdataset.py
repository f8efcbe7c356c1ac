"""Tar files in the WebDataset format."""

from pathlib import Path

from webdataset import TarWriter

from pipeline.export.card import HUB_SPLITS, label_type, render_loading, render_readme
from pipeline.export.samples import Part, PixelSet
from pipeline.runtime.files import open_synced, write_synced
from shardset.models import render_json

NOTE = """The library `webdataset` reads the tar files, and so does `datasets`: `load_dataset(DIR)`. Each sample has its
image in a `.png` file and its label in a `.cls` file, which `WebDataset(paths, shardshuffle=False).decode("{mode}")`
gives as a PIL image and an int. `classes.json` has the class names in the order of the labels."""
SOURCES = "\nA `.json` file has the name of the image file that the sample comes from."
SOURCE_TYPE = """
    struct:
    - name: source
      dtype: string"""


def write_export(pixels: PixelSet, target_dir: Path) -> None:
    """Write `SPLIT-NNNNNN.tar`, classes.json and README.md into an empty folder."""
    manifest = pixels.manifest
    for split in manifest.splits:
        for part in pixels.parts(split):
            _write_part(target_dir / f"{HUB_SPLITS[split]}-{part.number:06d}.tar", part)
    columns = {"png": "image", "cls": label_type(manifest)} | ({"json": SOURCE_TYPE} if manifest.has_sources else {})
    loading = render_loading(manifest, "{split}-*.tar", columns | {"__key__": "string", "__url__": "string"})
    # "pil" would repeat grey as red, green and blue.
    mode = "pill" if manifest.image_shape[0] == 1 else "pil"
    note = NOTE.format(mode=mode) + (SOURCES if manifest.has_sources else "")
    write_synced(target_dir / "README.md", render_readme(manifest, note, loading))
    write_synced(target_dir / "classes.json", render_json(manifest.classes))


def _write_part(path: Path, part: Part) -> None:
    # A fixed time, because exports of the same set should be equal.
    with open_synced(path, "wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
        for sample in part.samples:
            files = {"png": sample.png, "cls": str(sample.label).encode()}
            if sample.source is not None:
                files["json"] = render_json({"source": sample.source}).encode()
            tar.write({"__key__": f"{sample.index:08d}", **files})
