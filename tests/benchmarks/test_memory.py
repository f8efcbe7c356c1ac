import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory import tree_kilobytes, watch_peak

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")

ALLOCATE = "memory = b'1' * (64 << 20)"
SAY_AND_WAIT = "import os; print(flush=True); os.read(0, 1)"
PROGRAMS = {
    "itself": f"{ALLOCATE}; {SAY_AND_WAIT}",
    "child": f"import subprocess, sys; subprocess.run([sys.executable, '-c', {f'{ALLOCATE}; {SAY_AND_WAIT}'!r}])",
    "forked": f"import os; {ALLOCATE}; os.fork(); {SAY_AND_WAIT}",  # both processes map the same pages
    "shared": f"import mmap; memory = mmap.mmap(-1, 64 << 20); memory.write(b'1' * (64 << 20)); {SAY_AND_WAIT}",
}


def start(code):
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_memory_of_process_tree_is_counted_once(code):
    with start(code) as process:
        process.stdout.readline()
        kilobytes = tree_kilobytes(process.pid)
        process.communicate(b"\n")
    assert 64 < kilobytes / 1024 < 100


def test_peak_is_remembered_after_memory_was_freed():
    with start(f"import time; {ALLOCATE}; time.sleep(0.5); del memory; time.sleep(0.5)") as process:
        assert 64 < watch_peak(process) < 100
