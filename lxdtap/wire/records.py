"""Events as bytes and back: how they go from process to process, and into a spool.

Each is one MessagePack array: a number for its kind, then its fields in order. Those that come
together follow each other: a block. Whoever reads one need not trust it: :func:`decode` makes
events of any bytes, or says that they are none.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import msgpack

from lxdtap.transaction import Body, Direction, Frame, Moment, Opcode, Peer
from lxdtap.wire import events
from lxdtap.wire.events import Data, Event, WholeMessage

KINDS: tuple[type[Event], ...] = (
    events.Opened,
    events.Refused,
    events.RequestHead,
    events.ResponseHead,
    Data,
    events.MessageEnd,
    events.Garbled,
    events.Switched,
    events.FrameData,
    events.Cut,
    events.Closed,
    events.Said,
    events.Skipped,
    events.Digest,
    WholeMessage,
)
"""What the numbers mean. They are in files: new ones go to the end, none is taken again."""

LARGE = 64 << 10
"""Bytes from which on a copy is worth to be spared."""

_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_WHOLE = _NUMBERS[WholeMessage]
_TYPES_OF_WHOLE = (int, int, int, int, bool, bytes, bytes)
_OPTIONS: dict[str, Any] = {"use_bin_type": True, "unicode_errors": "surrogateescape"}
_READING: dict[str, Any] = {
    "use_list": False,
    "unicode_errors": "surrogateescape",
    "strict_map_key": True,
}
_NO_BYTES = msgpack.packb(b"")
_BIN_32 = 0xC6
_BYTES = struct.Struct(">BI")
"""What stands before up to 4 GiB of bytes (MessagePack's specification, bin 32)."""
_pack = msgpack.Packer(**_OPTIONS).pack
"""For all threads: nothing of Python's runs while it packs values of these types."""


class UnreadableRecordError(ValueError):
    """The bytes are no event."""


def encode(event: Event) -> bytes:
    """An event as bytes."""
    packed: bytes
    if type(event) is WholeMessage:  # most events are: half the time for these
        connection, exchange, at, direction, head, body = event
        sent = direction is Direction.SENT
        packed = _pack((_WHOLE, connection, exchange, at, sent, head, body))
    else:
        fields = (_NUMBERS[type(event)], *event)
        packed = msgpack.packb(fields, default=_plain, **_OPTIONS)
    return packed


def encode_large(event: Data) -> tuple[bytes, bytes]:
    """The same in two parts, the second of which is the data itself and not a copy."""
    data = event.data
    packed = encode(event._replace(data=b""))
    return packed.removesuffix(_NO_BYTES) + _BYTES.pack(_BIN_32, len(data)), data


def decode(block: bytes | memoryview) -> list[Event]:
    """The events that these bytes are, one at least.

    Raises:
        UnreadableRecordError: they are none, or have something else among them.
    """
    try:
        if len(block) >= LARGE:  # of one event then, most likely
            with contextlib.suppress(msgpack.ExtraData):
                return [_event(*msgpack.unpackb(block, **_READING))]
        return _decode_many(block)
    except UnreadableRecordError:
        raise
    except Exception as error:
        raise UnreadableRecordError(f"no record of an event: {error!r}") from error


def _decode_many(block: bytes | memoryview) -> list[Event]:
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(block), 1), **_READING)
    unpacker.feed(block)
    events = [_event(*fields) for fields in unpacker]
    if not events or unpacker.tell() < len(block):
        raise UnreadableRecordError("no record of an event: it ends too early")
    return events


def _event(number: int, *fields: Any) -> Event:  # noqa: ANN401 - hostile, maybe
    if type(number) is int and number == _WHOLE and (message := _whole(fields)):
        return message
    kind: Callable[..., Event] = KINDS[number]
    checks = _CHECKS[number]
    if len(fields) != len(checks):
        raise UnreadableRecordError(f"{KINDS[number].__name__} with {len(fields)} fields")
    return kind(*[check(value) for check, value in zip(checks, fields, strict=True)])


def _whole(fields: tuple[Any, ...]) -> WholeMessage | None:
    """A whole message in half the time, since most events are these; None: a check failed."""
    connection, exchange, (monotonic, wall), sent, head, body = fields
    parts = connection, exchange, monotonic, wall, sent, head, body
    if tuple(map(type, parts)) != _TYPES_OF_WHOLE:
        return None
    at, way = Moment(monotonic, wall), Direction.SENT if sent else Direction.RECEIVED
    return WholeMessage(connection, exchange, at, way, head, body)


def _plain(value: object) -> Any:  # noqa: ANN401 - what MessagePack knows
    match value:
        case Direction():
            return value is Direction.SENT
        case Frame():
            return value.opcode, value.payload, value.final
        case Body():
            return value.size, value.captured, value.digest
    raise TypeError(f"{type(value).__name__} is no part of an event")


def _direction(sent: Any) -> Direction:  # noqa: ANN401 - hostile, maybe
    return Direction.SENT if _is(bool)(sent) else Direction.RECEIVED


def _is(kind: type) -> Callable[[Any], Any]:
    """A check that a value is of a type."""

    def check(value: Any) -> Any:  # noqa: ANN401 - hostile, maybe
        if type(value) is not kind:
            raise UnreadableRecordError(f"{value!r:.50} where {kind.__name__} belongs")
        return value

    return check


def _integer(value: Any) -> int:  # noqa: ANN401 - hostile, maybe
    if type(value) is not int:
        raise UnreadableRecordError(f"{value!r:.50} where a number belongs")
    return value


def _peer(value: Any) -> Peer | None:  # noqa: ANN401 - hostile, maybe
    if value is None:
        return None
    pid, uid, gid, groups = value
    numbers = (_integer(pid), _integer(uid), _integer(gid))
    return Peer(*numbers, tuple(_integer(group) for group in groups))


def _moment(value: Any) -> Moment:  # noqa: ANN401 - hostile, maybe
    monotonic, wall = value
    return Moment(_integer(monotonic), _integer(wall))


def _headers(value: Any) -> tuple[tuple[bytes, bytes], ...]:  # noqa: ANN401 - hostile, maybe
    text = _is(bytes)
    return tuple((text(name), text(content)) for name, content in value)


def _frame(value: Any) -> Frame:  # noqa: ANN401 - hostile, maybe
    opcode, (size, captured, digest), final = value
    body = Body(_integer(size), _is(bytes)(captured), _is(str)(digest))
    return Frame(Opcode(_integer(opcode)), body, _is(bool)(final))


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "connection": _integer,
    "exchange": _integer,
    "at": _moment,
    "base": _is(str),
    "peer": _peer,
    "reason": lambda value: value if type(value) is bytes else _is(str)(value),
    "text": _is(str),
    "method": _is(bytes),
    "target": _is(bytes),
    "version": _is(bytes),
    "status": _integer,
    "headers": _headers,
    "trailers": _headers,
    "data": _is(bytes),
    "head": _is(bytes),
    "body": _is(bytes),
    "size": _integer,
    "sha256": _is(str),
    "direction": _direction,
    "protocol": _is(str),
    "frame": _frame,
    "doing": _is(str),
    "why": _is(str),
}
_CHECKS = [[_FIELDS[name] for name in kind._fields] for kind in KINDS]
