"""Flows: what clients do, recorded with a real daemon, and done again with the recording alone.

::

    recorded = record(daemon, flow, directory)
    with on_one_replay(daemon, recorded) as (socket, replay):
        run(daemon, flow, directory / "1", socket)      # and again, and again
    play(daemon, flow, recorded.path, directory / "2")  # by a new `lxdtap replay`
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lxdtap.cassette import files
from lxdtap.cassette.cleaning import Cleaner
from lxdtap.cassette.model import Cassette
from lxdtap.redact import Redactor
from tests.process.tap import LXDTAP

from .recording import recorded
from .tapping import PATIENCE, ending, printable, settled
from .throwaway import Daemon

TRIES = 3
"""How often a flow is recorded in which the client, or the daemon, may lose an exec's output."""
LONGEST = 5 * PATIENCE
"""Seconds that a run may take, of a hundred execs too, before it counts as hung."""
FOUND = 'SOCKET="${LXD_SOCKET:-${INCUS_SOCKET:-}}"\n'
"""For scripts: the daemon's socket, or what is in its place, as clients find it."""
BOTH = ("lxd", "incus")
NOTHING: Mapping[str, str] = {}
_PLACEHOLDER = re.compile(r"REDACTED-\d+")


@dataclass(frozen=True, slots=True)
class Flow:
    """Commands, and what they have to print when they are recorded.

    Attributes:
        script: for the shell; ``$LX`` is the daemon's own client, ``$SOCKET`` its socket.
        says: what is printed among other things; all that an exec says, since a client may lose
            some of it where no tap is (as Incus's did in one of 100 runs of six at once).
        stdin: what the commands read.
        kinds: the daemons that these are commands for.
        briefly: those of them with which it is tried where that is to be soon over.
    """

    script: str
    says: str = ""
    stdin: bytes = b""
    kinds: tuple[str, ...] = BOTH
    briefly: tuple[str, ...] = BOTH

    def with_which(self, *, full: bool) -> list[str]:
        """The daemons with which it is tried."""
        return [kind for kind in self.kinds if full or kind in self.briefly]


def program(
    text: str, says: str, kinds: tuple[str, ...] = BOTH, briefly: tuple[str, ...] = BOTH
) -> Flow:
    """The flow of a Python program, in which there is no apostrophe."""
    assert "'" not in text
    return Flow(f"exec {sys.executable} -c '{text}'", says, kinds=kinds, briefly=briefly)


@dataclass(frozen=True, slots=True)
class Done:
    """What a run did."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    def differs(self, live: Done) -> str:
        """How one can tell that this was played; empty: one cannot, placeholders aside."""
        pairs = {"stdout": (self.stdout, live.stdout), "stderr": (self.stderr, live.stderr)}
        told = [f"{name}: {a!r}, live {b!r}" for name, (a, b) in pairs.items() if not _same(a, b)]
        status = [f"status {self.status}, live {live.status}"] * (self.status != live.status)
        return "; ".join(status + told)


def _same(played: str, live: str) -> bool:
    """Whether a text is the same, but for what stands in the place of secrets."""
    if played == live:
        return True
    pieces = [re.escape(piece) for piece in _PLACEHOLDER.split(played)]
    return len(pieces) > 1 and re.fullmatch(r"\S*".join(pieces), live) is not None


@dataclass(slots=True)
class Recorded:
    """A flow that was recorded: the run, and the cassette."""

    live: Done
    cassette: Cassette = field(repr=False)
    _path: Path

    @property
    def path(self) -> Path:
        """The cassette's file, which is written where it was not yet."""
        if not self._path.exists():
            files.save(self.cassette, str(self._path))
        return self._path

    @property
    def took(self) -> float:
        """Seconds from the first request to the end of the last."""
        times = [each.transaction.timing for each in self.cassette.interactions]
        ends = (each.ended or each.begun for each in times)
        return (max(ends) - min(each.begun for each in times)) / 1e9

    @property
    def size(self) -> int:
        """Bytes of the cassette, with what lies beside it."""
        beside = Path(files.beside(str(self.path)))
        attached = beside.iterdir() if beside.exists() else ()
        return sum(each.stat().st_size for each in (self.path, *attached))


def run(
    daemon: Daemon, flow: Flow, directory: Path, socket: str, more: Mapping[str, str] = NOTHING
) -> Done:
    """Do it with what listens on ``socket``."""
    directions = {
        daemon.brand.directory_variable: os.path.dirname(socket),
        daemon.brand.socket_variable: socket,
    }
    return _done(daemon, flow, directory, (), {**directions, **more})


def play(
    daemon: Daemon,
    flow: Flow,
    cassette: Path,
    directory: Path,
    more: Mapping[str, str] = NOTHING,
    *,
    strict: bool = True,
) -> Done:
    """Do it before a new ``lxdtap replay``, which fails where something is missed or left over."""
    options = ["--strict"] if strict else []
    command = [*LXDTAP, "replay", *options, str(cassette), "--"]
    return _done(daemon, flow, directory, command, more)


def _done(
    daemon: Daemon,
    flow: Flow,
    directory: Path,
    before: Sequence[str],
    more: Mapping[str, str],
) -> Done:
    directory.mkdir(parents=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        [*before, "sh", "-uc", FOUND + flow.script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**daemon.environment, "LX": daemon.brand.client, **more},
        cwd=directory,
        start_new_session=True,
    )
    with process, ending(process):
        stdout, stderr = process.communicate(flow.stdin, LONGEST)
    took = time.monotonic() - begun
    said = settled(printable(stdout)), settled(stderr.decode(errors="replace"))
    return Done(process.returncode, *said, took)


# Recording.


def record(
    daemon: Daemon,
    flow: Flow,
    directory: Path,
    more: Mapping[str, str] = NOTHING,
    *,
    by_process: bool = False,
) -> Recorded:
    """Do it with the daemon, until that does what it is to do; the cassette of it.

    Args:
        daemon: is recorded, and brought back to what it was.
        flow: what is done.
        directory: for the cassette; must be there.
        more: for the environment.
        by_process: whether ``lxdtap run -w`` records; else the same in this process, which is
            there sooner.
    """
    recorder = _by_process if by_process else _in_process
    for attempt in range(TRIES):
        place, path = directory / f"live{attempt}", directory / f"{attempt}.yaml"
        made = recorder(daemon, flow, place, path, more)
        daemon.reset()
        if flow.says in made.live.stdout:
            return made
    raise AssertionError(f"the daemon does not say {flow.says!r}: {made.live}")


def _by_process(
    daemon: Daemon, flow: Flow, directory: Path, path: Path, more: Mapping[str, str]
) -> Recorded:
    upstream = ("--upstream", str(daemon.socket))
    tap = [*LXDTAP, "run", "-q", "-w", str(path), *upstream, "--"]
    done = _done(daemon, flow, directory, tap, more)
    stderr, told, _ = done.stderr.rpartition("lxdtap: recorded ")
    assert told, done.stderr
    return Recorded(replace(done, stderr=stderr), files.load(str(path)), path)


def _in_process(
    daemon: Daemon, flow: Flow, directory: Path, path: Path, more: Mapping[str, str]
) -> Recorded:
    with recorded(str(daemon.socket), daemon.kind) as (socket, recording):
        done = run(daemon, flow, directory, socket, more)
    cassette, cleaner = recording.cassette, Cleaner(Redactor())
    for _ in range(2):  # a secret may be told after it was used
        clean = tuple(cleaner.clean(each) for each in cassette.interactions)
        cassette = cassette._replace(interactions=clean)
    return Recorded(done, cassette, path)


# What there is to make it hard.


@contextlib.contextmanager
def away(daemon: Daemon) -> Iterator[None]:
    """In this block the daemon is stopped."""
    daemon.process.terminate()
    daemon.process.wait(30)
    try:
        yield
    finally:
        daemon.start()


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """In this block each of the machine's processors has something else to do all the time."""
    spin = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as spinning:
        for _ in range(os.cpu_count() or 1):
            process = spinning.enter_context(subprocess.Popen(spin))
            spinning.callback(process.kill)
        yield
