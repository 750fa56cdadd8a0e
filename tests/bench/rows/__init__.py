"""The rows of the table of targets: what each measures, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tests.bench import growth
from tests.bench.figures import Findings
from tests.bench.stage import Options, Stage

from . import bulk, cassette, daemon, fairness, latency, memory, relay, replay, start


@dataclass(frozen=True, slots=True)
class Row:
    """One of them.

    Attributes:
        what: in a few words.
        seconds: about how long it takes.
        measure: does it.
    """

    what: str
    seconds: Callable[[Options], float]
    measure: Callable[[Stage], Findings]


ROWS = {
    "relay": Row("requests a second on 8 connections", relay.seconds, relay.measure),
    "latency": Row("time added to one transaction", latency.seconds, latency.measure),
    "daemon": Row("in front of a real LXD", daemon.seconds, daemon.measure),
    "bulk": Row("large bodies, both ways", bulk.seconds, bulk.measure),
    "memory": Row("memory held", memory.seconds, memory.measure),
    "fairness": Row("what one client's load adds to another's", fairness.seconds, fairness.measure),
    "start": Row("time to start", start.seconds, start.measure),
    "replay": Row("a recording in a daemon's place", replay.seconds, replay.measure),
    "cassette": Row("loading and saving cassettes", cassette.seconds, cassette.measure),
    "growth": Row("how costs grow", growth.seconds, growth.measure),
}


def estimate(wanted: Collection[str], options: Options) -> float:
    """About how many seconds these rows take: what two of them look at is measured once."""
    found = sum(ROWS[name].seconds(options) for name in wanted)
    if {"memory", "growth"} & set(wanted):
        found += growth.recorded_seconds(options)
    if {"cassette", "growth"} & set(wanted):
        found += growth.cassette_seconds(options)
    return found
