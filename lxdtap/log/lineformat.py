"""One line a transaction: what to read when there are many.

``TIME #NUMBER METHOD TARGET STATUS DURATION SENT>RECEIVED [operation=ID STATE] [error="…"]``
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import assert_never

from lxdtap.log.debugformat import kind, seconds
from lxdtap.log.entries import Entry, FrameEntry, NoteEntry, OperationEntry, TransactionEntry
from lxdtap.lxd import Seen
from lxdtap.terminal import Paint, escape, escape_token, plain
from lxdtap.transaction import Transaction

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def line(entry: Entry, *, verbose: bool = False, paint: Paint = plain) -> str:
    """An entry's line, with its newline. Frames and upgrades have theirs only if ``verbose``."""
    match entry:
        case TransactionEntry(state="upgraded") if not verbose:
            return ""
        case TransactionEntry():
            words = _transaction(entry, paint)
        case FrameEntry() if verbose:
            words = _frame(entry, paint)
        case FrameEntry():
            return ""
        case OperationEntry():
            words = _operation_line(entry, paint)
        case NoteEntry():
            words = iter((clock(entry.at.wall), "lxdtap:", escape(entry.text)))
        case _:
            assert_never(entry)
    return " ".join(words) + "\n"


def clock(wall: int) -> str:
    """A time of day, local, to the millisecond, from nanoseconds of Unix time."""
    return time.strftime("%H:%M:%S", time.localtime(wall // 10**9)) + f".{wall // 10**6 % 1000:03}"


def size(count: int) -> str:
    """Bytes for people, in powers of 1000: ``85B``, ``2.4kB``, ``1.1GB``."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count}B" if unit == 0 else f"{value:.3g}{_UNITS[unit]}"


def _start(transaction: Transaction, wall: int, paint: Paint) -> Iterator[str]:
    yield clock(wall)
    yield f"#{transaction.number}"
    yield paint("method", escape_token(transaction.request.method))
    yield paint("url", escape_token(transaction.request.target or "-"))


def _transaction(entry: TransactionEntry, paint: Paint) -> Iterator[str]:
    transaction = entry.transaction
    yield from _start(transaction, transaction.timing.wall + round(entry.seconds * 1e9), paint)
    yield _status(entry, paint)
    yield seconds(entry.seconds).replace(" ", "")
    yield _sizes(transaction)
    if transaction.tunnel is not None:
        yield escape_token(transaction.tunnel.protocol)
    if entry.stream:
        yield escape_token(entry.stream)
    if entry.state == "open":
        yield paint("odd", "open")
    if entry.operation is not None:
        yield from _operation(entry.operation, transaction.number)
    yield from _troubles(entry, paint)


def _status(entry: TransactionEntry, paint: Paint) -> str:
    response = entry.transaction.response
    if response is None:
        return paint("bad", "-")
    failed = response.status >= 400 or bool(entry.error)
    return paint("bad" if failed else "good", str(response.status))


def _sizes(transaction: Transaction) -> str:
    if transaction.tunnel is not None:
        sent, received = transaction.tunnel.sent.size, transaction.tunnel.received.size
    else:
        response = transaction.response
        sent, received = transaction.request.body.size, response.body.size if response else 0
    return f"{size(sent)}>{size(received)}"


def _operation(seen: Seen, number: int | None) -> Iterator[str]:
    yield f"operation={escape_token(seen.operation.id)}"
    yield escape_token(seen.operation.status)
    if seen.maker is not None and seen.maker != number:
        yield f"of #{seen.maker}"


def _troubles(entry: TransactionEntry, paint: Paint) -> Iterator[str]:
    transaction = entry.transaction
    if entry.error:
        yield paint("bad", _quoted("error", entry.error))
    if transaction.request.garbled:
        yield paint("bad", _quoted("garbled", transaction.request.garbled))
    if transaction.broken:
        yield paint("bad", _quoted("broken", transaction.broken))
    if transaction.own:
        yield "by=lxdtap"


def _frame(entry: FrameEntry, paint: Paint) -> Iterator[str]:
    yield from _start(entry.transaction, entry.at.wall, paint)
    words = (entry.direction.value, entry.stream, kind(entry.frame), size(entry.frame.payload.size))
    yield from (escape(word) for word in words if word)
    if entry.error:
        yield paint("bad", _quoted("error", entry.error))


def _operation_line(entry: OperationEntry, paint: Paint) -> Iterator[str]:
    seen = entry.seen
    yield clock(entry.at.wall)
    yield f"#{seen.maker}" if seen.maker is not None else "#-"
    yield from _operation(seen, seen.maker)
    if seen.operation.err:
        yield paint("bad", _quoted("error", seen.operation.err))


def _quoted(name: str, text: str) -> str:
    r"""``name="text"``; quotes within are ``\"``, for the text is the daemon's or the client's."""
    value = escape(text).replace('"', '\\"')
    return f'{name}="{value}"'
