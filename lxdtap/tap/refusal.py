"""An answer of lxdtap's own, where the daemon cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

from lxdtap.errors import UpstreamError
from lxdtap.tap.relay import GRACE
from lxdtap.wire.connection import Wire


class Refusal:
    """Answers one request in the daemon's stead, with LXD's error envelope.

    It sits at the far end of a pair of sockets, in the daemon's place, so that what the client
    is told takes the same way as everything else.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, error: UpstreamError
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._error = error
        self._answered = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def asked(self, wire: Wire) -> None:
        """More was sent: answer once there is a question."""
        method = wire.asked
        if self._answered or (method is None and not wire.tunnelled):
            return
        self._answered = True
        if method is not None:
            self._sock.send(envelope(self._error, body=method != b"HEAD"))
            self._sock.shutdown(socket.SHUT_WR)
        # As Go's server does, leave the client time to read it before the connection goes.
        self._loop.call_later(GRACE if method is not None else 0, self._close)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not self._sock.recv(1 << 16):
                self._close()

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()


def envelope(error: UpstreamError, *, body: bool = True) -> bytes:
    """A response that says what went wrong as LXD would (LXD's lxd/response/response.go)."""
    content = {
        "type": "error",
        "status": "",
        "status_code": 0,
        "operation": "",
        "error_code": error.status,
        "error": f"lxdtap: {error}",
        "metadata": None,
    }
    payload = json.dumps(content).encode() + b"\n"
    reason = {403: "Forbidden", 503: "Service Unavailable"}[error.status]
    head = (
        f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (payload if body else b"")
