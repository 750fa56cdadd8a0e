"""A throwaway daemon leaves nothing, whatever is done to it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from .throwaway import INCUS, LXD, Brand, Daemon, throwaway, until


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
