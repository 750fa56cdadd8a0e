"""Events of all connections, folded into transactions.

Pure: the same events give the same transactions, live or read again later. What comes out is
a stream of updates, because a transaction may be worth seeing long before it ends.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lxdtap.transaction import (
    EMPTY,
    RECEIVED,
    SENT,
    Body,
    BytesSeen,
    Capture,
    Count,
    Direction,
    Finished,
    FrameSeen,
    Headers,
    Moment,
    Note,
    Open,
    Peer,
    Request,
    Response,
    Timing,
    Transaction,
    Tunnel,
    Update,
    Upgraded,
    decode,
)
from lxdtap.wire.events import (
    Closed,
    Cut,
    Data,
    Digest,
    Event,
    FrameData,
    Garbled,
    MessageEnd,
    OfExchange,
    Opened,
    Refused,
    RequestHead,
    ResponseHead,
    Said,
    Skipped,
    Switched,
    WholeMessage,
)
from lxdtap.wire.http1 import RawHeaders
from lxdtap.wire.websocket import close_code
from lxdtap.wire.whole import spelled

VISIBLE_AFTER = 1_000_000_000
"""Nanoseconds after which a transaction that goes on is shown."""
_HEADS = 512


def _headers(raw: RawHeaders) -> Headers:
    return tuple([(decode(name), decode(value)) for name, value in raw])


def _request_line(head: RequestHead) -> tuple[str, str, str, Headers]:
    return decode(head.method), decode(head.target), decode(head.version), _headers(head.headers)


def _status_line(head: ResponseHead) -> tuple[int, str, str, Headers]:
    return head.status, decode(head.reason), decode(head.version), _headers(head.headers)


def _alone(head: bytes, direction: Direction) -> WholeMessage:
    return WholeMessage(0, 0, Moment(0, 0), direction, len(head), head)


@functools.lru_cache(_HEADS)
def _asked(head: bytes) -> tuple[str, str, str, Headers]:
    """The beginning of the :class:`Request` with this head."""
    told = next(spelled(_alone(head, SENT)))
    assert isinstance(told, RequestHead)
    return _request_line(told)


@functools.lru_cache(_HEADS)
def _answered(head: bytes) -> tuple[int, str, str, Headers]:
    """The beginning of the :class:`Response` with this head."""
    told = next(spelled(_alone(head, RECEIVED)))
    assert isinstance(told, ResponseHead)
    return _status_line(told)


@dataclass(slots=True)
class _Message:
    """One direction of an exchange, while it passes."""

    capture: Capture
    over: bool = False
    trailers: RawHeaders = ()
    garbled: str = ""
    cut: str = ""
    digest: str = ""

    def body(self) -> Body:
        return self.capture.body(self.digest)


@dataclass(slots=True)
class _Tunnel:
    """An upgraded connection, while it lives."""

    protocol: str
    reason: str
    frames: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(Direction, 0))
    sizes: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(Direction, 0))
    close_code: int | None = None
    changed: int | None = None  # since when there is something that no update has told of

    def add(self, direction: Direction, frames: int, size: int, at: Moment) -> None:
        self.frames[direction] += frames
        self.sizes[direction] += size
        if self.changed is None:
            self.changed = at.monotonic

    def turn(self, event: Switched) -> None:
        self.protocol, self.reason = event.protocol, event.reason
        if self.changed is None:
            self.changed = event.at.monotonic

    def value(self, ended: str) -> Tunnel:
        counts = {d: Count(self.frames[d], self.sizes[d]) for d in Direction}
        sent, received = counts[SENT], counts[RECEIVED]
        return Tunnel(self.protocol, sent, received, self.close_code, self.reason, ended)


@dataclass(slots=True)
class _Exchange:
    """A transaction, while it grows."""

    number: int
    head: RequestHead
    request: _Message
    response: _Message
    answer: ResponseHead | None = None
    interim: list[int] = field(default_factory=list)
    sent: int | None = None
    ended: int | None = None
    tunnel: _Tunnel | None = None
    shown: bool = False


class _Waiting(NamedTuple):
    """A transaction of which no more is known than a request, which came whole."""

    number: int
    request: WholeMessage


@dataclass(slots=True)
class _Connection:
    base: str
    peer: Peer | None
    own: bool = False
    exchanges: dict[int, _Exchange | _Waiting] = field(default_factory=dict)


class Fold:
    """Folds events; numbers transactions from 1 as their requests begin.

    Args:
        limit: bytes of each body that are kept.
    """

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit = limit
        self._connections: dict[int, _Connection] = {}

    @property
    def busy(self) -> bool:
        """Whether something is under way, of which :meth:`tick` may tell."""
        return any(connection.exchanges for connection in self._connections.values())

    def add(self, event: Event) -> list[Update]:
        """Take an event; return what is worth telling now.

        An event of a connection that is not known is passed over: its beginning was lost.
        """
        match event:
            case Said():
                return [Note(event.text, event.at)]
            case Opened():
                self._connections[event.connection] = _Connection(event.base, event.peer)
                return []
        connection = self._connections.get(event.connection)
        if connection is None:
            return []
        if isinstance(event, WholeMessage):  # as most are
            return self._whole(connection, event)
        match event:
            case RequestHead():
                self.count += 1
                self._begun(connection, self.count, event)
                return []
            case Refused():
                connection.own = True
                return [Note(event.reason, event.at)]
            case Closed():
                return list(self._close(connection, event))
        exchange = self._exchange(connection, event.exchange)
        update = self._grow(connection, exchange, event)
        return [] if update is None else [update]

    def cut(self, at: Moment, why: str) -> list[Update]:
        """No more is known: what is under way ends here, as broken off."""
        return [
            update
            for number in list(self._connections)
            for update in self.add(Closed(number, at, why))
        ]

    def forget(self) -> None:
        """Events were lost: the connections that there are cannot be followed any further."""
        self._connections.clear()

    def tick(self, now: int) -> list[Update]:
        """Tell of what has been under way for a second and was not yet told of."""
        return [
            Open(self._value(connection, exchange), now)
            for connection in self._connections.values()
            for exchange in self._exchanges(connection)
            if _due_to_show(exchange, now)
        ]

    # -- whole messages: a transaction of two takes a third of the time of one that grows

    def _whole(self, connection: _Connection, event: WholeMessage) -> list[Update]:
        if event.direction is SENT:
            self.count += 1
            connection.exchanges[event.exchange] = _Waiting(self.count, event)
            return []
        waiting = connection.exchanges[event.exchange]
        answered = _answered(event.head)
        if not isinstance(waiting, _Waiting) or answered[0] < 200:
            return [update for each in spelled(event) for update in self.add(each)]
        del connection.exchanges[event.exchange]
        asked, begun, ended = waiting.request, waiting.request.at, event.at.monotonic
        transaction = Transaction(
            waiting.number,
            connection.base,
            Request(*_asked(asked.head), self._body(asked.body)),
            Timing(begun.wall, begun.monotonic, begun.monotonic, ended, ended),
            Response(*answered, self._body(event.body)),
            peer=connection.peer,
            connection=event.connection,
            own=connection.own,
        )
        return [Finished(transaction)]

    def _body(self, data: bytes) -> Body:
        if len(data) <= self._limit:
            return Body(len(data), data) if data else EMPTY
        capture = Capture(self._limit)
        capture.add(data)
        return capture.body()

    def _exchanges(self, connection: _Connection) -> list[_Exchange]:
        return [self._exchange(connection, number) for number in connection.exchanges]

    def _exchange(self, connection: _Connection, number: int) -> _Exchange:
        """An exchange that grows, or of which something is to be told before its end."""
        exchange = connection.exchanges[number]
        if isinstance(exchange, _Waiting):
            head, *rest = spelled(exchange.request)
            assert isinstance(head, RequestHead)
            exchange = self._begun(connection, exchange.number, head)
            for event in rest:
                assert not isinstance(event, RequestHead)
                self._grow(connection, exchange, event)
        return exchange

    # -- growing

    def _begun(self, connection: _Connection, number: int, head: RequestHead) -> _Exchange:
        messages = _Message(Capture(self._limit)), _Message(Capture(self._limit))
        exchange = connection.exchanges[head.exchange] = _Exchange(number, head, *messages)
        return exchange

    def _grow(
        self, connection: _Connection, exchange: _Exchange, event: OfExchange
    ) -> Update | None:
        match event:
            case Data():
                return _add_data(exchange, event)
            case MessageEnd():
                return self._message_over(connection, exchange, event)
            case FrameData():
                return _add_frame(exchange, event)
            case Switched():
                return self._switch(connection, exchange, event)
            case ResponseHead() if event.interim:
                exchange.interim.append(event.status)
            case ResponseHead():
                exchange.answer = event
            case _:
                _note(exchange, event)
        return None

    def _message_over(
        self, connection: _Connection, exchange: _Exchange, event: MessageEnd
    ) -> Update | None:
        message = _message(exchange, event.direction)
        message.over, message.trailers = True, event.trailers
        if event.direction is SENT:
            exchange.sent = event.at.monotonic
        if not (exchange.request.over and exchange.response.over):
            return None
        exchange.ended = event.at.monotonic
        del connection.exchanges[event.exchange]
        return Finished(self._value(connection, exchange))

    def _switch(
        self, connection: _Connection, exchange: _Exchange, event: Switched
    ) -> Update | None:
        if exchange.tunnel is not None:
            exchange.tunnel.turn(event)
            return None
        exchange.tunnel = _Tunnel(event.protocol, event.reason, changed=event.at.monotonic)
        return Upgraded(self._value(connection, exchange))

    def _close(self, connection: _Connection, event: Closed) -> Iterator[Update]:
        del self._connections[event.connection]
        for exchange in self._exchanges(connection):
            exchange.ended = event.at.monotonic
            yield Finished(self._value(connection, exchange, event.why))

    # -- values

    def _value(self, connection: _Connection, exchange: _Exchange, why: str = "") -> Transaction:
        head, tunnel = exchange.head, exchange.tunnel
        return Transaction(
            number=exchange.number,
            base=connection.base,
            request=Request(
                *_request_line(head),
                exchange.request.body(),
                _headers(exchange.request.trailers),
                exchange.request.garbled,
            ),
            timing=_timing(exchange),
            response=_response(exchange),
            tunnel=None if tunnel is None else tunnel.value(why),
            peer=connection.peer,
            connection=head.connection,
            broken=_broken(exchange, why) if why and tunnel is None else "",
            own=connection.own,
        )


def _message(exchange: _Exchange, direction: Direction) -> _Message:
    return exchange.request if direction is SENT else exchange.response


def _add_data(exchange: _Exchange, event: Data) -> Update | None:
    if exchange.tunnel is None:
        _message(exchange, event.direction).capture.add(event.data)
        return None
    exchange.tunnel.add(event.direction, 0, len(event.data), event.at)
    return BytesSeen(exchange.number, event.direction, bytes(event.data), event.at)


def _note(exchange: _Exchange, event: Skipped | Digest | Garbled | Cut) -> None:
    message = _message(exchange, event.direction)
    match event:
        case Skipped() if exchange.tunnel is not None:
            exchange.tunnel.add(event.direction, 0, event.size, event.at)
        case Skipped():
            message.capture.skip(event.size)
        case Digest():
            message.digest = event.sha256
        case Garbled():
            message.garbled = event.reason
        case _:  # cut
            message.cut = event.doing


def _add_frame(exchange: _Exchange, event: FrameData) -> Update | None:
    assert exchange.tunnel is not None  # frames only ever follow Switched
    if not event.frame.opcode.control:
        exchange.tunnel.add(event.direction, 1, event.frame.payload.size, event.at)
    code = close_code(event.frame)
    if code is not None and exchange.tunnel.close_code is None:
        exchange.tunnel.close_code = code
    return FrameSeen(exchange.number, event.direction, event.frame, event.at)


def _timing(exchange: _Exchange) -> Timing:
    return Timing(
        wall=exchange.head.at.wall,
        begun=exchange.head.at.monotonic,
        sent=exchange.sent,
        answered=exchange.answer.at.monotonic if exchange.answer else None,
        ended=exchange.ended,
    )


def _response(exchange: _Exchange) -> Response | None:
    answer = exchange.answer
    if answer is None:
        return None
    return Response(
        *_status_line(answer),
        exchange.response.body(),
        _headers(exchange.response.trailers),
        tuple(exchange.interim),
    )


def _broken(exchange: _Exchange, why: str) -> str:
    """What a closed connection left unfinished, and ``why``; empty if nothing."""
    response, request = exchange.response, exchange.request
    if response.garbled:
        return f"{why}; the answer could not be followed: {response.garbled}"
    answered = exchange.answer is not None
    if response.cut or (answered and not response.over):
        return f"{why} in the answer's {response.cut or 'body'}"
    if not answered and not request.cut:
        return f"{why} before the answer"
    if answered and request.garbled:
        return ""  # the daemon made something of it, and said what
    return f"{why} in the request's {request.cut or 'body'}"


def _due_to_show(exchange: _Exchange, now: int) -> bool:
    """Whether it has been silent for long enough; marks what is told as told."""
    if exchange.tunnel is None:
        due = not exchange.shown and now - exchange.head.at.monotonic >= VISIBLE_AFTER
        exchange.shown = exchange.shown or due
        return due
    since = exchange.tunnel.changed
    due = since is not None and now - since >= VISIBLE_AFTER
    if due:
        exchange.tunnel.changed = None
    return due
