"""A daemon that reads HTTP as strictly as Go's ``net/http`` does, and counts what it answers.

It shares nothing with lxdtap: what it answered is what a recording of it must have. What it is
asked for does not matter; it answers 200 and says how much it was sent.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

HEAD_LIMIT = (1 << 20) + 4096
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION = re.compile(rb"HTTP/(\d)\.(\d)")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(rb"[A-Za-z0-9!$%&'()*+,.:;=\[\]_~-]*")


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """What is answered to a request that cannot be read; then the connection is closed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Request(NamedTuple):
    method: bytes
    version: tuple[int, int]
    fields: list[tuple[bytes, bytes]]

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    def has(self, name: bytes, token: bytes) -> bool:
        tokens = b",".join(self.values(name)).lower().split(b",")
        return token in [each.strip() for each in tokens]

    @property
    def keeps(self) -> bool:
        """Whether the connection is kept (RFC 9112, 9.3)."""
        if self.version < (1, 1):
            return self.has(b"connection", b"keep-alive")
        return not self.has(b"connection", b"close")


@dataclass
class Served:
    """One connection: what was answered on it."""

    statuses: list[int] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


class StrictDaemon:
    """Listens on a unix socket; a thread for each connection."""

    def __init__(self, path: str) -> None:
        self._served: list[Served] = []
        self.path = path
        self._came = threading.Semaphore(0)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen(512)
        threading.Thread(target=self._accept, daemon=True).start()

    def latest(self) -> Served:
        """The connection that has come since the last call, or comes now."""
        assert self._came.acquire(timeout=10)
        return self._served[-1]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self._served.append(serve(sock))
            self._came.release()


@contextlib.contextmanager
def strict_daemon(directory: Path) -> Iterator[StrictDaemon]:
    """One that listens in a directory."""
    directory.mkdir(exist_ok=True)
    daemon = StrictDaemon(str(directory / "strict.socket"))
    try:
        yield daemon
    finally:
        daemon.close()


def serve(sock: socket.socket) -> Served:
    """Serve a connected socket, in a thread."""
    served = Served()
    threading.Thread(target=_serve, args=(sock, served), daemon=True).start()
    return served


def _serve(sock: socket.socket, served: Served) -> None:
    sock.settimeout(30)
    with contextlib.suppress(OSError), sock, sock.makefile("rb") as reading:
        try:
            _requests(sock, reading, served)
        except Refusal as refusal:
            _answer(sock, served, refusal.status, str(refusal).encode(), keep=False)
        except EOFError:
            pass
        sock.shutdown(socket.SHUT_RDWR)
    served.over.set()


def _requests(sock: socket.socket, reading: IO[bytes], served: Served) -> None:
    method = b""
    while True:
        request = _head(reading, after_post=method == b"POST")
        method = request.method
        length = _length(request)
        if request.values(b"expect"):
            _expectation(sock, request, length)
        size = _chunks(reading) if length is None else len(_exactly(reading, length))
        body = b"" if method == b"HEAD" else b"%d bytes\n" % size
        _answer(sock, served, 200, body, keep=request.keeps)
        if not request.keeps:
            return


def _answer(sock: socket.socket, served: Served, status: int, body: bytes, *, keep: bool) -> None:
    served.statuses.append(status)
    connection = b"" if keep else b"Connection: close\r\n"
    start = b"HTTP/1.1 %d %s\r\n" % (status, b"OK" if status == 200 else b"No")
    sock.sendall(start + b"Content-Length: %d\r\n%s\r\n%s" % (len(body), connection, body))


def _head(reading: IO[bytes], *, after_post: bool) -> _Request:
    lines = _lines(reading, after_post)
    method, _, rest = lines[0].partition(b" ")
    target, space, version = rest.partition(b" ")
    found = _VERSION.fullmatch(version)
    if not (_TOKEN.fullmatch(method) and space and target and found):
        raise Refusal(400, "malformed request line")
    if not (target.startswith(b"/") or b"://" in target or target == b"*" or method == b"CONNECT"):
        raise Refusal(400, "invalid target")
    if found[1] != b"1":
        raise Refusal(505, "unsupported version")
    request = _Request(method, (1, int(found[2])), list(_fields(lines[1:])))
    hosts = request.values(b"host")
    if request.version >= (1, 1) and method != b"CONNECT" and not hosts:
        raise Refusal(400, "missing Host")
    if len(hosts) > 1 or (hosts and not _HOST.fullmatch(hosts[0])):
        raise Refusal(400, "not one Host")
    return request


def _lines(reading: IO[bytes], after_post: bool) -> list[bytes]:
    lines: list[bytes] = []
    left = HEAD_LIMIT
    if after_post:
        _skip_line_ends(reading)
    while line := reading.readline(left):
        left -= len(line)
        if not line.endswith(b"\n"):
            break
        if line in (b"\n", b"\r\n"):
            if not lines:
                raise Refusal(400, "an empty line")
            return lines
        lines.append(line.removesuffix(b"\n").removesuffix(b"\r"))
    if left <= 0:
        raise Refusal(431, "too large")
    if not lines and not line:
        raise EOFError
    raise Refusal(400, "the end, in the head")


def _skip_line_ends(reading: IO[bytes]) -> None:
    for _ in range(4):
        if reading.peek(1)[:1] not in (b"\r", b"\n"):  # type: ignore[attr-defined]
            return
        reading.read(1)


def _fields(lines: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    folded: list[bytes] = []
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if not folded:
                raise Refusal(400, "a fold first")
            folded[-1] += b" " + line.strip(b" \t")
        else:
            folded.append(line)
    for line in folded:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not (colon and _TOKEN.fullmatch(name)) or _BAD_VALUE.search(value):
            raise Refusal(400, "a malformed header")
        yield name, value


def _length(request: _Request) -> int | None:
    """Bytes of the body; None: chunks."""
    codings = request.values(b"transfer-encoding")
    if codings and request.version >= (1, 1):
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Refusal(501, "another coding")
        return None
    lengths = {value.strip() for value in request.values(b"content-length")}
    if len(lengths) > 1:
        raise Refusal(400, "two lengths")
    digits = lengths.pop() if lengths else b""
    if not digits:
        return 0
    if not re.fullmatch(rb"0*[0-9]{1,19}", digits) or int(digits[-19:]) >= 1 << 63:
        raise Refusal(400, "a malformed length")
    return int(digits[-19:])


def _expectation(sock: socket.socket, request: _Request, length: int | None) -> None:
    if request.values(b"expect")[0].lower() != b"100-continue":
        raise Refusal(417, "another expectation")
    if request.version >= (1, 1) and length != 0:
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def _exactly(reading: IO[bytes], count: int) -> bytes:
    if count > 1 << 40:  # more than there will ever be
        while reading.read(1 << 16):
            pass
        raise Refusal(400, "the end, in the body")
    data = reading.read(count)
    if len(data) < count:
        raise Refusal(400, "the end, in the body")
    return data


def _chunks(reading: IO[bytes]) -> int:
    total = 0
    while True:
        line = reading.readline(4096)
        if not line.endswith(b"\n"):
            raise Refusal(400, "a chunk size without an end")
        size = line.partition(b";")[0].strip(b" \t\r\n")
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size):
            raise Refusal(400, "a malformed chunk size")
        count = int(size, 16)
        if not count:
            list(_fields(_trailers(reading)))
            return total
        total += len(_exactly(reading, count))
        if reading.readline(2) not in (b"\n", b"\r\n"):
            raise Refusal(400, "a chunk without its end")


def _trailers(reading: IO[bytes]) -> list[bytes]:
    lines: list[bytes] = []
    while (line := reading.readline(HEAD_LIMIT)) not in (b"\n", b"\r\n"):
        if not line.endswith(b"\n"):
            raise Refusal(400, "the end, in the trailers")
        lines.append(line.removesuffix(b"\n").removesuffix(b"\r"))
    return lines
