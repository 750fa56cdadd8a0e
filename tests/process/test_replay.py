"""A recording served on a real socket: framing, keeping alive, upgrades, many clients at once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lxdtap.cassette.model import Cassette
from lxdtap.replay import answer
from lxdtap.replay.server import CassetteUpstream
from lxdtap.tap.core import Core
from lxdtap.transaction import Opcode
from lxdtap.wire.events import Closed, Event, FrameData
from lxdtap.wire.websocket import Decoder
from tests.unit.builders import BASE, response
from tests.unit.recordings import (
    SFTP,
    SWITCHED,
    WEBSOCKET,
    asked,
    cassette,
    received,
    seen,
    sent,
)

from .replaying import Replayed, Serving, replayed
from .tap import PATIENCE, eventually

BIG = bytes(range(256)) * (32 << 12)  # 32 MiB
HANDSHAKE = (
    b"GET /1.0/console HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

RECORDED = cassette(
    seen(1, asked("GET", "/1.0"), response(200, "server", (("Transfer-Encoding", "chunked"),))),
    seen(2, asked("GET", "/1.0/big"), response(200, BIG)),
    seen(3, asked("POST", "/1.0/images", b"abcdef"), response(202, "made")),
    seen(4, asked("HEAD", "/1.0"), response(501, "", (("Content-Length", "120"),))),
    seen(
        5,
        asked("GET", "/1.0/console", headers=WEBSOCKET),
        SWITCHED,
        pieces=[sent(51, b"typed"), received(52, b"shown"), received(53, b"k", Opcode.PING)],
        ended="the daemon closed the connection",
    ),
    seen(
        6,
        asked("GET", "/1.0/sftp", headers=SFTP),
        SWITCHED,
        pieces=[
            sent(61, b"\0\0\0\5\1\0\0\0\3", None),
            received(62, b"\0\0\0\5\2\0\0\0\3", None),
        ],
    ),
)


class Client:
    """A raw client."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self._buffer = b""

    def say(self, *data: bytes) -> Client:
        for each in data:
            self.sock.sendall(each)
        return self

    def get(self, target: str, *headers: bytes) -> Client:
        lines = [f"GET {target} HTTP/1.1".encode(), b"Host: x", *headers, b"", b""]
        return self.say(b"\r\n".join(lines))

    def until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            data = self.sock.recv(1 << 16)
            assert data, f"over after {self._buffer!r}"
            self._buffer += data
        heard, _, self._buffer = self._buffer.partition(end)
        return heard + end

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.sock.recv(1 << 20)
            assert data, f"over after {len(self._buffer)} bytes"
            self._buffer += data
        heard, self._buffer = self._buffer[:size], self._buffer[size:]
        return heard

    def rest(self) -> bytes:
        while data := self.sock.recv(1 << 16):
            self._buffer += data
        return self._buffer

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def served() -> Iterator[tuple[str, Replayed]]:
    with replayed(RECORDED) as (path, replay):
        yield path, replay


@pytest.fixture
def client(served: tuple[str, Replayed]) -> Iterator[Client]:
    made = Client(served[0])
    yield made
    made.close()


def test_keep_alive(client: Client) -> None:
    """Requests follow one another on a connection; the length is the body's."""
    for _ in range(3):
        assert b"Content-Length: 6\r\n" in client.get("/1.0").until(b"server")


def test_pipelining(client: Client) -> None:
    """Requests that come at once are answered in order."""
    one = b"GET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n"
    client.say(one * 50 + b"HEAD /1.0 HTTP/1.1\r\nHost: x\r\n\r\n" + one)
    for _ in range(50):
        assert client.until(b"server").startswith(b"HTTP/1.1 200")
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 501")
    assert client.until(b"server").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /1.0 HTTP/1.1\r\nHost: x\r\nConnection: Close, x\r\n\r\n",
        b"GET /1.0 HTTP/1.0\r\n\r\n",
    ],
)
def test_connections_end_when_wanted(client: Client, request_: bytes) -> None:
    """By ``Connection: close``, and by HTTP/1.0."""
    assert client.say(request_).rest().endswith(b"Connection: close\r\n\r\nserver")


def test_http_1_0_may_stay(client: Client) -> None:
    """Where it says so."""
    for _ in range(2):
        client.say(b"GET /1.0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").until(b"server")


def test_half_close(client: Client) -> None:
    """A client that sends no more is still answered."""
    client.get("/1.0").sock.shutdown(socket.SHUT_WR)
    assert client.rest().endswith(b"server")


def test_half_close_before_a_late_answer() -> None:
    """Also where the answer takes as long as it took."""
    slow = cassette(seen(1, asked("GET", "/1.0"), response(200, "slow"), took=300))
    with replayed(slow, paced=True) as (path, _):
        begun = time.monotonic()
        client = Client(path).get("/1.0")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest().endswith(b"slow")
        assert time.monotonic() - begun >= 0.3
        client.close()


def test_chunks_and_100_continue(client: Client) -> None:
    """A body may come in chunks, after it was asked for."""
    head = b"POST /1.0/images HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    client.say(head + b"Expect: 100-continue\r\n\r\n")
    assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.say(b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"0\r\n\r\n")
    assert client.until(b"made").startswith(b"HTTP/1.1 202")


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET /1.0 HTTP/1.1\r\n\r\n",
        b"POST /1.0 HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /1.0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_http(client: Client, request_: bytes) -> None:
    """It is answered as Go's server does."""
    said = client.say(request_).rest()
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain")


def test_tls(served: tuple[str, Replayed], client: Client) -> None:
    """What it carried was never seen: the connection ends, and a person is told."""
    assert client.say(b"STARTTLS\n").rest() == b""
    eventually(lambda: served[1].told)


def test_a_miss(served: tuple[str, Replayed], client: Client) -> None:
    """The client is told as LXD would, and a person too."""
    client.get("/1.0/nope").until(b"nearest recorded: #")
    assert served[1].told[0].startswith("no recorded interaction answers GET /1.0/nope; nearest")


def test_what_was_never_played(served: tuple[str, Replayed], client: Client) -> None:
    """It can be listed."""
    client.get("/1.0").until(b"server")
    left = [each.transaction.number for each in served[1].replay.never_played()]
    assert left == [2, 3, 4, 5, 6]


def frames(data: bytes) -> list[tuple[Opcode, bytes]]:
    return [(frame.opcode, frame.payload.captured) for frame in Decoder(1 << 20).feed(data)]


def test_websocket(client: Client) -> None:
    """What is shown comes after what is typed, no pings do; and then it ends as it did."""
    client.say(HANDSHAKE)
    assert ACCEPT in client.until(b"\r\n\r\n")
    client.say(answer.frame(Opcode.BINARY, b"typed"))
    assert frames(client.rest()) == [(Opcode.BINARY, b"shown")]


def test_frames_right_behind_the_handshake(client: Client) -> None:
    """They are not lost."""
    client.say(HANDSHAKE + answer.frame(Opcode.PING, b"hi") + answer.frame(Opcode.BINARY, b"typed"))
    client.until(b"\r\n\r\n")
    assert frames(client.rest()) == [(Opcode.PONG, b"hi"), (Opcode.BINARY, b"shown")]


def test_websocket_close(client: Client) -> None:
    """It is answered, and the connection ends."""
    client.say(HANDSHAKE).until(b"\r\n\r\n")
    client.say(answer.frame(Opcode.CLOSE, b"\x03\xe8"))
    assert (Opcode.CLOSE, b"\x03\xe8") in frames(client.rest())


def test_what_is_no_frame(served: tuple[str, Replayed], client: Client) -> None:
    """The connection ends, and a person is told."""
    client.say(HANDSHAKE).until(b"\r\n\r\n")
    client.say(b"\x8f\x00")  # an opcode that there is not
    client.rest()
    eventually(lambda: served[1].told)


def test_sftp(client: Client) -> None:
    """Its upgrade names no websocket; its packets are answered."""
    client.get("/1.0/sftp", b"Upgrade: sftp")
    assert b"Upgrade: sftp\r\nConnection: Upgrade\r\n" in client.until(b"\r\n\r\n")
    assert client.say(b"\0\0\0\5\1\0\0\0\3").exactly(9) == b"\0\0\0\5\2\0\0\0\3"


def test_a_slow_reader(client: Client) -> None:
    """A large body waits for its reader, and all of it comes."""
    client.get("/1.0/big", b"Connection: close")
    head = client.until(b"\r\n\r\n")
    assert f"Content-Length: {len(BIG)}".encode() in head
    time.sleep(0.2)
    assert client.exactly(len(BIG)) == BIG


def test_a_reader_that_leaves(served: tuple[str, Replayed]) -> None:
    """In the middle of a large body: nobody else is troubled."""
    for _ in range(5):
        Client(served[0]).get("/1.0/big").close()
    other = Client(served[0])
    other.get("/1.0").until(b"server")
    other.close()


def test_many_at_once(served: tuple[str, Replayed]) -> None:
    """A hundred clients, each with what it asked for."""
    failed: list[int] = []

    def one(number: int) -> None:
        try:
            client = Client(served[0])
            for _ in range(10):
                client.get("/1.0").until(b"server")
            client.close()
        except (OSError, AssertionError):
            failed.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_recording_in_this_process() -> None:
    """Its connections need no socket in the file system."""

    async def converse(recording: Cassette) -> bytes:
        upstream = CassetteUpstream(recording)
        assert upstream.base == BASE
        assert len(upstream.never_played()) == len(recording.interactions)
        sock = await upstream.connect(None)
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(b"GET /1.0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert len(upstream.never_played()) == len(recording.interactions) - 1
        with await upstream.connect(None):  # one that is ended before it began
            upstream.close()
            await asyncio.sleep(0)
        return said

    assert asyncio.run(converse(RECORDED)).endswith(b"server")
    CassetteUpstream(RECORDED).close()


@pytest.fixture
def tapped() -> Iterator[tuple[str, list[Event]]]:
    """A tap in front of a recording."""
    events: list[Event] = []
    upstream = CassetteUpstream(RECORDED)
    with Serving(lambda loop: Core(upstream, events.append, loop)).running() as path:
        yield path, events


def test_a_tap_in_front_of_a_recording(tapped: tuple[str, list[Event]]) -> None:
    """It is a daemon like any other: what is played can be shown, and recorded again."""
    path, events = tapped
    client = Client(path)
    client.get("/1.0").sock.shutdown(socket.SHUT_WR)
    assert client.rest().endswith(b"server")
    client.close()
    other = Client(path).say(HANDSHAKE)
    other.until(b"\r\n\r\n")
    other.say(answer.frame(Opcode.BINARY, b"typed"))
    assert frames(other.rest()) == [(Opcode.BINARY, b"shown")]
    other.close()
    eventually(lambda: sum(isinstance(each, Closed) for each in events) == 2)
    assert sum(isinstance(each, FrameData) for each in events) == 2


def test_a_recording_outlives_the_loop() -> None:
    """What was played on one event loop has been played on the next."""
    changing = cassette(
        seen(1, asked("GET", "/1.0"), response(200, "before")),
        seen(2, asked("PUT", "/1.0"), response(200, "changed")),
        seen(3, asked("GET", "/1.0"), response(200, "after")),
    )
    upstream = CassetteUpstream(changing)

    async def ask(method: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(sock=await upstream.connect(None))
        writer.write(method + b" /1.0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said.partition(b"\r\n\r\n")[2]

    said = [asyncio.run(ask(method)) for method in (b"GET", b"PUT", b"GET")]
    assert said == [b"before", b"changed", b"after"]
