"""The tap's first law: client and daemon exchange the same bytes as without it.

Each conversation is held twice, directly and through the real process, and what either side
received, and how its connection ended, must be equal.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lxdtap.clock import moment
from lxdtap.tap.readiness import Loop
from lxdtap.tap.relay import Relay
from lxdtap.transaction import Direction, Moment

from .tap import (
    GET,
    PATIENCE,
    FakeDaemon,
    Script,
    Served,
    always,
    answer,
    connect,
    eventually,
    fake_daemon,
    read_to_end,
    read_until,
    rest,
    sidecar,
)

Client = Callable[[socket.socket], bytes]


@dataclass(frozen=True)
class Conversation:
    """What a client does, what the daemon does, and how many transactions that is."""

    client: Client
    daemon: Script
    transactions: int = 1


def sends(*pieces: bytes, half_close: bool = False, pause: float = 0.0) -> Client:
    """A client that sends these pieces, and reads to the end."""

    def client(sock: socket.socket) -> bytes:
        for piece in pieces:
            try:
                sock.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(pause)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        return rest(sock)

    return client


def reads_then_sends(*chunks: bytes, reads: int) -> Script:
    """A daemon that waits for so many bytes, and sends these."""

    def script(sock: socket.socket, served: Served) -> None:
        while len(served.received) < reads:
            data = sock.recv(1 << 16)
            if not data:
                break
            served.received += data
        for chunk in chunks:
            sock.sendall(chunk)

    return script


def echo_after_101(sock: socket.socket, served: Served) -> None:
    """A daemon that upgrades, sends at once, then echoes until the client's side ends."""
    read_until(sock, served, b"\r\n\r\n")
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sftp\r\n\r\nfirst")
    while data := sock.recv(1 << 16):
        served.received += data
        sock.sendall(data)
    sock.sendall(b"last")


def upgrades_and_talks(sock: socket.socket) -> bytes:
    sock.sendall(b"GET /sftp HTTP/1.1\r\nHost: x\r\nUpgrade: sftp\r\n\r\n")
    head = sock.recv(1 << 16)
    sock.sendall(b"\x00\xff" * 5000)
    sock.shutdown(socket.SHUT_WR)
    return head + rest(sock)


def refuses_upgrade(sock: socket.socket, served: Served) -> None:
    read_until(sock, served, b"\r\n\r\n")
    sock.sendall(answer(b"no", "400 Bad Request", close=False))
    read_until(sock, served, b"\r\n\r\n")
    sock.sendall(answer(b"yes"))


def continues(sock: socket.socket, served: Served) -> None:
    """A daemon that grants ``Expect: 100-continue``."""
    read_until(sock, served, b"\r\n\r\n")
    sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    read_until(sock, served, b"BODY")
    sock.sendall(answer(b"{}"))


def expects(sock: socket.socket) -> bytes:
    sock.sendall(
        b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    )
    interim = sock.recv(25)
    sock.sendall(b"BODY")
    return interim + rest(sock)


def after_half_close(sock: socket.socket, served: Served) -> None:
    """A daemon that answers only when the client's side has ended."""
    read_to_end(sock, served)
    sock.sendall(answer(b"{}"))


def early(sock: socket.socket, served: Served) -> None:
    """A daemon that answers before the body is there, and hangs up."""
    head = read_until(sock, served, b"\r\n\r\n")
    sock.sendall(answer(b"too big", "413 Payload Too Large"))
    if not head.endswith(b"0123456789"):
        read_until(sock, served, b"0123456789")


POST = b"POST /1.0/x HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
UPLOAD = CHUNKED + b"5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"
BAD_CHUNK = CHUNKED + b"zz\r\nrubbish"
TWO_LENGTHS = POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody"
JUNK = b"\x00\x01\x02\r\n\r\n\xff\xfe"
BIG = os.urandom(1 << 20)
BIG_POST = POST + b"Content-Length: %d\r\n\r\n" % len(BIG) + BIG

CONVERSATIONS = {
    "get": Conversation(sends(GET), always(answer(b"{}"))),
    "split at every byte": Conversation(
        sends(*(bytes([b]) for b in GET), pause=0.0005), always(answer(b"{}"))
    ),
    "pipelined": Conversation(
        sends(GET.replace(b"Connection: close\r\n", b"") * 3, half_close=True),
        always(answer(b"{}", close=False)),
        transactions=3,
    ),
    "half-close before the answer": Conversation(sends(GET, half_close=True), after_half_close),
    "chunked both ways": Conversation(
        sends(UPLOAD),
        reads_then_sends(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            reads=len(UPLOAD),
        ),
    ),
    "until close": Conversation(
        sends(GET), reads_then_sends(b"HTTP/1.0 200 OK\r\n\r\n", b"all of it", reads=len(GET))
    ),
    "cut in a counted body": Conversation(
        sends(GET),
        reads_then_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", reads=len(GET)),
    ),
    "cut in a chunk": Conversation(
        sends(GET),
        reads_then_sends(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf", reads=len(GET)
        ),
    ),
    "no answer at all": Conversation(sends(GET), reads_then_sends(reads=len(GET))),
    "head with a length": Conversation(
        sends(GET.replace(b"GET", b"HEAD")),
        always(b"HTTP/1.1 501 No\r\nContent-Length: 120\r\nConnection: close\r\n\r\n"),
    ),
    "expect": Conversation(expects, continues),
    "answered early": Conversation(
        sends(POST + b"Content-Length: 10\r\n\r\n", b"0123456789"), early
    ),
    "upgraded to sftp": Conversation(upgrades_and_talks, echo_after_101),
    "upgrade refused": Conversation(
        sends(
            b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            GET,
            pause=0.05,
        ),
        refuses_upgrade,
        transactions=2,
    ),
    "STARTTLS": Conversation(
        sends(b"STARTTLS\n", b"\x16\x03\x01" + bytes(200), half_close=True),
        reads_then_sends(b"\x16\x03\x03" + bytes(300), reads=9 + 203),
    ),
    "garbage": Conversation(
        sends(JUNK, half_close=True),
        reads_then_sends(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", reads=len(JUNK)),
    ),
    "garbage both ways": Conversation(
        sends(b"hello\n\n", half_close=True), reads_then_sends(b"no HTTP\n\n", reads=7)
    ),
    "bad chunk": Conversation(
        sends(BAD_CHUNK),
        reads_then_sends(answer(b"bad", "400 Bad Request"), reads=len(BAD_CHUNK)),
    ),
    "conflicting lengths": Conversation(
        sends(TWO_LENGTHS),
        reads_then_sends(answer(b"bad", "400 Bad Request"), reads=len(TWO_LENGTHS)),
    ),
    "9 KiB header": Conversation(
        sends(GET.replace(b"Host: lxd", b"X: " + b"a" * 9216)), always(answer(b"{}"))
    ),
    "1 MiB header": Conversation(
        sends(b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n", half_close=True),
        always(answer(b"{}", "431 Too Large")),
    ),
    "2 MiB header": Conversation(
        sends(b"GET / HTTP/1.1\r\nX: " + b"a" * (2 << 20) + b"\r\n\r\n", half_close=True),
        always(answer(b"{}", "431 Too Large")),
    ),
    "10,000 headers": Conversation(
        sends(
            b"GET / HTTP/1.1\r\n"
            + b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(10_000))
            + b"\r\n"
        ),
        always(answer(b"{}")),
    ),
    "1 MiB each way": Conversation(
        sends(BIG_POST),
        reads_then_sends(answer(BIG), reads=len(BIG_POST)),
    ),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("relay")


@pytest.fixture(params=CONVERSATIONS, scope="module")
def conversation(request: pytest.FixtureRequest) -> Conversation:
    return CONVERSATIONS[request.param]


@pytest.fixture(scope="module")
def daemon(directory: Path, conversation: Conversation) -> Iterator[FakeDaemon]:
    place = directory / "daemon"
    (place / "unix.socket").unlink(missing_ok=True)
    with fake_daemon(place, conversation.daemon) as daemon:
        yield daemon


def hold(path: str, conversation: Conversation, daemon: FakeDaemon) -> tuple[bytes, bytes]:
    """Hold the conversation; what the client and what the daemon received."""
    before = len(daemon.served)
    with connect(path) as sock:
        client_received = conversation.client(sock)
    # The tap's own knock is served too, maybe later than it was made, but it says nothing.
    eventually(lambda: any(served.received for served in daemon.served[before:]))
    eventually(lambda: _still(daemon))
    (received,) = (bytes(s.received) for s in daemon.served[before:] if s.received)
    return client_received, received


def _still(daemon: FakeDaemon) -> bool:
    """Whether it hears nothing more."""
    heard = sum(len(served.received) for served in daemon.served)
    time.sleep(0.02)
    return heard == sum(len(served.received) for served in daemon.served)


def test_byte_for_byte(tmp_path: Path, daemon: FakeDaemon, conversation: Conversation) -> None:
    """Both sides receive the same bytes, and each request is one visible transaction."""
    directly = hold(daemon.path, conversation, daemon)
    with sidecar(tmp_path / "tap", daemon.path) as tap:
        assert hold(tap.path, conversation, daemon) == directly
        assert tap.stop() == 0
        assert len(tap.transactions()) == conversation.transactions


# -- who leaves, and when


def waits(sock: socket.socket, served: Served) -> None:
    read_to_end(sock, served)


def test_a_client_that_says_nothing_and_leaves(tmp_path: Path) -> None:
    """It takes its daemon connection along, and is no transaction."""
    with fake_daemon(tmp_path / "daemon", waits) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            before = tap.descriptors
            sock = connect(tap.path)
            eventually(lambda: len(daemon.served) == 2)
            sock.close()
            eventually(lambda: daemon.served[1].over)
            eventually(lambda: tap.descriptors == before)
            tap.stop()
            assert not tap.entries()


def test_a_client_that_half_closed_and_then_leaves_is_noticed(tmp_path: Path) -> None:
    """A full close after a half-close reaches the daemon too: its next write fails."""
    failed: list[float] = []

    def stubborn(sock: socket.socket, served: Served) -> None:
        read_to_end(sock, served)
        while not failed:
            try:
                sock.sendall(b"x")
            except OSError:
                failed.append(time.monotonic())
            time.sleep(0.02)

    with fake_daemon(tmp_path / "daemon", stubborn) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            sock = connect(tap.path)
            sock.sendall(GET)
            sock.shutdown(socket.SHUT_WR)
            eventually(lambda: len(daemon.served) == 2 and daemon.served[1].over)
            sock.close()
            left = time.monotonic()
            eventually(lambda: failed)
            assert failed[0] - left < 1


def test_a_client_that_leaves_before_the_last_chunk(tmp_path: Path) -> None:
    """Lxc hangs up once the JSON is complete: the answer still counts as whole."""
    gone: list[bool] = []

    def last_chunk_later(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        eventually(lambda: gone)
        sock.sendall(b"0\r\n\r\n")

    with fake_daemon(tmp_path / "daemon", last_chunk_later) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            with connect(tap.path) as sock:
                sock.sendall(GET)
                received = b""
                while not received.endswith(b"{}\r\n"):
                    received += sock.recv(1024)
            gone.append(True)
            eventually(tap.transactions)
            assert tap.transactions()[0]["broken"] is None


# -- amounts

HEAD = b"HTTP/1.0 200 OK\r\n\r\n"


def test_back_pressure(tmp_path: Path) -> None:
    """A side that does not read stops the other side from sending; nothing piles up in the tap."""

    def floods(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        sock.sendall(HEAD)
        sock.settimeout(0.5)
        try:
            while True:
                sent.append(sock.send(bytes(1 << 16)))
        except TimeoutError:
            sent.append(0)

    sent: list[int] = []
    with fake_daemon(tmp_path / "daemon", floods) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap, connect(tap.path) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            eventually(lambda: sent and sent[-1] == 0)
            # two socket buffers and the tap's one
            assert sum(sent) < 2 << 20
            assert len(rest(sock)) == sum(sent) + len(HEAD)
            tap.stop()
            assert tap.transactions()[0]["response"]["size"] == sum(sent)


def test_many_clients_at_once(tmp_path: Path) -> None:
    """Each client connection is one daemon connection of its own; all are answered."""
    count = 300
    with fake_daemon(tmp_path / "daemon", always(answer(b"{}"))) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            before = tap.descriptors
            socks = [connect(tap.path) for _ in range(count)]
            for sock in socks:
                sock.sendall(GET)
            assert all(rest(sock) == answer(b"{}") for sock in socks)
            for sock in socks:
                sock.close()
            assert len(daemon.served) == count + 1  # and the tap's own knock at the door
            eventually(lambda: tap.descriptors == before)
            tap.stop()
            assert [entry["id"] for entry in tap.transactions()] == [*range(1, count + 1)]


def test_the_tap_connects_without_a_name(tmp_path: Path) -> None:
    """LXD trusts only clients without an address of their own: the tap's has none."""
    names: list[str] = []

    def script(sock: socket.socket, served: Served) -> None:
        names.append(sock.getpeername())
        always(answer(b"{}"))(sock, served)

    with fake_daemon(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap, connect(tap.path) as sock:
            sock.sendall(GET)
            rest(sock)
    assert names == ["", ""]


def test_who_asked(tmp_path: Path) -> None:
    """The pid, uid and gid of whoever is at the other end are in the log."""
    with fake_daemon(tmp_path / "daemon", always(answer(b"{}"))) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap, connect(tap.path) as sock:
            sock.sendall(GET)
            rest(sock)
            tap.stop()
            peer = tap.transactions()[0]["peer"]
    assert peer == {"pid": os.getpid(), "uid": os.geteuid(), "gid": os.getegid()}


# -- websockets


def frame(opcode: int, payload: bytes, *, final: bool = True, mask: bytes = b"") -> bytes:
    head = bytes([opcode | (0x80 if final else 0)])
    size = len(payload)
    head += bytes([size | (0x80 if mask else 0)]) if size < 126 else b""
    if size >= 126:
        head += struct.pack(">BH", 126 | (0x80 if mask else 0), size)
    masked = bytes(b ^ mask[i % 4] for i, b in enumerate(payload)) if mask else payload
    return head + mask + masked


def test_frames_are_decoded_as_they_pass(tmp_path: Path) -> None:
    """Fragments, control frames and masks are understood, and relayed as they were."""
    down = (
        frame(9, b"keepalive"),
        frame(1, b'{"type": "life', final=False),
        frame(0, b""),
        frame(1, b'{"type":"lifecycle","metadata":{}}'),
    )
    up = (frame(10, b"keepalive", mask=b"abcd"), frame(2, bytes(300), mask=b"wxyz"))

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        # the head and the first frames in one piece
        sock.sendall(b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\n\r\n" + b"".join(down))
        while not served.received.endswith(up[-1]):
            served.received += sock.recv(1 << 16)

    with fake_daemon(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-v") as tap, connect(tap.path) as sock:
            sock.sendall(b"GET /1.0/events HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" + b"".join(up))
            received = rest(sock)
            tap.stop()
            frames = [(f["direction"], f["kind"], f["size"]) for f in tap.entries("frame")]
            tunnel = tap.transactions()[0]["tunnel"]
    assert received.endswith(b"".join(down))
    assert sorted(frames) == sorted(
        [
            ("received", "ping", 9),
            ("received", "text fragment", 14),
            ("received", "continuation fragment", 0),
            ("received", "text", 34),
            ("sent", "pong", 9),
            ("sent", "binary", 300),
        ]
    )
    assert tunnel["sent"] == {"frames": 1, "bytes": 300}
    assert tunnel["received"] == {"frames": 3, "bytes": 48}


def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    """A daemon that is slow to accept is waited for, as it would be without the tap."""
    directory = tmp_path / "daemon"
    directory.mkdir()
    path = str(directory / "unix.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(1)
        with sidecar(tmp_path / "tap", path) as tap:
            clients = [connect(tap.path) for _ in range(6)]
            for client in clients:
                client.sendall(GET)
            answered = 0
            while answered < len(clients):
                served, _ = listening.accept()
                with served:
                    served.settimeout(PATIENCE)
                    if served.recv(1 << 16):  # else the tap's own knock
                        served.sendall(answer(b"{}"))
                        answered += 1
            for client in clients:
                with client:
                    assert rest(client) == answer(b"{}")


def test_sidecar_is_unharmed(tmp_path: Path) -> None:
    """After all kinds of conversation on one tap, it answers, and holds nothing open."""
    scripts = list(CONVERSATIONS.values())

    numbers = itertools.count(-1)  # the first connection is the tap's own knock

    def any_script(sock: socket.socket, served: Served) -> None:
        scripts[next(numbers)].daemon(sock, served)

    with fake_daemon(tmp_path / "daemon", any_script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            before = tap.descriptors
            for conversation in scripts:
                with connect(tap.path) as sock:
                    conversation.client(sock)
            eventually(lambda: tap.descriptors == before)
            assert not tap.entries("note")


Seen = tuple[Moment, Direction, bytes, bytes]


class Looking:
    """Whoever is told what passed; looks then at what the other's daemon has received."""

    def __init__(self, others: socket.socket, seen: list[Seen]) -> None:
        self.others = others
        self.seen = seen

    def passed(self, direction: Direction, data: bytes, at: Moment) -> None:
        self.seen.append((at, direction, data, self.others.recv(9, socket.MSG_DONTWAIT)))

    def ended(self, direction: Direction, at: Moment, *, cut: bool) -> None:
        pass

    def closed(self, why: str) -> None:
        pass


def test_all_is_sent_on_before_any_is_looked_at() -> None:
    """Of two that ask together, the second has been sent on when the first is looked at."""

    async def scene() -> list[Seen]:
        seen: list[Seen] = []
        relay = Relay(asyncio.get_running_loop())
        with contextlib.ExitStack() as ending:
            pairs = [map(ending.enter_context, socket.socketpair()) for _ in range(4)]
            (one, client1), (daemon1, up1), (two, client2), (daemon2, up2) = pairs
            links = [
                relay.join(client1, up1, Looking(daemon2, seen)),
                relay.join(client2, up2, Looking(daemon1, seen)),
            ]
            one.send(b"one")
            two.send(b"two")
            await asyncio.sleep(0.05)
            for link in links:
                link.stop("over")
            relay.close()
        return seen

    with asyncio.Runner(loop_factory=Loop) as runner:
        seen = runner.run(scene())
    both = {(Direction.SENT, b"one", b"two"), (Direction.SENT, b"two", b"one")}
    assert {(direction, ours, others) for _, direction, ours, others in seen} == both
    assert len({at for at, *_ in seen}) == 1


class Listing:
    """Whoever is told, and lists it."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def passed(self, direction: Direction, data: bytes, at: Moment) -> None:
        self.told.append((direction, data, at <= moment()))

    def ended(self, direction: Direction, at: Moment, *, cut: bool) -> None:
        self.told.append((direction, cut, at <= moment()))

    def closed(self, why: str) -> None:
        self.told.append(why)


def test_the_end_is_told_last() -> None:
    """Also of what came when the daemon, which had ended its sending, was gone altogether."""

    async def scene() -> list[object]:
        relay, listing = Relay(asyncio.get_running_loop()), Listing()
        client, ours = socket.socketpair()
        daemon, up = socket.socketpair()
        with client, daemon:
            relay.join(ours, up, listing)
            daemon.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.02)
            client.send(b"to nobody")
            daemon.close()
            await asyncio.sleep(0.02)
        relay.close()
        return listing.told

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(scene()) == [
            (Direction.RECEIVED, False, True),
            (Direction.SENT, b"to nobody", True),
            "the daemon closed the connection",
        ]
