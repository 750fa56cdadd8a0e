"""Recording by the real process: nothing is lost, and what is lost is told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import pty
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from lxdtap.cassette import files
from lxdtap.cassette.cleaning import Cleaner
from lxdtap.log.journal import Selection
from lxdtap.log.render import renderer
from lxdtap.record import spool
from lxdtap.record.link import Recorder
from lxdtap.record.recording import prepare
from lxdtap.record.trim import Trimmer
from lxdtap.record.worker import END, EVENTS, HEAD, LARGE, LOST, Log, Worker, give_back
from lxdtap.redact import Redactor
from lxdtap.transaction import Direction, Moment, Update
from lxdtap.wire.events import Data, Digest, Event, MessageEnd, Opened, Skipped, WholeMessage
from lxdtap.wire.records import decode

from .callers import children, resident
from .recording import (
    SLOW,
    SPOOL,
    SYNC,
    asked,
    get,
    has_shown,
    holds,
    recorder_of,
    recording,
    said,
    serve,
    targets,
)
from .tap import (
    LXDTAP,
    Served,
    answer,
    ask,
    connect,
    environment,
    eventually,
    fake_daemon,
    read_until,
    run,
    sidecar,
)

# -- nothing is lost


def test_what_the_daemon_counts_is_in_the_cassette(tmp_path: Path) -> None:
    """From many clients at once, each with many requests; the spool is gone then."""

    def client(number: int) -> None:
        with connect(tap.path) as sock:
            served = Served()
            for count in range(50):
                sock.sendall(get(f"/1.0/{number}/{count}", close=False))
                read_until(sock, served, b"{}}\n")

    with recording(tmp_path) as (daemon, tap, path):
        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tap.stop() == 0
        cassette = files.load(str(path))
        assert len(cassette.interactions) == asked(daemon) == 400
        assert sorted(targets(cassette)) == sorted(
            f"/1.0/{n}/{c}" for n in range(8) for c in range(50)
        )
        assert cassette.complete
        assert all(i.transaction.response for i in cassette.interactions)
    assert said(tap) == f"lxdtap: recorded 400 transactions to {path}\n"
    assert {p.name for p in tmp_path.iterdir()} == {"c.yaml", "lxd", "tap.log"}


@pytest.mark.timeout(SLOW)
def test_full_speed_loses_nothing(tmp_path: Path) -> None:
    """10,000 small requests, pipelined as fast as they go."""
    with recording(tmp_path) as (_, tap, path):
        with connect(tap.path) as sock:
            served = Served()
            for hundred in range(100):
                sock.sendall(b"".join(get(f"/{hundred}/{i}", close=False) for i in range(100)))
                while bytes(served.received).count(b"{}}\n") < 100:
                    read_until(sock, served, b"{}}\n")
                served.received.clear()
            # On a slow machine it has much to look at by then, and says so if it is to end.
            eventually(partial(has_shown, tap, 10_000), SLOW)
        tap.process.send_signal(signal.SIGTERM)
        _, errors = tap.process.communicate(timeout=SLOW)
        assert (tap.process.returncode, errors.count("\n")) == (0, 1), errors
        assert targets(files.load(str(path))) == [
            f"/{h}/{i}" for h in range(100) for i in range(100)
        ]


def test_a_secret_that_is_told_late_is_taken_out_early(tmp_path: Path) -> None:
    """It was used before anything told that it is one."""
    secret = "correct-horse-battery"

    def script(sock: socket.socket, served: Served) -> None:
        words = read_until(sock, served, b"\r\n\r\n")
        told = b'{"metadata":{"secret":"%s"}}\n' % secret.encode()
        sock.sendall(answer(told if b"/told" in words else SYNC))

    with recording(tmp_path, script=script) as (_, tap, path):
        ask(tap.path, get(f"/1.0/{secret}"))
        ask(tap.path, get("/1.0/told"))
        ask(tap.path, get("/1.0/last"))
        assert tap.stop() == 0
    assert targets(files.load(str(path))) == ["/1.0/REDACTED-1", "/1.0/told", "/1.0/last"]
    assert secret not in path.read_text()


def test_recording_nothing_is_a_recording(tmp_path: Path) -> None:
    """It says so, and the cassette is one that can be read."""
    path = tmp_path / "c.yaml"
    with fake_daemon(tmp_path / "lxd", serve) as daemon:
        done = run("run", "--upstream", daemon.path, "-w", str(path), "--", "true")
    assert done.returncode == 0
    assert f"recorded 0 transactions to {path}" in done.stderr
    assert files.load(str(path)).interactions == ()


@pytest.mark.parametrize("begun", [True, False])
def test_a_tap_that_never_was_leaves_nothing(tmp_path: Path, begun: bool) -> None:
    """So that the next one need not overwrite: unlike one that was asked nothing."""
    path = tmp_path / "c.yaml"
    into = prepare(str(path), "lxd", Cleaner(Redactor()), overwrite=False)
    recorder = Recorder(lambda: Worker(None, into.spool, into.saver))
    assert recorder.finish(begun=begun)
    into.spool.close(remove=False)
    assert [p.name for p in tmp_path.iterdir()] == (["c.yaml"] if begun else [])


class _Late(Worker):
    """Reads nothing until much waits for it, and then writes down all of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(None)
        self._path = path

    def run(self, sock: socket.socket) -> int:
        time.sleep(0.5)
        came = b""
        while data := sock.recv(1 << 20):
            came += data
        self._path.write_bytes(came)
        return 0


def handed_over(path: Path, told: Sequence[Event], trimmer: Trimmer | None = None) -> list[Event]:
    """What the recorder's process has of these events."""
    recorder = Recorder(lambda: _Late(path), trimmer)
    for event in told:
        recorder.hear(event)
    assert recorder.finish()
    came, at, heard = path.read_bytes(), 0, list[Event]()
    while at < len(came):
        kind, size = HEAD.unpack_from(came, at)
        at += HEAD.size + size
        heard += decode(came[at - size : at]) if kind in (EVENTS, LARGE) else []
    return heard


def test_what_waits_is_as_it_was_heard(tmp_path: Path) -> None:
    """However late it is read: what comes meanwhile does not take its place."""
    told = [
        WholeMessage(1, number, Moment(number, 0), Direction.SENT, 4, number.to_bytes(4) * 500)
        for number in range(3000)
    ]
    assert handed_over(tmp_path / "came", told) == told


def test_what_a_recording_does_not_keep_is_not_handed_over(tmp_path: Path) -> None:
    """But its size and its hash are; where nothing is recorded, all of it is."""
    at, sent = Moment(1, 0), Direction.SENT
    pieces = [Data(1, 0, at, sent, os.urandom(100_000)) for _ in range(5)]
    end = MessageEnd(1, 0, at, sent)
    assert handed_over(tmp_path / "all", [*pieces, end]) == [*pieces, end]
    digest = hashlib.sha256(b"".join(piece.data for piece in pieces)).hexdigest()
    assert handed_over(tmp_path / "kept", [*pieces, end], Trimmer({sent: 200_000})) == [
        *pieces[:2],
        *(Skipped(1, 0, at, sent, 100_000) for _ in pieces[2:]),
        Digest(1, 0, at, sent, digest),
        end,
    ]


def test_what_was_lost_is_told_in_the_log(tmp_path: Path) -> None:
    """Where the tap could not keep what came: also where nothing is recorded."""
    here, there = socket.socketpair()
    with open(tmp_path / "log", "w") as file, here, there:
        log = Log(file.fileno(), renderer("json", Selection()))
        here.sendall(HEAD.pack(LOST, 0) + HEAD.pack(END, 0))
        here.close()
        begun = datetime.now(UTC)
        assert Worker(log).run(there) == 0
    (note,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert note["text"].startswith("something is missing here")
    assert begun <= datetime.fromisoformat(note["time"]) <= datetime.now(UTC)


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask: spool, cassette, and what lies beside it."""

    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        sock.sendall(answer(b"\xff\0" * 100_000, kind="application/octet-stream"))

    def modes() -> set[int]:
        found = [p for p in tmp_path.rglob("c.*") if p.is_file()]
        found += (tmp_path / "c.files").glob("*")
        return {stat.S_IMODE(p.stat().st_mode) for p in found}

    for mask in (0, 0o22, 0o77):
        shutil.rmtree(tmp_path / "c.files", ignore_errors=True)
        (tmp_path / "lxd").mkdir(exist_ok=True)
        (tmp_path / "lxd/unix.socket").unlink(missing_ok=True)
        with fake_daemon(tmp_path / "lxd", script) as daemon:
            was = os.umask(mask)
            with sidecar(
                tmp_path / "tap", daemon.path, "-w", f"{tmp_path}/c.yaml", "--overwrite"
            ) as tap:
                os.umask(was)
                ask(tap.path, get("/1.0/images/x/export"))
                assert modes() == {0o600}
                assert tap.stop() == 0, said(tap)
            assert modes() == {0o600}
            assert stat.S_IMODE((tmp_path / "c.files").stat().st_mode) == 0o700


# -- what is there is left alone


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (lambda p: p.write_text("mine"), "there is a file at"),
        (lambda p: p.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (lambda p: p.symlink_to("elsewhere"), "is not a file"),
        (lambda p: p.with_name(SPOOL).write_text("mine"), "interrupted, at"),
        (lambda p: p.with_name(SPOOL).symlink_to("elsewhere"), "interrupted, at"),
        (lambda p: os.mkfifo(p.with_name(SPOOL)), "interrupted, at"),
        (lambda p: p.with_name("c.files").symlink_to("elsewhere"), "there is something at"),
    ],
)
def test_what_is_there_is_left_alone(
    tmp_path: Path, there: Callable[[Path], object], why: str
) -> None:
    """It is seen before the command is run; nothing is followed, waited for or changed."""
    there(tmp_path / "c.yaml")
    before = {p: (p.lstat().st_mode, p.lstat().st_mtime_ns) for p in tmp_path.iterdir()}
    overwrite = [] if why == "there is a file at" else ["--overwrite"]
    with tempfile.TemporaryDirectory() as other:
        with fake_daemon(Path(other), serve) as daemon:
            done = run(
                *("run", "--upstream", daemon.path, "-w", f"{tmp_path}/c.yaml", *overwrite),
                *("--", "touch", f"{tmp_path}/ran"),
            )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert why in done.stderr
    assert before == {p: (p.lstat().st_mode, p.lstat().st_mtime_ns) for p in tmp_path.iterdir()}


def test_no_place_is_told_before_anything_runs(tmp_path: Path) -> None:
    """A directory that is not there."""
    with fake_daemon(tmp_path / "lxd", serve) as daemon:
        where = f"{tmp_path}/no/c.yaml"
        done = run("run", "--upstream", daemon.path, "-w", where, "--", "touch", f"{tmp_path}/ran")
    assert done.returncode == 1
    assert "cannot record to" in done.stderr
    assert not (tmp_path / "ran").exists()


# -- on the way


def test_a_cassette_on_the_way(tmp_path: Path) -> None:
    """SIGUSR1 writes a whole one, again and again, and the recording goes on to its end."""
    with recording(tmp_path) as (_, tap, path):
        for count in (1, 2):
            ask(tap.path, get(f"/1.0/{count}"))
            tap.process.send_signal(signal.SIGUSR1)
            eventually(partial(holds, path, count))
        ask(tap.path, get("/1.0/3"))
        assert tap.stop() == 0
        assert targets(files.load(str(path))) == ["/1.0/1", "/1.0/2", "/1.0/3"]
    assert said(tap).count("lxdtap: recorded") == 3


def test_a_cassette_on_the_way_holds_nobody_up(tmp_path: Path) -> None:
    """While one of 3,000 is written, others pass; what is asked for meanwhile comes after it."""
    with recording(tmp_path) as (_, tap, path):
        with connect(tap.path) as sock:
            served = Served()
            for count in range(3000):
                sock.sendall(get(f"/{count}", close=False))
                read_until(sock, served, b"{}}\n")
            for _ in range(3):
                tap.process.send_signal(signal.SIGUSR1)
                time.sleep(0.05)
            for count in range(100):
                sock.sendall(get(f"/more/{count}", close=False))
                read_until(sock, served, b"{}}\n")
        assert not path.exists(), "the first would have been done before: this shows nothing"
        eventually(partial(holds, path, 3100), SLOW)
        tap.process.send_signal(signal.SIGTERM)
        tap.process.communicate(timeout=SLOW)
        assert len(files.load(str(path)).interactions) == 3100


# -- what is killed


def test_the_tap_is_killed(tmp_path: Path) -> None:
    """Its recorder goes on to save what there is, as not complete."""
    with recording(tmp_path) as (_, tap, path):
        ask(tap.path, get("/1.0/1"))
        eventually(lambda: tap.entries("transaction"))
        tap.process.kill()
        eventually(path.exists)
        cassette = files.load(str(path))
        assert targets(cassette) == ["/1.0/1"]
        assert not cassette.complete
        _, errors = tap.process.communicate()
        assert "the tap was killed" in errors
        assert not (tmp_path / SPOOL).exists()


def test_the_recorder_is_killed(tmp_path: Path) -> None:
    """Traffic goes on, it is told aloud, and the spool has what the log showed."""
    with recording(tmp_path) as (_, tap, path):
        ask(tap.path, get("/1.0/1"))
        eventually(lambda: tap.entries("transaction"))
        os.kill(recorder_of(tap), signal.SIGKILL)
        for _ in range(3):
            assert SYNC in ask(tap.path, get("/1.0/2"))
        assert "was ended by signal 9" in tap.line()
        tap.stop()
        assert not path.exists()
        done = run("recover", str(tmp_path / SPOOL))
        assert (done.returncode, done.stderr) == (0, f"lxdtap: recovered 1 transaction to {path}\n")
        assert targets(files.load(str(path))) == ["/1.0/1"]
        assert not (tmp_path / SPOOL).exists()


def test_a_recorder_that_was_killed_fails_the_command(tmp_path: Path) -> None:
    """Where the command succeeded, the exit status tells; else the command's own stays."""
    kill = "kill -9 $(cat /proc/$PPID/task/$PPID/children | cut -d' ' -f1); exit "
    with fake_daemon(tmp_path / "lxd", serve) as daemon:
        for status, expected in (("0", 1), ("7", 7)):
            path = f"{tmp_path}/{status}.yaml"
            done = run(
                "run", "--upstream", daemon.path, "-w", path, "--", "sh", "-c", kill + status
            )
            assert done.returncode == expected
            assert done.stderr.count("was ended by signal 9") == 1


# -- a spool that is damaged


def a_spool(directory: Path) -> bytes:
    """What is spooled of three requests, one after the other: what comes together is a record."""
    with recording(directory) as (_, tap, _):
        for count in range(3):
            ask(tap.path, get(f"/{count}"))
            eventually(partial(has_shown, tap, count + 1))
        for pid in (recorder_of(tap), tap.process.pid):
            os.kill(pid, signal.SIGKILL)
        tap.process.communicate()
    return (directory / SPOOL).read_bytes()


def test_a_damaged_spool_is_recovered_up_to_the_damage(tmp_path: Path) -> None:
    """And it is told that there is more that is not."""
    whole = a_spool(tmp_path)
    (tmp_path / SPOOL).write_bytes(whole[:-3])
    done = run("recover", str(tmp_path / SPOOL), "--keep")
    assert done.returncode == 0
    assert "up to where it ends within a record" in done.stderr
    assert len(files.load(str(tmp_path / "c.yaml")).interactions) == 2
    again = run("recover", str(tmp_path / SPOOL))
    assert again.returncode == 1
    assert "is left alone" in again.stderr
    assert (tmp_path / SPOOL).exists()


@pytest.mark.parametrize("what", ["fifo", "symlink", "text", "none", "live"])
def test_what_is_no_spool_is_not_recovered(tmp_path: Path, what: str) -> None:
    """One line says why; nothing is waited for, followed or removed."""
    path = tmp_path / SPOOL
    with contextlib.ExitStack() as stack:
        if what == "fifo":
            os.mkfifo(path)
        elif what == "symlink":
            path.symlink_to("elsewhere")
        elif what == "text":
            path.write_text("mine")
        elif what == "live":
            stack.enter_context(recording(tmp_path))
        done = run("recover", str(path))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert os.path.lexists(path) is (what != "none")
        assert not (tmp_path / "c.yaml").exists()


# -- what is large


CHUNK = random.Random(1).randbytes(1 << 20)


def download(size: int) -> Callable[[socket.socket, Served], None]:
    def script(sock: socket.socket, served: Served) -> None:
        read_until(sock, served, b"\r\n\r\n")
        kind = "Content-Type: application/octet-stream\r\nConnection: close"
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n{kind}\r\n\r\n".encode())
        for _ in range(size >> 20):
            sock.sendall(CHUNK)

    return script


def fetch(path: str) -> tuple[int, str]:
    """Size and hash of what comes."""
    with connect(path) as sock:
        sock.sendall(get("/1.0/images/x/export"))
        size, digest, head = 0, hashlib.sha256(), True
        while data := sock.recv(1 << 18):
            if head:
                data, head = data.partition(b"\r\n\r\n")[2], False
            size += len(data)
            digest.update(data)
    return size, digest.hexdigest()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc that keeps it")
def test_a_recorder_at_rest_gives_memory_back() -> None:
    """Also what malloc would keep, since something above it is still in use."""
    kept = []

    def render(_: Update) -> str:
        pieces = [b"x" * 100_000 for _ in range(300)]
        kept.append(pieces.pop())
        return ""

    give_back()  # what tests before left is inherited
    others = children(os.getpid())
    recorder = Recorder(lambda: Worker(Log(os.open(os.devnull, os.O_WRONLY), render)))
    (pid,) = set(children(os.getpid())) - set(others)
    before = resident(pid)
    asyncio.run(hear_much(recorder))
    eventually(lambda: resident(pid, "VmHWM") > before + 25_000)
    eventually(lambda: resident(pid) < before + 8_000)
    assert recorder.finish()


ASKED = b"GET / HTTP/1.1\r\n\r\n"


async def hear_much(recorder: Recorder) -> None:
    """Six answers of a megabyte."""
    at, head = Moment(1, 1), b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    recorder.start(asyncio.get_running_loop())
    recorder.hear(Opened(1, at, "http+unix://x", None))
    for number in range(6):
        request = WholeMessage(1, number, at, Direction.SENT, len(ASKED), ASKED)
        recorder.hear(request)
        answer = head + bytes(1_000_000)
        recorder.hear(WholeMessage(1, number, at, Direction.RECEIVED, len(head), answer))
    await asyncio.sleep(1)


@pytest.mark.timeout(SLOW)
def test_a_large_download(tmp_path: Path) -> None:
    """200 MiB: known by size and hash, in bounded memory; its speed is for the bench."""
    size = 200 << 20
    right = hashlib.sha256(CHUNK * 200).hexdigest()
    with recording(tmp_path, script=download(size)) as (_, tap, path):
        pids = tap.process.pid, recorder_of(tap)
        before = [resident(pid, "VmHWM") for pid in pids]
        for _ in range(2):
            found_size, found = fetch(tap.path)
            assert (found_size, found) == (size, right)
        after = [resident(pid, "VmHWM") for pid in pids]
        growth = [now - then for then, now in zip(before, after, strict=True)]
        assert max(growth) <= 64 << 10, growth
        tap.process.send_signal(signal.SIGTERM)
        _, errors = tap.process.communicate(timeout=SLOW)
        assert tap.process.returncode == 0, errors
        for interaction in files.load(str(path)).interactions:
            response = interaction.transaction.response
            assert response is not None
            assert (response.body.size, response.body.sha256) == (size, right)
            assert not interaction.replayable


@pytest.mark.timeout(SLOW)
def test_a_binary_body_lies_beside(tmp_path: Path) -> None:
    """30 MiB of it, whole."""
    with recording(tmp_path, script=download(30 << 20)) as (_, tap, path):
        _, right = fetch(tap.path)
        tap.process.send_signal(signal.SIGTERM)
        _, errors = tap.process.communicate(timeout=SLOW)
        assert tap.process.returncode == 0, errors
        assert [p.name for p in (tmp_path / "c.files").iterdir()] == [right]
        (interaction,) = files.load(str(path)).interactions
        assert interaction.replayable
        assert path.stat().st_size < 10_000


# -- at the end


def test_interrupted_while_saving(tmp_path: Path) -> None:
    """A Ctrl-C to the whole group then does not end it, nor is anything lost."""
    with fake_daemon(tmp_path / "lxd", serve) as daemon:
        path = tmp_path / "c.yaml"
        tap = subprocess.Popen(
            [*LXDTAP, "run", "-q", "--listen", f"{tmp_path}/tap/", "-w", str(path)],
            env=environment(LXD_SOCKET=daemon.path),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert tap.stderr is not None
        tap.stderr.readline()
        with connect(f"{tmp_path}/tap/unix.socket") as sock:
            served = Served()
            for count in range(2000):
                sock.sendall(get(f"/{count}", close=False))
                read_until(sock, served, b"{}}\n")
        for _ in range(6):
            os.killpg(tap.pid, signal.SIGINT)
            time.sleep(0.1)
        _, errors = tap.communicate(timeout=SLOW)
        assert tap.returncode == 0
        assert "Traceback" not in errors
        assert len(files.load(str(path)).interactions) == 2000


def test_a_long_saving_says_how_far_it_is(tmp_path: Path) -> None:
    """On a terminal, once a second."""
    whole = a_spool(tmp_path)
    (tmp_path / SPOOL).unlink()
    records = whole[len(spool.MAGIC) :]
    (tmp_path / "long.spool").write_bytes(spool.MAGIC + records * 12000)
    ours, theirs = pty.openpty()
    tap = subprocess.Popen(
        [*LXDTAP, "recover", str(tmp_path / "long.spool"), "-o", str(tmp_path / "long.yaml")],
        env=environment(),
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    assert tap.wait(SLOW) == 0
    assert b"long.yaml: " in shown
    assert b"%" in shown
