"""One connection, both directions: from the bytes that passed to events.

Pure and passive. :class:`Wire` pairs responses with requests (RFC 9112, 9.3.2), knows when
HTTP ends (101, ``STARTTLS``), decodes websocket frames from there on, and never fails: where it
cannot follow, the rest of the connection is an ``opaque`` tunnel whose bytes are counted.

Bytes must be fed in the order in which the relay passed them on, so that an answer never
comes before its question. Events are read lazily: whoever feeds takes them one by one, as far as
time allows, and feeds more when they are all taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from lxdtap.transaction import RECEIVED, SENT, Direction, Moment, decode
from lxdtap.wire import http1, tunnel, whole
from lxdtap.wire.events import (
    Closed,
    Cut,
    Data,
    Event,
    Garbled,
    MessageEnd,
    RequestHead,
    ResponseHead,
    Switched,
    Whole,
    WholeMessage,
)
from lxdtap.wire.http1 import RawHeaders
from lxdtap.wire.whole import NOTHING, Like

STARTTLS = b"STARTTLS"
"""What lxd-user and incus-user send first (LXD's lxd/endpoints/listeners/starttls.go).

A line end follows, but LXD goes by these bytes alone.
"""
HELD_LIMIT = 1 << 20
"""Bytes a client may send after asking for an upgrade before the answer is known."""


@dataclass(slots=True)
class _Asked:
    """A request whose answer is still due."""

    exchange: int
    method: bytes
    upgrade: bool = False


class Wire:
    """Follows one connection.

    Args:
        connection: the number to put on its events.
        limit: bytes kept of each websocket payload.
    """

    def __init__(self, connection: int, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._requests, self._responses = http1.Reader(), http1.Reader()
        self._due: deque[_Asked] = deque()
        self._exchanges = 0
        self._sending: _Asked | None = None  # the request whose body is still coming
        self._answering: _Asked | None = None  # the one whose response's body is
        self._held = False  # client bytes wait for the verdict on an upgrade
        self._tunnel: tunnel.Tunnel | None = None  # what follows it after HTTP
        self._between = True  # two messages, in both directions
        self._last_request = self._last_response = NOTHING  # that came whole

    @property
    def idle(self) -> bool:
        """Whether nothing is under way: every request answered, no tunnel, no half a head."""
        return self._tunnel is None and not self._due and self._requests.idle

    @property
    def asked(self) -> bytes | None:
        """The method of the request whose answer is due and has not begun; None if none is."""
        unanswered = self._tunnel is None and self._due and self._answering is None
        return self._due[0].method if unanswered else None

    @property
    def tunnelled(self) -> bool:
        """Whether the connection has left HTTP."""
        return self._tunnel is not None

    def whole(self, direction: Direction, data: bytes, at: Moment) -> Whole | None:
        """Take bytes that passed, if they are one whole message; None: they are not, feed them.

        Returns:
            What a :class:`WholeMessage <lxdtap.wire.events.WholeMessage>` has.
        """
        if not self._between:
            return None
        if direction is SENT:
            head, method, framing = self._last_request  # most are like it
            if not data.startswith(head):
                head, method, framing = self._last_request = self._request_like(data)
        elif self._due:
            asked = self._due[0].method
            head, method, framing = self._last_response
            if method != asked or not data.startswith(head):
                head, method, framing = self._last_response = whole.response(data, asked)
        else:
            return None
        size = len(head)
        told = data if len(data) - size == framing else whole.joined(data, size, framing)
        if told is None:
            return None
        if direction is SENT:
            exchange = self._exchanges
            self._exchanges += 1
            self._due.append(_Asked(exchange, method))
            self._requests.forgive(method)
        else:
            exchange = self._due.popleft().exchange
        return self._connection, exchange, at, direction, size, told

    def _request_like(self, data: bytes) -> Like:
        begins = not self._exchanges and data.startswith(STARTTLS)
        return NOTHING if begins else whole.request(data)

    def feed(self, direction: Direction, data: bytes, at: Moment) -> Iterator[Event]:
        """Take bytes that passed in one direction."""
        if self._tunnel is not None:
            yield from self._tunnel.feed(direction, data, at)
            return
        if message := self.whole(direction, data, at):
            yield WholeMessage(*message)
            return
        self._between = False
        self._reader(direction).receive(data)
        yield from self._read_requests(at)
        yield from self._read_responses(at)
        within = self._held or self._tunnel is not None
        self._between = not within and self._requests.idle and self._responses.idle

    def end(self, direction: Direction, at: Moment, *, cut: bool = False) -> Iterator[Event]:
        """One side will send no more. If it was ``cut`` off, that is no body's end."""
        if self._tunnel is not None:
            return
        if direction is SENT:
            yield from self._requests_over(at)
        else:
            yield from self._responses_over(at, cut=cut)

    def close(self, at: Moment, why: str) -> Iterator[Event]:
        """The connection is over for both sides; ``why`` is for the people who read of it."""
        yield from self._untold(at) if self._tunnel is None else self._tunnel.untold(at)
        yield Closed(self._connection, at, why)

    def give_up(self, reason: str, at: Moment) -> Iterator[Event]:
        """Stop reading, count only. What was received and not yet read is the tunnel's first."""
        self._between = False
        if self._tunnel is not None:
            yield from self._tunnel.give_up(reason, at)
        else:
            yield from self._opaque(reason, at)

    def _reader(self, direction: Direction) -> http1.Reader:
        return self._requests if direction is SENT else self._responses

    # -- HTTP, piece by piece

    def _read_requests(self, at: Moment) -> Iterator[Event]:
        reader = self._requests
        if not self._exchanges and reader.startswith(STARTTLS):
            yield from self._starttls(at)
            return
        while not self._held and (item := reader.next()) is not None:
            match item:
                case http1.Head():
                    yield from self._request(item, at)
                case http1.Data():
                    yield self._data(self._sending, SENT, item.data, at)
                case http1.End():
                    yield from self._request_over(item, at)
                case _:  # garbled
                    yield from self._request_garbled(item.reason, at)
        if self._held and reader.pending > HELD_LIMIT:
            yield from self._opaque("too much was sent before the upgrade was granted", at)

    def _request(self, head: http1.Head, at: Moment) -> Iterator[Event]:
        line = http1.request_line(head.start)
        if line is None:
            yield from self._unreadable("its first line is no request line", head.raw, at)
            return
        method, _, version = line
        # By the Upgrade header alone: LXD looks at nothing else for sftp (lxd/instance_sftp.go).
        asked = self._ask(method, upgrade=bool(http1.values(head.headers, b"upgrade")))
        yield self._head(asked, at, line, head.headers)
        framing = http1.request_framing(head.headers, version)
        if isinstance(framing, str):
            yield from self._request_garbled(framing, at)
        else:
            self._requests.expect(framing)

    def _request_over(self, end: http1.End, at: Moment) -> Iterator[Event]:
        asked, self._sending = self._sending, None
        assert asked is not None  # an end only ever follows its head
        self._requests.forgive(asked.method)
        self._held = asked.upgrade and asked in self._due and asked is not self._answering
        yield MessageEnd(self._connection, asked.exchange, at, SENT, end.trailers)

    def _request_garbled(self, reason: str, at: Moment) -> Iterator[Event]:
        """A head or a body cannot be followed: the rest of what is sent is this request's."""
        reader = self._requests
        if self._sending is None:
            yield from self._unreadable(reason, reader.take(), at)
            return
        reader.give_up()
        exchange = self._sending.exchange
        yield Garbled(self._connection, exchange, at, SENT, reason)

    def _unreadable(self, reason: str, raw: bytes, at: Moment) -> Iterator[Event]:
        """Bytes that are no request make one all the same: whoever debugs must see them."""
        self._requests.give_up()
        first = raw.partition(b"\n")[0].removesuffix(b"\r")
        asked = self._ask(b"?")
        yield self._head(asked, at, http1.request_line(first) or (b"?", b"", b""), ())
        yield Garbled(self._connection, asked.exchange, at, SENT, reason)
        if raw:
            yield self._data(asked, SENT, raw, at)

    def _read_responses(self, at: Moment) -> Iterator[Event]:
        reader = self._responses
        while self._tunnel is None and (item := reader.next()) is not None:
            match item:
                case http1.Head():
                    yield from self._response(item, at)
                case http1.Data():
                    yield self._data(self._answering, RECEIVED, item.data, at)
                case http1.End():
                    yield from self._response_over(item.trailers, at)
                case http1.Garbled() if self._answering is not None:
                    exchange = self._answering.exchange
                    yield Garbled(self._connection, exchange, at, RECEIVED, item.reason)
                case _:  # garbled before any answer began
                    yield from self._opaque(f"the answer has {item.reason}", at)

    def _response(self, head: http1.Head, at: Moment) -> Iterator[Event]:
        line = http1.status_line(head.start)
        if line is None:
            yield from self._opaque("the answer is not HTTP", at, head.raw)
            return
        if not self._due:
            early = self._requests.take()
            yield from self._unreadable("it was answered before its head was complete", early, at)
        asked = self._due[0]
        version, status, reason = line
        event = ResponseHead(
            self._connection, asked.exchange, at, status, reason, version, head.headers
        )
        yield event
        if status == 101:
            yield from self._upgraded(asked, head.headers, at)
        elif event.interim:
            self._responses.restart()
        else:
            yield from self._response_body(asked, head, line, at)

    def _response_body(
        self, asked: _Asked, head: http1.Head, line: tuple[bytes, int, bytes], at: Moment
    ) -> Iterator[Event]:
        self._answering = asked
        framing = http1.response_framing(head.headers, line[0], line[1], asked.method)
        if isinstance(framing, str):
            self._responses.give_up()
            yield Garbled(self._connection, asked.exchange, at, RECEIVED, framing)
        else:
            self._responses.expect(framing)
        if asked.upgrade:
            # Refused: what was held is requests, and their answers may follow in the same read.
            self._held = False
            yield from self._read_requests(at)

    def _response_over(self, trailers: RawHeaders, at: Moment) -> Iterator[Event]:
        asked = self._due.popleft()
        self._answering = None
        yield MessageEnd(self._connection, asked.exchange, at, RECEIVED, trailers)

    # -- the ends

    def _requests_over(self, at: Moment) -> Iterator[Event]:
        reader = self._requests
        if self._sending is not None:
            yield self._cut(self._sending, SENT, at)
        elif reader.pending and not self._held:
            yield from self._unreadable("the client stopped inside its head", reader.take(), at)

    def _responses_over(self, at: Moment, *, cut: bool = False) -> Iterator[Event]:
        reader = self._responses
        if not cut and reader.end():
            yield from self._response_over((), at)
        elif self._answering is not None:
            yield self._cut(self._answering, RECEIVED, at)
        elif self._due and reader.pending:
            yield self._cut(self._due[0], RECEIVED, at)
        elif reader.pending:
            yield from self._opaque("the daemon spoke without being asked", at)

    def _untold(self, at: Moment) -> Iterator[Event]:
        """What came and was not told of yet, because it was not whole or had to wait."""
        if self._responses.pending:
            yield from self._responses_over(at)
        reader = self._requests
        if self._sending is None and reader.pending:
            where = "before an upgrade was answered" if self._held else "inside its head"
            yield from self._unreadable(f"the connection ended {where}", reader.take(), at)

    def _cut(self, asked: _Asked, direction: Direction, at: Moment) -> Event:
        doing = self._reader(direction).doing
        return Cut(self._connection, asked.exchange, at, direction, doing)

    # -- leaving HTTP

    def _starttls(self, at: Moment) -> Iterator[Event]:
        asked = self._ask(STARTTLS)
        yield self._head(asked, at, (asked.method, b"", b""), ())
        yield from self._switch(asked, "tls", "", at)

    def _upgraded(self, asked: _Asked, headers: RawHeaders, at: Moment) -> Iterator[Event]:
        protocol = decode(b", ".join(http1.values(headers, b"upgrade"))).lower() or "unnamed"
        decoders = None
        if protocol == "websocket":
            extensions = b",".join(http1.values(headers, b"sec-websocket-extensions"))
            decoders = tunnel.decoders(decode(extensions), self._limit)
        yield from self._switch(asked, protocol, "", at, decoders)

    def _opaque(self, reason: str, at: Moment, received: bytes = b"") -> Iterator[Event]:
        asked = self._due[0] if self._due else self._sending
        if asked is None:
            yield from self._unreadable(reason, b"", at)
            asked = self._due[0]
        yield from self._switch(asked, "opaque", reason, at, received=received)

    def _switch(
        self,
        asked: _Asked,
        protocol: str,
        reason: str,
        at: Moment,
        decoders: tunnel.Decoders | None = None,
        received: bytes = b"",
    ) -> Iterator[Event]:
        yield Switched(self._connection, asked.exchange, at, protocol, reason)
        self._tunnel = tunnel.Tunnel(self._connection, asked.exchange, decoders)
        rest = {
            SENT: self._requests.take(),
            RECEIVED: received + self._responses.take(),
        }
        for direction, data in rest.items():
            if data:
                yield from self._tunnel.feed(direction, data, at)

    # -- making

    def _ask(self, method: bytes, *, upgrade: bool = False) -> _Asked:
        asked = _Asked(self._exchanges, method, upgrade)
        self._exchanges += 1
        self._due.append(asked)
        self._sending = asked
        return asked

    def _head(
        self, asked: _Asked, at: Moment, line: tuple[bytes, bytes, bytes], headers: RawHeaders
    ) -> Event:
        return RequestHead(self._connection, asked.exchange, at, *line, headers)

    def _data(self, asked: _Asked | None, direction: Direction, data: bytes, at: Moment) -> Event:
        assert asked is not None  # a body only ever follows its head
        return Data(self._connection, asked.exchange, at, direction, data)
