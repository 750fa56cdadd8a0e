"""Something stands where the tap is to listen: a stale socket goes, all else is left as it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import Campaign
from tests.daemons.throwaway import Daemon
from tests.process.tap import (
    GET,
    LXDTAP,
    PATIENCE,
    FakeDaemon,
    always,
    answer,
    ask,
    environment,
    fake_daemon,
)

SLOW = 60


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path / "daemon", always(answer(b"{}"))) as daemon:
        yield daemon


def attempt(upstream: str, place: Path) -> subprocess.Popen[str]:
    """A tap that is to listen there."""
    arguments = ["run", "-q", "--upstream", upstream, "--listen", str(place)]
    return subprocess.Popen(
        [*LXDTAP, *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(attempted: subprocess.Popen[str]) -> str:
    """The one line for which a tap did not come up."""
    stdout, stderr = attempted.communicate(timeout=SLOW)
    assert (attempted.returncode, stdout) == (1, "")
    [line] = stderr.splitlines()
    assert line.startswith("lxdtap: ")
    return line


def states(directory: Path) -> dict[Path, tuple[int, ...]]:
    """What all names below a directory stand for, and what could be changed of it."""
    fields = ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_nlink")
    return {
        each: tuple(getattr(os.lstat(each), field) for field in fields)
        for each in directory.rglob("*")
    }


def put(what: str, path: Path, other: Path) -> socket.socket | None:
    """Have something stand there; the socket, where it has to be kept."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if what == "datagram" else 1)
    match what:
        case "live":
            sock.bind(str(path))
            sock.listen()
            return sock
        case "datagram":
            sock.bind(str(path))
            return sock
        case "file":
            path.write_text("precious")
        case "symlink":
            path.symlink_to(other)
        case "dangling symlink":
            path.symlink_to(other.parent / "elsewhere")
        case "symlink to stale":
            sock.bind(str(path.parent / "stale"))
            path.symlink_to("stale")
        case "hard link":
            path.hardlink_to(other)
        case "fifo":
            os.mkfifo(path)
        case _:
            path.mkdir()
    sock.close()
    return None


KINDS = ("live", "file", "symlink to stale", "hard link", "fifo")
MORE_KINDS = ("datagram", "symlink", "dangling symlink", "directory")


def test_what_is_no_stale_socket(tmp_path: Path, daemon: FakeDaemon, campaign: Campaign) -> None:
    """It is refused in one line that names it, and left as it is; so is what it leads to."""
    other = tmp_path / "other"
    other.write_text("precious")
    kept, paths = [], []
    for number, what in enumerate((*KINDS, *MORE_KINDS[: campaign.count(0, 9)])):
        place = tmp_path / str(number)
        place.mkdir()
        paths.append(place / "unix.socket")
        kept.append(put(what, paths[-1], other))
    before = states(tmp_path)
    attempts = [attempt(daemon.path, path) for path in paths]
    for path, attempted in zip(paths, attempts, strict=True):
        assert str(path) in refused(attempted)
    assert states(tmp_path) == before
    assert other.read_text() == "precious"
    for sock in filter(None, kept):
        sock.close()


def test_no_place_to_be(daemon: FakeDaemon) -> None:
    """In front of itself, and where clients would not find it."""
    odd = daemon.directory / "my.socket"
    ourselves, unfound = map(refused, [attempt(daemon.path, at) for at in (daemon.directory, odd)])
    assert "are the same" in ourselves
    assert "clients look for" in unfound
    assert os.listdir(daemon.directory) == ["unix.socket"]
    assert ask(daemon.path, GET) == answer(b"{}")


def test_lxd_itself(daemon: FakeDaemon, lxd: Daemon) -> None:
    """Its socket is refused, whichever daemon is to be tapped; LXD goes on to serve there."""
    before = states(lxd.directory)[lxd.socket]
    attempts = [attempt(upstream, lxd.directory) for upstream in (daemon.path, str(lxd.socket))]
    taken, same = map(refused, attempts)
    assert "somebody does already, another lxdtap or the daemon itself" in taken
    assert "are the same" in same
    assert states(lxd.directory)[lxd.socket] == before
    assert not list(lxd.directory.glob(".lxdtap*"))
    assert ask(str(lxd.socket), GET).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_stale_socket(tmp_path: Path, daemon: FakeDaemon, campaign: Campaign) -> None:
    """It is replaced; of taps that find it at once one comes to listen, the others are refused."""
    rounds, rivals = campaign.count(1, 100), campaign.count(2, 4)
    for number in campaign.progress("rivals", range(rounds), rounds):
        place = tmp_path / str(number)
        place.mkdir()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(place / "unix.socket"))
        attempts = [attempt(daemon.path, place) for _ in range(rivals)]
        [winner] = [each for each in attempts if begun(each)]
        for each in attempts:
            if each is not winner:
                each.communicate(timeout=SLOW)
                assert each.returncode == 1
        before = states(place)
        assert "somebody does already" in refused(attempt(daemon.path, place))
        assert states(place) == before
        assert ask(str(place / "unix.socket"), GET) == answer(b"{}")
        winner.send_signal(signal.SIGTERM)
        winner.communicate(timeout=PATIENCE)
        assert (winner.returncode, os.listdir(place)) == (0, [])
    campaign.figure("a stale socket", f"{rounds} times {rivals} at once: one replaces it")


def begun(attempted: subprocess.Popen[str]) -> bool:
    """Whether it has come to listen, which its first line says."""
    assert attempted.stderr is not None
    return attempted.stderr.readline().startswith("export ")
