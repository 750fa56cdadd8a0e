"""Heads that are huge or malformed: the daemon's verdict, not lxdtap's; nothing can be forged."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import yaml

from lxdtap.log import debugformat
from lxdtap.transaction import encode
from tests.campaign import Campaign
from tests.daemons.throwaway import Daemon
from tests.process.callers import resident
from tests.process.tap import connect, eventually, sidecar

from .running import exactly, family, finish, recorded
from .upstreams import Connection, GoneError, serving, upstream

SLOW = 60
MIB = 1 << 20
GET = b"GET /1.0 HTTP/1.1\r\nHost: lxd\r\n"
POST = b"POST /1.0/x HTTP/1.1\r\nHost: lxd\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def padded(size: int) -> bytes:
    """A request whose head has so many bytes."""
    end = b"\r\nConnection: close\r\n\r\n"
    return GET + b"X: " + b"a" * (size - len(GET) - 3 - len(end)) + end


HUGE = {
    **{f"{size} bytes": padded(size) for size in (8 << 10, 64 << 10, MIB - 1, MIB, MIB + 1)},
    # LXD's net/http reads 4,096 bytes more than its limit of 1 MiB (net/http/server.go).
    **{f"{size} bytes": padded(size) for size in (MIB + 4095, MIB + 4097, 2 * MIB)},
    "10,000 headers": GET
    + b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(10_000))
    + b"Connection: close\r\n\r\n",
}
MALFORMED: Sequence[bytes] = (
    b"\r\n\r\n",
    b"\n\n",
    b"GET\r\n\r\n",
    b"GET /1.0\r\n\r\n",
    b"GET /1.0 HTTP/1.1\r\n\r\n",
    b"GET /1.0 HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /1.0 HTTP/1.1 more\r\nHost: x\r\n\r\n",
    b"GET  /1.0 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"get /1.0 http/1.1\r\nHost: x\r\n\r\n",
    b"G\x00T /1.0 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET 1.0 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /1.0/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://other/1.0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"CONNECT other:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    GET + b"Host: again\r\n\r\n",
    GET + b": no name\r\n\r\n",
    GET + b"No colon\r\n\r\n",
    GET + b"Spaced : x\r\n\r\n",
    GET + b" folded: x\r\n\r\n",
    GET + b"X: \x00\r\n\r\n",
    GET + b"X: \xff\xfe\r\nConnection: close\r\n\r\n",
    GET.replace(b"\r\n", b"\n") + b"Connection: close\n\n",
    GET.replace(b"\r\n", b"\r") + b"\r\r",
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
    POST + b"Content-Length: 4, 4\r\n\r\nbody",
    POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: gzip\r\n\r\n",
    POST + b"Expect: nonsense\r\nContent-Length: 1\r\n\r\n",
    CHUNKED + b"zz\r\nrubbish",
    CHUNKED + b"-1\r\n",
    CHUNKED + b"ffffffffffffffffff\r\n",
    CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
)


def verdict(path: str, request: bytes) -> bytes:
    """What the daemon says; its clock and its pids left out."""
    with connect(path) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        said = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(1 << 16):
                said += data
    return re.sub(rb"\r\nDate: [^\r]*", b"", bytes(said))


def test_the_daemons_verdict(tmp_path: Path, lxd: Daemon, campaign: Campaign) -> None:
    """On every one of them it is the same directly and through the tap, to the byte."""
    requests = [*HUGE.items(), *((repr(request), request) for request in MALFORMED)]
    directly = {name: verdict(str(lxd.socket), request) for name, request in requests}
    with sidecar(tmp_path / "tap", str(lxd.socket), "-w", str(tmp_path / "w.yaml")) as tap:
        before = [resident(pid) for pid in family(tap.process.pid)]
        tapped = {name: verdict(tap.path, request) for name, request in requests}
        after = [resident(pid) for pid in family(tap.process.pid)]
        finish(tap, SLOW)
    assert tapped == directly
    statuses = {said[9:12].decode() for said in directly.values()}
    assert {"200", "400", "431"} <= statuses
    growth = max(now - then for then, now in zip(before, after, strict=True)) >> 10
    assert recorded(tmp_path / "w.yaml").interactions
    campaign.figure(
        "huge and malformed heads",
        f"{len(requests)}, verdicts {', '.join(sorted(statuses))} as directly; {growth} MiB more",
    )


async def swallows(connection: Connection) -> None:
    """Read without end, and say nothing."""
    with contextlib.suppress(GoneError):
        await connection.to_end()


def test_a_head_without_end(tmp_path: Path, campaign: Campaign) -> None:
    """It is carried, and not kept: neither in memory nor in the recording."""
    size = campaign.count(64, 1024) * MIB
    header = b"X: " + b"a" * (MIB - 5) + b"\r\n"
    with upstream(tmp_path / "daemon", swallows) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            before = [resident(pid) for pid in family(tap.process.pid)]
            with connect(tap.path) as sock:
                sock.settimeout(SLOW)
                sock.sendall(GET)
                for _ in range(size // MIB):
                    sock.sendall(header)
                eventually(lambda: daemon.asked[0].size == size + len(GET), SLOW)
                after = [resident(pid) for pid in family(tap.process.pid)]
            finish(tap, SLOW)
        spool = (tmp_path / "w.yaml").stat().st_size
    growth = max(now - then for then, now in zip(before, after, strict=True)) >> 10
    campaign.figure("a head of", f"{size // MIB} MiB: {growth} MiB more; cassette {spool} bytes")
    assert growth <= 32
    assert spool <= 32 * MIB


# -- forging

PIECES = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\x00", b"\x1b[2J", b"\x9b", b"\xff", b"\xe2\x80\xae"),
    *(b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\t", b" ", b"  "),
    *(b"- ", b": ", b"? ", b"# ", b"---\n", b"...\n", b"'", b'"', b"\\", b"|\n", b">-\n", b"&a"),
    *(b"*a", b"!!python/object:os.system", b"{", b"}", b"[", b"]", b",", b"%", b"@", b"`", b"~"),
    *(b"\n- request: {method: GET, target: /forged}\n", b"\ninteractions: []\n", b"complete: true"),
    *(b"=" * 24, b"\nGET http+unix://x/1.0 HTTP/200\n", b'"}\n{"event":"transaction"}', b"null"),
)
SYNC = b'{"type":"sync","status_code":200,"metadata":'


def junk(chance: random.Random, without: bytes = b"") -> bytes:
    """Bytes that mean something to YAML, JSON, terminals or logs; none of some."""
    text = b"x" + b"".join(chance.choices(PIECES, k=chance.randrange(1, 6)))
    return text.translate(None, without)


def forged(chance: random.Random) -> tuple[bytes, bytes, bytes, bytes]:
    """A request and an answer that Go would send or read; target and body of the request too."""
    target = b"/" + junk(chance, b"\r\n ")
    name = junk(chance, b"\r\n: \t") or b"x"
    body = junk(chance)
    head = b"PUT %s HTTP/1.1\r\n%s: %s\r\nContent-Length: %d\r\n\r\n"
    request = head % (target, name, junk(chance, b"\r\n"), len(body)) + body
    reply = junk(chance)
    head = (
        b"HTTP/1.1 400 %s\r\nX: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    said = head % (junk(chance, b"\r\n"), junk(chance, b"\r\n"), len(reply)) + reply
    return request, said, target, body


def test_nothing_can_be_forged(tmp_path: Path, campaign: Campaign) -> None:
    """A transaction is one block of the log and one interaction, which holds what was sent."""
    chance = random.Random(2)
    count = campaign.count(100, 20_000)
    made = [forged(chance) for _ in range(count)]
    said = iter([answer for _, answer, _, _ in made])
    path = tmp_path / "w.yaml"
    with upstream(tmp_path / "daemon", serving(lambda _: next(said))) as daemon:
        options = ("-v", "-w", str(path), "--keep-secrets", "--show-secrets")
        with sidecar(tmp_path / "tap", daemon.path, *options, form="debug") as tap:
            with connect(tap.path) as sock:
                for request, answer, _, _ in campaign.progress("forged", made, count):
                    sock.sendall(request)
                    assert exactly(sock, len(answer)) == answer
            finish(tap, SLOW)
            log = tap.log.read_bytes().decode()
    # One that takes more than a second is told of before, as open.
    over = [block for block in debugformat.parse(log) if not block.outcome.startswith("open")]
    assert [(block.method, block.outcome) for block in over] == [("PUT", "HTTP/400")] * count
    text = path.read_bytes().decode()
    for shown in (log, text):
        assert not [
            c for c in set(shown) if (c < " " and c not in "\n\t") or c in "\x85\x9b\u2028\u202e"
        ]
    interactions = recorded(path).interactions
    requests = [each.transaction.request for each in interactions]
    assert [encode(each.target) for each in requests] == [target for _, _, target, _ in made]
    assert [each.body.captured for each in requests] == [body for _, _, _, body in made]
    assert len(yaml.safe_load(text)["interactions"]) == count
    campaign.figure("forged lines", f"none of {count} transactions made of YAML, JSON and controls")
