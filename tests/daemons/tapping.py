"""The same commands twice, directly and through the tap: nothing may differ but the log.

Four laws, checked by every :meth:`Tapping.__call__`:

1. The client cannot tell: exit status, stdout and stderr are the same.
2. The daemon cannot tell: it then holds the same.
3. The tap shows everything: its transactions are the requests that the daemon logged.
4. The tap shows nothing as broken off that was not.

A daemon has whims of its own, without a tap too; they must not count as the tap's:

- Where the direct run does not do what the test states, the comparison says nothing: it is made
  again, from what is given on.
- Where the daemon died in either run, it is started again, and the comparison is made again.
- Where the run through the tap breaks the first law, and asked for something of which
  :data:`WHIMS` tells that it may go wrong without a tap, the comparison is made again.

After :data:`TRIES` the failure stands: what the tap always does is always found. All else fails at
once. What was made again is told at the end of the test run.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from .throwaway import UNANSWERED, Daemon, DaemonError, Requests, State, until

PATIENCE = 30
"""Seconds a flow may take before it counts as hung."""
TRIES = 3
"""How often a comparison is made where the daemon, and not the tap, may be what went wrong."""


# What the daemons do by themselves.


@dataclass(frozen=True, slots=True)
class Whim:
    """What now and then goes wrong without a tap too, where a client asks for this."""

    kinds: frozenset[str]
    method: str
    target: str
    what: str

    def concerns(self, kind: str, asked: Requests) -> bool:
        """Whether it may have shown in a run that asked for this."""
        return kind in self.kinds and any(
            method == self.method and re.fullmatch(self.target, target) for method, target in asked
        )


WHIMS = (
    # Seen without a tap, LXD 5.0.2 and Incus 6.0: one exec in 800 on a busy machine, one in 40
    # where eight are at once; of the latter one in 200 does not end, with LXD.
    Whim(
        frozenset({"lxd", "incus"}),
        "POST",
        r"/1\.0/\w+/[^/]+/exec(\?.*)?",
        "an exec may lose all that was written to a stream, or not end",
    ),
    Whim(
        frozenset({"lxd"}),
        "POST",
        r"/1\.0/\w+/[^/]+/console(\?.*)?",
        "a console may end with 'close /dev/pts/ptmx: file already closed'",
    ),
    # Not listed, because a death is noticed by itself: leaving a console may kill LXD 5.0.2. Seen
    # without a tap, once in 64 on a busy machine: "panic: concurrent write to websocket
    # connection", of two goroutines that write to one (shared/network.go, WebsocketConsoleMirror).
)


class MootError(Exception):
    """The daemon did not do without a tap what the test states: nothing can be compared."""


class NoticedError(AssertionError):
    """The first law is broken: who used the client could tell that there was a tap."""


# What the tap reports.


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction of the tap's JSON log."""

    id: int
    method: str
    target: str
    status: int | None
    broken: str | None
    sent: int
    received: int
    tunnel: dict[str, Any] | None
    operation: dict[str, Any] | None
    error: str | None

    @classmethod
    def parse(cls, record: dict[str, Any]) -> Self:
        return cls(
            id=record["id"],
            method=record["method"],
            target=record["target"],
            status=record["status"],
            broken=record["broken"],
            sent=record["request"]["size"],
            received=record["response"]["size"] if record["response"] else 0,
            tunnel=record["tunnel"],
            operation=record["operation"],
            error=record["error"],
        )

    @property
    def protocol(self) -> str | None:
        return self.tunnel["protocol"] if self.tunnel else None

    @property
    def stream(self) -> str | None:
        return self.tunnel["stream"] if self.tunnel else None

    def carried(self, direction: Literal["sent", "received"]) -> int:
        """How many bytes of payload a tunnel carried."""
        carried: int = self.tunnel[direction]["bytes"] if self.tunnel else 0
        return carried


@dataclass(frozen=True, slots=True)
class Log:
    """What the tap said: the transactions that ended, and the news of operations."""

    transactions: list[Transaction]
    operations: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Self:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        records = [json.loads(line) for line in text.splitlines()]
        ended = [each for each in records if each["event"] == "transaction"]
        assert len({each["id"] for each in ended}) == len(ended), "a transaction ends once"
        news = [each for each in records if each["event"] in ("transaction", "operation")]
        return cls(
            transactions=[Transaction.parse(each) for each in ended],
            operations=[each["operation"] for each in news if each["operation"]],
        )


NOT_LOGGED: tuple[Callable[[Transaction], bool], ...] = (
    lambda each: each.method == "OPTIONS",
    lambda each: each.target == "/",
    lambda each: each.method == "STARTTLS",  # what it carries is for the daemon's eyes only
)
"""What neither daemon logs, though it answers."""


def reported(found: Iterable[Transaction]) -> Requests:
    return Counter(
        (each.method, each.target) for each in found if not any(skip(each) for skip in NOT_LOGGED)
    )


# What a run gave.


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the commands did, as its user and the daemon see it."""

    status: int
    stdout: bytes
    stderr: str
    asked: Requests
    state: State

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def lines(self) -> list[str]:
        return settled(self.text).splitlines()


@dataclass(frozen=True, slots=True)
class Tapped(Run):
    """The run through the tap, and what the tap reported of it."""

    log: Log

    @property
    def transactions(self) -> list[Transaction]:
        return self.log.transactions

    @property
    def failed(self) -> list[str]:
        """Why operations failed, whatever HTTP status that came with."""
        return [each["error"] for each in self.log.operations if each["error"]]

    def only(self, method: str, target: str) -> Transaction:
        """The one transaction with this method whose target matches the pattern."""
        matching = [
            each
            for each in self.transactions
            if each.method == method and re.fullmatch(target, each.target)
        ]
        assert len(matching) == 1, f"{method} {target}: {len(matching)} transactions"
        return matching[0]

    def tunnels(self, stream: str) -> list[Transaction]:
        """The websockets that carried this stream."""
        return [each for each in self.transactions if each.stream == stream]

    def tunnel(self, stream: str) -> Transaction:
        """The one websocket that carried this stream."""
        matching = self.tunnels(stream)
        assert len(matching) == 1, f"{stream}: {len(matching)} tunnels"
        return matching[0]


# What differs between any two runs.

_SETTLING = (
    (r"[^\r\n]*\r(?!\n)", ""),  # progress, drawn over by what follows it
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid>"),
    (r"(published with fingerprint: )[0-9a-f]{64}", r"\1<fingerprint>"),
    (r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?( ?(Z|UTC|[+-]\d\d:?\d\d))?", "<time>"),
    (r"[A-Z][a-z]{2} \d{1,2}, \d{4} at \d{1,2}:\d\d[ap]m \(UTC\)", "<time>"),
    (r"\d+(\.\d+)? ?[kMG]?i?B/s", "<speed>"),
    (r"(?<=: )\d+(\.\d+)?[kKMG]?i?B\b", "<size>"),
    (r"(?<=\(in seconds\): )\d+", "<seconds>"),
    (r"(?<=Processes: )-?\d+", "<processes>"),
    (  # of pylxd, whose thread may come to a poller that is closed by then: in 1 of 200 commands
        r"Exception in thread WebSocketManager:\nTraceback.*\n(  .*\n)+\w+: .* closed epoll.*\n",
        "",
    ),
)


def settled(text: str) -> str:
    """``text`` without times, identifiers, speeds, counters, progress, and a client's own fault."""
    for pattern, placeholder in _SETTLING:
        text = re.sub(pattern, placeholder, text)
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


# A terminal, for commands that want one.


class Terminal:
    """The person's side of a pseudo-terminal."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.fd, self.theirs = pty.openpty()
        self.name = os.ttyname(self.theirs)
        self.heard = b""
        self.over = False
        self._read = 0
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """Give the window another size; the kernel tells the foreground processes."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Type ``keys``, once the command has read what was typed before."""
        with open(self.name, "rb", buffering=0, opener=no_controlling_terminal) as side:
            until(lambda: unread(side.fileno()) == 0, "the keys to be read", PATIENCE)
        os.write(self.fd, keys)

    def await_raw(self) -> None:
        """Wait until the command has put the terminal in raw mode."""
        until(lambda: not termios.tcgetattr(self.fd)[3] & termios.ICANON, "raw mode", PATIENCE)

    def expect(self, text: bytes) -> None:
        """Wait until ``text`` is on the screen, after what was last expected."""
        heard = self.hears(text, PATIENCE)
        assert heard, f"waited for {text!r}, heard {self.heard[self._read :]!r}"

    def hears(self, text: bytes, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while (found := self.heard.find(text, self._read)) < 0:
            if not self._hear(deadline - time.monotonic()):
                return False
        self._read = found + len(text)
        return True

    def ends(self, patience: float = PATIENCE) -> bool:
        """Hear everything; whether the last process then has let go of the terminal."""
        deadline = time.monotonic() + patience
        while self._hear(deadline - time.monotonic()):
            pass
        return self.over

    def _hear(self, patience: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], max(patience, 0))
        if not ready:
            return False
        try:
            heard = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has it open any more
            heard = b""
        self.heard += heard
        self.over = not heard
        return bool(heard)

    def let_go(self) -> None:
        """Close our copy of the side that the command now has."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        self.let_go()
        os.close(self.fd)


def no_controlling_terminal(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOCTTY)


def unread(fd: int) -> int:
    """How many bytes wait to be read from a terminal."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0])


Drive = Callable[[Terminal], None]
"""What a person does at a terminal."""


# Running.

Command = str | Sequence[str]
"""A shell script, or the arguments of one command."""


@dataclass(frozen=True, slots=True)
class _Process:
    """One way to run the commands: its arguments, environment and working directory."""

    argv: Sequence[str]
    environment: dict[str, str]
    directory: Path
    patience: float

    def run(self, stdin: bytes, drive: Drive | None) -> tuple[int, bytes, str]:
        return self._at_a_terminal(drive) if drive else self._piped(stdin)

    def _piped(self, stdin: bytes) -> tuple[int, bytes, str]:
        process = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.directory,
            start_new_session=True,
        )
        with process, ending(process):
            stdout, stderr = process.communicate(stdin, self.patience)
        return shell_status(process.returncode), stdout, stderr.decode(errors="replace")

    def _at_a_terminal(self, drive: Drive) -> tuple[int, bytes, str]:
        """With the terminal as the controlling one, so that a resize sends SIGWINCH."""
        errors = self.directory / "stderr"
        terminal = Terminal()
        with contextlib.closing(terminal), errors.open("wb") as stderr:
            process = subprocess.Popen(
                ["setsid", "--ctty", *self.argv],
                stdin=terminal.theirs,
                stdout=terminal.theirs,
                stderr=stderr,
                env=self.environment,
                cwd=self.directory,
            )
            with ending(process):
                terminal.let_go()
                drive(terminal)
                assert terminal.ends(), f"hung, after {terminal.heard!r}"
                status = process.wait(PATIENCE)
        return (
            shell_status(status),
            terminal.heard,
            errors.read_text(encoding="utf-8", errors="replace"),
        )


def shell_status(returncode: int) -> int:
    """The exit status as a shell has it: 128 + N for signal N, as the tap's is too."""
    return 128 - returncode if returncode < 0 else returncode


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Nothing of ``process`` outlives the block, also when the test fails in it.

    It leads a group: of what a script left in the background too, which else goes on asking.
    """
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(slots=True)
class Tapping:
    """Runs commands against one daemon, directly and through the tap, and compares.

    In scripts ``$LX`` is the client, ``$ADMIN`` the administrative command, ``$SOCKET`` the
    daemon's socket as the client finds it, ``$DAEMON_LOG`` its log, ``$BB`` an image, unified, and
    ``$BB_METADATA`` and ``$BB_ROOTFS`` the same split. The directory they run in is new and empty.

    Attributes:
        tap: what is started as ``lxdtap``.
        patience: seconds after which a run counts as hung.
        again: why comparisons were made again.
    """

    daemon: Daemon
    directory: Path
    tap: Sequence[str] = (sys.executable, "-m", "lxdtap")
    patience: float = PATIENCE
    again: list[str] = field(default_factory=list)
    _count: int = 0
    _asked: Requests = field(default_factory=Counter)

    def __call__(
        self,
        command: Command,
        *,
        given: str = "",
        stdin: bytes = b"",
        status: int = 0,
        drive: Drive | None = None,
        may_break: str = "",
        may_vary: str = "",
    ) -> Tapped:
        """Run ``command`` both ways, hold the four laws, return the run through the tap.

        Args:
            command: a shell script, or arguments.
            given: a script that makes what the commands need; run before each, untapped.
            stdin: what the commands read.
            status: the exit status that both runs must have.
            drive: what a person types and sees; the commands then get a terminal.
            may_break: a pattern of the targets whose transactions may break off.
            may_vary: a pattern of output that no two runs have in common.
        """
        argv = _argv(command)
        for left in reversed(range(TRIES)):
            self._count += 1
            try:
                direct = self._direct(argv, given, stdin, drive, status)
                tapped = self._tapped(argv, given, stdin, drive)
                hold_the_laws(direct, tapped, may_break, may_vary)
            except Exception as trouble:  # what a daemon's death looks like is not known before
                why = self._excuse(trouble)
                if not left or not why:
                    raise
                self.again.append(f"{why}: {trouble}")
            else:
                return tapped
        raise AssertionError("unreachable: the last try returns or raises")

    def _excuse(self, trouble: Exception) -> str:
        """Why it may have been the daemon; empty where it was the tap."""
        if died := self.daemon.revive():
            return died
        if isinstance(trouble, MootError):
            return "without a tap"
        if not isinstance(trouble, NoticedError):
            return ""
        whims = [whim for whim in WHIMS if whim.concerns(self.daemon.kind, self._asked)]
        return "; ".join(whim.what for whim in whims)

    def by_kind(self, *, lxd: str, incus: str) -> str:
        """What the two daemons' clients call differently."""
        return {"lxd": lxd, "incus": incus}[self.daemon.kind]

    def _direct(
        self, argv: Sequence[str], given: str, stdin: bytes, drive: Drive | None, status: int
    ) -> Run:
        with moot(), self._stage("direct", given) as directory:
            process = self._process(argv, directory, self.daemon.directions)
            done = self._watch(process, stdin, drive)
            assert done[0] == status, f"exit status {done[0]}, not {status}: {done[2]}"
            return Run(*done, self._asked, self.daemon.state())

    def _tapped(self, argv: Sequence[str], given: str, stdin: bytes, drive: Drive | None) -> Tapped:
        with self._stage("tapped", given) as directory:
            log = self.directory / f"{self._count}.log"
            process = self._process(self._through_tap(log, argv), directory, {})
            try:
                done = self._watch(process, stdin, drive)
            except _WENT_WRONG as error:
                raise NoticedError(f"through the tap: {error}") from error
            return Tapped(*done, self._asked, self.daemon.state(), Log.read(log))

    def _watch(
        self, process: _Process, stdin: bytes, drive: Drive | None
    ) -> tuple[int, bytes, str]:
        """Run, and note what the daemon was asked meanwhile."""
        mark = self.daemon.mark()
        try:
            return process.run(stdin, drive)
        finally:
            self._asked = Counter(self.daemon.requests(mark))

    def _through_tap(self, log: Path, argv: Sequence[str]) -> list[str]:
        tap = [*self.tap, "run", "--upstream", str(self.daemon.socket), "-o", str(log)]
        return [*tap, "--format", "json", "--show-secrets", "--", *argv]

    def _process(
        self, argv: Sequence[str], directory: Path, directions: dict[str, str]
    ) -> _Process:
        return _Process(argv, self._environment() | directions, directory, self.patience)

    def _environment(self) -> dict[str, str]:
        return self.daemon.environment | {
            "LX": self.daemon.brand.client,
            "ADMIN": self.daemon.brand.admin,
            "DAEMON_LOG": str(self.daemon.log),
            "BB": str(self.daemon.spare.unified),
            "BB_METADATA": str(self.daemon.spare.metadata),
            "BB_ROOTFS": str(self.daemon.spare.rootfs),
        }

    @contextlib.contextmanager
    def _stage(self, name: str, given: str) -> Iterator[Path]:
        """A new directory and a daemon that holds what is given, and afterwards does not."""
        directory = self.directory / f"{self._count}-{name}" / "here"
        directory.mkdir(parents=True)
        try:
            if given:
                self._give(given, directory)
            yield directory
        except BaseException:
            with contextlib.suppress(*UNANSWERED):  # what went wrong before says more
                self.daemon.reset()
            raise
        self.daemon.reset()

    def _give(self, given: str, directory: Path) -> None:
        with moot():
            process = self._process(_argv(given), directory, self.daemon.directions)
            status, _, stderr = process.run(b"", None)
            assert not status, f"what the test needs could not be made: {stderr}"


_WENT_WRONG = (AssertionError, DaemonError, subprocess.TimeoutExpired)
"""What a run ends with that hangs, or in which a person does not see what is to be seen."""


@contextlib.contextmanager
def moot() -> Iterator[None]:
    """Nothing in this block has to do with a tap."""
    try:
        yield
    except _WENT_WRONG as error:
        raise MootError(str(error)) from error


def _argv(command: Command) -> Sequence[str]:
    socket = 'SOCKET="${LXD_SOCKET:-${INCUS_SOCKET:-}}"\n'
    return ["sh", "-euc", socket + command] if isinstance(command, str) else command


# The laws.


def hold_the_laws(direct: Run, tapped: Tapped, may_break: str = "", may_vary: str = "") -> None:
    """Raise what breaks them: :class:`NoticedError` where it is the first law alone."""
    noticed = unlike(direct, tapped, may_vary)
    broken = [
        *differing("the daemon's state", drawn(direct.state), drawn(tapped.state)),
        *incomplete(tapped),
        *broken_off(tapped, may_break),
    ]
    if broken:
        raise AssertionError("\n".join([*noticed, *broken]))
    if noticed:
        raise NoticedError("\n".join(noticed))


def unlike(direct: Run, tapped: Run, may_vary: str = "") -> list[str]:
    """The first law: how the client's user can tell that there was a tap."""
    status = f"exit status {direct.status}, tapped {tapped.status}"
    said = [re.sub(may_vary, "", printable(run.stdout)) for run in (direct, tapped)]
    return [
        *([status] if direct.status != tapped.status else []),
        *differing("stderr", direct.stderr, tapped.stderr),
        *differing("stdout", *said),
    ]


def differing(what: str, direct: str, tapped: str) -> list[str]:
    """Where the two texts part, once settled; nothing where they do not."""
    sides = (settled(direct).splitlines(), settled(tapped).splitlines())
    lines = list(difflib.unified_diff(*sides, "direct", "tapped", lineterm="", n=1))
    return [f"{what} differs:", *lines[:60]] if lines else []


def printable(output: bytes) -> str:
    """``output`` as text; what is none is told apart by its digest."""
    try:
        return output.decode()
    except UnicodeDecodeError:
        return f"{len(output)} bytes, sha256 {hashlib.sha256(output).hexdigest()}"


def drawn(state: State) -> str:
    return json.dumps(state, indent=1)


def incomplete(tapped: Tapped) -> list[str]:
    """The third law: what the tap did not report of what the daemon logged, or made up."""
    ours = reported(tapped.transactions)
    lines = [f"not shown by the tap: {each}" for each in (tapped.asked - ours).elements()]
    return lines + [
        f"not logged by the daemon: {each}" for each in (ours - tapped.asked).elements()
    ]


def broken_off(tapped: Tapped, may_break: str = "") -> list[str]:
    """The fourth law: what was shown as broken off that was not to be."""
    broken = [each for each in tapped.transactions if each.broken]
    return [
        f"broken off: {each}"
        for each in broken
        if not (may_break and re.search(may_break, each.target))
    ]
