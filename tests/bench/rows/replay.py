"""A recording in the daemon's place, beside mitmproxy's; and a session of lxc's, beside LXD."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import load, packages, peers
from tests.bench.figures import Findings, Series, Target, judge
from tests.bench.processes import Address, BenchError, Running, running
from tests.bench.stage import ROOT, Options, Stage
from tests.daemons.throwaway import Daemon
from tests.process.tap import environment

RATE = Target("replay", "replay, 8 connections", 10, True, "x mitmdump --server-replay")
SESSION = Target("replay", "a session of lxc's replayed", 0.5, False, "x its live time")
OURS, THEIRS = "lxdtap replay", "mitmdump --server-replay"
PLAYED = 200
"""Different requests in the recording."""
SCRIPT = """
lxc list >/dev/null
lxc launch bb w1
lxc exec w1 -- echo hello
lxc config set w1 user.colour blue
echo text | lxc file push - w1/root/text
lxc snapshot w1 s1
lxc info w1 >/dev/null
lxc stop w1 --force
lxc delete w1
"""


def seconds(options: Options) -> float:
    """About how long it takes."""
    return 25 + options.rounds * (2 * options.seconds + 8)


def measure(stage: Stage) -> Findings:
    """Both."""
    rate, session = _rate(stage), _session(stage)
    return Findings(
        rate.series + session.series, rate.verdicts + session.verdicts, rate.notes + session.notes
    )


# -- beside mitmproxy


def _rate(stage: Stage) -> Findings:
    series = Series("replay", "requests a second to a recording, 8 connections", "req/s")
    series.logarithmic = True
    names = stage.directory / "names"
    names.write_text("".join(f"http://lxd{_path(number)}\n" for number in range(PLAYED)))
    if why := packages.missing("mitmdump"):
        series.absent[THEIRS] = why
    with contextlib.ExitStack() as stack:
        players = {peers.DIRECT: stage.nginx}
        players[OURS] = stack.enter_context(_replaying(stage, _recorded(stage))).address
        if THEIRS not in series.absent:
            players[THEIRS] = stack.enter_context(_mitm_replaying(stage)).address
        for _ in stage.rounds("replay"):
            for name, address in players.items():
                done = load.h2load(address, seconds=stage.options.seconds, paths=names)
                series.add(name, done.rate)
    why = series.absent.get(THEIRS, "")
    verdict = judge(RATE, series.ratios(OURS, THEIRS), noise=series.spread, why=why)
    return Findings([series], [verdict])


def _path(number: int) -> str:
    return f"/1.0/instances/c{number + 1}"


def _ask_all(address: Address) -> None:
    with load.client(address) as client:
        for number in range(PLAYED):
            client.ask(_path(number))


def _recorded(stage: Stage) -> Path:
    """A cassette of them all."""
    cassette = stage.directory / "played.yaml"
    with peers.tap(stage, stage.nginx, "-q", recording=True) as tap:
        _ask_all(tap.address)
        _end_in_order(tap)
        assert tap.spool is not None
        shutil.copy(tap.spool.with_suffix(""), cassette)
    return cassette


def _end_in_order(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    if running.process.wait(60):
        raise BenchError(f"recording failed: {running.troubles()}")


@contextlib.contextmanager
def _replaying(stage: Stage, cassette: Path) -> Iterator[Running]:
    place = stage.place("replay")
    command = [sys.executable, "-m", "lxdtap", "replay", "--listen", f"{place}/", str(cassette)]
    address = Address(f"{place}/unix.socket")
    with running(command, address, place, env=environment(PYTHONPATH=str(ROOT))) as found:
        yield found


@contextlib.contextmanager
def _mitm_replaying(stage: Stage) -> Iterator[Running]:
    flows = stage.directory / "flows"
    with peers.mitmdump(stage, stage.nginx_tcp, "-q", "-w") as recorder:
        _ask_all(recorder.address)
        recorder.process.send_signal(signal.SIGTERM)
        recorder.process.wait(30)
        shutil.copy(recorder.said.with_name("flows"), flows)
    options = ("-q", "--server-replay", str(flows), "--server-replay-reuse")
    with peers.mitmdump(
        stage, stage.nginx_tcp, *options, "--set", "server_replay_extra=404"
    ) as found:
        yield found


# -- beside LXD


def _session(stage: Stage) -> Findings:
    daemon = stage.daemon()
    if isinstance(daemon, str):
        return Findings(verdicts=[judge(SESSION, [], why=daemon)])
    series = Series("replay", "a session of lxc's: nine commands", "s", baseline="live")
    cassette = stage.directory / "session.yaml"
    ours = [sys.executable, "-m", "lxdtap"]
    script = ["sh", "-euc", SCRIPT]
    recording = ["run", "-q", "-w", str(cassette), "--upstream", str(daemon.socket), "--"]
    stage.tell("recording a session of lxc's")
    _timed([*ours, *recording, *script], daemon, live=True)
    for _ in stage.rounds("a session of lxc's"):
        series.add("live", _timed(script, daemon, live=True))
        series.add(
            OURS, _timed([*ours, "replay", str(cassette), "--", *script], daemon, live=False)
        )
    # LXD's own work varies more than any machine does: the bound is far from it.
    return Findings([series], [judge(SESSION, series.ratios(OURS, "live"))])


def _timed(command: list[str], daemon: Daemon, *, live: bool) -> float:
    env = daemon.environment | {"PYTHONPATH": str(ROOT)} | (daemon.directions if live else {})
    begun = time.perf_counter()
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise BenchError(f"a session of lxc's failed: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - begun
