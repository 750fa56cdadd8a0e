"""What not every machine has: a test that needs it is skipped there, in one line that says why.

Where ``CI`` is true it fails instead, for there it was to be installed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.absent import absent
from tests.process.tap import eventually

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
"""The library that tells a process another time, where it is installed."""


def program(name: str) -> str:
    """Where a program is, which has to be installed."""
    return shutil.which(name) or absent(f"{name} is not installed")


def faketime() -> str:
    """Where the library that tells another time is."""
    return str(FAKETIME[0]) if FAKETIME else absent("faketime is not installed")


@contextlib.contextmanager
def disk(place: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "lxdtap-test", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        absent(f"no disk can be made here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


# -- system calls that fail

WRITES = "write,writev,pwrite64,pwritev"
"""Those by which a file is written."""


def failing(fault: str) -> list[str]:
    """The words before a command, of whose system calls some fail, as strace(1) has it."""
    return [program("strace"), "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}"]


@contextlib.contextmanager
def failing_at(pid: int, path: Path | None, fault: str) -> Iterator[None]:
    """Have some of a process' system calls fail, those on one file or all, for a time."""
    tracer = subprocess.Popen(attach(pid, path, fault))
    status = Path(f"/proc/{pid}/status")
    try:
        eventually(lambda: f"TracerPid:\t{tracer.pid}\n" in status.read_text())
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def attach(pid: int, path: Path | None, fault: str) -> Sequence[str]:
    """The command that does so."""
    file = [] if path is None else ["-P", str(path)]
    return [*failing(fault), "-p", str(pid), *file]
