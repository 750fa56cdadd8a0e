"""What real clients did with a real daemon, done again with a recording in the daemon's place.

A flow is recorded once. Then the same commands run again and again, with no daemon: on one replay
that goes on, and each time before a new ``lxdtap replay``. What they print and their exit status
are the same each time, and all that was recorded is used. In a campaign the daemon is stopped
meanwhile, and all is done once more while the machine has other things to do.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lxdtap.cassette.model import Cassette
from tests.campaign import Campaign
from tests.process.replaying import replayed

from . import programs
from .playing import BOTH, Done, Flow, Recorded, away, busy, play, program, record, run
from .test_flows import PYLXD
from .throwaway import Daemon

HOURS = 4 * 3600
"""Seconds that a test may take in a campaign; each of its runs has its own bound."""

LOADS = ("idle", "busy")
"""What the machine has to do besides; the second in a campaign only."""

ANEW = {("lxd", "pylxd"), ("lxd", "API"), ("lxd", "life"), ("lxd", "curl"), ("incus", "files")}
"""What is played by a new ``lxdtap replay`` where it is to be soon over; in a campaign all is."""

FLOWS: Mapping[str, Flow] = {
    "look": Flow(
        "$LX list; $LX list --format json; $LX info c1; $LX info; $LX image list", "RUNNING"
    ),
    "exec": Flow(
        "$LX exec c1 -- sh -c 'echo out; echo oops >&2; exit 3' 2> err; echo $?; cat err",
        "out\n3\noops\n",
    ),
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
        """script -qec "$LX exec c1 -- sh -c 'tty; exit 5'" /dev/null; echo $?""", "\r\n5\n"
    ),
    "execs at once": Flow(
        """\
        for each in 1 2 3 4 5 6; do
            $LX exec c1 -- sh -c "seq 1 200 | sed s/^/$each:/" > said.$each &
        done
        wait; cat said.*
        """,
        "".join(f"{each}:{line}\n" for each in range(1, 7) for line in range(1, 201)),
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
        "5138895\ngone\none\ntwo\n",
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
    "curl, all that it can": Flow(programs.CURL, "404", briefly=()),
    "pylxd": program(
        PYLXD,
        "3 'out\\n' 'oops\\n'\nspoken\n\n200000 None\n['c1']\nNotFound",
        kinds=("lxd",),
    ),
    "API": program(programs.API, "404", briefly=("lxd",)),
    "AsyncAPI": program(programs.ASYNC_API, "404", briefly=("incus",)),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each flow, with each of the daemons with which it is to be tried."""
    found = {"test_replay": FLOWS, "test_no_exec_loses_output": EXECS}
    if flows := found.get(metafunc.function.__name__):
        full = metafunc.config.getoption("--campaign")
        chosen = [
            (kind, name, load)
            for kind in BOTH
            for load in LOADS[: 1 + full]
            for name, flow in flows.items()
            if kind in flow.with_which(full=full)
        ]
        # As a mark: it takes the place of what the fixture would be given for itself.
        names = ("daemon", "name", "load")
        mark = pytest.mark.parametrize(names, chosen, indirect=["daemon", "load"])
        metafunc.definition.add_marker(mark)


@pytest.fixture
def load(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the machine has to do besides."""
    with busy() if request.param == "busy" else contextlib.nullcontext():
        yield request.param


@dataclass(slots=True)
class Recordings:
    """The flows that were recorded, each once for all tests."""

    directory: Path
    campaign: Campaign
    _known: dict[tuple[str, str], Recorded] = field(default_factory=dict)

    def of(self, daemon: Daemon, name: str) -> Recorded:
        key = daemon.kind, name
        if key not in self._known:
            place = self.directory / f"{len(self._known)}"
            place.mkdir()
            flow, full = FLOWS[name], self.campaign.full
            self._known[key] = record(daemon, flow, place, by_process=full)
        return self._known[key]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, campaign: Campaign) -> Recordings:
    return Recordings(tmp_path_factory.mktemp("recordings"), campaign)


def on_one(daemon: Daemon, flow: Flow, cassette: Cassette, place: Path, times: int) -> list[Done]:
    """On one replay, one after the other; nothing is missed, and nothing left over."""
    with replayed(cassette) as (socket, replay):
        runs = [run(daemon, flow, place / str(each), socket) for each in range(times)]
    assert replay.told == []
    assert replay.replay.never_played() == []
    return runs


def on_new_ones(
    daemon: Daemon, flow: Flow, recorded: Recorded, place: Path, times: int
) -> list[Done]:
    """Each on a replay of its own, strictly."""
    return [play(daemon, flow, recorded.path, place / str(each)) for each in range(times)]


@contextlib.contextmanager
def unasked(daemon: Daemon, campaign: Campaign) -> Iterator[None]:
    """In this block nobody asks the daemon anything; in a campaign it is stopped."""
    mark = daemon.mark()
    with away(daemon) if campaign.full else contextlib.nullcontext():
        yield
        assert daemon.requests(mark) == []


def median(runs: Sequence[Done]) -> float:
    return statistics.median(each.seconds for each in runs)


def spread(runs: Sequence[Done]) -> str:
    """How long they took."""
    if not runs:
        return "never"
    times = [each.seconds for each in runs]
    return f"{median(runs):.2f} s ({min(times):.2f} to {max(times):.2f})"


@pytest.mark.timeout(HOURS)
def test_replay(
    daemon: Daemon,
    name: str,
    recordings: Recordings,
    load: str,
    campaign: Campaign,
    tmp_path: Path,
) -> None:
    """The client cannot tell, however often it comes, and everything that was recorded is used."""
    flow, recorded = FLOWS[name], recordings.of(daemon, name)
    often = campaign.count(3, 20)
    anew = campaign.count(int((daemon.kind, name) in ANEW), 20)
    with (
        unasked(daemon, campaign),
        # Side by side where it is to be soon over; else none is in the other's way.
        ThreadPoolExecutor(campaign.count(2, 1)) as pool,
    ):
        one = pool.submit(on_one, daemon, flow, recorded.cassette, tmp_path / "one", often)
        new = pool.submit(on_new_ones, daemon, flow, recorded, tmp_path / "new", anew)
    told, failed = [f"live {recorded.took:.2f} s"], []
    runs = {"on one": one.result(), "on new ones": new.result()}
    for what, done in runs.items():
        differing = [how for each in done if (how := each.differs(recorded.live))]
        told.append(f"{what} {spread(done)}, {len(differing)} of {len(done)} differ")
        failed += [f"{what}: {how}" for how in differing]
    told.append(f"{len(recorded.cassette.interactions)} interactions, {recorded.size:,} bytes")
    if campaign.full:
        campaign.figure(f"replay, {daemon.kind}, {load}, {name}", "; ".join(told))
    assert failed == []
    if load == "idle":  # what waits for nothing loses nothing but time
        assert median(runs["on one"]) <= 2 * recorded.took + 3


def test_no_daemon(lxd: Daemon, recordings: Recordings, tmp_path: Path) -> None:
    """The daemon is stopped: what was recorded is told all the same."""
    recorded = recordings.of(lxd, "look")
    with away(lxd):
        assert lxd.process.poll() is not None
        done = play(lxd, FLOWS["look"], recorded.path, tmp_path / "again")
    assert done.differs(recorded.live) == ""


NOISY = "seq 1 300; seq 1 200 >&2; exit 3"
EXECS = {
    "its own": Flow(
        f"""\
        for each in $(seq $TIMES); do
            $LX exec c1 -- sh -c '{NOISY}' > out 2> err; echo $? $(wc -c < out) $(wc -c < err)
            seq 1 300 | cmp - out && seq 1 200 | cmp - err
        done
        """,
        "3 1092 692\n",
    ),
    "pylxd": program(
        f"""\
import os, pylxd
c1 = pylxd.Client().instances.get("c1")
for each in range(int(os.environ["TIMES"])):
    said = c1.execute(["sh", "-c", "{NOISY}"])
    print(said.exit_code, len(said.stdout), len(said.stderr))
    for text, last in (said.stdout, 300), (said.stderr, 200):
        assert text.split() == [str(each) for each in range(1, last + 1)]
""",
        "3 1092 692\n",
        kinds=("lxd",),
    ),
}


@pytest.mark.timeout(HOURS)
def test_no_exec_loses_output(
    daemon: Daemon, name: str, load: str, campaign: Campaign, tmp_path: Path
) -> None:
    """A command that is over at once says all that it said, each time that it is replayed."""
    flow, times = EXECS[name], campaign.count(10, 100)
    recorded = record(daemon, flow, tmp_path, {"TIMES": "1"}, by_process=campaign.full)
    with unasked(daemon, campaign):
        done = play(daemon, flow, recorded.path, tmp_path / "again", {"TIMES": str(times)})
    said = recorded.live.stdout
    lost = times - done.stdout.count(said)
    if campaign.full:
        row = f"execs replayed, {daemon.kind}, {load}, {name}"
        campaign.figure(row, f"{times} in {done.seconds:.1f} s, of which {lost} lost something")
    assert done.differs(replace(recorded.live, stdout=said * times)) == ""


def test_replay_is_faster(lxd: Daemon, recordings: Recordings, tmp_path: Path) -> None:
    """The life of an instance takes at most half the time that it took."""
    recorded = recordings.of(lxd, "life")
    runs = on_one(lxd, FLOWS["life"], recorded.cassette, tmp_path, 3)
    assert median(runs) <= recorded.took / 2


def test_recorded_pace(lxd: Daemon, recordings: Recordings, tmp_path: Path) -> None:
    """With its pauses, the life of an instance takes about as long as it took."""
    recorded = recordings.of(lxd, "life")
    with replayed(recorded.cassette, paced=True) as (socket, _):
        paced = run(lxd, FLOWS["life"], tmp_path / "paced", socket)
    assert paced.differs(recorded.live) == ""
    assert 0.7 * recorded.took <= paced.seconds <= 1.5 * recorded.took + 1


def test_one_client_serves_another(lxd: Daemon, recordings: Recordings, tmp_path: Path) -> None:
    """What pylxd recorded answers curl; a miss says what is nearest, in LXD's own form."""
    flow = Flow(
        """\
        ask() { curl --silent --unix-socket "$SOCKET" "$@"; }
        ask http://x/1.0 | grep -o '"api_version":"1.0"'
        ask --write-out '%{http_code}\\n' http://x/1.0/instances/w2
        """
    )
    with replayed(recordings.of(lxd, "pylxd").cassette) as (socket, replay):
        done = run(lxd, flow, tmp_path / "curl", socket)
    assert '"api_version":"1.0"' in done.stdout
    assert (
        "no recorded interaction answers GET /1.0/instances/w2; nearest recorded: #" in done.stdout
    )
    assert done.stdout.endswith("501\n")
    assert len(replay.told) == 1
    assert replay.replay.never_played()
