"""``lxdtap run``: a tap set up, used, and taken down again.

Everything that was decided on the command line comes in as :class:`Options`; what the machine
holds (environment, files) is looked at here.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lxdtap import endpoint
from lxdtap.endpoint import Endpoint, Kind
from lxdtap.errors import NoDaemonError
from lxdtap.log.entries import Entry
from lxdtap.log.journal import Journal, Selection
from lxdtap.log.process import LogProcess, open_file
from lxdtap.tap import child, core, listener, upstream
from lxdtap.tap.upstream import UnixUpstream
from lxdtap.terminal import Paint, escape, paint, plain
from lxdtap.transaction import Note, Update

DRAIN = 5.0
"""Seconds that what is under way is given to finish when the tap ends."""
_NAMES: dict[Kind, str] = {"lxd": "LXD", "incus": "Incus"}
_CLIENTS: dict[Kind, str] = {"lxd": "lxc", "incus": "incus"}

Format = Literal["debug", "line", "json"]


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for.

    Attributes:
        command: to run behind the tap; empty for a sidecar.
        upstream: the daemon's socket; empty: the one that clients here would use.
        listen: where to listen; empty: a private place for a command, the stable one else.
        format: of the log.
        output: the log's file; empty: stderr with a command, else stdout.
        quiet: no log, but for ``output``.
        colour: auto, always or never.
        selection: what the log shows.
        hello: send a first request through the tap, to have something to see.
    """

    command: Sequence[str] = ()
    upstream: str = ""
    listen: str = ""
    format: Format = "debug"
    output: str = ""
    quiet: bool = False
    colour: str = "auto"
    selection: Selection = field(default_factory=Selection)
    hello: bool = False


def run(options: Options, environ: dict[str, str]) -> int:
    """Tap, until the command or the sidecar ends; the exit status.

    Raises:
        LxdtapError: the tap could not be set up; its text is for the user.
    """
    found = find_upstream(options.upstream, environ)
    log = _start_log(options, environ)
    signals = child.Signals()
    try:
        return asyncio.run(_Tap(options, environ, found, log, signals).run())
    finally:
        if log is not None:
            trouble = log.finish()
            if trouble:
                say(trouble)


def say(text: str) -> None:
    """A line of lxdtap's own for the user, on stderr."""
    print(f"lxdtap: {escape(text)}", file=sys.stderr, flush=True)


def find_upstream(given: str, environ: dict[str, str]) -> Endpoint:
    """The daemon to tap, which is seen to answer the door.

    Raises:
        NoDaemonError: there is none.
        UpstreamError: it cannot be connected to.
    """
    if given:
        path = endpoint.with_socket_name(endpoint.socket_path(given), os.path.isdir)
        found = Endpoint(os.path.abspath(path), "--upstream or LXDTAP_UPSTREAM")
    else:
        found = endpoint.discover(environ, _is_socket)
    sock = upstream.connect(found)
    if sock is None or found.kind is not None:
        kind = found.kind or endpoint.kind_of("", found.path)
    else:
        kind = endpoint.kind_of(_program(listener.peer(sock).pid), found.path)
    if sock is not None:
        sock.close()
    return replace(found, kind=kind)


def _program(pid: int) -> str:
    """The name of a process (proc(5), comm); empty where it cannot be read."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return ""


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _start_log(options: Options, environ: dict[str, str]) -> LogProcess | None:
    if options.output:
        output = open_file(options.output)
    elif options.quiet:
        return None
    else:
        output = sys.stderr.fileno() if options.command else sys.stdout.fileno()
    painter = paint(options.colour, is_terminal=os.isatty(output), environ=environ)
    return LogProcess(output, renderer(options.format, options.selection, painter))


def renderer(form: Format, selection: Selection, painter: Paint = plain) -> Callable[[Update], str]:
    """What makes a log's text of updates; it remembers what it has seen."""
    from lxdtap.log import debugformat, jsonformat, lineformat

    journal = Journal(selection, frames=form != "line" or selection.verbose)
    formats: dict[Format, Callable[[Entry], str]] = {
        "debug": functools.partial(debugformat.text, verbose=selection.verbose, paint=painter),
        "line": functools.partial(lineformat.line, verbose=selection.verbose, paint=painter),
        "json": jsonformat.line,
    }
    text = formats[form]
    return lambda update: "".join(text(entry) for entry in journal.hear(update))


class _Tap:
    """One run."""

    def __init__(
        self,
        options: Options,
        environ: dict[str, str],
        upstream: Endpoint,
        log: LogProcess | None,
        signals: child.Signals,
    ) -> None:
        self._options = options
        self._environ = environ
        self._upstream = upstream
        self._log = log
        self._signals = signals
        self._pid = 0
        self._stop = asyncio.Event()
        self._force = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        if self._log is not None:
            self._log.start(loop)
        self._signals.start(loop, self._signalled)
        tap = core.Core(UnixUpstream(self._upstream), self._hear, loop)
        door = self._listen()
        try:
            if door.is_at(self._upstream.path):
                raise NoDaemonError(_OURSELVES.format(self._upstream.path))
            door.start(loop, tap.serve, self._complain)
            if self._options.command:
                return await self._command(tap, door, loop)
            return await self._sidecar(tap, door)
        finally:
            door.close()
            tap.close()

    def _hear(self, update: Update) -> None:
        if self._log is not None:
            self._log.hear(update)
        if isinstance(update, Note) and (self._log is None or self._options.output):
            say(update.text)

    def _complain(self, text: str) -> None:
        say(text)

    def _listen(self) -> listener.Listener:
        given = self._options.listen
        if given:
            path = listener.listen_path(given)
        elif self._options.command:
            return listener.private(self._environ)
        else:
            path = listener.stable_path(self._environ, os.geteuid())
        if os.path.realpath(path) == os.path.realpath(self._upstream.path):
            raise NoDaemonError(_OURSELVES.format(path))
        return listener.publish(path)

    # -- with a command

    async def _command(
        self, tap: core.Core, door: listener.Listener, loop: asyncio.AbstractEventLoop
    ) -> int:
        kind = self._upstream.kind or "lxd"
        added = endpoint.client_environment(kind, door.path)
        self._pid = child.start(self._options.command, self._environ | added)
        status = await child.ended(self._pid, loop)
        self._pid = 0
        door.close()
        await self._drain(tap)
        if not tap.fold.count and not self._options.quiet:
            names = " or ".join(added)
            say(
                f"no request came through: does {self._options.command[0]} use {names}?"
                f" `{_CLIENTS[kind]} remote get-default` should say local"
            )
        return status

    # -- as a sidecar

    async def _sidecar(self, tap: core.Core, door: listener.Listener) -> int:
        kind = self._upstream.kind or "lxd"
        variables = endpoint.client_environment(kind, door.path)
        print(f"export {' '.join(f'{k}={v}' for k, v in variables.items())}", file=sys.stderr)
        say(
            f"in front of {_NAMES[kind]} at {self._upstream.path} (from {self._upstream.found_by});"
            f" type the line above in another terminal and use {_CLIENTS[kind]} there;"
            " Ctrl-C ends the tap"
        )
        if self._options.hello:
            await hello(door.path)
        await self._stop.wait()
        door.close()
        await self._drain(tap)
        return 0

    async def _drain(self, tap: core.Core) -> None:
        """Let what is under way finish, up to a deadline or a second signal."""
        tap.close_idle()
        if await tap.drained(1.0) or self._force.is_set():
            return
        say(f"waiting up to {DRAIN:.0f} s for {tap.busy} open transactions; Ctrl-C ends them now")
        force = asyncio.ensure_future(self._force.wait())
        drained = asyncio.ensure_future(tap.drained(DRAIN))
        await asyncio.wait((force, drained), return_when=asyncio.FIRST_COMPLETED)
        for task in (force, drained):
            task.cancel()

    def _signalled(self, number: signal.Signals, only_us: bool) -> None:
        if self._pid:
            if only_us:  # else the terminal has sent it to the command too
                os.kill(self._pid, number)
        elif self._stop.is_set() or self._options.command:
            self._force.set()
        else:
            self._stop.set()


_OURSELVES = (
    "the daemon to tap and lxdtap's own socket are the same, {}: unset LXD_DIR, LXD_SOCKET,"
    " INCUS_DIR and INCUS_SOCKET, or name the daemon's socket with --upstream"
)


async def hello(path: str) -> None:
    """Ask ``GET /1.0`` through the tap."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /1.0 HTTP/1.1\r\nHost: lxdtap\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    await writer.wait_closed()
