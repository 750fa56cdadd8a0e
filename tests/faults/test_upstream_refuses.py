"""The daemon cannot be connected to: LXD's envelope says so, at once, as lxdtap's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import Campaign
from tests.process.tap import (
    GET,
    PATIENCE,
    always,
    answer,
    ask,
    environment,
    eventually,
    fake_daemon,
    sidecar,
)
from tests.process.test_not_permitted import Place, place, stranger

from .running import Spread, descriptors, recorded, settled

__all__ = ["place"]  # a fixture

AT_ONCE = 0.1
"""Seconds in which it is to be said."""
LOADED = 1.0
"""Seconds that a machine with much else to do may take now and then, but in a campaign."""
PUT = b"PUT /1.0 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
WEBSOCKET = b"GET /1.0/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"


def refused(path: str, times: int, status: str) -> tuple[dict[str, Any], Spread]:
    """What is said to requests of every kind, the same to all, and how long it takes."""
    said, took = [], []
    for request in (GET, PUT, WEBSOCKET) * times:
        begun = time.monotonic()
        head, _, body = ask(path, request).partition(b"\r\n\r\n")
        took.append(time.monotonic() - begun)
        assert head.startswith(f"HTTP/1.1 {status}\r\n".encode())
        said.append(json.loads(body))
    assert all(each == said[0] for each in said)
    return said[0], Spread(took)


def test_nobody_is_there(tmp_path: Path, campaign: Campaign) -> None:
    """503, to every kind of request; the log says whose answer it was, and that there was none."""
    times = campaign.count(5, 1000)
    whys = {"not listening": "no daemon listens", "absent": "there is no such socket"}
    with fake_daemon(tmp_path / "daemon", always(answer(b"{}"))) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            before = settled(tap.process.pid)
            assert ask(tap.path, GET) == answer(b"{}")
            daemon.close()
            for what, why in whys.items():
                envelope, took = refused(tap.path, times, "503 Service Unavailable")
                assert (envelope["type"], envelope["error_code"]) == ("error", 503)
                assert envelope["error"].startswith("lxdtap: ")
                assert why in envelope["error"]
                campaign.figure(f"daemon {what}", f"503 to {3 * times} requests: {took}")
                assert took.slowest <= AT_ONCE + campaign.spare(LOADED)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(daemon.path)
            assert ask(tap.path, GET.replace(b"GET", b"HEAD")).endswith(b"\r\n\r\n")
            assert ask(tap.path, b"STARTTLS\nxxxx") == b""
            eventually(lambda: descriptors(tap.process.pid) == before)
            tap.stop()
            owned = [entry["own"] for entry in tap.transactions()]
    assert owned == [False] + [True] * (2 * 3 * times + 2)


def fill(pipe: str) -> None:
    """Write until not a byte more has room."""
    number = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(number, b"."):
            pass
    os.close(number)


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_nobody_hears_of_it(tmp_path: Path, reader: str) -> None:
    """Each refusal is said on stderr; clients are answered, and all ends, though nobody reads."""
    path = tmp_path / "w.yaml"
    with fake_daemon(tmp_path / "daemon", always(answer(b"{}"))) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(path)) as tap:
            daemon.close()
            assert tap.process.stderr is not None
            if reader == "gone":
                with open(os.devnull) as nothing:
                    os.dup2(nothing.fileno(), tap.process.stderr.fileno())
            else:
                fill(f"/proc/{tap.process.pid}/fd/2")
            for _ in range(20):
                refused(tap.path, 1, "503 Service Unavailable")
            tap.process.terminate()
            assert tap.process.wait(2 * PATIENCE) == 0
            tap.process.communicate()
            assert len(tap.transactions()) == len(recorded(path).interactions) == 60


# -- not permitted


class Strangers:
    """A sidecar of a stranger's, in front of a daemon that let it in."""

    def __init__(self, place: Place) -> None:
        self.path = str(place.own / "unix.socket")
        self._log = place.own / "log"
        self.process = subprocess.Popen(
            stranger("run", "--listen", f"{place.own}/", "--format", "json", "-o", str(self._log)),
            env=environment(LXD_SOCKET=place.daemon.path),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        assert self.process.stderr.readline().startswith("export ")
        assert self.process.stderr.readline().startswith("lxdtap: in front of ")

    def end(self) -> list[str]:
        """End it in good order; what it said, after what to set and where it is."""
        self.process.send_signal(signal.SIGTERM)
        _, stderr = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return stderr.splitlines()

    @property
    def transactions(self) -> list[dict[str, Any]]:
        whole, _, _ = self._log.read_text().rpartition("\n")
        found = [json.loads(line) for line in whole.splitlines()]
        return [entry for entry in found if entry["event"] == "transaction"]


@contextlib.contextmanager
def strangers(place: Place) -> Iterator[Strangers]:
    """A running sidecar; ended if the test has not."""
    tap = Strangers(place)
    try:
        yield tap
    finally:
        if tap.process.poll() is None:
            tap.process.kill()
            tap.process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who is refused")
def test_it_does_not_let_us_in(place: Place, campaign: Campaign) -> None:
    """403, and the log says whose it is; let in again, on it goes. No mode is changed."""
    times = campaign.count(5, 1000)
    place.admit(0o666)
    with strangers(place) as tap:
        assert ask(tap.path, GET) == answer(b"{}")
        place.admit(0o660)
        envelope, took = refused(tap.path, times, "403 Forbidden")
        place.admit(0o666)
        assert ask(tap.path, GET) == answer(b"{}")
        said = tap.end()
    assert (envelope["type"], envelope["error_code"]) == ("error", 403)
    refusal = f"lxdtap: not permitted to connect to {place.daemon.path} (from LXD_SOCKET)"
    assert envelope["error"].startswith(refusal)
    assert 15 <= len(said) <= 3 * times  # nobody reads meanwhile, and what is over is left out
    assert all(line.startswith(refusal) for line in said)
    told = [(each["status"], each["own"]) for each in tap.transactions]
    assert told == [(200, False), *[(403, True)] * (3 * times), (200, False)]
    assert stat.S_IMODE(os.stat(place.daemon.path).st_mode) == 0o666
    campaign.figure("daemon not permitted", f"403 to {3 * times} requests: {took}")
    assert took.slowest <= AT_ONCE + campaign.spare(LOADED)
