"""What is hard to read keeps nobody waiting but the one who sent it, and all of it is read."""

from __future__ import annotations

import socket
import threading
import time
import zlib
from pathlib import Path

import pytest

from .tap import (
    GET,
    Script,
    Served,
    answer,
    ask,
    connect,
    eventually,
    fake_daemon,
    read_to_end,
    read_until,
    sidecar,
)

READ = 256 << 10
"""What the relay reads at once."""
HOSTILE = 4 * READ
WAIT = 0.3
"""Seconds that another client may wait. Read at one go, each of these held it up for 0.7 to 1.6."""


def _compressed(size: int) -> bytes:
    """A frame whose payload inflates to just under the limit, masked by zeros."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = deflater.compress(bytes((1 << 20) - 1)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    payload = payload.removesuffix(b"\x00\x00\xff\xff")
    head = bytes([0xC2, 0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4)
    return (head + payload) * (size // (len(head) + len(payload)))


PATIENT = 60

UPGRADE = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
PLAIN = b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n"
DEFLATED = PLAIN[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
CHUNKED = b"POST /1.0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 E\r\n\r\n"
SHORT = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

SENT = {
    "empty frames": (UPGRADE, PLAIN, b"\x81\x80\0\0\0\0" * (HOSTILE // 6)),
    "deflate bombs": (UPGRADE, DEFLATED, _compressed(READ)),
    "chunks of a byte": (CHUNKED, b"", b"1\r\nx\r\n" * (HOSTILE // 6) + b"0\r\n\r\n"),
    "pipelined requests": (b"", b"", SHORT * (HOSTILE // len(SHORT))),
}


class Hostile:
    """A client that sends without end in sight, and reads what comes meanwhile."""

    def __init__(self, path: str, first: bytes, hears: bytes, more: bytes) -> None:
        self.over = threading.Event()
        self._sock = connect(path)
        self._sock.settimeout(PATIENT)
        if first:
            self._sock.sendall(first)
        if hears:
            assert self._sock.recv(len(hears), socket.MSG_WAITALL) == hears
        threading.Thread(target=self._send, args=(more,), daemon=True).start()
        threading.Thread(target=self._read, daemon=True).start()

    def _send(self, more: bytes) -> None:
        self._sock.sendall(more)
        self._sock.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        with self._sock:
            while self._sock.recv(1 << 16):
                pass
        self.over.set()


def longest_wait(path: str, over: threading.Event) -> float:
    """Ask again and again until it is over: how long the slowest answer took."""
    longest = 0.0
    while not over.is_set():
        begun = time.monotonic()
        assert ask(path, GET)
        longest = max(longest, time.monotonic() - begun)
        time.sleep(0.002)
    return longest


def daemon(first: bytes, hears: bytes, seen: list[int]) -> Script:
    """Answers GET; hears the hostile client to its end, and then leaves."""

    def script(sock: socket.socket, served: Served) -> None:
        sock.settimeout(PATIENT)
        if read_until(sock, served, b"\r\n\r\n") == GET:
            sock.sendall(answer(b"{}"))
            return
        if hears:
            sock.sendall(hears)
        read_to_end(sock, served)
        if served.received:  # else it was the tap's knock
            seen.append(len(served.received) - len(first))

    return script


@pytest.mark.parametrize("kind", SENT)
def test_hostile_bytes_keep_nobody_else_waiting(tmp_path: Path, kind: str) -> None:
    """A megabyte that takes seconds to read: every byte arrives, others are answered meanwhile."""
    first, hears, more = SENT[kind]
    seen: list[int] = []
    with (
        fake_daemon(tmp_path / "d", daemon(first, hears, seen)) as upstream,
        sidecar(tmp_path / "t", upstream.path) as tap,
    ):
        hostile = Hostile(tap.path, first, hears, more)
        assert longest_wait(tap.path, hostile.over) < WAIT
        assert seen == [len(more)]


def test_hostile_answers_keep_nobody_else_waiting(tmp_path: Path) -> None:
    """Nor do answers: interim ones without end, and then the real one, which is told of."""
    count = HOSTILE // len(INTERIM)
    long_answer = INTERIM * count + answer(b"{}")

    def script(sock: socket.socket, served: Served) -> None:
        sock.settimeout(PATIENT)
        sock.sendall(long_answer if b"/slow" in read_until(sock, served, b"\r\n\r\n") else OK)

    with (
        fake_daemon(tmp_path / "d", script) as upstream,
        sidecar(tmp_path / "t", upstream.path) as tap,
    ):
        hostile = Hostile(tap.path, b"GET /slow HTTP/1.1\r\n\r\n", b"", b"")
        assert longest_wait(tap.path, hostile.over) < WAIT
        eventually(lambda: any(each["target"] == "/slow" for each in tap.transactions()))
        (slow,) = (each for each in tap.transactions() if each["target"] == "/slow")
        assert slow["status"] == 200
        assert len(slow["response"]["interim"]) == count


def test_what_was_late_is_told_of_in_order(tmp_path: Path) -> None:
    """Thousands of requests in one write: each is in the log, in order, with its answer."""
    count = 2_000

    def script(sock: socket.socket, served: Served) -> None:
        sock.settimeout(PATIENT)
        answered = 0
        while data := sock.recv(1 << 16):
            served.received += data
            asked = served.received.count(b"\r\n\r\n")
            sock.sendall(OK * (asked - answered))
            answered = asked

    requests = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(count))
    with (
        fake_daemon(tmp_path / "d", script) as upstream,
        sidecar(tmp_path / "t", upstream.path) as tap,
    ):
        assert Hostile(tap.path, b"", b"", requests).over.wait(PATIENT)
        assert tap.stop() == 0
        told = [(each["target"], each["status"]) for each in tap.transactions()]
        assert told == [(f"/{number}", 200) for number in range(count)]


def test_many_hostile_clients_share_one_turn(tmp_path: Path) -> None:
    """Twenty of them at once keep the others hardly longer than one does."""
    first, hears, more = SENT["empty frames"]
    seen: list[int] = []
    with (
        fake_daemon(tmp_path / "d", daemon(first, hears, seen)) as upstream,
        sidecar(tmp_path / "t", upstream.path) as tap,
    ):
        hostiles = [Hostile(tap.path, first, hears, more[:READ]) for _ in range(20)]
        assert max(longest_wait(tap.path, each.over) for each in hostiles) < 2 * WAIT
        assert seen == [len(more[:READ])] * 20
