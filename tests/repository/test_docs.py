"""The Python examples in the README and the docs run as they are."""

import ast
import json
import re
import shutil
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from tests.helpers.shard_sets import audit, make_params
from tests.helpers.workspace import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

# Blocks without imports are fragments. Those that read another repository by DVC are run in test_downstream.py.
IMPORT = r"^(import|from) (?!dvc)"
DTYPES = ["float32", "float16", "uint8"]
# What blocks may import without being about a client, which may be missing.
BASE_PACKAGES = {*sys.stdlib_module_names, "numpy", "shardset", "torch", "torchvision"}

pytestmark = pytest.mark.slow


def find_blocks(pattern=IMPORT):
    """The Python blocks of all pages that match a pattern, by page and line."""
    blocks = {}
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 2
            if re.search(pattern, match[1]):
                blocks[f"{page.relative_to(REPOSITORY)}, line {line}"] = match[1]
    return blocks


def find_clients(code):
    """The packages that a block imports and that are not installed with this project."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes}
    packages = {module.partition(".")[0] for module in modules} - BASE_PACKAGES
    return packages | ({"accelerate"} if "transformers" in packages else set())  # its Trainer needs it


def block_params(pattern=IMPORT, dtypes=DTYPES):
    """The label of each block that matches a pattern, with each dtype that it works with."""
    params = []
    for label, code in find_blocks(pattern).items():
        clients = find_clients(code)
        missing = [name for name in clients if not find_spec(name)]
        marks = [pytest.mark.clients, pytest.mark.filterwarnings("default")] if clients else []
        marks += [pytest.mark.skip(reason=f"needs {', '.join(missing)}")] if missing else []
        params += [
            pytest.param(label, dtype, marks=marks)
            for dtype in dtypes
            if dtype == "uint8" or "normalize=False" not in code
        ]
    return params


@pytest.fixture(scope="module")
def make_data(tiny_raw, tmp_path_factory):
    """Run the stages on the tiny dataset with `dtype`, and return the folder that has data/."""
    folders = {}

    def make(dtype):
        if dtype not in folders:
            folders[dtype] = tmp_path_factory.mktemp(dtype)
            data_dir = folders[dtype] / "data"
            shutil.copytree(tiny_raw, data_dir / "raw")
            write_stats(data_dir / "raw", data_dir / "stats.json")
            params = make_params(dtype=dtype, samples_per_shard=30)
            normalize_shards(data_dir / "raw", data_dir / "stats.json", data_dir / "shards", params)
            audit(data_dir / "raw", data_dir / "audit")
            write_report(*(data_dir / name for name in ("raw", "audit", "shards", "report")), decimals=4)
        return folders[dtype]

    return make


@pytest.fixture
def run_block(make_data, monkeypatch):
    """Run a block where the shards have `dtype`, and return its variables."""

    def run(label, code, dtype):
        monkeypatch.chdir(make_data(dtype))
        variables: dict[str, Any] = {}
        exec(compile(code, label, "exec"), variables)
        return variables

    return run


def test_pages_have_python_blocks():
    pages = {label.partition(",")[0] for label in find_blocks()}
    assert pages >= {"README.md", "docs/reuse.md"}


@pytest.mark.parametrize(("label", "dtype"), block_params())
def test_python_block_runs(label, dtype, run_block):
    run_block(label, find_blocks()[label], dtype)


@pytest.mark.parametrize(("label", "dtype"), block_params(r"\bloader = "))
def test_documented_loader_gives_normalized_batches(label, dtype, run_block):
    variables = run_block(label, find_blocks()[label], dtype)
    images, labels = next(iter(variables["loader"]))
    assert (images.dtype, images.shape) == (torch.float32, (100, 3, 32, 32))
    assert (labels.dtype, labels.shape) == (torch.int64, (100,))


@pytest.mark.parametrize("label", find_blocks(r"\bvalues = "))
def test_documented_formula_gives_float32_values(label, run_block):
    code = find_blocks()[label]
    values, expected = (np.array(run_block(label, code, dtype)["values"]) for dtype in ("uint8", "float32"))
    assert values.dtype == expected.dtype == np.float32
    assert values.tobytes() == expected.tobytes()


def test_readme_mean_and_std_are_those_of_cifar10():
    stats = json.loads((REPOSITORY / "data/stats.json").read_bytes())
    mean, std = (tuple(f"{value:.4f}" for value in stats[name].values()) for name in ("mean", "std"))
    line = f"transforms.Normalize(({', '.join(mean)}), ({', '.join(std)}))"
    assert line in (REPOSITORY / "README.md").read_text()
