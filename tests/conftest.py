import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# One BLAS thread per pytest worker, set before numpy is imported: more would compete for the same cores.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from pipeline.sources.registry import DATASETS
from tests.helpers.cifar_format import TinyCifar, make_tiny_cifar
from tests.helpers.cluster import Cluster, local_cluster, separate_workers
from tests.helpers.shard_sets import download
from tests.helpers.workspace import Workspace, make_workspace

# A proxy or source set for other purposes must not reach the tests; tests/repository/test_real_data.py uses it.
if "PIPELINE_SOURCE" in os.environ:
    os.environ["REAL_SOURCE"] = os.environ.pop("PIPELINE_SOURCE")
REAL_SOURCE = os.environ.get("REAL_SOURCE")
os.environ["NO_PROXY"] = "*"
# Shells make background processes, and so these tests and their commands, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The duration of an example depends on what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile("no deadline")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "a workspace")


@pytest.fixture(scope="session")
def synthetic_raw(tmp_path_factory) -> Path:
    """The raw shard set of the synthetic dataset, to be read only."""
    raw_dir = tmp_path_factory.mktemp("synthetic") / "raw"
    download("synthetic", raw_dir, raw_dir)
    return raw_dir


@pytest.fixture(scope="session")
def tiny() -> TinyCifar:
    return make_tiny_cifar()


@pytest.fixture(scope="session")
def tiny_raw(tiny, tmp_path_factory) -> Path:
    """The raw shard set of the tiny dataset, 100 train and 20 test samples, to be read only."""
    path = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "tiny", tiny.facts())
        source = tiny.write_files(path / "source")
        download("tiny", path / "raw", path / "archives", source)
    return path / "raw"


@pytest.fixture(scope="session")
def cifar10_source() -> Path:
    """The folder that holds the real CIFAR-10, where PIPELINE_SOURCE names one."""
    if REAL_SOURCE is None or not Path(REAL_SOURCE).is_dir():
        pytest.skip("PIPELINE_SOURCE names no folder with the real CIFAR-10")
    return Path(REAL_SOURCE).resolve()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a scheduler with two single-threaded workers."""
    with local_cluster() as address:
        yield address


@pytest.fixture(scope="module")
def separate_cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Two single-threaded workers that work in folders of their own."""
    with separate_workers(tmp_path_factory.mktemp("workers")) as cluster:
        yield cluster
