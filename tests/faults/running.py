"""What a running tap holds, and what it has recorded in the end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette
from tests.process.callers import children
from tests.process.tap import PATIENCE, Sidecar, eventually


def family(pid: int) -> list[int]:
    """A tap's process, and those that it has started: the recorder, the connector."""
    return [pid, *(each for child in children(pid) for each in family(child))]


def descriptors(pid: int) -> int:
    """How many file descriptors all of a tap's processes have open."""
    return sum(len(os.listdir(f"/proc/{each}/fd")) for each in family(pid))


def settled(pid: int) -> int:
    """How many they have once they have begun: one that was forked still closes what it got."""
    eventually(lambda: all(_asleep(pid) for _ in range(5)))
    return descriptors(pid)


def _asleep(pid: int) -> bool:
    """Whether all of them wait for something, and still do a moment later (proc(5), state)."""
    time.sleep(0.02)
    stats = [Path(f"/proc/{each}/stat").read_text() for each in family(pid)]
    return all(stat.rpartition(")")[2].split()[0] == "S" for stat in stats)


def processor(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finish(tap: Sidecar, seconds: float = PATIENCE, number: int = signal.SIGTERM) -> list[str]:
    """End a tap that may have much to save; what it said after its two first lines."""
    tap.process.send_signal(number)
    _, stderr = tap.process.communicate(timeout=seconds)
    assert tap.process.returncode == 0, stderr
    return stderr.splitlines()


def exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or all that comes until the end. MSG_WAITALL does not go with a timeout."""
    received = bytearray()
    while len(received) < size and (data := sock.recv(size - len(received))):
        received += data
    return bytes(received)


def recorded(path: Path) -> Cassette:
    """The cassette, which is complete."""
    cassette = files.load(str(path))
    assert cassette.complete
    return cassette


@dataclass(frozen=True)
class Spread:
    """Seconds that something took, many times."""

    times: Sequence[float]

    def quantile(self, part: float) -> float:
        """What this part of the times does not exceed."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    @property
    def slowest(self) -> float:
        """The longest."""
        return max(self.times)

    def __str__(self) -> str:
        median, high = 1000 * self.quantile(0.5), 1000 * self.quantile(0.99)
        return f"p50 {median:.1f} ms, p99 {high:.1f} ms, max {1000 * self.slowest:.1f} ms"
