"""Messages that come whole, in one read, with nothing before or after: most do.

They need no reader. Their heads are looked through once and remembered, because clients and
daemons say the same again and again, most often what they said last on the same connection. What is
not as plain as that is left to :mod:`http1 <lxdtap.wire.http1>`, whose rules these are too: what is
whole here, it would read the same.

Without it, following a message costs a multiple of relaying it: see the documentation's page on
speed for the figures.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from lxdtap.transaction import Direction
from lxdtap.wire import http1
from lxdtap.wire.events import (
    Data,
    MessageEnd,
    OfExchange,
    RequestHead,
    ResponseHead,
    WholeMessage,
)

LONGEST_HEAD = 4096
"""Bytes of a head that is remembered."""
MOST_CHUNKS = 64
"""Chunks of a body that are read here: more are for those who can be interrupted."""
_HEADS = 512

_END_OF_HEAD = b"\r\n\r\n"
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_REQUEST_LINE = b"?", b"", b""
_STATUS_LINE = b"", 0, b""

Like = tuple[bytes, bytes, int]
"""What a message is like: its head, the method it has or answers, the framing of its body."""
NOTHING: Like = (b"\0", b"", -99)
"""What no message is like."""


def request(data: bytes) -> Like:
    """What the request is like that these bytes begin with; :data:`NOTHING`: it is not plain."""
    return _request(_head(data))


def response(data: bytes, method: bytes) -> Like:
    """What the final response to ``method`` is like that these bytes begin with; as a request."""
    return _response(_head(data), method)


def joined(data: bytes, at: int, framing: int) -> bytes | None:
    """A message without chunks, if it has some, all of them, no trailers, and nothing behind them.

    Args:
        data: all of it.
        at: where its body begins.
        framing: of that.
    """
    if framing != http1.CHUNKED:
        return None
    chunks = [data[:at]]
    while (line := _CHUNK.match(data, at)) and len(chunks) <= MOST_CHUNKS:
        begin, size = line.end(), int(line[1], 16)
        at = begin + size + 2
        if data[at - 2 : at] != b"\r\n":
            return None
        if not size:
            return b"".join(chunks) if at == len(data) else None
        chunks.append(data[begin : at - 2])
    return None


def spelled(message: WholeMessage) -> Iterator[RequestHead | OfExchange]:
    """The same message as the events that would have told of it one by one."""
    connection, exchange, at, direction, *_ = message
    body = message.body
    start, headers, _ = parsed(message.head)
    if direction is Direction.SENT:
        line = http1.request_line(start) or _REQUEST_LINE
        yield RequestHead(connection, exchange, at, *line, headers)
    else:
        version, status, reason = http1.status_line(start) or _STATUS_LINE
        yield ResponseHead(connection, exchange, at, status, reason, version, headers)
    if body:
        yield Data(connection, exchange, at, direction, body)
    yield MessageEnd(connection, exchange, at, direction)


@functools.lru_cache(_HEADS)
def parsed(head: bytes) -> http1.Head:
    """A head's parts."""
    return http1.parse_head(head)


def _head(data: bytes) -> bytes:
    """All up to the first empty line; where there is none, these are three bytes, and no head."""
    return data[: data.find(_END_OF_HEAD, 0, LONGEST_HEAD) + len(_END_OF_HEAD)]


@functools.lru_cache(_HEADS)
def _request(head: bytes) -> Like:
    start, headers, _ = parsed(head)
    line = _plain(head) and http1.request_line(start)
    if not line or http1.values(headers, b"upgrade"):
        return NOTHING
    framing = http1.request_framing(headers, line[2])
    return NOTHING if isinstance(framing, str) else (head, line[0], framing)


@functools.lru_cache(_HEADS)
def _response(head: bytes, method: bytes) -> Like:
    start, headers, _ = parsed(head)
    line = _plain(head) and http1.status_line(start)
    if not line or line[1] < 200:
        return NOTHING
    framing = http1.response_framing(headers, line[0], line[1], method)
    if isinstance(framing, str) or framing == http1.UNTIL_CLOSE:
        return NOTHING
    return head, method, framing


def _plain(head: bytes) -> bool:
    """Whether it is a head to its last byte, and not to an earlier one."""
    return head[:1] not in b"\r\n" and http1.end_of_head(head) == len(head)
