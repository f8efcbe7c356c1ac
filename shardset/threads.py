"""Threads for work on files, as many as this process may use CPUs."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from math import ceil, inf
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ignore(*_: object) -> None:
    """Do nothing, in place of a callback."""


class MapTasks(Protocol):
    """Applies a function to each item and returns the results in the items' order. Stops at the first error.

    `done` is called with each item whose result is there, in any order, one call at a time.
    """

    def __call__(
        self, function: Callable[[T], R], items: Iterable[T], done: Callable[[T], None] = ignore
    ) -> list[R]: ...


def map_on_threads(function: Callable[[T], R], items: Iterable[T], done: Callable[[T], None] = ignore) -> list[R]:
    """Map on threads, as `MapTasks` describes."""
    all_items, results = list(items), []
    with ThreadPoolExecutor(usable_cpus() + 1) as pool:  # one more, because a thread may wait for the disk
        for item, result in zip(all_items, pool.map(function, all_items), strict=True):
            results.append(result)
            done(item)
    return results


def usable_cpus() -> int:
    """Count the CPUs that this process may use, by its affinity and the quota of its container."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ceil(min(cpu_quota(), cpus))


def cpu_quota(cgroups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many CPUs' time Linux grants to the control groups of this process, infinity if there is no limit."""
    try:
        lines = cgroups.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return inf
    quotas = [inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / "cpu" if controllers else mount  # version 1 has a tree for each controller, version 2 has one
        group = root / path.lstrip("/")
        # A limit also applies to all groups inside. In a container, the group itself may appear as the root.
        quotas += [_read_quota(folder) for folder in (group, *group.parents)]
    return min(quotas)


def _read_quota(group: Path) -> float:
    try:
        if (group / "cpu.max").exists():
            quota, period = map(int, (group / "cpu.max").read_text(encoding="utf-8").split())
        else:
            quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):  # "max", or no limit that this process could read
        return inf
    return quota / period if quota > 0 else inf
