"""What real clients did with a real daemon, done again with a recording in the daemon's place.

A flow is recorded once; then the same commands run :data:`TIMES` times against one replay, with no
daemon: each time what they print and their exit status are the same.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lxdtap.cassette.model import Cassette
from tests.process.replaying import replayed

from .recording import recorded
from .tapping import PATIENCE, ending, printable, settled
from .test_flows import PYLXD
from .throwaway import Daemon

TIMES = 3
TRIES = 3
"""How often a flow is recorded in which the daemon itself may lose an exec's output."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Commands, and what they have to print when they are recorded."""

    script: str
    says: str = ""
    stdin: bytes = b""
    kinds: tuple[str, ...] = ("lxd", "incus")


FLOWS = {
    "look": Flow(
        "$LX list; $LX list --format json; $LX info c1; $LX info; $LX image list", "RUNNING"
    ),
    "exec": Flow("$LX exec c1 -- sh -c 'echo out; echo oops >&2; exit 3'; echo $?", "out\n3"),
    "exec with stdin": Flow(
        "$LX exec c1 -- sh -c 'sha256sum; exit 7'; echo $?", "-\n7", b"spoken\n" * 100_000
    ),
    "exec with much to say": Flow(
        "$LX exec c1 -- seq 1 1140000 > big; wc -c < big; sha256sum < big", "8008896"
    ),
    "exec of nothing": Flow("$LX exec c1 -- nonesuch; echo $?", "127"),
    "exec that gets a signal": Flow(
        """\
        $LX exec c1 -- sh -c 'echo ready; exec sleep 60' > heard & client=$!
        until grep -qs ready heard; do sleep 0.02; done
        kill -TERM $client
        wait $client; echo $?
        """,
        "143",
    ),
    "exec on a terminal": Flow(
        """script -qec "$LX exec c1 -- sh -c 'tty; exit 5'" /dev/null; echo $?""", "5"
    ),
    "execs at once": Flow(
        """\
        for each in 1 2 3 4 5 6; do
            $LX exec c1 -- sh -c "seq 1 200 | sed s/^/$each:/" > said.$each &
        done
        wait; cat said.*
        """,
        "6:200",
    ),
    "life": Flow(
        """\
        $LX launch bb w1; $LX list --format csv --columns ns; $LX stop --force w1
        $LX list --format csv --columns ns; $LX delete w1; $LX list --format csv --columns ns
        $LX info w1 || echo gone
        """,
        "gone",
    ),
    "configuration": Flow(
        """\
        $LX config set c1 user.a 1; $LX config get c1 user.a; $LX config set c1 user.a 2
        $LX config get c1 user.a; $LX config device add c1 d1 none; $LX config device list c1
        $LX config device remove c1 d1; $LX config unset c1 user.a; $LX config get c1 user.a
        """,
        "1\n2\n",
    ),
    "files": Flow(
        """\
        seq 1 750000 > big; $LX file push --mode 0640 big c1/root/big
        $LX exec c1 -- stat -c '%a %s' /root/big; $LX file pull c1/root/big back; cmp big back
        $LX file delete c1/root/big; $LX file pull c1/root/big . || echo gone
        mkdir -p tree/a; echo one > tree/a/x; echo two > tree/y; ln -s y tree/z
        $LX file push --recursive tree c1/root; $LX file pull --recursive c1/root/tree back2
        cat back2/tree/a/x back2/tree/y; $LX exec c1 -- rm -r /root/tree
        """,
        "one\ntwo\n",
    ),
    "events": Flow(
        """\
        $LX monitor --type lifecycle --format json > seen & watcher=$!
        sleep 0.3; $LX profile create w1; $LX profile delete w1
        until grep -q profile-deleted seen; do sleep 0.05; done
        kill $watcher; wait; grep -o '"action":"profile-[a-z]*"' seen | sort -u
        """,
        "profile-deleted",
    ),
    "curl": Flow(
        """\
        ask() { curl --silent --show-error --unix-socket "$SOCKET" "$@"; }
        url=http://x/1.0/instances/c1/files?path=/root/note
        ask http://x/1.0/profiles http://x/1.0/projects
        seq 1 9999 > note
        ask --request POST --data-binary @note --header 'Expect: 100-continue' $url
        ask $url | cmp - note; ask --head $url | grep -i -e mode -e HTTP
        ask --range 5-9 $url | wc -c; ask --request DELETE $url
        ask --request PATCH --data '{}' --header 'If-Match: x' http://x/1.0/instances/c1
        """,
        "412",
    ),
    "pylxd": Flow(f"exec {sys.executable} -c '{PYLXD}'", "NotFound", kinds=("lxd",)),
}


@dataclass(frozen=True, slots=True)
class Done:
    """What a run did."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def run(daemon: Daemon, socket: str, flow: Flow, directory: Path) -> Done:
    directory.mkdir()
    begun = time.monotonic()
    process = subprocess.Popen(
        ["sh", "-uc", flow.script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=daemon.environment | _directions(daemon, socket),
        cwd=directory,
        start_new_session=True,
    )
    with process, ending(process):
        stdout, stderr = process.communicate(flow.stdin, PATIENCE)
    took = time.monotonic() - begun
    said = settled(printable(stdout)), settled(stderr.decode(errors="replace"))
    return Done(process.returncode, *said, took)


def _directions(daemon: Daemon, socket: str) -> dict[str, str]:
    return {
        daemon.brand.directory_variable: os.path.dirname(socket),
        daemon.brand.socket_variable: socket,
        "SOCKET": socket,
        "LX": daemon.brand.client,
    }


def record(daemon: Daemon, flow: Flow, directory: Path) -> tuple[Done, Cassette]:
    """A run in which the daemon did what it is to do."""
    for attempt in range(TRIES):
        with recorded(str(daemon.socket), daemon.kind) as (socket, recording):
            done = run(daemon, socket, flow, directory / f"live{attempt}")
        daemon.reset()
        if flow.says in done.stdout:
            return done, recording.cassette
    raise AssertionError(f"the daemon does not say {flow.says!r}: {done}")


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())
def test_replay(daemon: Daemon, flow: Flow, tmp_path: Path) -> None:
    """The client cannot tell, however often it comes, and everything that was recorded is used."""
    if daemon.kind not in flow.kinds:
        pytest.skip(f"not a client of {daemon.kind}'s")
    live, cassette = record(daemon, flow, tmp_path)
    with replayed(cassette) as (socket, replayed_):
        runs = [run(daemon, socket, flow, tmp_path / str(n)) for n in range(TIMES)]
    assert [(r.status, r.stdout, r.stderr) for r in runs] == [
        (live.status, live.stdout, live.stderr)
    ] * TIMES
    assert replayed_.told == []
    assert replayed_.replay.never_played() == []


def test_replay_is_faster(daemon: Daemon, tmp_path: Path) -> None:
    """The life of an instance takes at most half the time that it took."""
    flow = FLOWS["life"]
    live, cassette = record(daemon, flow, tmp_path)
    with replayed(cassette) as (socket, _):
        runs = [run(daemon, socket, flow, tmp_path / str(n)).seconds for n in range(7)]
    assert statistics.median(runs) <= live.seconds / 2


def test_recorded_pace(daemon: Daemon, tmp_path: Path) -> None:
    """With its pauses, the life of an instance takes about as long as it took."""
    flow = FLOWS["life"]
    live, cassette = record(daemon, flow, tmp_path)
    with replayed(cassette, paced=True) as (socket, _):
        paced = run(daemon, socket, flow, tmp_path / "paced")
    assert (paced.status, paced.stdout) == (live.status, live.stdout)
    assert 0.7 * live.seconds <= paced.seconds <= 1.5 * live.seconds + 1


def test_one_client_serves_another(lxd: Daemon, tmp_path: Path) -> None:
    """What pylxd recorded answers curl; a miss says what is nearest, in LXD's own form."""
    _, cassette = record(lxd, FLOWS["pylxd"], tmp_path)
    flow = Flow(
        """\
        ask() { curl --silent --unix-socket "$SOCKET" "$@"; }
        ask http://x/1.0 | grep -o '"api_version":"1.0"'
        ask --write-out '%{http_code}\\n' http://x/1.0/instances/w2
        """
    )
    with replayed(cassette) as (socket, replayed_):
        done = run(lxd, socket, flow, tmp_path / "curl")
    assert '"api_version":"1.0"' in done.stdout
    assert (
        "no recorded interaction answers GET /1.0/instances/w2; nearest recorded: #" in done.stdout
    )
    assert done.stdout.endswith("501\n")
    assert len(replayed_.told) == 1
    assert replayed_.replay.never_played()
