"""What the bench sees of processes, and that it leaves none."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from . import load
from .processes import (
    Address,
    BenchError,
    Running,
    cpu_seconds,
    holders,
    is_busy,
    memory,
    running,
    tree,
    wait,
)

ROOT = Path(__file__).parents[2]
SINK = [sys.executable, "-m", "tests.bench.sink"]
LISTENER = """
import os, signal, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
kept = open(sys.argv[1] + ".kept", "w")
if os.fork():
    os.wait()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pause()
"""


def env() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": str(ROOT)}


def test_a_process_is_gone_with_its_children_and_its_place(tmp_path: Path) -> None:
    """Also where a child does not heed signals."""
    place = tmp_path / "p"
    address = Address(f"{place}/unix.socket")
    with running([sys.executable, "-c", LISTENER, str(address.where)], address, place) as found:
        wait(lambda: len(found.pids()) == 2, "its child")
        pids = found.pids()
        assert holders(pids, Path(f"{address.where}.kept")) == pids
        assert memory(pids) > memory(pids[:1]) > 1 << 20
    for pid in pids:
        assert cpu_seconds(pid) == 0.0
    assert not place.exists()


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    """In the words of the process itself."""
    place = tmp_path / "p"
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    starting = running(command, Address(f"{place}/s"), place)
    with pytest.raises(BenchError, match="no such thing"):
        starting.__enter__()
    assert not place.exists()


def test_what_is_said_later_is_trouble(tmp_path: Path) -> None:
    """And so is what a log says was left out, and an end."""
    place = tmp_path / "p"
    address = Address(f"{place}/unix.socket")
    with running([*SINK, str(address.where)], address, place, env=env()) as found:
        assert found.troubles() == []
        found.log = place / "log"
        found.log.write_text("7 transactions were left out: the log's reader is too slow\n")
        with found.said.open("a") as said:
            said.write("the recording stops here\n")
        assert [line.partition(":")[0] for line in found.troubles()] == [
            "the recording stops here",
            "7 transactions were left out",
        ]
        os.kill(found.process.pid, signal.SIGKILL)
        found.process.wait()
        assert found.troubles()[-1] == "ended with -9"


def test_work_is_counted_and_waited_for(tmp_path: Path) -> None:
    """Settled is what does nothing any more."""
    place = tmp_path / "p"
    address = Address(f"{place}/unix.socket")
    with running([*SINK, str(address.where)], address, place, env=env()) as found:
        before = found.cpu()
        load.download(address, 256 << 20)
        assert found.cpu() > before
        assert found.settle() < 5
        idle = found.cpu()
        time.sleep(0.1)
        assert found.cpu() - idle <= 0.02


def test_the_sink_and_its_clients(tmp_path: Path) -> None:
    """Bodies of any size both ways, many connections in turn, websockets that are held."""
    place = tmp_path / "p"
    address = Address(f"{place}/unix.socket")
    with running([*SINK, str(address.where)], address, place, env=env()) as found:
        assert load.download(address, 3_000_001) > 0
        assert load.upload(address, 3_000_001) > 0
        with load.client(address) as client:
            assert client.ask("/body/0") > 0
            assert client.ask("/body/100000") > 0
        with load.connected(address, 20) as socks:
            assert load.in_turn(socks, 100) > 0
        socks = list(load.websockets(address, 50))
        assert len(os.listdir(f"/proc/{found.process.pid}/fd")) > 50
        for sock in socks:
            sock.close()


def test_what_works_has_not_settled(tmp_path: Path) -> None:
    """It is waited for, however little of the machine it gets."""
    place = tmp_path / "p"
    address = Address(f"{place}/unix.socket")
    busy = LISTENER.replace("signal.pause()", "for _ in range(30_000_000): pass\nsignal.pause()")
    command = ["nice", "-n", "19", sys.executable, "-c", busy, str(address.where)]
    with running(command, address, place) as found:
        assert found.settle() > 0.2
        assert not any(is_busy(pid) for pid in found.pids())


def test_the_tree_of_a_process() -> None:
    """It comes first."""
    assert tree(os.getpid())[0] == os.getpid()


def test_an_answer_that_breaks_off_is_no_measurement(tmp_path: Path) -> None:
    """A download that is too short fails."""
    place = tmp_path / "p"
    address = Address(f"{place}/unix.socket")
    with running([*SINK, str(address.where)], address, place, env=env()) as found:
        with load.client(address) as client:
            _end(found)
            with pytest.raises((BenchError, OSError)):
                client.ask("/body/1")


def _end(found: Running) -> None:
    found.process.kill()
    found.process.wait()
