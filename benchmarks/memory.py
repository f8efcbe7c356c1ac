"""The memory of a process and all its descendants, on Linux.

Counted is what no file backs: anonymous memory and shared memory, each page divided by the number of processes that
map it (Pss_Anon and Pss_Shmem of /proc/PID/smaps_rollup). So the page cache is left out, and what workers share with
their parent counts once.
"""

import subprocess
import time
from pathlib import Path

INTERVAL = 0.002  # seconds between samples, plus the time that a sample takes


def watch_peak(process: subprocess.Popen[bytes], interval: float = INTERVAL) -> float:
    """Wait for a process and return the peak of its tree's memory, in MB; 0 where there is no /proc."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_kilobytes(process.pid))
        time.sleep(interval)
    return peak / 1024


def tree_kilobytes(root: int) -> int:
    """Add up the memory of a process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        # The name, in parentheses, may itself contain spaces and parentheses.
        if fields := _read(path).rpartition(")")[2].split():
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    total, tree = 0, [root]
    while tree:
        pid = tree.pop()
        tree += children.get(pid, [])
        lines = [line.split() for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()]
        total += sum(int(words[1]) for words in lines if words[0] in {"Pss_Anon:", "Pss_Shmem:"})
    return total


def _read(path: Path) -> str:
    """Read a file of /proc, empty if its process has ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
