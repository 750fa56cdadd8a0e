"""Events as bytes and back: how they go from process to process, and into a spool.

Each is a number for its kind, a length, and its fields in order: as one MessagePack array, or, of
those that carry what passed, as numbers of a fixed size and then the bytes themselves, which cost
the tap least. Those that come together follow each other: a block. Whoever reads one need not trust
it: :func:`decode` makes events of any bytes, or says that they are none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack

from lxdtap.transaction import RECEIVED, SENT, Body, Direction, Frame, Moment, Opcode, Peer
from lxdtap.wire import events
from lxdtap.wire.events import Data, Event, Whole, WholeMessage

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

_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_DATA, _WHOLE = _NUMBERS[Data], _NUMBERS[WholeMessage]
_HEAD = struct.Struct("<BI")
"""Before each: the number of its kind, and how many bytes follow."""
_OF_DATA = struct.Struct("<4q?")
"""Before data: connection, exchange, when it came by both clocks, whether it was sent."""
_OF_WHOLE = struct.Struct("<4q?I")
"""Before a whole message: the same, and how many bytes of it are its head."""
_whole, _SIZE_OF_WHOLE = struct.Struct(_HEAD.format + _OF_WHOLE.format[1:]).pack, _OF_WHOLE.size
_OPTIONS: dict[str, Any] = {"use_bin_type": True, "unicode_errors": "surrogateescape"}
_READING: dict[str, Any] = {
    "use_list": False,
    "unicode_errors": "surrogateescape",
    "strict_map_key": True,
}


class UnreadableRecordError(ValueError):
    """The bytes are no event."""


def encode(event: Event) -> bytes:
    """An event as bytes."""
    return b"".join(parts(event))


def parts(event: Event) -> tuple[bytes, bytes | memoryview]:
    """The same in two parts, the second of which is what passed, not a copy of it."""
    if type(event) is WholeMessage:
        return before(event), event.data
    if type(event) is Data:
        number, exchange, (monotonic, wall), direction, passed = event
        sent, size = direction is SENT, _OF_DATA.size + len(passed)
        head = _HEAD.pack(_DATA, size) + _OF_DATA.pack(number, exchange, monotonic, wall, sent)
        return head, passed
    fields: bytes = msgpack.packb(tuple(event), default=_plain, **_OPTIONS)
    return _HEAD.pack(_NUMBERS[type(event)], len(fields)) + fields, b""


def before(message: Whole) -> bytes:
    """The first part of a message that came whole; its data are the second."""
    number, exchange, at, direction, head_size, data = message
    sent, size = direction is SENT, _SIZE_OF_WHOLE + len(data)
    return _whole(_WHOLE, size, number, exchange, at[0], at[1], sent, head_size)


def decode(block: bytes | memoryview) -> list[Event]:
    """The events that these bytes are, one at least. Their data are views of the block.

    Raises:
        UnreadableRecordError: they are none, or have something else among them.
    """
    events, view, at = [], memoryview(block), 0
    try:
        while at < len(view):
            kind, size = _HEAD.unpack_from(view, at)
            at += _HEAD.size + size
            events.append(_event(kind, view[at - size : at], size))
    except UnreadableRecordError:
        raise
    except Exception as error:
        raise UnreadableRecordError(f"no record of an event: {error!r}") from error
    if not events:
        raise UnreadableRecordError("no record of an event: it is empty")
    return events


def _event(kind: int, record: memoryview, size: int) -> Event:
    if len(record) < size:
        raise UnreadableRecordError("no record of an event: it ends too early")
    if kind == _WHOLE:
        number, exchange, monotonic, wall, sent, head_size = _OF_WHOLE.unpack_from(record)
        data = bytes(record[_OF_WHOLE.size :])
        if head_size > len(data):
            raise UnreadableRecordError("a message that is shorter than its head")
        at, way = Moment(monotonic, wall), SENT if sent else RECEIVED
        return WholeMessage(number, exchange, at, way, head_size, data)
    if kind == _DATA:
        number, exchange, monotonic, wall, sent = _OF_DATA.unpack_from(record)
        at, way = Moment(monotonic, wall), SENT if sent else RECEIVED
        # No copy: one of 256 KiB costs as much as half of the SHA-256 of it, new pages as it takes.
        return Data(number, exchange, at, way, record[_OF_DATA.size :])
    made: Callable[..., Event] = KINDS[kind]
    fields = msgpack.unpackb(record, **_READING)
    return made(*[check(value) for check, value in zip(_CHECKS[kind], fields, strict=True)])


def _plain(value: object) -> Any:  # noqa: ANN401 - what MessagePack knows
    if isinstance(value, Direction):
        return value is SENT
    raise TypeError(f"{type(value).__name__} is no part of an event")


def _direction(sent: Any) -> Direction:  # noqa: ANN401 - hostile, maybe
    return SENT if _is(bool)(sent) else RECEIVED


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
    "size": _integer,
    "sha256": _is(str),
    "direction": _direction,
    "protocol": _is(str),
    "frame": _frame,
    "doing": _is(str),
    "why": _is(str),
}
_CHECKS = {
    number: [_FIELDS[name] for name in kind._fields]
    for kind, number in _NUMBERS.items()
    if number not in (_DATA, _WHOLE)
}
