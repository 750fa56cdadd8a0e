"""Clients: h2load for throughput, plain sockets for single transactions, bodies and websockets."""

from __future__ import annotations

import contextlib
import re
import resource
import select
import socket
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .processes import Address, BenchError

INSTANCE = "/1.0/instances/c1"
BUFFER = 1 << 20
UPGRADE = (
    b"GET /1.0/events HTTP/1.1\r\nHost: lxd\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Load:
    """What h2load saw."""

    rate: float
    """Requests a second."""
    done: int
    seconds: float


def h2load(
    address: Address,
    *,
    seconds: float = 0,
    count: int = 0,
    connections: int = 8,
    path: str = INSTANCE,
    paths: Path | None = None,
) -> Load:
    """Requests on so many connections, for so long, or so many of them.

    Raises:
        BenchError: some of them failed.
    """
    how = ["-D", str(seconds)] if seconds else ["-n", str(count)]
    what = ["-i", str(paths)] if paths else [address_of(address) + path]
    where = [
        "-B",
        f"unix:{address.where}" if isinstance(address.where, str) else address_of(address),
    ]
    done = subprocess.run(
        ["h2load", "--h1", "-c", str(connections), *how, *where, *what],
        capture_output=True,
        text=True,
    )
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    told = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    well = re.search(r"status codes: (\d+) 2xx", done.stdout)
    if rate is None or told is None or int(told[2]) or well is None or not int(well[1]):
        raise BenchError(f"h2load on {address.where}: {done.stderr or done.stdout[-400:]}")
    speed, count = float(rate[1]), int(told[1])
    return Load(speed, count, count / speed if speed else 0.0)


def address_of(address: Address) -> str:
    """As a URL; a unix socket is named apart from it."""
    return "http://lxd" if isinstance(address.where, str) else f"http://127.0.0.1:{address.where}"


class Client:
    """A plain client on one connection."""

    def __init__(self, address: Address) -> None:
        self._sock = address.connect()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def ask(self, path: str = INSTANCE) -> float:
        """One GET; the seconds until the whole answer was there."""
        request = f"GET {path} HTTP/1.1\r\nHost: lxd\r\n\r\n".encode()
        begun = time.perf_counter()
        self._sock.sendall(request)
        _read_answer(self._sock)
        return time.perf_counter() - begun

    def median(self, count: int, path: str = INSTANCE) -> float:
        """The median of so many."""
        return statistics.median(self.ask(path) for _ in range(count))

    def paced(self, seconds: float, pause: float) -> list[float]:
        """What each took, one every ``pause``."""
        until, times = time.monotonic() + seconds, []
        while time.monotonic() < until:
            times.append(self.ask())
            time.sleep(pause)
        return times


def _read_answer(sock: socket.socket) -> None:
    """To its end, by its length or its last chunk."""
    received = sock.recv(1 << 16)
    while b"\r\n\r\n" not in received:
        received += _more(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)^content-length: (\d+)", head, re.MULTILINE)
    if length is not None:
        left = int(length[1]) - len(body)
        while left > 0:
            left -= len(_more(sock))
    else:
        while not body.endswith(b"0\r\n\r\n"):
            body += _more(sock)


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(1 << 18)
    if not data:
        raise BenchError("an answer broke off")
    return data


def download(address: Address, size: int) -> float:
    """The seconds for one body of this size."""
    buffer = bytearray(BUFFER)
    begun = time.perf_counter()
    with address.connect() as sock:
        sock.sendall(
            f"GET /body/{size} HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n".encode()
        )
        received = 0
        while count := sock.recv_into(buffer):
            received += count
    if received < size:
        raise BenchError(f"only {received} of {size} bytes came from {address.where}")
    return time.perf_counter() - begun


def upload(address: Address, size: int) -> float:
    """The seconds for one body of this size."""
    piece = memoryview(bytes(BUFFER))
    head = f"PUT /body HTTP/1.1\r\nHost: lxd\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    begun = time.perf_counter()
    with address.connect() as sock:
        sock.sendall(head.encode())
        for left in range(size, 0, -BUFFER):
            sock.sendall(piece[: min(left, BUFFER)])
        if not sock.recv(1 << 16).startswith(b"HTTP/1.1 200"):
            raise BenchError(f"an upload of {size} bytes to {address.where} failed")
    return time.perf_counter() - begun


def websockets(address: Address, count: int) -> Iterator[socket.socket]:
    """So many that were accepted, and say nothing."""
    for _ in range(count):
        sock = address.connect()
        sock.sendall(UPGRADE)
        if not sock.recv(4096).startswith(b"HTTP/1.1 101"):
            raise BenchError(f"{address.where} did not accept a websocket")
        yield sock


@contextlib.contextmanager
def connected(address: Address, count: int) -> Iterator[list[socket.socket]]:
    """So many connections."""
    socks: list[socket.socket] = []
    try:
        socks.extend(address.connect() for _ in range(count))
        yield socks
    finally:
        for sock in socks:
            sock.close()


def in_turn(socks: Sequence[socket.socket], count: int) -> float:
    """The seconds for ``count`` requests, in turn on these connections, eight at a time."""
    request = f"GET {INSTANCE} HTTP/1.1\r\nHost: lxd\r\n\r\n".encode()
    idle, left = deque(socks), dict.fromkeys((sock.fileno() for sock in socks), 0)
    by_number = {sock.fileno(): sock for sock in socks}
    at_once = min(8, len(socks))
    sent = answered = 0
    with select.epoll() as poll:
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        begun = time.perf_counter()
        while answered < count:
            while sent < count and sent - answered < at_once:
                idle.popleft().sendall(request)
                sent += 1
            for number, _ in poll.poll(30):
                left[number] = _take(by_number[number], left[number])
                if not left[number]:
                    answered += 1
                    idle.append(by_number[number])
        return time.perf_counter() - begun


def _take(sock: socket.socket, left: int) -> int:
    """Read what is there; the bytes that are still to come of this answer."""
    data = _more(sock)
    if left:
        return left - len(data)
    head, found, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if not found or length is None:
        raise BenchError("an answer's head came in pieces, or has no length")
    return int(length[1]) - len(body)


def connections_at_most() -> int:
    """Connections that a tap can hold: two descriptors each, of those that a process may have.

    They are had from now on, and by what is started.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = min(hard, 1 << 20) if hard > 0 else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, (hard - 200) // 2)


@contextlib.contextmanager
def client(address: Address) -> Iterator[Client]:
    """A plain client, that hangs up in the end."""
    found = Client(address)
    try:
        yield found
    finally:
        found.close()
