"""Requests a second on eight connections, by h2load."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.bench import load, peers
from tests.bench.figures import Findings, Series, Target, judge
from tests.bench.processes import Running
from tests.bench.stage import Options, Stage

PEERS = (
    *(peers.NGINX, peers.SOCAT, peers.SOCAT_V),
    *(peers.HAPROXY, peers.LEAST, peers.RECORDING, peers.LOGGING),
    *(peers.MITM_LOG, peers.MITM_W, peers.MITM),
)
"""Who is compared is measured one after the other: a machine that others share changes within
seconds."""
_RECORDING = "relay + recording, 8 connections"
_LOGGING = "relay + DEBUG log + recording, 8 connections"
TARGETS = (
    (peers.RECORDING, peers.HAPROXY, Target("relay", _RECORDING, 0.8, True, "x haproxy")),
    (peers.RECORDING, peers.MITM_W, Target("relay", _RECORDING, 50, True, "x mitmdump -w")),
    (peers.LOGGING, peers.HAPROXY, Target("relay", _LOGGING, 0.3, True, "x haproxy")),
    (
        peers.LOGGING,
        peers.MITM_LOG,
        Target("relay", _LOGGING, 20, True, "x mitmdump flow_detail=3 -w"),
    ),
)


def seconds(options: Options) -> float:
    """About how long it takes."""
    return options.rounds * (len(PEERS) + 1) * (options.seconds + 1.5) + 10


@dataclass(slots=True)
class _Seen:
    """What was measured so far.

    Attributes:
        rates: as the client saw them.
        whole: the same, the time counted in until the recorder had nothing to do any more.
        work: what each one's processes worked for a request, their recorder's included.
        lost: by whom what was not logged or recorded.
    """

    rates: Series
    whole: Series
    work: Series
    lost: dict[str, str] = field(default_factory=dict)


def measure(stage: Stage) -> Findings:
    """All peers, alternating, each second round the other way round."""
    seen = _Seen(
        Series("relay", "requests a second, 8 connections", "req/s", logarithmic=True),
        Series("relay", "the same, until all of it was logged and recorded", "req/s"),
        Series("relay", "CPU for a request", "µs", baseline=peers.HAPROXY, logarithmic=True),
    )
    rates, lost = seen.rates, seen.lost
    found = peers.Peers(stage, stage.nginx, stage.nginx_tcp)
    with found.alternating(*PEERS) as contenders:
        for number in stage.rounds("relay"):
            rates.add(peers.DIRECT, load.h2load(stage.nginx, seconds=stage.options.seconds).rate)
            for name in list(contenders)[:: 1 if number % 2 else -1]:
                with contenders[name]() as running:
                    _one(stage, name, running, seen)
    rates.absent = found.absent
    verdicts = [
        judge(
            target,
            rates.ratios(who, to),
            noise=rates.spread,
            lost=lost.get(who, ""),
            why=found.absent.get(to, ""),
        )
        for who, to, target in TARGETS
    ]
    notes = [f"{name}: {what}" for name, what in lost.items()]
    return Findings([rates, seen.whole, seen.work], verdicts, notes)


def _one(stage: Stage, name: str, running: Running, seen: _Seen) -> None:
    before = running.cpu()
    done = load.h2load(running.address, seconds=stage.options.seconds)
    seen.rates.add(name, done.rate)
    after = running.settle()
    if not name.startswith(peers.SOCAT):  # its processes end with their connections
        seen.work.add(name, (running.cpu() - before) / done.done * 1e6)
    if name in (peers.RECORDING, peers.LOGGING):
        seen.whole.add(name, done.done / (done.seconds + after))
        if troubles := running.troubles():
            seen.lost[name] = troubles[0]
