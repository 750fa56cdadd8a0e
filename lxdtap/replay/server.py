"""Serves a recording to clients: sockets and the clock, and nothing to decide.

A :class:`Replay` takes connected sockets, from a listener or from :class:`CassetteUpstream`, reads
requests and frames off them, and does what its player says.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from lxdtap.cassette.model import KEPT_OF_REQUESTS, Cassette, Interaction
from lxdtap.replay import answer
from lxdtap.replay.player import Action, Answer, Close, Miss, Player, Send, Tell, Upgrade
from lxdtap.transaction import Capture, Frame, Peer, Request, decode
from lxdtap.wire import http1, websocket
from lxdtap.wire.connection import STARTTLS

_KEPT_OF_FRAMES: Final = 4096
"""Bytes of a client's frame that are kept: a ping's and a close's have at most 125."""

TellText = Callable[[str], None]


class Replay:
    """A recording as a daemon.

    Args:
        player: of the recording.
        tell: is told what a person should know, such as what was asked and not recorded.
        loop: runs it all.
    """

    def __init__(self, player: Player, tell: TellText, loop: asyncio.AbstractEventLoop) -> None:
        self.player = player
        self._tell = tell
        self.loop = loop
        self._connections: dict[int, _Connection] = {}
        self._timer: asyncio.TimerHandle | None = None

    def serve(self, client: socket.socket, _peer: Peer | None = None) -> None:
        """Be the daemon for a connected client, whose socket is closed in the end."""
        client.setblocking(False)
        number = self.player.opened()
        connection = _Connection(self, number)
        self._connections[number] = connection
        task = self.loop.create_task(self.loop.connect_accepted_socket(lambda: connection, client))
        task.add_done_callback(lambda done: client.close() if done.cancelled() else None)
        connection.joining = task

    def never_played(self) -> list[Interaction]:
        """The recorded interactions that nobody has asked for."""
        return self.player.never_played()

    def close(self) -> None:
        """End all connections now."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections.values()):
            connection.abort()

    def forsake(self) -> None:
        """Its loop is not run any more: what was under way is over."""
        for number in list(self._connections):
            self.player.left(number, time.monotonic_ns())
        self._connections.clear()

    # -- what connections tell

    def asked(self, connection: int, request: Request) -> None:
        """A request came."""
        self._do(self.player.asked(connection, request, time.monotonic_ns()))

    def heard(self, connection: int, data: bytes) -> None:
        """Bytes came on a connection that has left HTTP."""
        self._do(self.player.heard(connection, data, time.monotonic_ns()))

    def heard_frame(self, connection: int, frame: Frame) -> None:
        """A frame came."""
        self._do(self.player.heard_frame(connection, frame, time.monotonic_ns()))

    def left(self, connection: int) -> None:
        """A connection is closed."""
        if self._connections.pop(connection, None) is not None:
            self._do(self.player.left(connection, time.monotonic_ns()))

    def tell(self, text: str) -> None:
        """Say something to a person."""
        self._tell(text)

    # -- inside

    def _tick(self) -> None:
        self._timer = None
        self._do(self.player.tick(time.monotonic_ns()))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Tell | Miss):
                self._tell(action.text)
            if isinstance(action, Tell):
                continue
            if (connection := self._connections.get(action.connection)) is not None:
                connection.do(action)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.player.due()
        if due is not None:
            wait = max(due - time.monotonic_ns(), 0) / 1e9
            self._timer = self.loop.call_later(wait, self._tick)


class _Connection(asyncio.Protocol):
    """One client: requests one after the other, and then perhaps frames or bytes."""

    def __init__(self, replay: Replay, number: int) -> None:
        self.joining: asyncio.Task[object] | None = None
        self._replay = replay
        self._number = number
        self._transport: asyncio.Transport | None = None
        self._reader = http1.Reader()
        self._asked: Request | None = None  # the request that waits for its answer
        self._head: Request | None = None  # the one whose body is coming
        self._body = Capture(KEPT_OF_REQUESTS)
        self._last = False  # whether the connection ends after this answer
        self._ended = False  # whether the client sends no more
        self._tunnel = False
        self._frames: websocket.Decoder | None = None
        self._first = True

    # -- asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._tunnel:
            self._tunnelled(data)
            return
        self._reader.receive(data)
        self._read()

    def eof_received(self) -> bool:
        """Whether to stay open for writing: while an answer is due."""
        self._ended = True
        return self._asked is not None

    def connection_lost(self, _error: Exception | None) -> None:
        """Over."""
        self._replay.left(self._number)

    def pause_writing(self) -> None:
        """A client that does not read is not read from."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- what the replay wants

    def do(self, action: Answer | Miss | Upgrade | Send | Close) -> None:
        """Do it."""
        match action:
            case Answer() | Miss():
                self._answer(action)
            case Upgrade():
                self._upgrade(action)
            case Send():
                data = action.payload
                if action.opcode is not None:
                    data = answer.frame(action.opcode, data, final=action.final)
                self._write(data)
            case Close():
                self._close()

    def abort(self) -> None:
        """Close now."""
        if self.joining is not None:
            self.joining.cancel()
        if self._transport is not None:
            self._transport.abort()

    # -- inside

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _answer(self, action: Answer | Miss) -> None:
        assert self._asked is not None
        method, self._asked = self._asked.method, None
        self._write(answer.encoded(action.response, method, close=self._last))
        if self._last or self._ended:
            self._close()
        else:
            self._loop_soon()

    def _loop_soon(self) -> None:
        """Pipelined requests wait in the reader: go on with them, not deeper in the stack."""
        if self._reader.pending:
            asyncio.get_running_loop().call_soon(self._read)

    def _upgrade(self, action: Upgrade) -> None:
        self._asked = None
        self._tunnel = True
        self._frames = websocket.Decoder(_KEPT_OF_FRAMES) if action.websocket else None
        self._write(answer.encoded(action.response, "GET"))
        if rest := self._reader.take():
            asyncio.get_running_loop().call_soon(self._tunnelled, rest)

    def _tunnelled(self, data: bytes) -> None:
        if self._frames is None:
            self._replay.heard(self._number, data)
            return
        try:
            for frame in self._frames.feed(data):
                self._replay.heard_frame(self._number, frame)
        except websocket.UnreadableError as error:
            self._replay.tell(f"a client sent what is no websocket frame: {error}")
            self._close()

    def _read(self) -> None:
        if self._first and self._reader.startswith(STARTTLS):
            self._replay.tell("a client wants TLS, of which nothing can be recorded; it is ended")
            self._close()
            return
        while self._asked is None and not self._tunnel and not self._closing:
            item = self._reader.next()
            if item is None:
                return
            self._first = False
            self._take(item)

    @property
    def _closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _take(self, item: http1.Item) -> None:
        match item:
            case http1.Head():
                self._begin(item)
            case http1.Data():
                self._body.add(item.data)
            case http1.End():
                self._ask()
            case _:  # garbled
                self._refuse(item.reason)

    def _begin(self, head: http1.Head) -> None:
        line = http1.request_line(head.start)
        if line is None:
            self._refuse("no request line")
            return
        method, target, version = line
        framing = http1.request_framing(head.headers, version)
        hosts = http1.values(head.headers, b"host")
        if isinstance(framing, str) or (version == b"HTTP/1.1" and len(hosts) != 1):
            self._refuse(framing if isinstance(framing, str) else "missing required Host header")
            return
        headers = tuple((decode(name), decode(value)) for name, value in head.headers)
        self._head = Request(decode(method), decode(target), decode(version), headers)
        self._body = Capture(KEPT_OF_REQUESTS)
        self._last = _ends(head.headers, version)
        self._reader.expect(framing)
        expected = b"100-continue" in [v.lower() for v in http1.values(head.headers, b"expect")]
        if expected and framing and version == b"HTTP/1.1":
            # As Go's server, when its handler begins to read (net/http/server.go).
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _ask(self) -> None:
        head, self._head = self._head, None
        assert head is not None  # an end only ever follows its head
        self._reader.forgive(head.method.encode())
        self._asked = Request(
            head.method, head.target, head.version, head.headers, self._body.body()
        )
        self._replay.asked(self._number, self._asked)

    def _refuse(self, reason: str) -> None:
        """As Go's server answers what it cannot read (net/http/server.go)."""
        status = HTTPStatus.BAD_REQUEST
        text = f"{status.value} {status.phrase}: {reason}"
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8"
        self._write(f"{head}\r\nConnection: close\r\n\r\n{text}".encode())
        self._close()


def _ends(headers: http1.RawHeaders, version: bytes) -> bool:
    """Whether a client wants the connection to end after its answer (RFC 9112, 9.3)."""
    values = b",".join(http1.values(headers, b"connection")).lower()
    tokens = {token.strip() for token in values.split(b",")}
    if b"close" in tokens:
        return True
    return version == b"HTTP/1.0" and b"keep-alive" not in tokens


class CassetteUpstream:
    """A recording in a daemon's place: an upstream whose connections are served in this process.

    What was played stays so when another event loop connects; but two at a time are not served.

    Args:
        cassette: the recording.
        tell: is told what a person should know.
        paced: whether the recorded pauses come back.
    """

    def __init__(
        self, cassette: Cassette, tell: TellText = lambda _text: None, *, paced: bool = False
    ) -> None:
        self._cassette = cassette
        self._player = Player(cassette, paced=paced)
        self._tell = tell
        self._replay: Replay | None = None

    @property
    def base(self) -> str:
        """The address of the daemon that was recorded."""
        return self._cassette.server.base

    async def connect(self, _peer: Peer | None) -> socket.socket:
        """A connection to the recording."""
        loop = asyncio.get_running_loop()
        if self._replay is None or self._replay.loop is not loop:
            if self._replay is not None:
                self._replay.forsake()
            self._replay = Replay(self._player, self._tell, loop)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._replay.serve(theirs)
        return ours

    def never_played(self) -> list[Interaction]:
        """The recorded interactions that nobody has asked for."""
        return self._player.never_played()

    def close(self) -> None:
        """End all connections."""
        if self._replay is not None:
            self._replay.close()
