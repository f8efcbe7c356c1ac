"""How much memory work takes. Each measurement has a process of its own, which holds nothing of other tests."""

import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy.ma  # noqa: F401  (numpy itself imports it on first use, which takes a megabyte)

# Code that prints the peak of resident memory of a program in kB, on Linux. `ru_maxrss` would be at least the memory of
# the process that started the program.
PRINT_PEAK = """
import pathlib, re
print(re.search("VmHWM:[^0-9]*([0-9]+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


def traced_peak(function: Callable[..., object], *args: object) -> int:
    """Call a function in a new process, and return the peak of what Python and numpy allocated during it, in bytes.

    In a process that has run other tests, the table of interned strings may grow by megabytes at any time.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_traced_peak, function, *args).result()


def _traced_peak(function: Callable[..., object], *args: object) -> int:
    tracemalloc.start()
    function(*args)
    return tracemalloc.get_traced_memory()[1]
