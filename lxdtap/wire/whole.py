"""Messages that come whole, in one read, with nothing before or after: most do.

They need no reader. Their heads are looked through once and remembered, because clients and
daemons say the same again and again. What is not as plain as that is left to :mod:`http1
<lxdtap.wire.http1>`, whose rules these are too: what is whole here, it would read the same.

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


def request(data: bytes) -> tuple[bytes, int, bytes] | None:
    """Whether these bytes are one request and nothing else.

    Returns:
        Its method, the size of its head, and the bytes without chunks; None: they are not.
    """
    # Where no head ends, these are three bytes, which are none.
    size = data.find(_END_OF_HEAD, 0, LONGEST_HEAD) + len(_END_OF_HEAD)
    plain = _request(data[:size])
    if plain is None:
        return None
    method, framing = plain
    whole = data if len(data) - size == framing else _joined(data, size, framing)
    return None if whole is None else (method, size, whole)


def response(data: bytes, method: bytes) -> tuple[int, bytes] | None:
    """Whether these bytes are one final response to ``method`` and nothing else.

    Returns:
        The size of its head, and the bytes without chunks; None: they are not.
    """
    size = data.find(_END_OF_HEAD, 0, LONGEST_HEAD) + len(_END_OF_HEAD)
    framing = _response(data[:size], method == b"HEAD")
    if framing is None:
        return None
    whole = data if len(data) - size == framing else _joined(data, size, framing)
    return None if whole is None else (size, whole)


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


@functools.lru_cache(_HEADS)
def _request(head: bytes) -> tuple[bytes, int] | None:
    """The method, and the framing of the body; None for what is not plain."""
    start, headers, _ = parsed(head)
    line = _plain(head) and http1.request_line(start)
    if not line or http1.values(headers, b"upgrade"):
        return None
    framing = http1.request_framing(headers, line[2])
    return None if isinstance(framing, str) else (line[0], framing)


@functools.lru_cache(_HEADS)
def _response(head: bytes, to_head: bool) -> int | None:
    """The framing of the body; None for what is not plain, or not whole by itself."""
    start, headers, _ = parsed(head)
    line = _plain(head) and http1.status_line(start)
    if not line or line[1] < 200:
        return None
    method = b"HEAD" if to_head else b""
    framing = http1.response_framing(headers, line[0], line[1], method)
    return None if isinstance(framing, str) or framing == http1.UNTIL_CLOSE else framing


def _plain(head: bytes) -> bool:
    """Whether it is a head to its last byte, and not to an earlier one."""
    return head[:1] not in b"\r\n" and http1.end_of_head(head) == len(head)


def _joined(data: bytes, at: int, framing: int) -> bytes | None:
    """The bytes without chunks, if their body is chunked from there on, whole, without trailers."""
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
