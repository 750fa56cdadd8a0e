"""Mixed real traffic for long through one tap: all of it is recorded, and nothing grows.

``LXDTAP_SOAK_SECONDS`` in the environment says how many seconds, in place of the campaign's hour
or a run's few; pytest's ``--timeout`` has to be longer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lxdtap import redact
from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette
from tests.campaign import Campaign
from tests.daemons.throwaway import Daemon
from tests.process.callers import resident
from tests.process.tap import Sidecar, eventually, sidecar

from .running import family, finish, processor
from .traffic import Traffic

SECONDS = "LXDTAP_SOAK_SECONDS"
HOUR = 3600
FIRST = 0.2
"""The part of the time after which what is held counts as settled."""
GROWTH = 1.05
"""What a process' memory may come to from then on."""
LONG = 600
"""Seconds from which on memory is held to that: before, there is no saying what is growth."""
LOOKS = 8
"""How often it is looked at besides, then."""
SLOW = 120.0
"""Seconds that a loaded machine may take to become idle."""
SAVING = 1800.0
FAILURES = 0.05
"""The part of what clients do that may fail by itself; three may in any case."""
DEATH = 50
"""As many more may where the daemon died, and was started again."""

Asked = Counter[tuple[str, str]]
"""How often each (method, target) was asked for."""


# -- what is held


@dataclass(frozen=True)
class Held:
    """What each of a tap's processes holds when nothing is under way."""

    descriptors: list[int]
    memory: list[int]
    """In KiB."""

    @classmethod
    def by(cls, tap: Sidecar) -> Held:
        """Wait until they have nothing to do, and look."""
        pids = family(tap.process.pid)
        eventually(lambda: _idle(pids), SLOW)
        opened = [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
        return cls(opened, [resident(pid) for pid in pids])

    def least(self, other: Held) -> Held:
        """What both looks have in common.

        Memory that was freed goes back to the kernel where it is at the heap's end (mallopt(3),
        M_TRIM_THRESHOLD): what a process holds depends on what it did last.
        """
        return Held(
            list(map(min, self.descriptors, other.descriptors)),
            list(map(min, self.memory, other.memory)),
        )

    def __str__(self) -> str:
        memory = ", ".join(f"{size / 1024:.1f}" for size in self.memory)
        return f"fds {self.descriptors}, RSS {memory} MiB"


def _idle(pids: list[int]) -> bool:
    """Whether they open and close nothing for half a second, and hardly work."""
    before = [(len(os.listdir(f"/proc/{pid}/fd")), processor(pid)) for pid in pids]
    time.sleep(0.5)
    after = [(len(os.listdir(f"/proc/{pid}/fd")), processor(pid)) for pid in pids]
    pairs = zip(before, after, strict=True)
    return all(then[0] == now[0] and now[1] - then[1] <= 0.01 for then, now in pairs)


# -- what was asked, as the daemon, the cassette and the log have it


def _shown(target: str) -> str:
    """Without what the recording takes out."""
    return re.sub(r"\bsecret=[^&]*", "secret=", target)


def _logged_by(daemon: Daemon, mark: int) -> Asked:
    """What the daemon was asked by clients; whether it is ready is asked where it is started."""
    asked = Counter((method, _shown(target)) for method, target in daemon.requests(mark))
    del asked["GET", "/internal/ready"]
    return asked


def _recorded(cassette: Cassette) -> Asked:
    requests = (each.transaction.request for each in cassette.interactions)
    return Counter((request.method, _shown(request.target)) for request in requests)


def _unanswered(cassette: Cassette) -> Asked:
    """What the daemon did not answer, or the tap in its place: it may not have been asked."""
    found = (each.transaction for each in cassette.interactions)
    requests = [
        each.request for each in found if each.response is None or each.response.status == 503
    ]
    return Counter((request.method, _shown(request.target)) for request in requests)


def _entries(log: Path) -> Iterator[dict[str, object]]:
    with log.open() as lines:
        for line in lines:
            yield json.loads(line)


# -- laws


def hold(cassette: Cassette, logged: Asked, deaths: int) -> None:
    """The recording has what the daemon logged.

    And nothing else, but for what was asked while the daemon died.
    """
    recorded = _recorded(cassette)
    assert not logged - recorded, f"not recorded: {logged - recorded}"
    made_up = recorded - logged
    if deaths:
        made_up -= _unanswered(cassette)
    assert not made_up, f"not logged by the daemon: {made_up}"


def settles(first: Held, last: Held, seconds: int) -> None:
    """No process has more open than before, nor much more memory where that can be told."""
    assert len(first.descriptors) == len(last.descriptors), "other processes than before"
    for before, after in zip(first.descriptors, last.descriptors, strict=True):
        assert after <= before, f"{first}, then {last}"
    for before, after in zip(first.memory, last.memory, strict=True):
        assert seconds < LONG or after <= before * GROWTH, f"{first}, then {last}"


def mostly_well(traffic: Traffic, deaths: int) -> None:
    """Clients had nothing that only a tap can do to them, and few failures."""
    tally = traffic.tally
    assert not tally.faults, tally.faults
    failed, done = tally.failures.total(), tally.done.total()
    most = max(3, FAILURES * done) + deaths * DEATH
    assert failed <= most, f"{failed} of {done}: {tally.failures}"


def unexpected(said: list[str], deaths: int) -> list[str]:
    """What a tap says besides how much it recorded, and that a daemon that died is not there."""
    known = r"lxdtap: recorded " + (r"|lxdtap: no daemon listens at " if deaths else "")
    return [line for line in said if not re.match(known, line)]


def counted(log: Path, asked: Counter[str], deaths: int) -> int:
    """What clients counted is in the log, and whole; how many transactions are."""
    count, marks = 0, Counter[str]()
    for entry in _entries(log):
        if entry["event"] == "note":
            assert unexpected([f"lxdtap: {entry['text']}"], deaths) == []
        if entry["event"] == "transaction":
            count += 1
            if marked := re.search(r"\bsoak=([\w-]+)", str(entry["target"])):
                marks[marked[1]] += 1
                assert deaths or not entry["broken"], entry
    assert marks == asked
    return count


# -- the test


def _seconds(campaign: Campaign) -> int:
    seconds = int(os.environ.get(SECONDS, campaign.count(12, HOUR)))
    campaign.made("seconds", seconds, HOUR)
    return seconds


def _ticks(seconds: float) -> Iterator[float]:
    """One second each, until so many have gone by."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        yield min(1.0, left)


def _rest(traffic: Traffic, tap: Sidecar, looks: int) -> Held:
    """What is held when all has come to its end; each look is after the same few requests."""
    held = Held.by(tap)
    for _ in range(looks):
        traffic.settle()
        held = held.least(Held.by(tap))
    return held


def _quiet(daemon: Daemon) -> None:
    """Wait until the daemon logs nothing more: it may be behind with what nobody waits for."""

    def rests() -> bool:
        before = daemon.mark()
        time.sleep(0.5)
        return before == daemon.mark()

    eventually(rests, SLOW)


def _size(cassette: Path) -> int:
    """Bytes of a cassette, and of what lies beside it."""
    beside = Path(files.beside(str(cassette)))
    return cassette.stat().st_size + sum(each.stat().st_size for each in beside.glob("*"))


def test_soak(tmp_path: Path, lxd: Daemon, campaign: Campaign) -> None:
    """Clients work, come and go; the daemon, the clients and the recording count the same.

    No process of the tap has more descriptors open, or more memory, than it had early on, when it
    remembered as many secrets as it ever will; and it says nothing but that it has recorded.
    """
    seconds, cassette_at = _seconds(campaign), tmp_path / "w.yaml"
    mark, deaths = lxd.mark(), lxd.deaths
    with sidecar(tmp_path / "tap", str(lxd.socket), "-w", str(cassette_at)) as tap:
        traffic = Traffic(lxd, tap.path, tmp_path)
        looks, rests = LOOKS if seconds >= LONG else 0, []
        if seconds >= LONG:
            traffic.fill(redact.REMEMBERED)
        for part in (FIRST, 1 - FIRST):
            total = round(seconds * part)
            traffic.run(campaign.progress("soak", _ticks(total), total))
            rests.append(_rest(traffic, tap, looks))
        _quiet(lxd)
        begun = time.monotonic()
        said = finish(tap, SAVING)
        saving = time.monotonic() - begun
    deaths = lxd.deaths - deaths
    first, last = rests
    size, tally = _size(cassette_at), traffic.tally
    cassette = files.load(str(cassette_at), attachments=False)
    transactions = len(cassette.interactions)
    campaign.figure(
        "soak",
        f"{seconds} s, {transactions} transactions, cassette {size / 1e6:.0f} MB saved in"
        f" {saving:.1f} s; at 20 % {first}; at the end {last}; {tally.done.total()} done, failed by"
        f" itself {tally.failures.total()}, deaths of the daemon {deaths}",
    )
    for why, count in tally.failures.items():
        campaign.figure("soak, failed", f"{count} x {' '.join(why.split())}")
    assert cassette.complete
    assert unexpected(said, deaths) == []
    assert counted(tap.log, tally.asked, deaths) == transactions
    hold(cassette, _logged_by(lxd, mark), deaths)
    mostly_well(traffic, deaths)
    settles(first, last, seconds)
    for large in (tap.log, cassette_at):
        large.unlink()
    shutil.rmtree(files.beside(str(cassette_at)), ignore_errors=True)
