"""Killed while it records: what the log showed is there, and what is there is a prefix."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette
from tests.campaign import Campaign
from tests.process.callers import children
from tests.process.recording import SLOW, SPOOL, SYNC, get, recorder_of, recover, targets
from tests.process.tap import PATIENCE, Sidecar, answer, eventually, sidecar

from .upstreams import Upstream, serving, upstream

ANSWER = answer(SYNC, close=False)


@dataclass
class Client:
    """Asks on one connection, so many at once, and goes on until it is told to stop."""

    path: str
    name: str
    at_once: int
    answered: int = 0
    over: bool = False
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.over = True
        self._thread.join()

    def _ask(self) -> None:
        # The tap may be killed before it has this connection, too.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self.path)
            while not self.over:
                numbers = range(self.answered, self.answered + self.at_once)
                sock.sendall(b"".join(get(f"/{self.name}/{n}", close=False) for n in numbers))
                left = self.at_once * len(ANSWER)
                while left:
                    data = sock.recv(left)
                    if not data:
                        return
                    left -= len(data)
                self.answered += self.at_once


@dataclass
class Turn:
    """One recording that is to be killed."""

    directory: Path
    tap: Sidecar
    clients: list[Client]
    recovered: bool = False

    @property
    def cassette(self) -> Path:
        return self.directory / "c.yaml"

    @property
    def spool(self) -> Path:
        return self.directory / SPOOL

    @functools.cached_property
    def kept(self) -> Cassette:
        """What was recorded, once it is a cassette."""
        return files.load(str(self.cassette))

    def of(self, client: Client) -> list[str]:
        """What is kept of a client."""
        return [each for each in targets(self.kept) if each.startswith(f"/{client.name}/")]

    def shown(self) -> set[str]:
        """What the log showed; its last line may be cut."""
        text = self.tap.log.read_text()
        self.tap.log.write_text(text[: text.rfind("\n") + 1])
        return {entry["target"] for entry in self.tap.entries("transaction")}

    def stop(self) -> None:
        for client in self.clients:
            client.stop()

    def recover(self) -> None:
        """Make the cassette of the spool that is left."""
        self.recovered = True
        done = recover(self.spool)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
        assert not self.spool.exists()


@contextlib.contextmanager
def turn(directory: Path, daemon: Upstream) -> Iterator[Turn]:
    """A tap that records, and two clients that do not leave off asking."""
    directory.mkdir()
    with sidecar(directory / "tap", daemon.path, "-w", f"{directory}/c.yaml") as tap:
        clients = [Client(tap.path, "steps", 1), Client(tap.path, "leaps", 10)]
        try:
            yield Turn(directory, tap, clients)
        finally:
            for client in clients:
                client.over = True


def kill_all(at: Turn) -> None:
    """At one moment: none of them sees another one's end."""
    family = [at.tap.process.pid, *children(at.tap.process.pid)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in family:
            os.kill(pid, number)
    at.tap.process.communicate()
    at.stop()
    at.recover()


def kill_the_tap(at: Turn) -> None:
    """Its recorder saves what it saw."""
    at.tap.process.kill()
    _, errors = at.tap.process.communicate(timeout=SLOW)
    at.stop()
    assert "the tap was killed" in errors
    assert not at.spool.exists()


def kill_the_recorder(at: Turn) -> None:
    """Traffic goes on, and in the end the exit status tells."""
    os.kill(recorder_of(at.tap), signal.SIGKILL)
    before = [client.answered for client in at.clients]
    eventually(lambda: all(c.answered > b for c, b in zip(at.clients, before, strict=True)), SLOW)
    at.stop()
    at.tap.process.send_signal(signal.SIGTERM)
    _, errors = at.tap.process.communicate(timeout=SLOW)
    assert errors.count("was ended by signal 9") == errors.count("\n") == 1, errors
    assert at.tap.process.returncode == 1
    assert not at.cassette.exists()
    at.recover()


def kill_while_saving(at: Turn) -> None:
    """The cassette is there, whole, or the spool still is."""
    recorder = recorder_of(at.tap)
    at.stop()
    at.tap.process.send_signal(signal.SIGTERM)
    # From the first moment of its end to after the last.
    time.sleep(random.Random(at.directory.name).uniform(0, 0.25))
    with contextlib.suppress(ProcessLookupError):
        os.kill(recorder, signal.SIGKILL)
    at.tap.process.communicate(timeout=SLOW)
    if at.cassette.exists():
        for client in at.clients:
            assert len(at.of(client)) == client.answered
        assert at.kept.complete
    else:
        assert at.tap.process.returncode == 1
        at.recover()


KILLS = [kill_all, kill_the_tap, kill_the_recorder, kill_while_saving]


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: kill.__name__)
def test_killed_at_any_moment(
    tmp_path: Path, campaign: Campaign, kill: Callable[[Turn], None]
) -> None:
    """What is recorded is a prefix of what was asked, and has all that the log showed, answered."""
    turns = campaign.count(3, 250)
    dice = random.Random(kill.__name__)
    shown = kept = recovered = 0
    with upstream(tmp_path / "lxd", serving(lambda _: ANSWER)) as daemon:
        for number in campaign.progress(kill.__name__, range(turns), turns):
            with turn(tmp_path / str(number), daemon) as at:
                time.sleep(dice.uniform(0, 0.1))
                kill(at)
                for client in at.clients:
                    found = at.of(client)
                    assert found == [f"/{client.name}/{n}" for n in range(len(found))]
                    assert len(found) <= client.answered + client.at_once
                transactions = [i.transaction for i in at.kept.interactions]
                whole = {t.request.target for t in transactions if not t.broken}
                logged = at.shown()
                assert logged <= whole
                shown += len(logged)
                kept += len(transactions)
                recovered += at.recovered
    words = kill.__name__.replace("_", " ")
    told = f"{turns} times, {recovered} of them recovered from the spool"
    campaign.figure(f"kill -9: {words}", f"{told}; {shown} transactions shown, {kept} kept")
