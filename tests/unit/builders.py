"""Values with defaults, so that a test spells out only what it is about."""

from __future__ import annotations

import hashlib
import json

from lxdtap.content import Content, Json
from lxdtap.log.entries import FrameEntry, State, TransactionEntry
from lxdtap.lxd import Operation, Seen
from lxdtap.transaction import (
    Body,
    Direction,
    Frame,
    FrameSeen,
    Headers,
    Moment,
    Opcode,
    Request,
    Response,
    Timing,
    Transaction,
    Tunnel,
)

BASE = "http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket"
WALL = 1_700_000_000_123_456_789
AT = Moment(5_000_000_000, WALL)
TIMING = Timing(WALL, 1_000_000_000, 1_000_000_000, 1_500_000_000, 3_000_000_000)
UUID = "70eb42bf-5e79-42de-8230-2162e9e8b612"


def body(data: bytes | str) -> Body:
    """A body that was kept whole."""
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    return Body(len(raw), raw)


def cut_body(data: bytes, kept: int) -> Body:
    """A body of which only the beginning was kept."""
    return Body(len(data), data[:kept], hashlib.sha256(data).hexdigest())


def json_body(value: Json) -> Body:
    """A document as a body."""
    return body(json.dumps(value))


def request(
    method: str = "GET",
    target: str = "/1.0",
    data: bytes | str | Json = b"",
    headers: Headers = (),
    garbled: str = "",
) -> Request:
    """A request; what is neither bytes nor text is sent as JSON."""
    return Request(method, target, headers=headers, body=_any_body(data), garbled=garbled)


def response(
    status: int = 200,
    data: bytes | str | Json = b"",
    headers: Headers = (),
    interim: tuple[int, ...] = (),
) -> Response:
    """A response; what is neither bytes nor text is sent as JSON."""
    return Response(status, headers=headers, body=_any_body(data), interim=interim)


def transaction(
    asked: Request | None = None,
    answer: Response | None = None,
    number: int = 1,
    tunnel: Tunnel | None = None,
    broken: str = "",
    *,
    own: bool = False,
) -> Transaction:
    """A transaction without an answer, unless one is given."""
    return Transaction(
        number, BASE, asked or request(), TIMING, answer, tunnel, broken=broken, own=own
    )


def entry(
    of: Transaction | None = None,
    state: State = "finished",
    asked: Content = None,
    answered: Content = None,
    now: int | None = None,
    stream: str = "",
    error: str = "",
    operation: Seen | None = None,
) -> TransactionEntry:
    """An entry of a transaction that was answered with 200, unless another is given."""
    shown = of or transaction(answer=response())
    return TransactionEntry(shown, state, now, asked, answered, error, operation, stream)


def frame(
    data: bytes | str | Json = b"", opcode: Opcode = Opcode.TEXT, *, final: bool = True
) -> Frame:
    """A websocket frame."""
    return Frame(opcode, _any_body(data), final)


def frame_entry(
    says: Content = None,
    of: Transaction | None = None,
    what: Frame | None = None,
    direction: Direction = Direction.RECEIVED,
    stream: str = "",
    error: str = "",
) -> FrameEntry:
    """An entry of a frame that the client received."""
    shown = of or transaction(answer=response(101))
    return FrameEntry(shown, direction, what or frame(), says, AT, stream, error)


def frame_seen(
    data: bytes | str | Json = b"",
    number: int = 1,
    opcode: Opcode = Opcode.TEXT,
    direction: Direction = Direction.RECEIVED,
) -> FrameSeen:
    """A frame on the connection of transaction ``number``."""
    return FrameSeen(number, direction, frame(data, opcode), AT)


def operation_document(
    status_code: int = 103,
    err: str = "",
    metadata: Json = None,
    kind: str = "task",
    uuid: str = UUID,
) -> dict[str, Json]:
    """An operation as the daemon describes it."""
    status = {103: "Running", 200: "Success", 400: "Failure"}[status_code]
    return {
        "id": uuid,
        "class": kind,
        "description": "Doing it",
        "status": status,
        "status_code": status_code,
        "err": err,
        "metadata": metadata,
    }


def envelope(metadata: Json, kind: str = "sync", status_code: int = 200) -> dict[str, Json]:
    """The daemon's answer around something."""
    return {
        "type": kind,
        "status": "OK",
        "status_code": status_code,
        "error": "",
        "error_code": 0,
        "metadata": metadata,
    }


def event(metadata: Json, kind: str = "operation") -> dict[str, Json]:
    """What the daemon sends to those who listen to its events."""
    return {"type": kind, "timestamp": "2026-01-01T00:00:00Z", "metadata": metadata}


def seen(status: str = "Running", code: int = 103, maker: int | None = 1, err: str = "") -> Seen:
    """Word of an operation."""
    return Seen(Operation(UUID, status, code, err, "Doing it"), maker, code >= 200)


def _any_body(data: bytes | str | Json) -> Body:
    return body(data) if isinstance(data, (bytes, str)) else json_body(data)
