"""What a slow log, a slow disk and a large body add to somebody else's transaction.

The client that is measured asks every few milliseconds. What is told is its 99th percentile with
the disturbance less that without it, the rest being equal, by rounds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import termios
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tests.bench import load, packages, peers
from tests.bench.figures import Findings, Series, Target, judge, percentile
from tests.bench.processes import Address, BenchError, Running, holders, wait
from tests.bench.stage import Options, Stage

BOUND = 5
PAUSE = 0.003
PER_SECOND = 200
"""Requests that somebody else makes meanwhile, so that there is something to log and record."""
DELAY = 0.2
"""Seconds that each write to a slow disk takes."""
FILL = 8_000
"""Transactions after which neither a pipe nor 16 MiB takes more of the log."""

Tap = Callable[[Stage], AbstractContextManager[Running]]


def seconds(options: Options) -> float:
    """About how long it takes."""
    return options.rounds * 3 * 2 * 1.4 + 15


def measure(stage: Stage) -> Findings:
    """All three."""
    found = Findings()
    for what, calm, disturbed in (
        ("a slow reader of the log", _read, _unread),
        ("a slow disk", _fast_disk, _slow_disk),
        ("JSON bodies of 2 MiB", _fast_disk, _large_bodies),
    ):
        _compare(stage, found, what, calm, disturbed)
    return found


def _compare(stage: Stage, found: Findings, what: str, calm: Tap, disturbed: Tap) -> None:
    series = Series("fairness", f"{what}: another's 99th percentile", "ms")
    series.baseline = "without"
    worst = 0.0
    target = Target("fairness", f"{what}: added to another's transaction", BOUND, False, "ms")
    try:
        with calm(stage) as one, disturbed(stage) as other:
            for _ in stage.rounds(what):
                series.add("without", percentile(_probe(one.address), 0.99) * 1e3)
                times = _probe(other.address)
                series.add("with", percentile(times, 0.99) * 1e3)
                worst = max(worst, *times)
    except BenchError as error:
        found.verdicts.append(judge(target, [], why=str(error)))
        return
    pairs = zip(series.values["with"], series.values["without"], strict=True)
    found.series.append(series)
    # What another adds is told in milliseconds: the machine's noise is far below the bound.
    found.verdicts.append(judge(target, [max(0.0, more - less) for more, less in pairs]))
    found.notes.append(f"{what}: the longest of another's transactions took {worst * 1e3:.1f} ms")


def _probe(address: Address) -> list[float]:
    """Our transactions, while somebody else makes some."""
    with _others(address, PER_SECOND, load.INSTANCE), load.client(address) as client:
        return client.paced(1.0, PAUSE)


@contextlib.contextmanager
def _others(address: Address, each_second: int, path: str) -> Iterator[None]:
    """Requests at a steady pace, until we are done."""
    command = ["h2load", "--h1", "-c", "1", "-D", "1000", "--rps", str(each_second)]
    where = ["-B", f"unix:{address.where}", f"http://lxd{path}"]
    running = subprocess.Popen(
        [*command, *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.1)
        yield
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def _unread(stage: Stage) -> Iterator[Running]:
    """A tap whose log nobody reads."""
    reading, writing = os.pipe()
    try:
        with peers.tap(stage, stage.nginx, recording=True, stdout=writing) as tap:
            load.h2load(tap.address, count=FILL)
            tap.settle()
            waiting = array("i", [0])
            fcntl.ioctl(reading, termios.FIONREAD, waiting)
            if not waiting[0]:
                raise BenchError("lxdtap has not put its log where nobody reads it")
            yield tap
    finally:
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def _read(stage: Stage) -> Iterator[Running]:
    with peers.tap(stage, stage.nginx, logging=True, recording=True) as tap:
        yield tap


@contextlib.contextmanager
def _fast_disk(stage: Stage) -> Iterator[Running]:
    with peers.tap(stage, stage.nginx, "-q", recording=True) as tap:
        yield tap


@contextlib.contextmanager
def _slow_disk(stage: Stage) -> Iterator[Running]:
    """A tap each of whose writes to the spool is held up, by strace."""
    if shutil.which("strace") is None:
        raise BenchError(packages.missing("strace"))
    with _fast_disk(stage) as tap:
        load.h2load(tap.address, count=100)
        assert tap.spool is not None
        first, *others = tap.pids()
        # The first one relays; where another writes the spool it is that one that is held up.
        held_up = holders(others, tap.spool) or holders([first], tap.spool)
        if not held_up:
            raise BenchError("none of lxdtap's processes has its spool open")
        calls = "write,writev,pwrite64,pwritev,fsync,fdatasync"
        told = tap.said.with_name("strace")
        traced = [word for pid in held_up for word in ("-p", str(pid))]
        command = ["strace", "-f", "-q", "-o", str(told), *traced, "-P", str(tap.spool)]
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:delay_exit={int(DELAY * 1e6)}"]
        tracer = subprocess.Popen([*command, *inject], stderr=subprocess.PIPE)
        try:
            with load.client(tap.address) as client:
                wait(lambda: bool(client.ask()) and _has_written(told, tracer), "strace is to see")
            yield tap
        finally:
            tracer.terminate()
            tracer.wait()


def _has_written(told: os.PathLike[str], tracer: subprocess.Popen[bytes]) -> bool:
    """Whether a write to the spool was held up, so that what is measured is what is meant."""
    if tracer.poll() is not None:
        assert tracer.stderr is not None
        said = tracer.stderr.read().decode(errors="replace").strip()
        raise BenchError(f"strace cannot slow the disk down: {said}")
    return os.path.exists(told) and "DELAYED" in open(told).read()


@contextlib.contextmanager
def _large_bodies(stage: Stage) -> Iterator[Running]:
    """A tap through which somebody gets large bodies."""
    with _fast_disk(stage) as tap, _others(tap.address, 5, "/large"):
        yield tap
