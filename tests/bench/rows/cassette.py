"""Loading and saving cassettes, beside vcrpy; and whether the cost stays linear."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bench import cassettes, growth
from tests.bench.figures import Findings, Series, Target, growth_factor, judge
from tests.bench.stage import Options, Stage

COUNT = 1000
LINEAR = 1.5
"""How many times as much an interaction of the largest cassette may cost: caches end somewhere."""
WAYS = ("save", "load")


def seconds(options: Options) -> float:
    """About how long it takes, without what it shares with growth."""
    return options.rounds * 2.5 + 5


def measure(stage: Stage) -> Findings:
    """Both, in turn; and from the growth of cassettes the factor."""
    series = {way: Series("cassette", f"{way} {COUNT:,} interactions", "ms") for way in WAYS}
    data = cassettes.cassette(COUNT)
    found = {"lxdtap": cassettes.ours(data), "vcrpy": cassettes.vcrpys(data)}
    for _ in stage.rounds("cassette"):
        for name, one in found.items():
            if one is not None:
                series["save"].add(name, milliseconds(one.save))
                series["load"].add(name, milliseconds(one.load))
    verdicts = []
    for way in WAYS:
        series[way].baseline = "vcrpy"
        why = "" if found["vcrpy"] else "vcrpy is not installed: pip install '.[bench]'"
        series[way].absent = {"vcrpy": why} if why else {}
        target = Target("cassette", f"{way} {COUNT:,} interactions", 1, False, "x vcrpy")
        ratios = series[way].ratios("lxdtap", "vcrpy")
        verdicts.append(judge(target, ratios, noise=series[way].spread, why=why))
    for way, points in growth.cassette(stage).curves.items():
        largest = points[-1].at
        what = f"{way} an interaction of {largest:,}"
        target = Target("cassette", what, LINEAR, False, f"x one of {COUNT:,}")
        factor = growth_factor(points, lambda point: point.wall, COUNT)
        verdicts.append(judge(target, [factor]))
    return Findings(list(series.values()), verdicts)


def milliseconds(action: Callable[[], object]) -> float:
    """What it takes."""
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1e3
