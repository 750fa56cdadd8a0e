"""On which processor a tap and its recorder work: one, where there are two, and little to do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxdtap.record.link import SOON
from lxdtap.record.placing import OFTEN, Place

from .callers import children
from .recording import get, recorder_of, recording
from .tap import (
    Script,
    Served,
    Sidecar,
    always,
    answer,
    ask,
    connect,
    eventually,
    fake_daemon,
    read_until,
    sidecar,
)

BUSY = "import time\nwhile True: time.sleep(0.001)"
"""A process that is on one processor or the other."""
MANY, LARGE = answer(bytes(50_000), close=False), answer(bytes(1 << 20))
"""An answer of which a few are much, and one that is."""

ALL = sorted(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="there is but one processor")


@pytest.fixture
def two() -> Iterator[frozenset[int]]:
    """Two processors, which is all that this thread and whatever it starts may use."""
    found = frozenset(ALL[:2])
    os.sched_setaffinity(0, found)
    yield found
    os.sched_setaffinity(0, ALL)


def is_on(pid: int, processors: frozenset[int] | set[int]) -> bool:
    """Whether these are all that a process may use."""
    return os.sched_getaffinity(pid) == processors


def exchange(sock: socket.socket) -> None:
    """A request, and its answer."""
    sock.sendall(get("/1.0", close=False))
    left = len(MANY)
    while left:
        left -= len(sock.recv(1 << 17))


def came(tap: Sidecar, where: set[int] | frozenset[int]) -> None:
    """Ask for so much at once that they are busy, until the recorder is there."""
    recorder = recorder_of(tap)
    with connect(tap.path) as sock:

        def is_there() -> bool:
            exchange(sock)
            return is_on(recorder, where)

        eventually(is_there)


@contextlib.contextmanager
def quiet(directory: Path, script: Script | None = None) -> Iterator[Sidecar]:
    """A tap that records, and has no log."""
    script = script or always(MANY)
    options = ("-q", "-w", str(directory / "c.yaml"))
    with fake_daemon(directory / "lxd", script) as daemon:
        with sidecar(directory / "tap", daemon.path, *options, stdout=subprocess.DEVNULL) as tap:
            yield tap


def test_it_goes_where_its_tap_is(tmp_path: Path, two: frozenset[int]) -> None:
    """Wherever that goes: so the other processor is the client's and the daemon's."""
    with quiet(tmp_path) as tap:
        for processor in (*two, *two):
            os.sched_setaffinity(tap.process.pid, {processor})
            came(tap, {processor})


def test_it_goes_where_there_is_room_for_a_large_body(tmp_path: Path, two: frozenset[int]) -> None:
    """Its pieces are written while the next ones pass. Then it comes back."""

    def script(sock: socket.socket, served: Served) -> None:
        while head := read_until(sock, served, b"\r\n\r\n"):
            sock.sendall(LARGE if b"/large" in head else MANY)
            if b"/large" in head:
                return

    with quiet(tmp_path, script) as tap:
        os.sched_setaffinity(tap.process.pid, {min(two)})
        came(tap, {min(two)})
        recorder = recorder_of(tap)
        eventually(lambda: ask(tap.path, get("/large")) and is_on(recorder, two))
        came(tap, {min(two)})


def savers_of(tap: Sidecar) -> set[frozenset[int]]:
    """Where those work that save a busy recording, which is asked for twice."""
    found: set[frozenset[int]] = set()
    recorder, until = recorder_of(tap), time.monotonic() + 0.5
    for _ in range(2):  # the second is saved once the first is
        tap.process.send_signal(signal.SIGUSR1)
    with connect(tap.path) as sock:
        while time.monotonic() < until:
            exchange(sock)
            for saver in children(recorder):
                with contextlib.suppress(OSError):
                    found.add(frozenset(os.sched_getaffinity(saver)))
    return found


def test_it_saves_where_there_is_room(tmp_path: Path, two: frozenset[int]) -> None:
    """A cassette of much takes its time."""
    with quiet(tmp_path) as tap:
        os.sched_setaffinity(tap.process.pid, {min(two)})
        for _ in range(4):
            savers: set[frozenset[int]] = set()
            while not savers:  # one may come and go unseen
                came(tap, {min(two)})
                savers = savers_of(tap)
            assert savers == {two}


def test_it_works_at_its_ease_where_there_is_time(tmp_path: Path, two: frozenset[int]) -> None:
    """A request now and then keeps no processor busy."""
    with quiet(tmp_path) as tap:
        os.sched_setaffinity(tap.process.pid, {min(two)})
        came(tap, {min(two)})
        recorder = recorder_of(tap)
        with connect(tap.path) as sock:

            def is_at_ease() -> bool:
                time.sleep(2 * SOON)
                exchange(sock)
                return is_on(recorder, two)

            eventually(is_at_ease)


def stays(tap: Sidecar, sock: socket.socket) -> bool:
    """Whether a tap does that is asked for much."""
    for _ in range(8):
        exchange(sock)
    return len(os.sched_getaffinity(tap.process.pid)) == 1


@pytest.mark.parametrize("then", ["nothing", "little", "no recorder"])
def test_a_busy_tap_stays_where_it_is(tmp_path: Path, two: frozenset[int], then: str) -> None:
    """Until less comes, or nothing; then it goes wherever there is room."""
    with quiet(tmp_path) as tap, connect(tap.path) as sock:

        def leaves() -> bool:
            if then == "little":
                exchange(sock)
                time.sleep(2 * SOON)
            return is_on(tap.process.pid, two)

        eventually(lambda: stays(tap, sock))
        if then == "no recorder":
            os.kill(recorder_of(tap), signal.SIGKILL)
            exchange(sock)
        eventually(leaves)


def test_somebody_elses_wish(two: frozenset[int]) -> None:
    """Whoever places it otherwise meanwhile, is not overruled."""
    place = Place(os.getpid(), two)

    def pinned() -> bool:
        place.follow()
        return len(os.sched_getaffinity(0)) == 1

    eventually(pinned)
    (other,) = two - os.sched_getaffinity(0)
    os.sched_setaffinity(0, {other})
    place.leave()
    assert is_on(0, {other})
    time.sleep(2 * OFTEN)
    place.follow()
    assert is_on(0, {other})
    place.leave()
    assert is_on(0, {other})
    os.sched_setaffinity(0, two)
    eventually(pinned)
    place.leave()
    assert is_on(0, two)


def test_a_log_is_work_for_a_processor(tmp_path: Path, two: frozenset[int]) -> None:
    """Text is made of each transaction: that takes longer than to relay it."""
    with recording(tmp_path, script=always(MANY)) as (_, tap, _):
        recorder, seen = recorder_of(tap), set()
        with connect(tap.path) as sock:
            for _ in range(100):
                exchange(sock)
                seen.add(frozenset(os.sched_getaffinity(recorder)))
        eventually(lambda: len(tap.transactions()) == 100)
        assert seen == {two}


@pytest.mark.parametrize("processors", [{0}, {0, 1, 2}])
def test_one_or_many_processors(processors: set[int]) -> None:
    """With one there is no choice, and of many one is left for each."""
    before = os.sched_getaffinity(0)
    place = Place(os.getpid(), frozenset(processors))
    place.follow()
    place.leave()
    assert os.sched_getaffinity(0) == before


def test_whom_it_followed_is_gone(two: frozenset[int]) -> None:
    """It goes wherever there is room then."""

    def follows(to: set[int] | frozenset[int]) -> bool:
        place.follow()
        return is_on(0, to)

    with subprocess.Popen([sys.executable, "-c", BUSY]) as other:
        os.sched_setaffinity(other.pid, {max(two)})
        place = Place(other.pid, two)
        eventually(lambda: follows({max(two)}))
        other.kill()
    eventually(lambda: follows(two))
