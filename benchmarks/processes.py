"""CPU and memory of other processes and their children, read from /proc (Linux)."""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# Of /proc/PID/stat, counted from the state, which follows the name in brackets.
PARENT, TIMES = 1, slice(11, 15)


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of these processes, their children, and those children that ended."""
    stats = _stats()
    ticks = [int(each) for pid in _with_children(roots, stats) for each in stats[pid][TIMES]]
    return sum(ticks) / TICKS


def resident_mb(pid: int) -> float:
    """Megabytes that one process has in memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_mb(pid: int) -> float:
    """The most megabytes that one process ever had in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def _stats() -> dict[int, list[str]]:
    stats = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stats[int(entry.name)] = (entry / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has ended meanwhile
    return stats


def _with_children(roots: Iterable[int], stats: dict[int, list[str]]) -> set[int]:
    children = defaultdict(list)
    for pid, fields in stats.items():
        children[int(fields[PARENT])].append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in stats]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children[pid]
    return found
