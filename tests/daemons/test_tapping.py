"""The comparison itself: it finds what a tap alters, hides or makes up, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from .tapping import TRIES, MootError, NoticedError, Tapped, Tapping, hold_the_laws
from .throwaway import LXD, Daemon, throwaway

ALTERING = str(Path(__file__).with_name("altering.py"))
DESCRIBED = "$LX profile get w1 user.color"
GIVEN = "$LX profile create w1; $LX profile set w1 user.color blue"
EXEC = "$LX exec c1 -- echo blue"


@pytest.fixture
def tap(lxd: Daemon, tmp_path: Path) -> Tapping:
    """One whose repetitions are not told of; the comparison is the same for both daemons."""
    return Tapping(lxd, tmp_path)


def altering(tap: Tapping, wanted: str, times: int = 99) -> Tapping:
    """A comparison with a tap that alters ``wanted``, the first times that it is started."""
    count = tap.directory / "count"
    count.write_text(str(times))
    return Tapping(tap.daemon, tap.directory, (sys.executable, ALTERING, wanted, str(count)))


# What a tap does.


def test_what_is_altered_is_found_at_once(tap: Tapping) -> None:
    """Where no daemon is known to err, one difference is one too many."""
    bad = altering(tap, "blue", times=1)
    with pytest.raises(NoticedError, match=r"stdout differs(.|\n)*-blue\n\+XXXX"):
        bad(DESCRIBED, given=GIVEN)
    assert not bad.again


def test_what_is_always_altered_is_found(tap: Tapping) -> None:
    """Where the daemon may have done it, it stands after the last try."""
    bad = altering(tap, "blue\n")
    with pytest.raises(NoticedError, match="stdout differs"):
        bad(EXEC)
    assert len(bad.again) == TRIES - 1


def test_what_the_daemon_may_have_done_is_made_again(tap: Tapping) -> None:
    """What does not come back was a whim; it is told all the same."""
    bad = altering(tap, "blue\n", times=1)
    assert bad(EXEC).stdout == b"blue\n"
    [told] = bad.again
    assert told.startswith("an exec may lose")
    assert "stdout differs" in told


def test_a_tap_that_hangs_is_found(tap: Tapping) -> None:
    """What never comes is a difference, and nothing of the run lives on."""
    bad = Tapping(tap.daemon, tap.directory, ("sh", "-c", "sleep 7654 & wait"), patience=2)
    with pytest.raises(NoticedError, match="timed out"):
        bad("$LX query /1.0")
    assert subprocess.run(["pgrep", "-f", "sleep 765[4]"], capture_output=True).stdout == b""


# The laws.


@pytest.fixture(scope="module")
def whole(lxd: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Tapped:
    """A run in which nothing is wrong."""
    said = Tapping(lxd, tmp_path_factory.mktemp("whole"))("$LX query /1.0/profiles")
    hold_the_laws(said, said)
    return said


def test_a_status_of_the_taps_own_is_found(whole: Tapped) -> None:
    """The first law."""
    with pytest.raises(NoticedError, match="exit status 0, tapped 1"):
        hold_the_laws(whole, replace(whole, status=1))


POLLER = """
from threading import Thread
from ws4py.manager import EPollPoller
poller = EPollPoller()
poller.release()
Thread(target=poller.unregister, args=(0,), name="{name}").start()
"""


def poller_fault(thread: str) -> str:
    """What Python says where this thread comes to a poller of pylxd's that is closed."""
    script = POLLER.format(name=thread)
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr
    assert "closed epoll" in said
    return said


def test_a_fault_of_pylxds_own_is_none(whole: Tapped) -> None:
    """It has it without a tap too, now and then; what any other thread says is a difference."""
    direct = replace(whole, stderr="oops\n")
    hold_the_laws(direct, replace(whole, stderr=poller_fault("WebSocketManager") + "oops\n"))
    with pytest.raises(NoticedError, match="stderr differs"):
        hold_the_laws(direct, replace(whole, stderr=poller_fault("Another") + "oops\n"))


def test_another_state_is_found(whole: Tapped) -> None:
    """The second law. No whim excuses that."""
    with pytest.raises(AssertionError, match="state differs") as found:
        hold_the_laws(whole, replace(whole, state={"profiles": []}, stderr="!"))
    assert not isinstance(found.value, NoticedError)
    assert "stderr differs" in str(found.value)


def test_what_is_hidden_or_made_up_is_found(whole: Tapped) -> None:
    """The third law."""
    none = replace(whole, log=replace(whole.log, transactions=[]))
    with pytest.raises(AssertionError, match=r"not shown by the tap: .*/1\.0/profiles"):
        hold_the_laws(whole, none)
    twice = replace(whole, log=replace(whole.log, transactions=whole.transactions * 2))
    with pytest.raises(AssertionError, match="not logged by the daemon"):
        hold_the_laws(whole, twice)


def test_what_is_called_broken_is_found(whole: Tapped) -> None:
    """The fourth law, but for what the test lets break."""
    cut = [replace(each, broken="cut") for each in whole.transactions]
    broken = replace(whole, log=replace(whole.log, transactions=cut))
    with pytest.raises(AssertionError, match="broken off: "):
        hold_the_laws(whole, broken)
    hold_the_laws(whole, broken, may_break="/1.0")


# What the daemon does without a tap.


def stumbling(tap: Tapping, times: int) -> str:
    """A script that fails so often and then does not."""
    count = tap.directory / "stumbles"
    return f"""\
        echo >> {count}
        test $(wc -l < {count}) -gt {times}
        $LX query /1.0/projects
    """


def test_a_direct_run_that_fails_says_nothing(tap: Tapping) -> None:
    """It is made again."""
    tap(stumbling(tap, TRIES - 1))
    assert len(tap.again) == TRIES - 1
    assert tap.again[0].startswith("without a tap: exit status 1")


def test_a_direct_run_that_always_fails(tap: Tapping) -> None:
    """What the test states does not hold here."""
    with pytest.raises(MootError, match="exit status 1, not 0"):
        tap("false")


def test_what_cannot_be_made_says_nothing(tap: Tapping) -> None:
    """So it is where what the test needs is not there, for either run."""
    tap("$LX query /1.0/projects", given=stumbling(tap, 1))
    [told] = tap.again
    assert told.startswith("without a tap: what the test needs could not be made")


def killing(tap: Tapping, run: int) -> str:
    """A script that kills the daemon in the given run, and is no good without it."""
    count = tap.directory / "kills"
    count.unlink(missing_ok=True)
    return f"""\
        echo >> {count}
        test $(wc -l < {count}) -ne {run} || kill -KILL {tap.daemon.process.pid}
        $LX exec c1 -- true
        $LX query /1.0/projects
    """


def test_a_daemon_that_dies(tmp_path: Path) -> None:
    """It is started again, and so is the comparison, whichever run it died in."""
    with throwaway(LXD) as daemon:
        tap = Tapping(daemon, tmp_path)
        for run in 1, 2:
            tap(killing(tap, run), given="$LX launch bb w1")
            assert len(tap.again) == daemon.deaths == run
            assert tap.again[-1].startswith("lxd died, signal 9: ")
            assert daemon.state() == daemon.base
