"""Recordings spelled out in a few words, for the tests of what plays them."""

from __future__ import annotations

from collections.abc import Sequence

from lxdtap.cassette.model import Cassette, Interaction, Piece, Server
from lxdtap.content import Json
from lxdtap.transaction import (
    Body,
    Direction,
    Headers,
    Opcode,
    Request,
    Response,
    Timing,
    Transaction,
    Tunnel,
)
from tests.unit.builders import BASE, WALL, request, response

MS = 1_000_000
WEBSOCKET: Headers = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
SFTP: Headers = (("Upgrade", "sftp"),)


def asked(
    method: str, target: str, data: bytes | str | Json = b"", headers: Headers = ()
) -> Request:
    """A request."""
    return request(method, target, data, headers)


def piece(
    direction: Direction,
    at: int,
    payload: bytes = b"",
    opcode: Opcode | None = Opcode.BINARY,
    *,
    kept: bool = True,
) -> Piece:
    """What passed ``at`` milliseconds."""
    whole = Body(len(payload), payload if kept else b"", "" if kept else "0" * 64)
    return Piece(direction, at * MS, whole, opcode)


def sent(at: int, payload: bytes = b"", opcode: Opcode | None = Opcode.BINARY) -> Piece:
    return piece(Direction.SENT, at, payload, opcode)


def received(at: int, payload: bytes = b"", opcode: Opcode | None = Opcode.BINARY) -> Piece:
    return piece(Direction.RECEIVED, at, payload, opcode)


def seen(
    number: int,
    question: Request,
    answer: Response | None = None,
    *,
    at: int | None = None,
    took: int = 1,
    pieces: Sequence[Piece] = (),
    stream: str = "",
    ended: str = "the client closed the connection",
) -> Interaction:
    """A recorded interaction; its times are in milliseconds, else ten times its number."""
    begun = (10 * number if at is None else at) * MS
    upgraded = answer is not None and answer.status == 101
    transaction = Transaction(
        number,
        BASE,
        question,
        Timing(WALL, begun, begun, begun + took * MS, begun + took * MS),
        answer,
        Tunnel("websocket", ended=ended) if upgraded else None,
    )
    return Interaction(transaction, tuple(pieces), stream=stream)


def cassette(*interactions: Interaction) -> Cassette:
    return Cassette(Server("lxd", BASE), interactions)


def operation(identifier: str, code: int, metadata: Json = None, kind: str = "task") -> Json:
    """An operation's state."""
    return {
        "id": identifier,
        "class": kind,
        "status": {103: "Running", 200: "Success", 400: "Failure", 401: "Cancelled"}[code],
        "status_code": code,
        "metadata": metadata,
        "err": "",
    }


def created(state: Json) -> Response:
    """202."""
    return response(202, {"type": "async", "metadata": state})


def told(state: Json) -> Response:
    """An operation's state as an answer."""
    return response(200, {"type": "sync", "metadata": state})


SWITCHED = Response(101, "Switching Protocols", headers=(("Upgrade", "websocket"),))
