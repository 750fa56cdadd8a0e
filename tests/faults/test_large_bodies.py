"""Bodies of any size, both ways: the same bytes, in little memory, known by size and hash."""

from __future__ import annotations

import hashlib
import platform
import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lxdtap.record.trim import LIMITS
from tests.campaign import Campaign
from tests.process.callers import resident
from tests.process.tap import answer, connect, eventually, sidecar

from .messages import REQUESTS, SWITCHING, frames
from .running import exactly, family, recorded
from .upstreams import Connection, upstream

MIB = 1 << 20
GROWTH = 32
"""MiB of memory that each process may take more than before."""
BEHIND = 64
"""MiB more, where the machine has so much else to do that the recorder falls behind."""
CHUNK = random.Random(1).randbytes(MIB)
SECOND = 30 * MIB
"""Bytes a second that are surely carried, on any machine."""


def hashed(size: int) -> str:
    """Of as many bytes as chunks make."""
    whole = hashlib.sha256()
    for _ in range(size // MIB):
        whole.update(CHUNK)
    return whole.hexdigest()


class Watch:
    """The most memory that each of a tap's processes has, above what it had before."""

    def __init__(self, pid: int) -> None:
        self._before = {each: resident(each) for each in family(pid)}

    def growth(self) -> list[float]:
        """In MiB, by process."""
        return [(resident(pid, "VmHWM") - before) / 1024 for pid, before in self._before.items()]


async def plays(connection: Connection) -> None:
    """Take what is put, or give what is asked for: so many bytes as the target says."""
    head = await connection.head()
    size = int(head.split(b" ")[1].rpartition(b"/")[2])
    if head.startswith(b"PUT"):
        await connection.send(answer((await connection.skip(size)).encode()))
        return
    kind = "Content-Type: application/octet-stream\r\nConnection: close"
    await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n{kind}\r\n\r\n".encode())
    for _ in range(size // MIB):
        await connection.send(CHUNK)


def upload(path: str, size: int) -> str:
    """Put so much; the SHA-256 that the daemon had of it."""
    with connect(path) as sock:
        sock.settimeout(size / SECOND + 60)
        sock.sendall(f"PUT /up/{size} HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // MIB):
            sock.sendall(CHUNK)
        return exactly(sock, MIB)[-64:].decode()


def download(path: str, size: int) -> str:
    """Get so much; its SHA-256."""
    with connect(path) as sock:
        sock.settimeout(size / SECOND + 60)
        sock.sendall(f"GET /down/{size} HTTP/1.1\r\nHost: lxd\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        found = hashlib.sha256()
        while data := sock.recv(MIB):
            found.update(data)
        return found.hexdigest()


def faults(pid: int) -> int:
    """How often a process was given a new page of memory (proc(5), minflt)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its malloc is meant")
def test_memory_is_taken_once(tmp_path: Path) -> None:
    """What one piece of a body had is there for the next: not new pages for each."""
    size = 64 * MIB
    options = ("-q", "-w", str(tmp_path / "w.yaml"))
    with upstream(tmp_path / "daemon", plays) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, *options, stdout=subprocess.DEVNULL) as tap:
            download(tap.path, size)
            before = faults(tap.process.pid)
            download(tap.path, size)
            assert faults(tap.process.pid) - before < size // resource.getpagesize() / 2


def test_both_ways(tmp_path: Path, campaign: Campaign) -> None:
    """The same SHA-256 at both ends and in the recording, which is not replayable beyond 64 MiB."""
    size = campaign.count(256, 10 << 10) * MIB
    right = hashed(size)
    with upstream(tmp_path / "daemon", plays) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            watch = Watch(tap.process.pid)
            begun = time.monotonic()
            assert upload(tap.path, size) == right
            assert download(tap.path, size) == right
            took = time.monotonic() - begun
            eventually(lambda: not daemon.open)
            growth = watch.growth()
            tap.process.send_signal(signal.SIGTERM)
            _, stderr = tap.process.communicate(timeout=size / SECOND + 60)
            assert tap.process.returncode == 0, stderr
        logged = tap.transactions()
    assert [logged[0]["request"]["body"]["sha256"], logged[1]["response"]["body"]["sha256"]] == [
        right,
        right,
    ]
    up, down = recorded(tmp_path / "w.yaml").interactions
    response = down.transaction.response
    assert response is not None
    assert not down.replayable
    for body in (up.transaction.request.body, response.body):
        assert (body.size, body.sha256) == (size, right)
        assert not body.whole
    campaign.figure(
        "large bodies",
        f"{size >> 20} MiB up and down: same SHA-256, {2 * (size >> 20) / took:.0f} MiB/s with"
        f" recording; {max(growth):.0f} MiB more in the process that grew most",
    )
    assert max(growth) <= GROWTH + campaign.count(BEHIND, 0), growth


def test_messages_are_shown_however_much_has_passed(tmp_path: Path) -> None:
    """A log is no recording: on a connection that has carried more than that keeps, too."""
    large, last = (
        frames([(2, CHUNK[:50_000])] * 20),
        frames([(1, b'{"type":"lifecycle","metadata":"the last"}')]),
    )
    piece, end = (b"".join(part.data for part in parts) for parts in (large, last))
    count = max(LIMITS.values()) // MIB + 5  # of nearly as many

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(SWITCHING)
        for _ in range(count):
            await connection.send(piece)
        await connection.send(end)
        await connection.head()

    with upstream(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap, connect(tap.path) as client:
            client.sendall(REQUESTS["exec"].head)
            size = len(SWITCHING) + count * len(piece) + len(end)
            assert len(exactly(client, size)) == size
            eventually(lambda: "the last" in tap.log.read_text())
