"""A tap that records, in front of a fake daemon; and what became of the recording."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette
from lxdtap.record import spool
from lxdtap.record.collect import Collector
from lxdtap.transaction import Moment

from .callers import children
from .tap import (
    LXDTAP,
    FakeDaemon,
    Served,
    Sidecar,
    answer,
    environment,
    fake_daemon,
    sidecar,
)

SYNC = b'{"type":"sync","status":"Success","status_code":200,"metadata":{}}\n'
SLOW = 60
"""Seconds that what is long may take where much else is done."""
SPOOL = "c.yaml.spool"
"""The spool of the cassette that :func:`recording` makes."""


def get(target: str, *, close: bool = True) -> bytes:
    """A request."""
    connection = "Connection: close\r\n" if close else ""
    return f"GET {target} HTTP/1.1\r\nHost: lxd\r\n{connection}\r\n".encode()


def serve(sock: socket.socket, served: Served) -> None:
    """Answer each request, also those that come at once, and hang up where that is asked for."""
    heads = b""
    while data := sock.recv(1 << 16):
        served.received += data
        *whole, heads = (heads + data).split(b"\r\n\r\n")
        for head in whole:
            close = b"Connection: close" in head
            sock.sendall(answer(SYNC, close=close))
            if close:
                return


@contextlib.contextmanager
def recording(
    directory: Path, *options: str, script: Callable[[socket.socket, Served], None] = serve
) -> Iterator[tuple[FakeDaemon, Sidecar, Path]]:
    """A daemon, a tap that records, and the cassette's path."""
    path = directory / "c.yaml"
    with fake_daemon(directory / "lxd", script) as daemon:
        with sidecar(directory / "tap", daemon.path, "-w", str(path), *options) as tap:
            yield daemon, tap, path


def asked(daemon: FakeDaemon) -> int:
    """How many requests the fake daemon has had."""
    return sum(bytes(served.received).count(b"\r\n\r\n") for served in daemon.served)


def targets(cassette: Cassette) -> list[str]:
    """What was asked, in its order."""
    return [each.transaction.request.target for each in cassette.interactions]


def spooled(path: Path) -> tuple[list[str], str]:
    """The targets of the requests in a spool, and its damage."""
    collector, reading = Collector(), spool.Reading(0)
    found = [i for event in spool.read(str(path), reading) for i in collector.add(event)]
    found += collector.end(Moment(0, 0), "the spool ended")
    found.sort(key=lambda each: each.transaction.number)
    return [each.transaction.request.target for each in found], reading.damage


def holds(path: Path, count: int) -> bool:
    """Whether there is a cassette with so many interactions."""
    return path.exists() and len(files.load(str(path)).interactions) == count


def has_shown(tap: Sidecar, count: int) -> bool:
    """Whether so many transactions are in the log."""
    return len(tap.entries("transaction")) == count


def said(tap: Sidecar) -> str:
    """What a tap said on stderr, after where it listens."""
    return "".join(tap.said[2:])


def recover(spooled: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Make a cassette of a spool that was left."""
    return subprocess.run(
        [*LXDTAP, "recover", str(spooled), *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SLOW,
    )


# -- the processes of a tap


def holders(path: Path) -> list[int]:
    """The processes that have a file open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                links = {os.readlink(each) for each in (entry / "fd").iterdir()}
                found += [int(entry.name)] if str(path) in links else []
    return found


def recorder_of(tap: Sidecar) -> int:
    """The process that has the spool open, and is not the tap."""
    (pid,) = [p for p in children(tap.process.pid) if p in holders(tap.directory.parent / SPOOL)]
    return pid
