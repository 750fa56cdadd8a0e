"""One large body, down and up."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench import load, peers
from tests.bench.figures import Findings, Series, Target, judge
from tests.bench.processes import Address
from tests.bench.stage import Options, Stage

PEERS = (peers.HAPROXY, peers.SOCAT, peers.NGINX, peers.RECORDING)
BETTER = (peers.HAPROXY, peers.SOCAT)
ROUNDS = 3
Transfer = Callable[[Address, int], float]
WAYS: dict[str, Transfer] = {"download": load.download, "upload": load.upload}


def seconds(options: Options) -> float:
    """About how long it takes."""
    return min(ROUNDS, options.rounds) * 2 * 16 * options.bulk / (1 << 30) + 5


def measure(stage: Stage) -> Findings:
    """Both ways."""
    found = Findings()
    for way, transfer in WAYS.items():
        one = _one_way(stage, way, transfer)
        found.series += one.series
        found.verdicts += one.verdicts
    return found


def _one_way(stage: Stage, way: str, transfer: Transfer) -> Findings:
    size = stage.options.bulk
    of = f"{size / (1 << 30):g} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"
    series = Series("bulk", f"one {way} of {of}", "GB/s")
    found, lost = peers.Peers(stage, stage.sink), ""
    with found.alternating(*PEERS) as contenders:
        for _ in stage.rounds(way, min(ROUNDS, stage.options.rounds)):
            series.add(peers.DIRECT, size / transfer(stage.sink, size) / 1e9)
            for name, open_ in contenders.items():
                with open_() as running:
                    series.add(name, size / transfer(running.address, size) / 1e9)
                    running.settle()
                    if name == peers.RECORDING:
                        lost = lost or "; ".join(running.troubles()[:1])
    series.absent = found.absent
    target = Target(
        "bulk", f"{way} of {of}, recording", 0.6, True, "x the better of haproxy, socat"
    )
    verdict = judge(target, _ratios(series), noise=series.spread, lost=lost)
    return Findings([series], [verdict])


def _ratios(series: Series) -> list[float]:
    by_peer = [series.ratios(peers.RECORDING, to) for to in BETTER if to in series.values]
    return [min(each) for each in zip(*by_peer, strict=True)]
