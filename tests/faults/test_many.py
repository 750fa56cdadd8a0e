"""Much of it: whatever the daemon counts is recorded, in memory that does not grow with it."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

import pytest

from lxdtap.cassette import files
from tests.campaign import Campaign
from tests.process.callers import resident
from tests.process.recording import SPOOL, SYNC, get, targets
from tests.process.tap import Sidecar, answer, sidecar

from .running import family, finish
from .upstreams import Connection, Upstream, upstream

ANSWER = answer(SYNC, close=False)
HOUR = 3600
MIB = 1 << 20
PATIENT = 120
"""Seconds that a client waits for an answer: it is what is lost that counts, not what is late."""
AT_ONCE = 20
"""Requests that a client sends before it reads."""
_URI = re.compile(r"uri: (/\S+)")


class Counting:
    """A script that answers at once, and counts."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, connection: Connection) -> None:
        tail = b""
        while data := await connection.read():
            *whole, tail = (tail + data).split(b"\r\n\r\n")
            self.count += len(whole)
            await connection.send(ANSWER * len(whole))


@contextlib.contextmanager
def recorded(directory: Path) -> Iterator[tuple[Counting, Upstream, Sidecar]]:
    """A daemon that counts, and a tap that records and does not log."""
    counting = Counting()
    with upstream(directory / "lxd", counting) as daemon:
        path = f"{directory}/c.yaml"
        with sidecar(directory / "tap", daemon.path, "-q", "-w", path, stdout=DEVNULL) as tap:
            yield counting, daemon, tap


def connected(path: str) -> socket.socket:
    """A client that is patient: it waits in the queue, and for each of its answers."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.settimeout(PATIENT)
    return sock


def ask(path: str, name: str, times: int, campaign: Campaign | None = None) -> float:
    """Ask so often on one connection; how long the slowest answers took, in seconds."""
    slowest = 0.0
    starts: Iterable[int] = range(0, times, AT_ONCE)
    if campaign is not None:
        starts = campaign.progress(f"client {name}", starts, times // AT_ONCE)
    with connected(path) as sock:
        for start in starts:
            numbers = range(start, min(times, start + AT_ONCE))
            begun = time.monotonic()
            sock.sendall(b"".join(get(f"/{name}/{n}", close=False) for n in numbers))
            left = len(numbers) * len(ANSWER)
            while left:
                data = sock.recv(left)
                assert data, "the tap hung up"
                left -= len(data)
            slowest = max(slowest, time.monotonic() - begun)
    return slowest


def kept(path: Path) -> Counter[str]:
    """What a cassette says was asked, without all of it in memory; it is whole."""
    found: Counter[str] = Counter()
    with path.open() as file:
        for line in file:
            if match := _URI.search(line):
                found[match[1]] += 1
    assert line == "complete: true\n"
    return found


@dataclass(frozen=True)
class Memory:
    """KiB that the processes of a tap have: each by itself; and all, what they share but once."""

    each: list[int]
    all: int

    @classmethod
    def of(cls, tap: Sidecar) -> Memory:
        pids = family(tap.process.pid)
        return cls([resident(pid) for pid in pids], sum(map(proportional, pids)))

    def __str__(self) -> str:
        each = " + ".join(f"{size / 1024:.0f}" for size in self.each)
        return f"{self.all / 1024:.1f} MiB (RSS {each})"


def proportional(pid: int) -> int:
    """KiB that a process has, its part of what it shares with others (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("\nPss:")[2].split()[0])


@pytest.mark.timeout(HOUR)
def test_nothing_is_lost(tmp_path: Path, campaign: Campaign) -> None:
    """What the daemon counted is in the cassette, each once; the tap is as small as before."""
    clients, times = 8, campaign.count(400, 125_000)
    with recorded(tmp_path) as (counting, _, tap):
        before, begun = Memory.of(tap), time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            names = map(str, range(clients))
            todo = [pool.submit(ask, tap.path, name, times, campaign) for name in names]
        assert counting.count == clients * times, [each.exception() for each in todo]
        slowest = max(each.result() for each in todo)
        rate = clients * times / (time.monotonic() - begun)
        time.sleep(1)  # what waits for the recorder is not lost
        after = Memory.of(tap)
        spool = (tmp_path / SPOOL).stat().st_size
        begun = time.monotonic()
        finish(tap, HOUR)
        saving = time.monotonic() - begun
    wanted = Counter(f"/{client}/{n}" for client in range(clients) for n in range(times))
    path = tmp_path / "c.yaml"
    assert kept(path) == wanted
    assert after.all <= 64 << 10, f"{before} before, {after} after"
    campaign.figure(
        f"{clients * times:,} recorded",
        f"0 lost; {rate:,.0f}/s, {AT_ONCE} of a client in {slowest:.2f} s at most;"
        f" {before} before, {after} after; spool {spool / MIB:.0f} MiB;"
        f" saved in {saving:.1f} s, {path.stat().st_size / MIB:.0f} MiB",
    )


@pytest.mark.timeout(HOUR)
def test_many_at_once(tmp_path: Path, campaign: Campaign) -> None:
    """Of many connections that are open at the same time each is recorded, from first to last."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # For each the tap has two descriptors, and this process two.
    many = min(campaign.count(200, 4000), hard // 2 - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with recorded(tmp_path) as (counting, _, tap), contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connected(tap.path)) for _ in range(many)]
            for turn in range(3):
                for number, sock in enumerate(socks):
                    sock.sendall(get(f"/{number}/{turn}", close=False))
                for sock in socks:
                    left = len(ANSWER)
                    while left:
                        left -= len(sock.recv(left))
            after = Memory.of(tap)
            finish(tap, HOUR)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wanted = Counter(f"/{number}/{turn}" for number in range(many) for turn in range(3))
    assert counting.count == 3 * many
    assert kept(tmp_path / "c.yaml") == wanted
    campaign.figure(f"{many:,} connections recorded at once", f"0 lost; {after}")


@pytest.mark.timeout(HOUR)
def test_saved_again_and_again_meanwhile(tmp_path: Path, campaign: Campaign) -> None:
    """SIGUSR1 as often as can be: each cassette is whole, has no less than the one before."""
    path, over, saved = tmp_path / "c.yaml", threading.Event(), [0]
    signals, written, seconds = 0, 0, campaign.count(1, 60)

    def go_on(name: str) -> None:
        number = 0
        while not over.is_set():
            ask(tap.path, f"{name}/{number}", 2 * AT_ONCE)
            number += 1
            time.sleep(0.02 * seconds)

    with recorded(tmp_path) as (counting, _, tap):
        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(go_on, str(number)) for number in range(3)]
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                tap.process.send_signal(signal.SIGUSR1)
                signals += 1
                time.sleep(0.02)
                if path.exists() and path.stat().st_mtime_ns != written:
                    written = path.stat().st_mtime_ns
                    saved.append(len(files.load(str(path)).interactions))
            over.set()
            for each in asking:
                each.result()
        finish(tap, HOUR)
    assert saved == sorted(saved)
    cassette = files.load(str(path))
    assert counting.count == len(cassette.interactions) == len(set(targets(cassette)))
    assert cassette.complete
    campaign.figure(
        f"SIGUSR1, {signals} times", f"{len(saved) - 1} cassettes seen, each whole; 0 lost"
    )
