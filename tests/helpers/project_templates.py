"""The templates of `init`, derived from this repository's own files. To write them after a change of those files:

python -m tests.helpers.project_templates
"""

import re

from pipeline.project.files import NAMES, PLOTS, TEMPLATES_DIR
from tests.helpers.workspace import REPOSITORY

# What only this repository needs.
LEFT_OUT = {
    ".dvcignore": (
        "/build",
        "/data/archives",
        "/examples",
        "# Repositories of their own, meant to be copied elsewhere.",
    ),
    ".gitignore": ("/build/", "/dist/", "/uv.lock", ".hypothesis/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/"),
    ".gitattributes": (),
}
# In params.yaml each is there once.
REPLACEMENTS = {
    " and docs/own-images.md": "",
    ", see docs/own-images.md": "",
    "; 738 MB for CIFAR-10": "; 4 bytes each",
    "; 369 MB": "; 2 bytes each",
    "; 185 MB": "; 1 byte each",
    " 10,000 float32 images take 123 MB.": "",
    "  ignore: data/not_duplicates.csv": "  ignore:  # a file goes into the deps of audit in dvc.yaml too",
    "dataset: cifar10": "dataset: images",
    "  source: data/images": "  source: $source",
    "  size: 224": "  size: $size",
    "  resize: 256": "  resize:$resize",
    "  dtype: float32": "  dtype: $dtype",
    "  samples_per_shard: 10000": "  samples_per_shard: $samples_per_shard",
}


def derive_template(name: str) -> str:
    """Derive the template of one of NAMES or PLOTS."""
    if name in PLOTS:
        return (REPOSITORY / ".dvc/plots" / name).read_text()
    text = (REPOSITORY / name).read_text()
    if name == "dvc.yaml":
        return _derive_stages(text)
    if name == "params.yaml":
        for old, new in REPLACEMENTS.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return text
    lines = text.splitlines()
    assert {*LEFT_OUT[name]} <= {*lines}
    kept = "".join(f"{line}\n" for line in lines if line not in LEFT_OUT[name])
    return kept.replace(" IGNORED_NAMES in shardset/shards.py has the same patterns.", "")


def _derive_stages(text: str) -> str:
    """Without code among the deps, with the images as a dep, and with artifacts named for no dataset."""
    stages = re.sub(r"^    - (pipeline/|shardset/|data/not_duplicates).*\n", "", text, flags=re.MULTILINE)
    with_source = stages.replace("    deps:\n    params:\n", "    deps:\n    - ${images.source}\n    params:\n")
    assert with_source.count("${images.source}") == 1
    return with_source.replace("cmd: python -m pipeline ", "cmd: cifar-pipeline ").replace("  cifar10-", "  ")


if __name__ == "__main__":
    for template in (*NAMES, *PLOTS):
        (TEMPLATES_DIR / f"{template.removeprefix('.')}.template").write_text(derive_template(template), newline="\n")
