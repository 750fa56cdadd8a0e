"""``lxdtap show``: what it prints of a recording is what the tap's log printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lxdtap.log.debugformat import SEPARATOR
from lxdtap.record.spool import MAGIC, Spool

from .tap import (
    LXDTAP,
    Served,
    Sidecar,
    answer,
    ask,
    connect,
    environment,
    eventually,
    fake_daemon,
    read_until,
    rest,
    run,
    sidecar,
)

SECRET = "correct-horse-battery"
STREAM = "5" * 64
OPERATION = "/1.0/operations/70eb42bf-5e79-42de-8230-2162e9e8b612"
STARTED = {
    "type": "async",
    "status_code": 100,
    "operation": OPERATION,
    "metadata": {
        "id": OPERATION.rpartition("/")[2],
        "class": "websocket",
        "status": "Running",
        "status_code": 103,
        "metadata": {"fds": {"0": STREAM}},
    },
}
ENDED = {
    "type": "operation",
    "metadata": {
        "id": OPERATION.rpartition("/")[2],
        "class": "websocket",
        "status": "Success",
        "status_code": 200,
    },
}
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CLOSE = b"\x88\x02\x03\xe8"
FORMS = ["debug", "line", "json"]


def frame(data: bytes, first: int = 0x81) -> bytes:
    """A frame of the daemon's (RFC 6455, 5.2)."""
    length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
    return bytes([first]) + length + data


def daemon(sock: socket.socket, served: Served) -> None:
    """Answer as LXD does: requests, an exec, its stream, and events as long as one listens."""
    while b"\r\n\r\n" in (head := read_until(sock, served, b"\r\n\r\n")):
        if b"/websocket" in head:
            frames = frame(b"hel", 0x02), frame(b"lo", 0x80), frame(b"\xff" * 9, 0x82), CLOSE
            sock.sendall(SWITCHING + b"".join(frames))
            return
        if b"/events" in head:
            sock.sendall(SWITCHING + frame(json.dumps(ENDED, separators=(",", ":")).encode()))
            sock.recv(1)
            return
        if b"/exec" in head:
            sock.sendall(answer(json.dumps(STARTED).encode(), "202 Accepted", close=False))
        elif b"/never" in head:
            sock.recv(1)
        else:
            sock.sendall(answer(b'{"type":"sync","metadata":{"a":"\x7f"}}\n', close=False))


def asking(target: str, body: str = "", *headers: str) -> bytes:
    lines = [f"{'POST' if body else 'GET'} {target} HTTP/1.1", "Host: lxd", *headers]
    size = [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
    return "\r\n".join([*lines, *size, "", body]).encode()


UPGRADE = "Connection: Upgrade", "Upgrade: websocket"


def converse(tap: Sidecar) -> None:
    """Requests on one connection while another listens to events."""
    path = tap.path
    with connect(path) as events, connect(path) as other:
        for request in (
            asking("/1.0"),
            asking(f"/1.0/x?token={SECRET}", "", f"Authorization: Bearer {SECRET}"),
            asking("/1.0/instances/c1/exec", json.dumps({"password": SECRET})),
        ):
            other.sendall(request)
            other.recv(1 << 16)
        events.sendall(asking("/1.0/events", "", *UPGRADE))
        events.recv(1 << 16)
        ask(path, asking(f"{OPERATION}/websocket?secret={STREAM}", "", *UPGRADE))
        events.sendall(b"\x88\x80\0\0\0\0")
        rest(events)
    eventually(lambda: tap.log.stat().st_size)  # so the last is in a record of its own
    with connect(path) as garbled:
        garbled.sendall(b"\0\x01 what\r\n\r\n")
        garbled.recv(1 << 16)


Recorded = tuple[tuple[str, ...], str, Path]
"""The format's options; what the log said; where ``c.yaml`` and a spool ``s`` of the same are."""


def record(here: Path, form: str, *verbose: str) -> Recorded:
    """Have a tap log and record."""
    cassette, spool = here / "c.yaml", here / "c.yaml.spool"
    with (
        fake_daemon(here / "lxd", daemon) as real,
        sidecar(here / "tap", real.path, "-w", str(cassette), *verbose, form=form) as tap,
    ):
        converse(tap)
        size = -1
        while size != (size := tap.log.stat().st_size):  # what is logged was spooled before
            time.sleep(0.4)
        shutil.copy(spool, here / "s")
        assert tap.stop() == 0
        return ("--format", form, *verbose), tap.log.read_text(), here


@pytest.fixture(
    scope="module", params=[(form, *v) for form in FORMS for v in ((), ("-v",))], ids=" ".join
)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A recording with its log, in each format."""
    return record(tmp_path_factory.mktemp("recorded"), *request.param)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a cassette ``c.yaml`` and its spool ``s`` are."""
    return record(tmp_path_factory.mktemp("left"), "line")[2]


def show(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("show", *map(str, arguments))


def without_open(text: str) -> str:
    """Without what tells that something is still open: when it is said is by chance."""
    block = rf"^[^\n]* open for [^\n]*\n(?:[#><][^\n]*\n)*{SEPARATOR}\n"
    text = re.sub(block, "", text, flags=re.MULTILINE)
    lines = text.splitlines(keepends=True)
    return "".join(x for x in lines if not re.search(r' open$|^{"event":"open"', x))


def test_a_spool_is_the_log(recorded: Recorded) -> None:
    """The same text in each format, times included, and not one secret."""
    options, log, here = recorded
    done = show(*options, here / "s")
    assert (done.returncode, done.stderr) == (0, "")
    assert without_open(done.stdout) == without_open(log)
    assert SECRET not in done.stdout
    assert "REDACTED-1" in done.stdout
    assert SECRET in show(*options, "--show-secrets", here / "s").stdout


def test_a_cassette_is_the_log(recorded: Recorded) -> None:
    """In the same order; but for who asked, sizes of what was redacted, and times' last digits."""
    options, log, here = recorded
    done = show(*options, here / "c.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert bare(done.stdout) == bare(log)
    assert len(done.stdout.splitlines()) > 5


def bare(text: str) -> list[str]:
    """What both know, in pieces: lines, or blocks."""
    text = without_open(text)
    if text.startswith("{"):
        return [json.dumps(stripped(json.loads(line))) for line in text.splitlines()]
    text = re.sub(r", from pid \d+ uid \d+ gid \d+$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\d\d:\d\d:\d\d\.\d{3} | \d+B>\d+B\b", "", text, flags=re.MULTILINE)
    return text.split(f"{SEPARATOR}\n") if SEPARATOR in text else text.splitlines()


def stripped(entry: dict[str, Any]) -> dict[str, Any]:
    """An object of the log without what a cassette does not keep."""
    for message in ("request", "response"):
        (entry.get(message) or {}).pop("size", None)
    entry.pop("peer", None)
    entry["time"] = entry["time"][:17]  # one clock gives all the times of a cassette
    return entry


def test_what_is_chosen(left: Path) -> None:
    """As with ``lxdtap run``: by --only and --ignore; coloured where that is asked for."""
    for name in ("s", "c.yaml"):
        only = show("--only", "/1.0/events", left / name).stdout
        assert "/1.0/events" in only
        assert "/exec" not in only
        assert "/exec" not in show("--ignore", "*/exec", left / name).stdout
        assert "\x1b[" in show("--color", "always", left / name).stdout


def test_its_reader_leaves(left: Path) -> None:
    """As `head` does: nothing is said, and all is well."""
    for name in ("s", "c.yaml"):
        theirs, ours = os.pipe()
        os.close(theirs)
        done = subprocess.run(
            [*LXDTAP, "show", str(left / name)],
            stdout=ours,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        os.close(ours)
        assert (done.returncode, done.stderr) == (0, b"")


def test_what_cannot_be_printed(left: Path) -> None:
    """A full disk is told of in one line."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*LXDTAP, "show", str(left / "s")],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_a_damaged_spool(left: Path, tmp_path: Path) -> None:
    """What is before the damage is shown, then one line says where it ends."""
    whole = (left / "s").read_bytes()
    first = show(left / "s").stdout.splitlines()[0]
    for damaged, why in (
        (whole[:-3], "it ends within a record"),
        (whole[:-3] + b"xxx", "checksum"),
        (whole + b"\xff" * 8, "longer than any"),
    ):
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        for more in ((), ("--follow",)):
            done = show(*more, path)
            assert done.stdout.splitlines()[0] == first
            assert done.stderr.count("\n") == done.returncode == 1
            assert why in done.stderr


def test_what_is_neither(tmp_path: Path) -> None:
    """One line says so."""
    for name, data in ("text", b"hello\n"), ("empty", b""), ("o\x1bdd", b"\0" * 99):
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "cut").write_text("version: 1\nserver:\n")
    (tmp_path / "other").write_text("name: x\nversion: 1\n")
    for name in ("text", "empty", "o\x1bdd", "fifo", "cut", "other", "nonesuch", ""):
        done = show(tmp_path / name)
        assert (done.returncode, done.stdout) == (1, ""), name
        assert done.stderr.count("\n") == 1
        assert "\x1b" not in done.stderr
    assert show().returncode == 2


def test_what_was_under_way(tmp_path: Path) -> None:
    """Of an interrupted recording it is shown last, as broken off; while it goes on, as open."""
    cassette = tmp_path / "c.yaml"
    with (
        fake_daemon(tmp_path / "lxd", daemon) as real,
        sidecar(tmp_path / "tap", real.path, "-w", str(cassette)) as tap,
        connect(tap.path) as client,
    ):
        spool = Path(f"{cassette}.spool")
        client.sendall(asking("/1.0/never"))
        eventually(lambda: tap.entries("open"))
        shutil.copy(spool, tmp_path / "left")
        told = r"/1.0/never open for \d\.\d s: 0 bytes sent, no answer yet"
        eventually(lambda: re.search(told, show(spool).stdout))
        done = show(tmp_path / "left")
        assert done.returncode == 0
        assert "/1.0/never no answer: the recording ended before the answer" in done.stdout


# -- as it comes


def following(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*LXDTAP, "show", "--follow", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )


def line_of(shown: subprocess.Popen[str]) -> str:
    assert shown.stdout is not None
    return shown.stdout.readline()


def test_following(tmp_path: Path) -> None:
    """Each is shown as it comes; it ends with the recording, though the spool is gone then."""
    cassette = tmp_path / "c.yaml"
    with (
        fake_daemon(tmp_path / "lxd", daemon) as real,
        sidecar(tmp_path / "tap", real.path, "-w", str(cassette), form="line") as tap,
    ):
        shown = following("--format", "line", f"{cassette}.spool")
        with connect(tap.path) as client:
            for number in range(1, 4):
                client.sendall(asking(f"/1.0/{number}"))
                assert f"#{number} GET /1.0/{number} 200" in line_of(shown)
            client.sendall(asking("/1.0/never"))
            assert "#4 GET /1.0/never - " in (line := line_of(shown))
            assert line.endswith(" open\n")
        assert "broken=" in line_of(shown)
        assert tap.stop() == 0
        assert shown.communicate(timeout=5) == ("", "")
        assert shown.returncode == 0
    assert not Path(f"{cassette}.spool").exists()
    assert show("--follow", cassette).returncode == 0


def test_following_until_it_is_enough(tmp_path: Path) -> None:
    """Ctrl-C ends it, quietly; nothing happens to the recording."""
    cassette = tmp_path / "c.yaml"
    with (
        fake_daemon(tmp_path / "lxd", daemon) as real,
        sidecar(tmp_path / "tap", real.path, "-w", str(cassette)) as tap,
    ):
        shown = following(f"{cassette}.spool")
        with connect(tap.path) as client:
            client.sendall(asking("/1.0"))
            assert line_of(shown).startswith("GET ")
        shown.send_signal(signal.SIGINT)
        assert shown.communicate(timeout=5)[1] == ""
        assert shown.returncode == 0
        assert tap.stop() == 0
    assert cassette.exists()


def test_a_record_that_is_half_written(tmp_path: Path) -> None:
    """Is no damage while it is being written; it is when nobody writes any more."""
    path = tmp_path / "s"
    spool = Spool(str(path))
    with path.open("ab") as file:
        file.write(b"\x10\0\0\0\0\0\0\0half")
    assert (done := show(path)).returncode == 0
    assert done.stderr == ""
    shown = following(path)
    with pytest.raises(subprocess.TimeoutExpired):
        shown.wait(1)
    spool.close(remove=False)
    assert "it ends within a record" in shown.communicate(timeout=5)[1]
    assert shown.returncode == 1
    assert path.read_bytes().startswith(MAGIC)
