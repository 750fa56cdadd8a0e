"""Saving that fails: the old cassette or the new one, never half of one, and the spool stays."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette
from tests.campaign import Campaign
from tests.process.recording import SLOW, SPOOL, get, recorder_of, recover, targets
from tests.process.tap import LXDTAP, answer, ask, environment, eventually, sidecar

from . import needs
from .upstreams import Request, serving, upstream

OLD = Path("cassettes/lxd/images.yaml").resolve()
"""A cassette that is there before, with something beside it."""
PAGE = 4096
"""A tmpfs fills by so many bytes."""
ASKED = 6
SIZE = 100_000


def respond(request: Request) -> bytes:
    """Half of what is asked for would lie beside the cassette."""
    number = int(request.line.split()[1][1:])
    if number % 2:
        return answer(b'{"metadata":"%s"}\n' % (b"a" * SIZE))
    return answer(random.Random(number).randbytes(SIZE), kind="application/octet-stream")


@pytest.fixture(scope="module")
def spooled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What is spooled of a few answers."""
    here = tmp_path_factory.mktemp("spooled")
    path = here / "c.yaml"
    with upstream(here / "lxd", serving(respond)) as daemon:
        with sidecar(here / "tap", daemon.path, "-w", str(path)) as tap:
            for number in range(ASKED):
                ask(tap.path, get(f"/{number}"))
            eventually(lambda: len(tap.entries("transaction")) == ASKED)
            for pid in (recorder_of(tap), tap.process.pid):
                os.kill(pid, signal.SIGKILL)
            tap.process.communicate()
    return (here / SPOOL).read_bytes()


class Place:
    """Where there is a cassette, and a spool of another."""

    def __init__(self, directory: Path, spooled: bytes) -> None:
        self.directory = directory
        self.path = directory / "c.yaml"
        self.spool = directory.parent / SPOOL
        self._spooled = spooled

    def lay(self) -> None:
        """Have it as it was."""
        self.spool.write_bytes(self._spooled)
        shutil.rmtree(self.directory / "c.files", ignore_errors=True)
        for each in self.directory.glob("*c.yaml*"):
            each.unlink()
        shutil.copy(OLD, self.path)
        shutil.copytree(OLD.with_suffix(".files"), self.directory / "c.files")

    @property
    def cassette(self) -> Cassette:
        return files.load(str(self.path))

    @property
    def untouched(self) -> bool:
        """Whether all is as it was."""
        there = {path.name for path in self.directory.rglob("*")}
        beside = {path.name for path in OLD.with_suffix(".files").iterdir()}
        same = there == {"c.yaml", "c.files"} | beside
        return same and self.path.read_bytes() == OLD.read_bytes() and self.spool_is_whole

    @property
    def spool_is_whole(self) -> bool:
        return self.spool.exists() and self.spool.read_bytes() == self._spooled

    @property
    def is_old(self) -> bool:
        """Whether it is the old cassette; else it is the whole new one."""
        if self.path.read_bytes() == OLD.read_bytes():
            return self.cassette == files.load(str(OLD))
        assert targets(self.cassette) == [f"/{number}" for number in range(ASKED)]
        assert all(each.replayable for each in self.cassette.interactions)
        return False


def test_no_room_for_the_cassette(tmp_path: Path, campaign: Campaign, spooled: bytes) -> None:
    """However much there is: refused in one line and nothing touched, until there is enough."""
    refused = 0
    with needs.disk(tmp_path / "small", 4 << 20) as small:
        place = Place(small, spooled)
        while True:
            place.lay()
            filler = small / "filler"
            free = os.statvfs(small).f_bavail
            filler.write_bytes(bytes(max(0, free - refused * campaign.count(60, 1)) * PAGE))
            done = recover(place.spool, "-o", str(place.path), "--overwrite")
            filler.unlink()
            assert done.stderr.count("\n") == 1, done.stderr
            if done.returncode == 0:
                break
            assert "No space left on device" in done.stderr
            assert place.untouched
            refused += 1
        assert not place.is_old
        assert not place.spool.exists()
    assert refused
    campaign.figure("no room for the cassette", f"{refused} disks too small: nothing touched")


RENAMES = "rename,renameat,renameat2,link,linkat"
UNLINKS = "unlink,unlinkat,rmdir"
FAULTS = [
    f"{needs.WRITES}:error=ENOSPC",
    f"{needs.WRITES}:error=EIO",
    f"{needs.WRITES}:signal=KILL",
    "fsync,fdatasync:error=EIO",
    "fsync,fdatasync:signal=KILL",
    f"{RENAMES}:error=EIO",
    f"{RENAMES}:signal=KILL",
    f"{UNLINKS}:signal=KILL",
]


@pytest.mark.timeout(10 * SLOW)
def test_a_call_fails_while_it_is_saved(tmp_path: Path, campaign: Campaign, spooled: bytes) -> None:
    """Whichever it is: the old cassette or the new one, and the spool unless it is the new one."""
    (tmp_path / "here").mkdir()
    place = Place(tmp_path / "here", spooled)
    for fault in FAULTS[:: campaign.count(3, 1)]:
        tried, kept = _failing_in_turn(place, fault, campaign.count(1, 100))
        assert kept
        campaign.figure(f"saving: {fault}", f"each of {tried} calls; the old one kept {kept} times")


def _failing_in_turn(place: Place, fault: str, most: int) -> tuple[int, int]:
    """Have each such call fail, until none is left; how many, and how often the old one stayed."""
    kept = 0
    for which in range(1, most + 1):
        place.lay()
        command = [*LXDTAP, "recover", str(place.spool), "-o", str(place.path), "--overwrite"]
        done = subprocess.run(
            [*needs.failing(f"{fault}:when={which}"), *command],
            env=environment(PYTHONDONTWRITEBYTECODE="1"),
            capture_output=True,
            text=True,
            timeout=SLOW,
        )
        if place.is_old:
            kept += 1
            assert place.spool_is_whole
            if done.returncode > 0:
                assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
                assert place.untouched
        elif done.returncode == 0 and done.stderr.count("\n"):
            assert not place.spool.exists()
            return which - 1, kept  # there are no more such calls
    return most, kept
