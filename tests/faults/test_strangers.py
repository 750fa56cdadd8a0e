"""Somebody else tries to get in all the time while taps start and end: never, not for an instant.

To start ten thousand of them in finite time, a process that has everything loaded forks, and each
child is the whole command from its arguments to its exit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import Campaign
from tests.process.callers import Caller
from tests.process.tap import PATIENCE, always, answer, environment, fake_daemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")

SERVED = 64_681
"""The gid of those whom the tap serves; like the others, nobody's on this machine."""
MEMBER = Caller(64_682, 64_683, (SERVED,))
STRANGER = Caller(64_684, 64_685)
AT_ONCE = 2

_STARTS = """
import os, sys
from lxdtap import cli, play, project, run
count, room, *more = sys.argv[1:]
umasks = (0o000, 0o022, 0o077)
for number in range(int(count)):
    pid = os.fork()
    if not pid:
        os.umask(umasks[number % 3])
        group = more if number % 2 else []
        # The first for a group stays until those whom it is for have surely had their turn.
        command = ["sleep", "1"] if number == 1 else ["true"]
        sys.argv = ["lxdtap", "run", "-q", *group, "--listen", room, "--", *command]
        cli.main()
    print(os.waitpid(pid, 0)[1], flush=True)
"""
_TRIES = """
import os, signal, socket, sys, time
uid, gid, groups, most, *rooms = sys.argv[1:]
os.setgroups([int(group) for group in groups.split(",") if group])
os.setresgid(int(gid), int(gid), int(gid)); os.setresuid(int(uid), int(uid), int(uid))
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(1))
tries = ins = 0
print("ready", flush=True)
while not over:
    if ins == int(most):
        time.sleep(0.05)
        continue
    for room in rooms:
        for name in [f"{room}/unix.socket", *(f"{room}/{each}/s" for each in os.listdir(room))]:
            tries += 1
            with socket.socket(socket.AF_UNIX) as sock:
                ins += sock.connect_ex(name) == 0
print(tries, ins)
"""


@pytest.fixture
def top() -> Iterator[Path]:
    """Where anybody can go."""
    with tempfile.TemporaryDirectory(prefix="lxdtap-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def tries(who: Caller, rooms: list[Path], most: int) -> subprocess.Popen[str]:
    """Somebody who connects to all that is there, until let in so often."""
    groups = ",".join(map(str, who.groups))
    arguments = [str(who.uid), str(who.gid), groups, str(most), *map(str, rooms)]
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _TRIES, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def tried(process: subprocess.Popen[str]) -> tuple[int, int]:
    """How often they tried, and how often they were let in."""
    process.terminate()
    attempts, ins = map(int, process.communicate(timeout=PATIENCE)[0].split())
    return attempts, ins


def starts(count: int, room: Path, upstream: str) -> subprocess.Popen[str]:
    """So many taps in a room, one after the other, each second one for a group too.

    A line says how each has ended.
    """
    room.mkdir(mode=0o755)
    arguments = [str(count), f"{room}/", "--group", str(SERVED)]
    return subprocess.Popen(
        [sys.executable, "-c", _STARTS, *arguments],
        env=environment(LXD_SOCKET=upstream),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_not_for_an_instant(top: Path, campaign: Campaign) -> None:
    """Whatever the umask, with --group and without; and those whom it is for do get in."""
    count = campaign.count(20, 10_000)
    rooms = [top / str(number) for number in range(AT_ONCE)]
    with fake_daemon(top / "daemon", always(answer(b"{}"))) as daemon:
        os.chmod(daemon.path, 0o666)
        running = [starts(count // AT_ONCE, room, daemon.path) for room in rooms]
        stranger, other = tries(STRANGER, rooms, -1), tries(MEMBER, rooms[:1], 1)
        begun = time.monotonic()
        said = [process.stdout or () for process in running]
        ends = [list(campaign.progress("starts", each, count // AT_ONCE)) for each in said]
        assert [process.communicate()[0] for process in running] == [""] * AT_ONCE
        took = time.monotonic() - begun
        (attempts, ins), (_, member) = tried(stranger), tried(other)
    campaign.figure(
        "another uid",
        f"{count} starts in {took:.0f} s, umasks 000, 022, 077: of {attempts} tries {ins} got in",
    )
    assert ends == [["0\n"] * (count // AT_ONCE)] * AT_ONCE
    assert attempts > 10 * count
    assert ins == 0
    assert member == 1  # so it can be told who gets in
