"""The pump: one end of a pair of sockets made one with a TLS stream.

The relay works on plain sockets. For a daemon behind TLS it gets one end of a pair; the pump
carries what comes at the other end into the stream, and back. When one side does not read, the
other is not read from: at most a buffer waits in each direction. What one side does to its half
of the connection is done to the other's, as far as TLS can say it:

====================================  ===========================================
the client ended its sending          TLS 1.3: close_notify, and the answer is still carried
                                      (RFC 8446, 6.1); 1.2 cannot say it (RFC 5246, 7.2.1)
the client is gone                    close_notify, and the connection is closed
the daemon ended with close_notify    the end of the stream
the daemon's connection was cut       ECONNRESET
====================================  ===========================================

TLS is done in memory (``ssl.MemoryBIO``), on plain non-blocking sockets: one system call carries
many records, and an end, a cut and a half-close can be told apart.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, cast

from lxdtap.tap.readiness import Readiness

RECORD = 16 << 10
"""Bytes of plain text in one TLS record, at most (RFC 8446, 5.1)."""
_NOTHING = memoryview(b"")


class Stream(NamedTuple):
    """A TLS connection after its handshake.

    Attributes:
        sock: the TCP connection, not blocking.
        tls: what seals and opens.
        incoming: what came from the daemon, sealed.
        outgoing: what is for the daemon, sealed.
    """

    sock: socket.socket
    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


class Shared(NamedTuple):
    """What the pumps of one loop share."""

    readiness: Readiness
    buffer: memoryview


Over = Callable[["Pump", str], None]
"""Is told that a pump has closed its sockets, and why the daemon's was cut, if it was."""


class Pump:
    """Carries bytes between a pair of sockets and a TLS stream.

    Args:
        shared: what pumps share.
        near: our end of the pair.
        far: the other end, which somebody else uses and closes.
        stream: the TLS connection.
        over: is told of the end.
    """

    def __init__(
        self, shared: Shared, near: socket.socket, far: socket.socket, stream: Stream, over: Over
    ) -> None:
        self._readiness, self._buffer = shared
        self._near = near
        self._far = far
        self._sock, self._tls, self._incoming, self._outgoing = stream
        self._over = over
        self._sealed = _NOTHING  # for the daemon, not yet accepted
        self._opened = _NOTHING  # for the client, not yet accepted
        self._silent = False  # the client sends no more
        self._gone = False  # the client is gone
        self._unheard = False  # the client reads no more
        self._deaf = False  # the daemon's side accepts no more
        self._drained = False  # what has come from the daemon was opened
        self._notified = False  # we have said close_notify
        self._end: str | None = None  # the daemon's side is over: "", or why it was cut
        self._closed = False

    def start(self) -> None:
        """Begin; some of what the daemon says may have come with the handshake."""
        self._open()

    def stop(self) -> None:
        """Close everything now, after what the client has sent, as far as it is accepted."""
        with contextlib.suppress(OSError, ssl.SSLError):
            while self._flush() and (size := self._near.recv_into(self._buffer)):
                self._seal(self._buffer[:size])
        self._close()

    # -- from the client to the daemon

    def _from_client(self) -> None:
        try:
            size = self._near.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self._client_ended()
            return
        try:
            self._seal(self._buffer[:size])
        except ssl.SSLError as error:
            self._ended(_reason(error))
        self._send()

    def _client_ended(self) -> None:
        self._silent = True
        if self._tls.version() == "TLSv1.3":
            self._notify()
        self._send()
        if not self._closed:
            self._readiness.gone(self._near, self._client_gone)

    def _client_gone(self) -> None:
        """Nobody reads the answer. Send what was sent, and leave."""
        self._gone = self._unheard = True
        self._opened = _NOTHING
        self._notify()
        self._send()

    def _seal(self, data: memoryview) -> None:
        while data:
            data = data[self._tls.write(data) :]

    def _send(self) -> None:
        """Send what is sealed; go on when that was all."""
        if self._closed:
            return
        try:
            done = self._flush()
        except OSError:
            self._refused()
            done = True
        if (done and self._gone) or (self._end is not None and not self._opened):
            self._close()
        else:
            self._listen()

    def _flush(self) -> bool:
        """Send what is sealed; whether that was all."""
        while self._sealed or self._outgoing.pending:
            self._sealed = self._sealed or memoryview(self._outgoing.read())
            try:
                self._sealed = self._sealed[self._sock.send(self._sealed) :]
            except (BlockingIOError, InterruptedError):
                return False
        return True

    def _refused(self) -> None:
        """The daemon's side accepts no more; the client's next write fails, as it would there."""
        self._deaf = True
        self._sealed = _NOTHING
        self._outgoing.read()
        _shutdown(self._near, socket.SHUT_RD)

    def _notify(self) -> None:
        """Say close_notify, once.

        ``unwrap`` also looks for the daemon's, and would drop data that it finds instead: so not
        before all that has come was opened, unless nobody wants it.
        """
        if self._notified or not (self._drained or self._gone):
            return
        self._notified = True
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    # -- from the daemon to the client

    def _from_daemon(self) -> None:
        try:
            size = self._sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._ended(error.strerror or str(error))
            self._send()
            return
        if size:
            self._incoming.write(self._buffer[:size])
        else:
            self._incoming.write_eof()
        self._open()

    def _open(self) -> None:
        """Open what has come and hand it on, until that is all, or the client does not read."""
        self._drained = False
        while not (self._drained or self._opened or self._end is not None):
            self._open_a_buffer()
        if self._silent and self._tls.version() == "TLSv1.3":
            self._notify()
        self._send()

    def _open_a_buffer(self) -> None:
        size = 0
        try:
            while size + RECORD <= len(self._buffer):
                got = cast(int, self._tls.read(RECORD, self._buffer[size:]))  # a count, in truth
                if not got:
                    raise ssl.SSLZeroReturnError
                size += got
        except ssl.SSLWantReadError:
            self._drained = True
        except ssl.SSLZeroReturnError:
            self._ended("")
        except ssl.SSLError as error:
            self._ended(_reason(error))
        sent = self._accepted(self._buffer[:size]) if size else 0
        if sent < size:
            self._opened = memoryview(bytes(self._buffer[sent:size]))

    def _accepted(self, data: memoryview) -> int:
        try:
            return self._near.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:  # what it sent until now is still carried
            self._unheard = True
            return len(data)

    def _client_reads(self) -> None:
        self._opened = self._opened[self._accepted(self._opened) :]
        if not self._opened and not self._drained and self._end is None:
            self._open()
        else:
            self._send()

    def _ended(self, why: str) -> None:
        if self._end is None:
            self._end = why

    # -- both

    def _listen(self) -> None:
        """Be told of what there is to do now, and of nothing else."""
        reads = not (self._opened or self._unheard or self._end is not None)
        takes = not (self._sealed or self._silent or self._deaf)
        watched = self._readiness
        watched.readable(self._sock, self._from_daemon if reads else None)
        watched.readable(self._near, self._from_client if takes else None)
        watched.writable(self._near, self._client_reads if self._opened else None)
        watched.writable(self._sock, self._send if self._sealed else None)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for sock in (self._near, self._sock):
            self._readiness.forget(sock)
        cut = "" if self._gone else self._end or ""
        self._gone = True
        self._notify()
        with contextlib.suppress(OSError):
            self._flush()
        if cut:
            self._leave_unread()
        else:
            self._read_all()
        self._near.close()
        self._sock.close()
        self._over(self, cut)

    def _leave_unread(self) -> None:
        """A unix socket closed with something unread resets the other end (unix(7))."""
        with contextlib.suppress(OSError):
            self._far.send(b"\0")

    def _read_all(self) -> None:
        """And one without anything unread ends it."""
        _shutdown(self._near, socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            while self._near.recv_into(self._buffer):
                pass


def _reason(error: ssl.SSLError) -> str:
    # OpenSSL 3.0 with Python before 3.11.4 says it as an SSLError of this reason.
    if isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
        return "it ended without TLS's close_notify"
    return (error.reason or str(error)).replace("_", " ").lower()


def _shutdown(sock: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # the peer was faster
        sock.shutdown(how)
