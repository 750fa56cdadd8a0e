"""A real LXD, directly and through the tap, which logs and records.

Beside it, a tap that only records, haproxy and socat, which tell what it costs that anything at all
is in the middle.
"""

from __future__ import annotations

import contextlib
import statistics

from tests.bench import load, peers
from tests.bench.figures import Findings, Series, Target, judge
from tests.bench.processes import Address
from tests.bench.stage import Options, Stage

THROUGHPUT = Target(
    "daemon", "a real LXD, logging and recording: throughput", 0.95, True, "x direct"
)
MEDIAN = Target("daemon", "a real LXD, logging and recording: median", 1.05, False, "x direct")
BLOCKS, REQUESTS = 5, 40


def seconds(options: Options) -> float:
    """About how long it takes."""
    return 20 + options.rounds * (5 * options.seconds + BLOCKS * REQUESTS * 0.014)


def measure(stage: Stage) -> Findings:
    """Requests a second on eight connections, and the median on one."""
    rates = Series("daemon", "a real LXD: requests a second, 8 connections", "req/s")
    medians = Series("daemon", "a real LXD: median time of a transaction, 1 connection", "µs")
    running = stage.daemon()
    if isinstance(running, str):
        absent = [judge(target, [], why=running) for target in (THROUGHPUT, MEDIAN)]
        return Findings(verdicts=absent)
    direct = Address(str(running.socket))
    found = peers.Peers(stage, direct)
    with contextlib.ExitStack() as stack:
        contenders = found.choose(peers.HAPROXY, peers.SOCAT, peers.RECORDING, peers.LOGGING)
        others = {name: stack.enter_context(open_()) for name, open_ in contenders.items()}
        addresses = {peers.DIRECT: direct} | {name: each.address for name, each in others.items()}
        for _ in stage.rounds("daemon"):
            for name, address in addresses.items():
                rates.add(name, load.h2load(address, seconds=stage.options.seconds).rate)
            for name, median in _medians(addresses).items():
                medians.add(name, median * 1e6)
        lost = "; ".join(others[peers.LOGGING].troubles()[:1])
    rates.absent = medians.absent = found.absent
    verdicts = [
        judge(target, each.ratios(peers.LOGGING, peers.DIRECT), noise=each.spread, lost=lost)
        for target, each in ((THROUGHPUT, rates), (MEDIAN, medians))
    ]
    return Findings([rates, medians], verdicts)


def _medians(addresses: dict[str, Address]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in addresses}
    with contextlib.ExitStack() as stack:
        clients = {}
        for name, each in addresses.items():
            clients[name] = stack.enter_context(load.client(each))
            # LXD accepts nobody else until it has a byte of this one (lxd/endpoints, starttls.go).
            clients[name].ask()
        for _ in range(BLOCKS):
            for name, client in clients.items():
                times[name] += [client.ask() for _ in range(REQUESTS)]
    return {name: statistics.median(each) for name, each in times.items()}
