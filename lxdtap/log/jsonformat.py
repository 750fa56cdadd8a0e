"""One JSON object a line: the log for programs. docs/log.schema.json holds every line to account.

Bodies that are JSON stand as they are, under ``json``; text under ``text``; others by size, type
and sha256. All is ASCII, so a line is safe on any terminal; stray bytes became U+FFFD.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, assert_never

from lxdtap.content import Binary, Content, Document, Part, Parts, Text
from lxdtap.log.debugformat import kind
from lxdtap.log.entries import Entry, FrameEntry, NoteEntry, OperationEntry, TransactionEntry
from lxdtap.lxd import Seen
from lxdtap.transaction import Body, Count, Headers, Request, Response, Tunnel

_EVENTS = {"finished": "transaction", "upgraded": "upgraded", "open": "open"}

Object = dict[str, Any]

# Half a character is none: a stray byte, or what JSON of others has. Strict readers refuse it.
_ESCAPE = re.compile(r"\\(?:ud[89ab]..\\ud[c-f]..|(?P<lone>ud[89a-f]..)|.)")


def line(entry: Entry) -> str:
    """An entry's line, with its newline."""
    text = json.dumps(_object(entry), separators=(",", ":"))
    if "\\ud" in text:
        text = _ESCAPE.sub(lambda m: "\\ufffd" if m["lone"] else m[0], text)
    return text.replace("\x7f", "\\u007f") + "\n"  # json takes DEL for a printable character


def timestamp(wall: int) -> str:
    """RFC 3339, in UTC, to the microsecond, from nanoseconds of Unix time."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall // 10**9))
    return f"{whole}.{wall // 1000 % 10**6:06}Z"


def _object(entry: Entry) -> Object:
    match entry:
        case TransactionEntry():
            return _transaction(entry)
        case FrameEntry():
            return _frame(entry)
        case OperationEntry():
            at = timestamp(entry.at.wall)
            return {"event": "operation", "time": at, "operation": _operation(entry.seen)}
        case NoteEntry():
            return {"event": "note", "time": timestamp(entry.at.wall), "text": entry.text}
        case _:
            assert_never(entry)


def _transaction(entry: TransactionEntry) -> Object:
    transaction, timing = entry.transaction, entry.transaction.timing
    request, response, tunnel = transaction.request, transaction.response, transaction.tunnel
    peer = transaction.peer
    return {
        "event": _EVENTS[entry.state],
        "id": transaction.number,
        "time": timestamp(timing.wall),
        "connection": transaction.connection,
        "peer": peer and {"pid": peer.pid, "uid": peer.uid, "gid": peer.gid},
        "method": request.method,
        "url": transaction.url,
        "target": request.target,
        "status": response.status if response else None,
        "duration": entry.seconds,
        "waited": timing.waited,
        "request": _request(request, entry.request),
        "response": response and _response(response, entry.response),
        "tunnel": tunnel and _tunnel(tunnel, entry.stream),
        "operation": entry.operation and _operation(entry.operation),
        "error": entry.error or None,
        "broken": transaction.broken or None,
        "garbled": request.garbled or None,
        "own": transaction.own,
    }


def _request(request: Request, says: Content) -> Object:
    return {"headers": _headers(request.headers)} | _body(request.body, says)


def _response(response: Response, says: Content) -> Object:
    interim = {"interim": list(response.interim)} if response.interim else {}
    return {"headers": _headers(response.headers)} | interim | _body(response.body, says)


def _body(body: Body, says: Content) -> Object:
    return {"size": body.size} | ({} if says is None else {"body": _content(says)})


def _content(says: Content) -> Object:
    match says:
        case Document():
            return {"json": says.value}
        case Text():
            return {"text": says.text, "type": says.media_type}
        case Binary():
            return {"size": says.size, "sha256": says.sha256, "type": says.media_type}
        case Parts():
            parts = [_part(part) for part in says.parts]
            return {"parts": parts, "sha256": says.sha256, "type": says.media_type}
    return {}


def _part(part: Part) -> Object:
    return {"headers": _headers(part.headers), "body": _content(part.content), "cut": part.cut}


def _headers(headers: Headers) -> list[list[str]]:
    return [[name, value] for name, value in headers]


def _tunnel(tunnel: Tunnel, stream: str) -> Object:
    return {
        "protocol": tunnel.protocol,
        "stream": stream or None,
        "sent": _count(tunnel.sent),
        "received": _count(tunnel.received),
        "close_code": tunnel.close_code,
        "reason": tunnel.reason or None,
        "ended": tunnel.ended or None,
    }


def _count(count: Count) -> Object:
    return {"frames": count.frames, "bytes": count.size}


def _operation(seen: Seen) -> Object:
    state = seen.operation
    return {
        "id": state.id,
        "status": state.status,
        "status_code": state.status_code,
        "error": state.err or None,
        "description": state.description,
        "made_by": seen.maker,
    }


def _frame(entry: FrameEntry) -> Object:
    return {
        "event": "frame",
        "id": entry.transaction.number,
        "time": timestamp(entry.at.wall),
        "direction": entry.direction.value,
        "stream": entry.stream or None,
        "kind": kind(entry.frame),
        "error": entry.error or None,
    } | _body(entry.frame.payload, entry.content)
