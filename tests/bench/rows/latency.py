"""What is added to one transaction on one connection, by a plain client."""

from __future__ import annotations

import contextlib
import statistics
import time

from tests.bench import load, peers
from tests.bench.figures import Findings, Series, Target, judge
from tests.bench.stage import Options, Stage

PEERS = (peers.HAPROXY, peers.NGINX, peers.SOCAT, peers.RECORDING, peers.LOGGING)
TARGETS = (
    (
        peers.RECORDING,
        Target("latency", "time added to a transaction, recording", 1.5, False, "x haproxy's"),
    ),
    (
        peers.LOGGING,
        Target("latency", "the same, recording and DEBUG log", 3, False, "x haproxy's"),
    ),
)
BLOCKS, REQUESTS = 10, 50


def seconds(options: Options) -> float:
    """About how long it takes."""
    return 5 + options.rounds * BLOCKS * 0.15


def measure(stage: Stage) -> Findings:
    """Short blocks in turn, so that all see the same machine; a round's median is of ten blocks."""
    series = Series("latency", "median time of a transaction, 1 connection", "µs")
    found = peers.Peers(stage, stage.nginx)
    with contextlib.ExitStack() as stack:
        clients = {peers.DIRECT: stack.enter_context(load.client(stage.nginx))}
        for name, open_ in found.choose(*PEERS).items():
            running = stack.enter_context(open_())
            clients[name] = stack.enter_context(load.client(running.address))
        for _ in stage.rounds("latency"):
            for name, median in _round(clients).items():
                series.add(name, median * 1e6)
    series.absent = found.absent
    verdicts = [
        judge(
            target,
            series.added(who, peers.HAPROXY),
            noise=series.spread,
            why=found.absent.get(peers.HAPROXY, ""),
        )
        for who, target in TARGETS
    ]
    return Findings([series], verdicts)


def _round(clients: dict[str, load.Client]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(BLOCKS):
        for name, client in clients.items():
            times[name] += [client.ask() for _ in range(REQUESTS)]
            time.sleep(0.01)  # a recorder ends what it has to do
    return {name: statistics.median(each) for name, each in times.items()}
