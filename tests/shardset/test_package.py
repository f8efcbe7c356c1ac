"""What importing the package costs, and that nothing of a consumer's project can interfere with it."""

import os
import pkgutil
import subprocess
import sys

import pytest

import shardset
from tests.helpers.workspace import REPOSITORY

WITHOUT_TORCH = [name for name in shardset.__all__ if name != "ShardDataset"]
MODULES_WITHOUT_TORCH = [
    f"shardset.{module.name}"
    for module in pkgutil.iter_modules(shardset.__path__)
    if module.name not in {"batch", "dataset"}
]
LOADED = """
import sys
heavy = {"torch", "torchvision", "pipeline", "dvc", "matplotlib", "requests", "typer", "yaml"} & set(sys.modules)
assert not heavy, heavy
"""


def run_python(code, *args, cwd):
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "imports",
    [
        "import shardset",
        f"from shardset import {', '.join(WITHOUT_TORCH)}",
        f"import {', '.join(MODULES_WITHOUT_TORCH)}",
    ],
    ids=["package", "names", "modules"],
)
def test_import_loads_neither_torch_nor_pipeline(imports, tmp_path):
    run_python(f"{imports}\n{LOADED}", cwd=tmp_path)


def test_numpy_alone_reads_and_verifies_a_set(tiny_raw, tmp_path):
    code = (
        "import sys\n"
        "from shardset import verify_shards\n"
        "shards = verify_shards(sys.argv[1])\n"
        "print(sum(shards.images(shard).shape[0] for shard in shards.shards('train')), shards.labels('test').shape)\n"
    )
    assert run_python(code + LOADED, str(tiny_raw), cwd=tmp_path) == "100 (20,)\n"


@pytest.mark.slow
def test_pipeline_module_in_the_folder_is_not_imported(tiny_raw, tmp_path):
    (tmp_path / "pipeline.py").write_text("raise ImportError('a module of the consumer')\n")
    (tmp_path / "manifest.py").write_text("raise ImportError('a module of the consumer')\n")
    code = (
        "import sys\n"
        "from shardset import ShardDataset\n"
        "dataset = ShardDataset(sys.argv[1], verify='hash')\n"
        "assert 'pipeline' not in sys.modules\n"
        "print(len(dataset), tuple(dataset[0][0].shape))\n"
    )
    assert run_python(code, str(tiny_raw), cwd=tmp_path) == "100 (3, 32, 32)\n"


def test_every_public_name_can_be_imported():
    assert sorted(shardset.__all__) == shardset.__all__
    for name in shardset.__all__:
        assert getattr(shardset, name).__name__ == name


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'shardset' has no attribute 'ShardDatasets'"):
        shardset.ShardDatasets  # noqa: B018
