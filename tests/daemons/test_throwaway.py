"""A throwaway daemon leaves nothing, whatever is done to it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from .throwaway import INCUS, LXD, Brand, Daemon, last_words, throwaway, until

ROOT = Path(__file__).parents[2]

PERILS = """
def kill(daemon):
    daemon.run("launch", "bb", "w1")
    daemon.run("config", "set", "core.https_address", "127.0.0.1:0")
    daemon.run("stop", "-f", "c1")
    daemon.process.kill()

def hold(daemon):
    assert daemon.state() == daemon.base
    assert "core.https_address" not in daemon.ask("GET", "/1.0")["config"]
    assert daemon.run("exec", "c1", "--", "echo", "well").stdout == b"well\\n"

def test_first(KIND):
    hold(KIND)
    kill(KIND)

def test_second(KIND):
    hold(KIND)
    kill(KIND)

def test_third(KIND):
    hold(KIND)
    KIND.process.kill()

def test_fourth(KIND):
    hold(KIND)
    KIND.process.kill()

def test_fifth(KIND):
    pass

def test_sixth(KIND):
    pass
"""


@pytest.fixture(params=[LXD, INCUS], ids=["lxd", "incus"])
def brand(request: pytest.FixtureRequest) -> Brand:
    """Either."""
    chosen: Brand = request.param
    return chosen


def pid_of(daemon: Daemon) -> int:
    """Who listens on its socket (unix(7), SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", told)[0])


def has_ended(pid: int) -> bool:
    """Whether nobody runs by that number, or one that only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    except OSError:
        return True


def naming(home: Path) -> list[str]:
    """The mounts and the command lines of processes that name it."""
    found = [m for m in Path("/proc/self/mounts").read_text().splitlines() if f"{home}/" in m]
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    return found + [line for line in said.splitlines() if f"{home}/" in line]


def test_who_goes_on_writing(brand: Brand) -> None:
    """A client that still asks, and so makes its directory again and again, is ended."""
    with throwaway(brand) as daemon:
        script = f"while :; do {brand.client} list; mkdir -p $HOME/conf/more; done"
        client = subprocess.Popen(
            ["sh", "-c", script],
            env=daemon.environment | daemon.directions,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    assert client.wait() == -signal.SIGKILL
    assert not daemon.home.exists()
    assert naming(daemon.home) == []


def test_a_daemon_that_was_killed(brand: Brand) -> None:
    """Its container goes too, with what runs in it, and its mounts."""
    with throwaway(brand) as daemon:
        [inside] = daemon.ask("GET", "/1.0/instances?recursion=2")
        os.kill(pid_of(daemon), signal.SIGKILL)
    until(lambda: has_ended(inside["state"]["pid"]), "the end of the container", 5)
    assert not daemon.home.exists()
    assert naming(daemon.home) == []


def test_a_death_costs_one_test(brand: Brand, tmp_path: Path) -> None:
    """The next has a daemon as it was when new; it is told; more than three times is an error."""
    perils = tmp_path / "test_perils.py"
    perils.write_text(PERILS.replace("KIND", brand.kind))
    options = ["-p", "tests.daemons.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, *options, perils],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    assert "4 passed, 2 errors" in said, said
    assert "3 daemons started again" in said, said
    assert f"before test_second: {brand.kind} died, signal 9: " in said
    assert said.count("It died 3 times before: it is not started again") >= 2, said
    assert "Connection refused" not in said


def test_last_words() -> None:
    """A panic's beginning; of a death without one the last lines."""
    log = b'msg="one"\nmsg="two"\nmsg="three"\nmsg="four"\n'
    assert last_words(log) == 'msg="two"\nmsg="three"\nmsg="four"'
    panic = b"panic: close of closed channel\n\ngoroutine 7 [running]:\nmain.f()\n\tf.go:1\n"
    told = "panic: close of closed channel\ngoroutine 7 [running]:\nmain.f()"
    assert last_words(log + panic + log, lines=4) == told
