"""``lxdtap run``: a tap set up, used, and taken down again.

Everything that was decided on the command line comes in as :class:`Options`; what the machine
holds (environment, files) is looked at here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lxdtap import endpoint
from lxdtap.cassette.cleaning import Cleaner, Rules
from lxdtap.endpoint import Endpoint, HttpsEndpoint, Kind
from lxdtap.errors import ListenError, LxdtapError, NoDaemonError
from lxdtap.log.journal import Selection
from lxdtap.log.render import Format, renderer
from lxdtap.record.link import Recorder
from lxdtap.record.output import open_file
from lxdtap.record.worker import Log, Worker
from lxdtap.redact import Redactor
from lxdtap.remotes import Machine
from lxdtap.tap import child, core, listener, service, upstream
from lxdtap.tap.identity import Connector
from lxdtap.tap.upstream import UnixUpstream, Upstream
from lxdtap.terminal import escape, paint
from lxdtap.wire.events import Event, Refused, Said

if TYPE_CHECKING:
    from lxdtap.tap.tls import HttpsUpstream

DRAIN = 5.0
"""Seconds that what is under way is given to finish when the tap ends."""
SAVING = 600
"""Seconds for which a service manager is asked to let a recording be saved; its spool is safe."""
_NAMES: dict[Kind, str] = {"lxd": "LXD", "incus": "Incus"}
_CLIENTS: dict[Kind, str] = {"lxd": "lxc", "incus": "incus"}


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for.

    Attributes:
        command: to run behind the tap; empty for a sidecar.
        upstream: the daemon's socket or https address; empty: the one that clients here would use.
        remote: the daemon, by the name that lxc or incus has for it; empty: by ``upstream``.
        certificate: what is shown to a daemon behind https; empty: what lxc or incus would show.
        key: of that certificate; empty: as above.
        server_certificate: what that daemon has to show; empty: as above.
        listen: where to listen; empty: a private place for a command, the stable one else.
        group: who else is served, by name or number; empty: nobody.
        format: of the log.
        output: the log's file; empty: stderr with a command, else stdout.
        quiet: no log, but for ``output``.
        colour: auto, always or never.
        selection: what the log shows.
        write: the cassette to record to; empty: nothing is recorded.
        overwrite: whether that cassette may replace one that is there.
        cleaning: what is taken out of it.
        hello: send a first request through the tap, to have something to see.
    """

    command: Sequence[str] = ()
    upstream: str = ""
    remote: str = ""
    certificate: str = ""
    key: str = ""
    server_certificate: str = ""
    listen: str = ""
    group: str = ""
    format: Format = "debug"
    output: str = ""
    quiet: bool = False
    colour: str = "auto"
    selection: Selection = field(default_factory=Selection)
    write: str = ""
    overwrite: bool = False
    cleaning: Rules = field(default_factory=Rules)
    hello: bool = False


def run(options: Options, environ: dict[str, str]) -> int:
    """Tap, until the command or the sidecar ends; the exit status.

    Raises:
        LxdtapError: the tap could not be set up; its text is for the user.
    """
    # With a command, a service of that kind is the command, and told of as such by itself.
    manager = service.Manager("" if options.command else environ.get("NOTIFY_SOCKET", ""))
    try:
        return _run(options, environ, manager)
    except LxdtapError as error:
        manager.tell(str(error))
        raise


def _run(options: Options, environ: dict[str, str], manager: service.Manager) -> int:
    handed_over = _handed_over(options, environ)
    group = listener.group_id(options.group) if options.group else None
    environ = service.without_sockets(environ)
    found = _find(options, environ)
    recorder = _recorder(options, environ, found.kind)
    # Forked after the recorder, which would hold its end open.
    connector = Connector() if os.geteuid() == 0 and isinstance(found, Endpoint) else None
    signals = child.Signals()
    try:
        tap = _Tap(
            options, environ, found, recorder, signals, handed_over, manager, connector, group
        )
        status = asyncio.run(tap.run())
    finally:
        if options.write:
            manager.tell(f"saving {options.write}", f"EXTEND_TIMEOUT_USEC={SAVING}000000")
        recorded = recorder is None or recorder.finish()
    return status if recorded or not options.write else status or 1


def _handed_over(options: Options, environ: dict[str, str]) -> int | None:
    number = service.handed_over(environ)
    if number is not None and options.listen:
        raise ListenError(
            f"cannot listen at {options.listen}: the service manager handed over a socket to listen"
            " on; leave --listen and LXDTAP_LISTEN out, or the .socket unit"
        )
    if number is not None and options.command:
        raise ListenError(
            f"cannot run {options.command[0]}: the service manager handed over a socket, and a"
            " command's tap has one of its own; leave the command out, or the .socket unit"
        )
    if number is not None and options.group:
        raise ListenError(
            f"cannot serve group {options.group}: the service manager handed over a socket; set"
            " SocketGroup= and SocketMode=0660 in its .socket unit, and leave --group out"
        )
    return number


def say(text: str) -> None:
    """A line of lxdtap's own for the user, on stderr."""
    print(f"lxdtap: {escape(text)}", file=sys.stderr, flush=True)


def _find(options: Options, environ: dict[str, str]) -> Endpoint | HttpsEndpoint:
    """The daemon to tap, which is seen to answer the door."""
    machine = Machine(environ, os.path.expanduser("~"), _content, _is_socket)
    if options.remote:
        found = machine.named(options.remote)
    elif options.upstream.startswith("https:"):
        found = machine.at(options.upstream)
    else:
        return find_upstream(options.upstream, environ)
    if isinstance(found, Endpoint):
        return _seen(found)
    if options.group:
        raise ListenError(
            f"cannot serve group {options.group}: to {found.base} all requests are made with one"
            " certificate, its owner's; leave --group out, or start a tap for each"
        )
    found = replace(
        found,
        certificate=options.certificate or found.certificate,
        key=options.key or found.key,
        server_certificate=options.server_certificate or found.server_certificate,
    )
    shown = asyncio.run(_https(found).check())
    return replace(found, kind=found.kind or shown)


def _content(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        text = f"cannot read {path}: {error.strerror}; check whose it is"
        raise NoDaemonError(text) from error


def _https(found: HttpsEndpoint, tell: Callable[[str], None] | None = None) -> HttpsUpstream:
    from lxdtap.tap.tls import HttpsUpstream

    own = (found.certificate, found.key)
    return HttpsUpstream(found.base, *own, found.server_certificate, found.authority, tell)


def find_upstream(given: str, environ: dict[str, str]) -> Endpoint:
    """The daemon to tap, which is seen to answer the door.

    Raises:
        NoDaemonError: there is none.
        UpstreamError: it cannot be connected to.
    """
    if given:
        path = endpoint.with_socket_name(endpoint.socket_path(given), os.path.isdir)
        return _seen(Endpoint(os.path.abspath(path), "--upstream or LXDTAP_UPSTREAM"))
    return _seen(endpoint.discover(environ, _is_socket))


def _seen(found: Endpoint) -> Endpoint:
    """The same, after it has answered the door; and of which kind it is."""
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


def _recorder(options: Options, environ: dict[str, str], kind: Kind | None) -> Recorder | None:
    """What logs and records, where anything is to be logged or recorded."""
    redactor = Redactor()
    log = _log(options, environ, redactor)
    if not options.write:
        return None if log is None else Recorder(lambda: Worker(log))
    from lxdtap.record import recording

    cleaner = Cleaner(redactor, options.cleaning)
    into = recording.prepare(options.write, kind, cleaner, overwrite=options.overwrite)
    return Recorder(lambda: Worker(log, into.spool, into.saver))


def _log(options: Options, environ: dict[str, str], redactor: Redactor) -> Log | None:
    if options.output:
        output = open_file(options.output)
    elif options.quiet:
        return None
    else:
        output = sys.stderr.fileno() if options.command else sys.stdout.fileno()
    painter = paint(options.colour, is_terminal=os.isatty(output), environ=environ)
    return Log(output, renderer(options.format, options.selection, painter, redactor))


class _Tap:
    """One run."""

    def __init__(
        self,
        options: Options,
        environ: dict[str, str],
        upstream: Endpoint | HttpsEndpoint,
        recorder: Recorder | None,
        signals: child.Signals,
        handed_over: int | None,
        manager: service.Manager,
        connector: Connector | None,
        group: int | None,
    ) -> None:
        self._options = options
        self._environ = environ
        self._upstream = upstream
        self._path = upstream.path if isinstance(upstream, Endpoint) else ""
        self._is_remote = bool(options.remote) or not self._path
        self._recorder = recorder
        self._signals = signals
        self._handed_over = handed_over
        self._manager = manager
        self._connector = connector
        self._group = group
        self._pid = 0
        self._stop = asyncio.Event()
        self._force = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        if self._recorder is not None:
            self._recorder.start(loop)
            if self._options.write:
                loop.add_signal_handler(signal.SIGUSR1, self._recorder.save)
        self._signals.start(loop, self._signalled)
        tap = core.Core(self._daemon(), self._hear, loop)
        door = self._listen()
        try:
            if self._path and door.is_at(self._path):
                raise NoDaemonError(_OURSELVES.format(self._path))
            door.start(loop, tap.serve, self._complain)
            if self._options.command:
                return await self._command(tap, door, loop)
            return await self._sidecar(tap, door)
        finally:
            door.close()
            tap.close()

    def _daemon(self) -> Upstream:
        if isinstance(self._upstream, Endpoint):
            return UnixUpstream(self._upstream, self._connector)
        return _https(self._upstream, lambda text: self._hear(Said(core.moment(), text)))

    def _hear(self, event: Event) -> None:
        if self._recorder is not None:
            self._recorder.hear(event)
        unseen = self._recorder is None or self._options.output or self._options.quiet
        if unseen and isinstance(event, Said):
            say(event.text)
        elif unseen and isinstance(event, Refused):
            say(event.reason)

    def _complain(self, text: str) -> None:
        say(text)

    def _listen(self) -> listener.Listener:
        if self._handed_over is not None:
            return listener.handed_over(self._handed_over, as_callers=self._connector is not None)
        given = self._options.listen
        if given:
            path = listener.listen_path(given)
        elif self._options.command:
            return listener.private(self._environ, self._group)
        else:
            path = listener.stable_path(self._environ, os.geteuid())
        if self._path and os.path.realpath(path) == os.path.realpath(self._path):
            raise NoDaemonError(_OURSELVES.format(path))
        return listener.publish(path, group=self._group)

    # -- with a command

    async def _command(
        self, tap: core.Core, door: listener.Listener, loop: asyncio.AbstractEventLoop
    ) -> int:
        kind = self._upstream.kind or "lxd"
        added = endpoint.client_environment(kind, door.path, remote=self._is_remote)
        self._pid = child.start(self._options.command, self._environ | added)
        status = await child.ended(self._pid, loop)
        self._pid = 0
        door.close()
        await self._drain(tap)
        if not tap.served and not self._options.quiet:
            names = " or ".join(added)
            say(
                f"no request came through: does {self._options.command[0]} use {names}?"
                f" `{_CLIENTS[kind]} remote get-default` should say local"
            )
        return status

    # -- as a sidecar

    async def _sidecar(self, tap: core.Core, door: listener.Listener) -> int:
        kind = self._upstream.kind or "lxd"
        variables = endpoint.client_environment(kind, door.path, remote=self._is_remote)
        print(f"export {' '.join(f'{k}={v}' for k, v in variables.items())}", file=sys.stderr)
        in_front = f"in front of {_NAMES[kind]} at {self._path or self._upstream.base}"
        say(
            f"{in_front} (from {self._upstream.found_by});"
            f" type the line above in another terminal and use {_CLIENTS[kind]} there;"
            " Ctrl-C ends the tap"
        )
        self._manager.tell(f"{in_front}; clients: {door.path}", "READY=1")
        if self._options.hello:
            await hello(door.path)
        await self._stop.wait()
        self._manager.tell(f"waiting for {tap.busy} open transactions", "STOPPING=1")
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
