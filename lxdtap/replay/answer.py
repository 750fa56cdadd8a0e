"""An answer as bytes: what was recorded, framed anew, or what lxdtap has to say itself.

Pure. A recorded body is sent whole with its length, however it was framed then.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct

from lxdtap.content import Json
from lxdtap.transaction import EMPTY, Body, Headers, Opcode, Request, Response, encode, header

MISSED = 501
"""The status of a miss.

Not 404, which clients take for "there is none such" and go on; not 503, which they try again.
"""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_FRAMING = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "trailer"})
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def envelope(status: int, error: str) -> Response:
    """What went wrong, as LXD says it (LXD's lxd/response/response.go)."""
    document: Json = {
        "type": "error",
        "status": "",
        "status_code": 0,
        "operation": "",
        "error_code": status,
        "error": f"lxdtap: {error}",
        "metadata": None,
    }
    return _json_response(status, "Not Implemented", document)


def operation(metadata: Json) -> Response:
    """The state of an operation, as LXD's ``GET /1.0/operations/…`` says it."""
    document: Json = {
        "type": "sync",
        "status": "Success",
        "status_code": 200,
        "operation": "",
        "error_code": 0,
        "error": "",
        "metadata": metadata,
    }
    return _json_response(200, "OK", document)


def _json_response(status: int, reason: str, document: Json) -> Response:
    raw = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogateescape"
    )
    headers = (("Content-Type", "application/json"),)
    return Response(status, reason, headers=headers, body=_body(raw + b"\n"))


def _body(raw: bytes) -> Body:
    return Body(len(raw), raw)


def upgraded(recorded: Response | None, asked: Request) -> Response:
    """The 101 for this client: the websocket's accept is made of its key (RFC 6455, 4.2.2)."""
    protocol = header(asked.headers, "upgrade") or ""
    kept = recorded.headers if recorded is not None else ()
    headers = [(n, v) for n, v in kept if n.lower() not in ("upgrade", "connection")]
    headers = [(n, v) for n, v in headers if not n.lower().startswith("sec-websocket-")]
    headers += [("Upgrade", protocol), ("Connection", "Upgrade")]
    if key := header(asked.headers, "sec-websocket-key"):
        digest = hashlib.sha1(encode(key) + _GUID, usedforsecurity=False).digest()
        headers.append(("Sec-WebSocket-Accept", base64.b64encode(digest).decode()))
    return Response(101, "Switching Protocols", headers=tuple(headers))


def cut(recorded: Response, asked: Request) -> Response:
    """The part of a recorded file that was asked for (RFC 9110, 14.2); all of it if none was.

    Of several parts all is given, which the RFC allows.
    """
    match = _RANGE.fullmatch((header(asked.headers, "range") or "").replace(" ", ""))
    if match is None or recorded.status != 200 or asked.method != "GET":
        return recorded
    if (header(recorded.headers, "content-type") or "").startswith("application/json"):
        return recorded
    return _part(recorded, match[1], match[2])


def _part(recorded: Response, first: str, last: str) -> Response:
    data, size = recorded.body.captured, recorded.body.size
    if not first and not last:
        return recorded
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= size:
        headers = (("Content-Range", f"bytes */{size}"),)
        return Response(416, "Requested Range Not Satisfiable", headers=headers)
    if start >= end:
        return recorded
    extent = ("Content-Range", f"bytes {start}-{end - 1}/{size}")
    part = _body(data[start:end])
    return recorded._replace(
        status=206,
        reason="Partial Content",
        headers=(*recorded.headers, extent),
        body=part,
    )


def without_body(recorded: Response) -> Response:
    """What HEAD is answered where GET was recorded."""
    return recorded._replace(body=EMPTY)


def encoded(response: Response, method: str, *, close: bool = False) -> bytes:
    """The bytes of a response."""
    lines = [f"HTTP/1.1 {response.status} {response.reason}".rstrip(" ")]
    lines += [f"{name}: {value}" for name, value in _headers(response, method)]
    if close:
        lines.append("Connection: close")
    head = encode("\r\n".join([*lines, "", ""]))
    return head if method == "HEAD" else head + response.body.captured


def _headers(response: Response, method: str) -> Headers:
    if response.status == 101:
        return response.headers
    kept = tuple(pair for pair in response.headers if pair[0].lower() not in _FRAMING)
    if method == "HEAD":
        # As recorded: LXD's HEAD of a file gives none, and its 501 one of a body it does not send.
        length = header(response.headers, "content-length")
    else:
        bodiless = response.status in (204, 304)
        length = None if bodiless else str(len(response.body.captured))
    return kept if length is None else (*kept, ("Content-Length", length))


def frame(opcode: Opcode, payload: bytes, *, final: bool = True) -> bytes:
    """A websocket frame from a server, which does not mask (RFC 6455, 5.2)."""
    first = (0x80 if final else 0) | opcode
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return struct.pack(">BBH", first, 126, size) + payload
    return struct.pack(">BBQ", first, 127, size) + payload
