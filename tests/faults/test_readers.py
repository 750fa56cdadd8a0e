"""Who reads the log, and what records, may be slow, stopped or gone: traffic goes on."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lxdtap.cassette import files
from tests.campaign import Campaign
from tests.process.recording import SLOW, SPOOL, SYNC, get, recorder_of, spooled, targets
from tests.process.tap import answer, ask, eventually, sidecar

from .running import Spread, finish
from .upstreams import serving, upstream

MIB = 1 << 20
LARGE = b'{"metadata":"%s"}\n' % (b"a" * 100_000)


def test_the_reader_leaves(tmp_path: Path) -> None:
    """As ``| head -1`` does: all else is answered and recorded, and nothing is wrong."""
    path = tmp_path / "c.yaml"
    with upstream(tmp_path / "lxd", serving(lambda _: answer(SYNC))) as daemon:
        with subprocess.Popen(
            ["head", "-1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as head:
            assert head.stdin is not None
            assert head.stdout is not None
            written = head.stdin.fileno()
            with sidecar(
                tmp_path / "tap", daemon.path, "-w", str(path), form="line", stdout=written
            ) as tap:
                head.stdin.close()
                ask(tap.path, get("/0"))
                assert b"GET /0 200" in head.stdout.readline()
                head.wait()
                for number in range(1, 200):
                    assert SYNC in ask(tap.path, get(f"/{number}"))
                assert finish(tap) == [f"lxdtap: recorded 200 transactions to {path}"]
    assert targets(files.load(str(path))) == [f"/{number}" for number in range(200)]


@pytest.mark.timeout(20 * SLOW)
def test_the_reader_is_slow(tmp_path: Path, campaign: Campaign) -> None:
    """It reads in the end: what was left out is counted; it is recorded all the same."""
    path, spool, times = tmp_path / "c.yaml", tmp_path / SPOOL, campaign.count(250, 2500)
    ours, theirs = os.pipe()
    took = []
    with upstream(tmp_path / "lxd", serving(lambda _: answer(LARGE))) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(path), stdout=theirs) as tap:
            os.close(theirs)
            for number in range(times):
                begun = time.monotonic()
                assert LARGE in ask(tap.path, get(f"/{number}"))
                took.append(time.monotonic() - begun)
            eventually(lambda: spool.stat().st_size > times * len(LARGE), SLOW)
            time.sleep(0.5)  # the last of it may not have come to the log
            tap.process.send_signal(signal.SIGTERM)
            with open(ours) as log:
                lines = log.read()
            _, errors = tap.process.communicate(timeout=SLOW)
    left_out = [int(n) for n in re.findall(r"(\d+) transactions were left out", lines)]
    left_out += [int(n) for n in re.findall(r"lacks the last (\d+) transactions", errors)]
    assert left_out, errors
    assert lines.count('"event":"transaction"') + sum(left_out) == times
    assert f"recorded {times} transactions" in errors
    assert tap.process.returncode == 0, errors
    assert targets(files.load(str(path))) == [f"/{number}" for number in range(times)]
    campaign.figure("the log's reader is slow", f"{times} answers: {Spread(took)}; 0 lost")


@pytest.mark.timeout(20 * SLOW)
def test_the_recorder_is_stopped(tmp_path: Path, campaign: Campaign) -> None:
    """By SIGSTOP: nobody waits, and when it goes on it has all of it."""
    path, times = tmp_path / "c.yaml", campaign.count(300, 20_000)
    took = []
    with upstream(tmp_path / "lxd", serving(lambda _: answer(SYNC))) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(path)) as tap:
            recorder = recorder_of(tap)
            os.kill(recorder, signal.SIGSTOP)
            for number in range(times):
                begun = time.monotonic()
                assert SYNC in ask(tap.path, get(f"/{number}"))
                took.append(time.monotonic() - begun)
            assert tap.entries() == []
            os.kill(recorder, signal.SIGCONT)
            finish(tap, SLOW)
            assert len(tap.transactions()) == times
    assert targets(files.load(str(path))) == [f"/{number}" for number in range(times)]
    campaign.figure("the recorder stopped", f"{times} answers: {Spread(took)}; 0 lost")


@pytest.mark.timeout(20 * SLOW)
def test_the_recorder_is_stopped_for_long(tmp_path: Path) -> None:
    """Until more waits than may: traffic goes on, and it is told that the recording does not."""
    body = random.Random(1).randbytes(4 * MIB)
    told = answer(body, kind="application/octet-stream")
    path = tmp_path / "c.yaml"
    with upstream(tmp_path / "lxd", serving(lambda _: told)) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(path)) as tap:
            recorder = recorder_of(tap)
            os.kill(recorder, signal.SIGSTOP)
            for number in range(20):
                assert ask(tap.path, get(f"/{number}")) == told
            os.kill(recorder, signal.SIGCONT)
            ask(tap.path, get("/last"))
            tap.process.send_signal(signal.SIGTERM)
            _, errors = tap.process.communicate(timeout=SLOW)
    assert tap.process.returncode == 1
    assert errors.count("the recording stops here: more came than could be written") == 1
    cassette = files.load(str(path))
    assert not cassette.complete
    assert targets(cassette) == [f"/{number}" for number in range(len(cassette.interactions))]
    assert 5 < len(cassette.interactions) < 20


@pytest.mark.timeout(20 * SLOW)
def test_a_recorder_that_does_not_end(tmp_path: Path) -> None:
    """It is waited for; a second SIGTERM ends that, and the spool is left."""
    path = tmp_path / "c.yaml"
    told = answer(b"{}")
    with upstream(tmp_path / "lxd", serving(lambda _: told)) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(path)) as tap:
            assert ask(tap.path, get("/1")) == told
            eventually(lambda: len(tap.entries("transaction")) == 1)
            os.kill(recorder_of(tap), signal.SIGSTOP)
            tap.process.send_signal(signal.SIGTERM)
            eventually(lambda: not Path(tap.path).exists())
            with pytest.raises(subprocess.TimeoutExpired):
                tap.process.wait(1)
            tap.process.send_signal(signal.SIGTERM)
            _, errors = tap.process.communicate(timeout=SLOW)
    assert tap.process.returncode == 1
    assert "was ended by signal 9" in errors
    assert spooled(tmp_path / SPOOL)[0] == ["/1"]
