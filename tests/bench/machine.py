"""The machine that was measured on, and how busy others kept it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from . import packages
from .figures import BUSY


def description() -> dict[str, str]:
    """What somebody has to know to make sense of the figures."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    here = {
        "machine": f"{os.cpu_count()} cores, {_model()}, {memory:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
    }
    return here | packages.versions()


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def others(times: int = 3, seconds: float = 1.0) -> float:
    """The part of the machine that is used while we do nothing: 0 to 1.

    The least of so many looks, so that what just ended is not mistaken for somebody else's work;
    the first that shows a calm machine is the last.
    """
    least = 1.0
    for _ in range(times):
        before = _jiffies()
        time.sleep(seconds)
        idle, total = (now - then for now, then in zip(_jiffies(), before, strict=True))
        least = min(least, 1 - idle / total if total else 0.0)
        if least <= BUSY:
            break
    return least


def _jiffies() -> tuple[int, int]:
    """Idle and in all (proc(5), stat); what a hypervisor stole is not idle."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)
