"""A reader written from docs/format.md alone, without this package, to prove that the page is enough."""

import hashlib
import io
import json
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path

import numpy as np

IGNORED = [".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".nfs*", ".ipynb_checkpoints", "__pycache__", ".cache"]
IGNORED += [".gitattributes", ".*.tmp"]


def need(ok, path, what):
    if not ok:
        raise ValueError(f"{path}: {what}")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read_manifest(path):
    try:
        raw = path.read_bytes()
        manifest = json.loads(raw.decode("utf-8"))
        rest = {k: v for k, v in manifest.items() if k != "manifest_sha256"}
        text, rendered = ((json.dumps(m, indent=2) + "\n").encode() for m in (rest, manifest))
        need(manifest["manifest_sha256"] == sha256(text) and rendered == raw, path, "manifest_sha256 or bytes differ")
        need(manifest["format_version"] == 2 and manifest["layout"] == "NCHW", path, "unknown format")
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: {error!r}") from error
    return manifest


def read_file(path, entry, dtype=None, shape=None):
    raw = path.read_bytes() if path.is_file() and path.stat().st_size == entry["bytes"] else None
    need(raw is not None and sha256(raw) == entry["sha256"], path, "missing, wrong size or wrong sha256")
    if dtype:
        need(raw[:8] == b"\x93NUMPY\x01\x00", path, "not an .npy file of version 1.0")
        array = np.load(io.BytesIO(raw), allow_pickle=False)
        good = array.flags.c_contiguous and array.dtype.str == np.dtype(dtype).str and array.shape == shape
        need(good, path, "wrong order, dtype or shape")
        return array


def read_set(folder):
    root, content, result = Path(folder), hashlib.sha256(), {}
    m = read_manifest(root / "manifest.json")
    entries = m["files"] + [s[k] for p in m["splits"].values() for s in p["shards"] for k in ("images", "labels")]
    known = {"manifest.json"} | {e["path"] for e in entries}
    for path in root.rglob("*"):
        name = path.relative_to(root)
        ignored = any(fnmatch(part, pattern) for part in name.parts for pattern in IGNORED)
        need(path.is_dir() or ignored or name.as_posix() in known, path, "extra file")
    for entry in m["files"]:
        read_file(root / entry["path"], entry)
    for name, split in m["splits"].items():
        images, labels = (
            np.concatenate([read_file(root / s[k]["path"], s[k], t, (s["samples"], *shape)) for s in split["shards"]])
            for k, t, shape in (("images", m["dtype"], m["image_shape"]), ("labels", "int64", ()))
        )
        if m["dtype"] == "uint8":
            for image, label in zip(images, labels):
                content.update(hashlib.sha256(image.tobytes()).digest() + int(label).to_bytes(8, "little"))
            n = m["normalization"] or {"mean": [0], "std": [1]}
            mean, std = (np.float32(n[k]).reshape(-1, 1, 1) for k in ("mean", "std"))
            images = (images / np.float32(255) - mean) / std
        result[name] = images.astype(np.float32, copy=False), labels
    need(m["dtype"] != "uint8" or content.hexdigest() == m["content_sha256"], root / "manifest.json", "content_sha256")
    return m, result
