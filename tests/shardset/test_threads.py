import os
from math import inf

import pytest

from shardset.threads import cpu_quota, map_on_threads, usable_cpus

# Control groups as text files by path, /proc/self/cgroup, and the CPUs that they grant.
CONTROL_GROUPS = {
    "version 2": ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
    "version 2 without a limit": ({"cpu.max": "max 100000\n"}, "0::/\n", inf),
    "limit of the group itself": ({"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "max 100000\n"}, "0::/a/b\n", 0.5),
    "limit of a parent": ({"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "200000 100000\n"}, "0::/a/b\n", 2),
    "path of the host in a container": ({"cpu.max": "300000 100000\n"}, "0::/docker/1f\n", 3),
    "version 1": (
        {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        "5:memory:/m\n4:cpu,cpuacct:/docker/1f\n1:name=systemd:/\n0::/\n",
        2.5,
    ),
    "version 1 without a limit": (
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        "1:cpu:/\n0::/\n",
        inf,
    ),
    "limit on another controller": (
        {"cpuset/cpu.cfs_quota_us": "100000\n", "cpuset/cpu.cfs_period_us": "100000\n"},
        "3:cpuset:/\n",
        inf,
    ),
}


@pytest.mark.parametrize("case", CONTROL_GROUPS)
def test_quota_is_that_of_the_control_groups(case, tmp_path):
    files, cgroups, expected = CONTROL_GROUPS[case]
    for name, text in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(text)
    (tmp_path / "cgroup").write_text(cgroups)
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "mount") == expected


def test_system_without_control_groups_has_no_quota(tmp_path):
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "mount") == inf


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_cpus_are_those_of_the_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= usable_cpus() <= len(before)


def test_results_are_in_the_order_of_the_items():
    assert map_on_threads(lambda item: item * item, range(50)) == [item * item for item in range(50)]


def test_each_item_is_reported_when_its_result_is_there():
    done: list[int] = []
    map_on_threads(str, range(50), done.append)
    assert done == [*range(50)]


def test_no_item_is_reported_after_an_error():
    done: list[int] = []
    with pytest.raises(ZeroDivisionError):
        map_on_threads(lambda item: 1 / item, [2, 1, 0, 5], done.append)
    assert done == [2, 1]
