"""Processes that the bench starts, what they take of the machine, and how they end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PATIENCE = 30.0
"""Seconds that something may take to start, or to become idle."""


class BenchError(Exception):
    """Something cannot be measured; what, and what to do about it."""


QUIET = 10
"""How often in a row, a hundredth of a second apart, something is seen not to work until it is
taken to be done: timers of its own are shorter."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens: a unix socket's path, or a port of the loopback's."""

    where: str | int

    def connect(self) -> socket.socket:
        """A connected client."""
        family = socket.AF_UNIX if isinstance(self.where, str) else socket.AF_INET
        sock = socket.socket(family)
        sock.settimeout(PATIENCE)
        try:
            self._connect(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _connect(self, sock: socket.socket) -> None:
        """Where its backlog is full, a unix socket does not wait for the listener (unix(7))."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                to = self.where if isinstance(self.where, str) else ("127.0.0.1", self.where)
                return sock.connect(to)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.005)

    def answers(self) -> bool:
        """Whether somebody listens."""
        with contextlib.suppress(OSError), self.connect():
            return True
        return False


@dataclass(slots=True)
class Running:
    """A process of ours and those it started."""

    address: Address
    process: subprocess.Popen[bytes]
    said: Path
    log: Path | None = None
    spool: Path | None = None
    begun: int = field(default=0)
    """How much it had said when it was ready."""

    def pids(self) -> list[int]:
        """It and its descendants."""
        return tree(self.process.pid)

    def cpu(self) -> float:
        """Seconds that they worked, until now."""
        return sum(cpu_seconds(pid) for pid in self.pids())

    def settle(self) -> float:
        """Wait until none of them has anything to do; the seconds until then.

        What waits for a processor that others use has something to do, though it does nothing.
        """
        begun = quiet_since = time.monotonic()
        pids = self.pids()
        last, quiet = self.cpu(), 0
        while quiet < QUIET and time.monotonic() - begun < PATIENCE:
            time.sleep(0.01)
            quiet += 1
            now = sum(map(cpu_seconds, pids))
            if now > last + 1.5 / TICK or any(map(is_busy, pids)):
                last, quiet, quiet_since = now, 0, time.monotonic()
        return quiet_since - begun

    def troubles(self) -> list[str]:
        """What it said after it was ready, and what its log says was left out."""
        with self.said.open(errors="replace") as said:
            said.seek(self.begun)
            lines = [line.strip() for line in said if line.strip()]
        if self.log is not None and self.log.exists():
            found = subprocess.run(
                ["grep", "-a", "-m", "3", "were left out:", str(self.log)],
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            lines += found.stdout.splitlines()
        if self.process.poll() is not None:
            lines.append(f"ended with {self.process.returncode}")
        return lines


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found, parents = [pid], _parents()
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(name)] = int(_stat(int(name))[1])
    return parents


def _stat(pid: int | str) -> list[str]:
    """The fields of proc(5)'s stat behind the name: the first is the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """What a process has worked, in itself and for itself in the kernel; 0 of one that is gone."""
    with contextlib.suppress(OSError):
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / TICK
    return 0.0


def is_busy(pid: int) -> bool:
    """Whether one of its threads runs, wants to, or waits for a disk."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            if _stat(f"{pid}/task/{thread}")[0] in "RD":
                return True
    return False


def memory(pids: Sequence[int], what: str = "VmRSS") -> int:
    """Bytes that they hold in sum; ``VmHWM``: held at most; ``Pss``: what is shared, once."""
    total = 0
    for pid in pids:
        name = "smaps_rollup" if what == "Pss" else "status"
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(f"{what}:"):
                    total += int(line.split()[1]) << 10
    return total


def forget_peak(pids: Sequence[int]) -> None:
    """``VmHWM`` counts from now on (proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def holders(pids: Sequence[int], path: Path) -> list[int]:
    """Which of them have a file open."""
    return [pid for pid in pids if str(path) in _open_files(pid)]


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def free_port() -> int:
    """A port of the loopback's that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    address: Address,
    place: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdout: int = subprocess.DEVNULL,
    log: Path | None = None,
    spool: Path | None = None,
) -> Iterator[Running]:
    """A server, until we are done with it; then it, and what lies in its place, is gone.

    It is killed: a tap that ends in order first makes a cassette of what it recorded.
    """
    place.mkdir(exist_ok=True)
    said = place / "said"
    with said.open("wb") as errors:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors
        )
    found = Running(address, process, said, log, spool)
    try:
        wait(lambda: process.poll() is not None or address.answers(), f"{command[0]} is to listen")
        if process.poll() is not None:
            last = said.read_text(errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"{command[0]} did not start: {' '.join(last)}")
        found.begun = said.stat().st_size
        yield found
    finally:
        end(found)
        shutil.rmtree(place, ignore_errors=True)


def end(running: Running) -> None:
    """Kill them, the youngest first: no child is to outlive what it works for, and save."""
    pids = running.pids() if running.process.poll() is None else []
    for pid in reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.process.wait(PATIENCE)
    wait(lambda: not any(_alive(pid) for pid in pids), f"the end of {running.process.args!r}")


def _alive(pid: int) -> bool:
    """A child of a dead parent is init's to reap: one that only waits for that is not alive."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False
