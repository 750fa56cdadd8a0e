"""A case, and what many are made of."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One conversation.

    Attributes:
        name: what it is called.
        what: what it is, in a line.
        words: the conversation (see ``differential``).
        told: the transactions that it is: method, status, and what else there is to them.
    """

    name: str
    what: str
    words: tuple[str | bytes, ...]
    told: tuple[str, ...]


def request(
    *fields: str, line: str = "GET /1.0 HTTP/1.1", body: bytes = b"", host: bool = True
) -> bytes:
    """A request of these header lines."""
    lines = [line, *(["Host: lxd"] if host else []), *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answer(
    *fields: str, line: str = "HTTP/1.1 200 OK", body: bytes = b"hi", length: bool = True
) -> bytes:
    """A response of these header lines; with a Content-Length."""
    counted = [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([line, *counted, *fields, "", ""]).encode("latin-1") + body


def post(*fields: str, body: bytes = b"", line: str = "POST /1.0/nothing HTTP/1.1") -> bytes:
    """A request that may have a body. Its target is nowhere: real daemons get it too."""
    return request(*fields, line=line, body=body)


def chunked(*pieces: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + last


GET = request()
OK = answer()
BAD = answer("Connection: close", line="HTTP/1.1 400 Bad Request", body=b"400 Bad Request")
CHUNKED = "Transfer-Encoding: chunked"
