"""The clock is set back while it records: no time is negative, and the order stays."""

from __future__ import annotations

import datetime as dt
import itertools
import os
from pathlib import Path

from lxdtap.cassette import files
from tests.campaign import Campaign
from tests.process.recording import SYNC, get, targets
from tests.process.tap import answer, ask, environment, run, sidecar

from . import needs
from .running import finish
from .upstreams import serving, upstream

SLOW = 120
"""Seconds for saving: whoever asks for the time waits for a file to be read."""


def test_the_clock_is_set_back(tmp_path: Path, campaign: Campaign) -> None:
    """By an hour with each request: the wall's clock alone; what is recorded can be played."""
    path, clock, times = tmp_path / "c.yaml", tmp_path / "clock", campaign.count(20, 2000)
    now = dt.datetime(2026, 1, 31, 12)

    def set_to(moment: dt.datetime) -> None:
        draft = tmp_path / "draft"
        draft.write_text(f"{moment:%Y-%m-%d %H:%M:%S}\n")
        os.replace(draft, clock)

    set_to(now)
    env = environment(
        LD_PRELOAD=needs.faketime(),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        TZ="UTC",
    )
    with upstream(tmp_path / "lxd", serving(lambda _: answer(SYNC))) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(path), env=env) as tap:
            for number in campaign.progress("clock", range(times), times):
                set_to(now - dt.timedelta(hours=number))
                assert SYNC in ask(tap.path, get(f"/{number}"))
            finish(tap, SLOW)
            logged = tap.transactions()
    assert [entry["target"] for entry in logged] == [f"/{number}" for number in range(times)]
    assert all(entry["duration"] >= 0 for entry in logged)
    walls = [dt.datetime.fromisoformat(entry["time"]) for entry in logged]
    assert all(later < earlier for earlier, later in itertools.pairwise(walls)), "it was not set"
    cassette = files.load(str(path))
    assert targets(cassette) == [f"/{number}" for number in range(times)]
    for interaction in cassette.interactions:
        timing = interaction.transaction.timing
        moments = [timing.begun, timing.sent, timing.answered, timing.ended]
        known = [moment for moment in moments if moment is not None]
        assert known == sorted(known)
    shown = run("show", "--format", "line", str(path))
    assert (shown.returncode, shown.stdout.count("\n")) == (0, times)
    campaign.figure("the clock set back", f"{times} times by an hour: order and durations stay")
