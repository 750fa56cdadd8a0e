"""A socket of lxdtap's with a daemon's part played behind it: for a command, or as a sidecar.

Who plays it, a tap or a recording, is handed in.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from lxdtap import endpoint
from lxdtap.endpoint import Kind
from lxdtap.errors import ListenError, NoDaemonError
from lxdtap.record.output import put_line
from lxdtap.tap import child, listener, service
from lxdtap.terminal import escape
from lxdtap.transaction import Peer

DRAIN = 5.0
"""Seconds that what is under way is given to finish when the stage is struck."""
_PATIENCE = 0.2
"""Seconds that whoever reads stderr is waited for."""
CLIENTS: Mapping[Kind, str] = {"lxd": "lxc", "incus": "incus"}
_OURSELVES = (
    "the daemon to tap and lxdtap's own socket are the same, {}: unset LXD_DIR, LXD_SOCKET,"
    " INCUS_DIR and INCUS_SOCKET, or name the daemon's socket with --upstream"
)


class Player(Protocol):
    """Whoever plays the daemon's part."""

    @property
    def served(self) -> int:
        """How many clients came."""

    @property
    def busy(self) -> int:
        """Connections with something under way."""

    def serve(self, client: socket.socket, peer: Peer | None) -> object:
        """Take a client, whose socket is closed in the end."""

    async def drain(self, seconds: float) -> bool:
        """Close each connection once nothing is under way on it; whether all are within so long."""

    def close(self) -> None:
        """Close everything now."""


class Setting(NamedTuple):
    """What the stage is like.

    Attributes:
        command: to run on it; empty for a sidecar.
        environ: the command's environment, without what points it here.
        listen: where to listen; empty: a private place for a command, the stable one else.
        group: who else is served, by number; None: nobody.
        handed_over: a socket to listen on that the service manager gave; None: none.
        kind: of the daemon that is played.
        is_remote: whether what belongs to the daemon is not on this machine.
        what: what is played, for a person, such as ``in front of LXD at …``.
        ours: the socket of the daemon that is tapped, which ours must not be; empty: none.
        as_callers: whether callers are told apart.
        quiet: nothing is said of a command that asked nothing.
        hello: a first request is sent, to have something to see.
    """

    command: Sequence[str]
    environ: dict[str, str]
    kind: Kind
    what: str
    listen: str = ""
    group: int | None = None
    handed_over: int | None = None
    is_remote: bool = False
    ours: str = ""
    as_callers: bool = False
    quiet: bool = False
    hello: bool = False


def say(text: str, wait: float = _PATIENCE) -> None:
    """A line of lxdtap's own for the user, on stderr; left out where nobody reads that.

    Args:
        text: what to say.
        wait: seconds for which a reader is waited for that has not taken what came before.
    """
    _put(f"lxdtap: {escape(text)}", wait)


def _put(line: str, wait: float) -> None:
    """Write a line to stderr, if there is one."""
    if sys.stderr is None:  # it was closed before we came
        return
    try:
        number = sys.stderr.fileno()
    except io.UnsupportedOperation:  # it is no file, as in tests of programs that use us
        print(line, file=sys.stderr, flush=True)
        return
    put_line(number, line, wait)


class Stage:
    """Listens, and runs a command or waits until it is told to stop.

    Args:
        setting: what it is like.
        signals: taken from the beginning.
        manager: the service manager, which is told how things are.
    """

    def __init__(self, setting: Setting, signals: child.Signals, manager: service.Manager) -> None:
        self.begun = False
        """Whether it came to a command, or to a sidecar that listens."""
        self._setting = setting
        self._signals = signals
        self._manager = manager
        self._pid = 0
        self._stop = asyncio.Event()
        self._force = asyncio.Event()

    async def run(self, player: Player) -> int:
        """Play until the command ends, or a signal comes; the exit status.

        Raises:
            LxdtapError: there is no place to listen, or the command cannot be run.
        """
        loop = asyncio.get_running_loop()
        self._signals.start(loop, self._signalled)
        door = self._listen()
        try:
            if self._setting.ours and door.is_at(self._setting.ours):
                raise NoDaemonError(_OURSELVES.format(self._setting.ours))
            door.start(loop, player.serve, say)
            if self._setting.command:
                return await self._command(player, door)
            return await self._sidecar(player, door)
        finally:
            door.close()

    def _listen(self) -> listener.Listener:
        setting = self._setting
        if setting.handed_over is not None:
            return listener.handed_over(setting.handed_over, as_callers=setting.as_callers)
        if setting.listen:
            path = listener.listen_path(setting.listen)
        elif setting.command:
            return listener.private(setting.environ, setting.group)
        else:
            path = listener.stable_path(setting.environ, os.geteuid())
        if setting.ours and os.path.realpath(path) == os.path.realpath(setting.ours):
            raise NoDaemonError(_OURSELVES.format(path))
        return listener.publish(path, group=setting.group)

    def _variables(self, door: listener.Listener) -> dict[str, str]:
        setting = self._setting
        return endpoint.client_environment(setting.kind, door.path, remote=setting.is_remote)

    # -- with a command

    async def _command(self, player: Player, door: listener.Listener) -> int:
        setting, added = self._setting, self._variables(door)
        self._pid = child.start(setting.command, setting.environ | added)
        self.begun = True
        status = await child.ended(self._pid, asyncio.get_running_loop())
        self._pid = 0
        door.close()
        await self._drain(player)
        if not player.served and not setting.quiet:
            names = " or ".join(added)
            say(
                f"no request came through: does {setting.command[0]} use {names}?"
                f" `{CLIENTS[setting.kind]} remote get-default` should say local"
            )
        return status

    # -- as a sidecar

    async def _sidecar(self, player: Player, door: listener.Listener) -> int:
        setting, variables = self._setting, self._variables(door)
        _put(f"export {' '.join(f'{k}={v}' for k, v in variables.items())}", _PATIENCE)
        say(
            f"{setting.what}; type the line above in another terminal and use"
            f" {CLIENTS[setting.kind]} there; Ctrl-C ends it"
        )
        self.begun = True
        self._manager.tell(f"{setting.what}; clients: {door.path}", "READY=1")
        if setting.hello:
            await hello(door.path)
        await self._stop.wait()
        self._manager.tell(f"waiting for {player.busy} open transactions", "STOPPING=1")
        door.close()
        await self._drain(player)
        return 0

    async def _drain(self, player: Player) -> None:
        """Let what is under way finish, up to a deadline or a second signal."""
        if await player.drain(1.0) or self._force.is_set():
            return
        say(
            f"waiting up to {DRAIN:.0f} s for {player.busy} open transactions; Ctrl-C ends them now"
        )
        force = asyncio.ensure_future(self._force.wait())
        drained = asyncio.ensure_future(player.drain(DRAIN))
        await asyncio.wait((force, drained), return_when=asyncio.FIRST_COMPLETED)
        for task in (force, drained):
            task.cancel()

    def _signalled(self, number: signal.Signals, only_us: bool) -> None:
        if self._pid:
            if only_us:  # else the terminal has sent it to the command too
                os.kill(self._pid, number)
        elif self._stop.is_set() or self._setting.command:
            self._force.set()
        else:
            self._stop.set()


def handed_over(
    environ: Mapping[str, str], *, listen: str, command: Sequence[str], group: str
) -> int | None:
    """The descriptor of a socket that the service manager gave us; None: it gave none.

    Raises:
        ListenError: it did, and something else was asked for too.
    """
    number = service.handed_over(environ)
    if number is not None and listen:
        raise ListenError(
            f"cannot listen at {listen}: the service manager handed over a socket to listen"
            " on; leave --listen and LXDTAP_LISTEN out, or the .socket unit"
        )
    if number is not None and command:
        raise ListenError(
            f"cannot run {command[0]}: the service manager handed over a socket, and a"
            " command's tap has one of its own; leave the command out, or the .socket unit"
        )
    if number is not None and group:
        raise ListenError(
            f"cannot serve group {group}: the service manager handed over a socket; set"
            " SocketGroup= and SocketMode=0660 in its .socket unit, and leave --group out"
        )
    return number


async def hello(path: str) -> None:
    """Ask ``GET /1.0`` of whoever plays there."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /1.0 HTTP/1.1\r\nHost: lxdtap\r\nConnection: close\r\n\r\n")
    while await reader.read(1 << 16):
        pass  # it is the log that shows it, however long it is
    writer.close()
    await writer.wait_closed()
