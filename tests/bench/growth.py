"""How costs grow: with connections, with a body, with what was recorded, with a cassette."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from . import cassettes, load, peers
from .figures import Findings, Growth, Point, steps
from .processes import TICK, Address, Running, memory
from .stage import Options, Stage

CHUNK = 20_000
"""Transactions after which the recorder is waited for: more at once may be more than it takes."""
PROBES = 100
"""Transactions by which it is seen what one more costs."""
LARGEST = 1 << 30
MIB = 1 << 20


def seconds(options: Options) -> float:
    """About how long it takes, without what it shares with other rows."""
    return 45 + 10 * options.bulk / LARGEST


def recorded_seconds(options: Options) -> float:
    """About how long :func:`recorded` takes."""
    return options.transactions / 12_000


def cassette_seconds(options: Options) -> float:
    """About how long :func:`cassette` takes."""
    return options.interactions * 0.0012


def measure(stage: Stage) -> Findings:
    """All four; those that another row has measured in this run are that row's."""
    return Findings(growths=[connections(stage), bodies(stage), many(stage), cassette(stage)])


def _cpu(running: Running, action: Callable[[], float], count: int) -> tuple[float, float | None]:
    """Seconds of an action, and of lxdtap's work for it, by what it does so often.

    None where the work is too little to be told by a clock that counts in hundredths.
    """
    before = running.cpu()
    took = action()
    running.settle()
    worked = running.cpu() - before
    return took / count, worked / count if worked > 4 / TICK else None


def connections(stage: Stage) -> Growth:
    """A transaction's cost by how many connections are open, all of which are used in turn."""
    found = Growth("connections", "open connections", "transaction")
    points = found.curves.setdefault("recording", [])
    for count in steps(min(10_000, load.connections_at_most()), 1, 8):
        stage.tell(f"growth: {count} connections")
        asked = max(4000, count)
        with load.connected(stage.nginx, count) as socks:
            direct = load.in_turn(socks, asked) / asked
        with (
            peers.tap(stage, stage.nginx, "-q", recording=True) as tap,
            load.connected(tap.address, count) as socks,
        ):
            tap.settle()
            wall, cpu = _cpu(tap, partial(load.in_turn, socks, asked), asked)
            points.append(Point(count, wall, cpu, direct, memory(tap.pids())))
    return found


def bodies(stage: Stage) -> Growth:
    """A transaction's cost by the size of its answer."""
    found = Growth("bodies", "bytes of the answer's body", "transaction")
    points = found.curves.setdefault("recording", [])
    for size in (0, *steps(max(32 << 10, stage.options.bulk), 1 << 10, 32)):
        stage.tell(f"growth: a body of {size} bytes")
        count = max(1, min(2000, 128 * MIB // max(1, size)))
        direct = _asked(stage.sink, size, count) / count
        with peers.tap(stage, stage.sink, "-q", recording=True) as tap:
            wall, cpu = _cpu(tap, partial(_asked, tap.address, size, count), count)
        points.append(Point(size, wall, cpu, direct))
    return found


def _asked(address: Address, size: int, count: int) -> float:
    """The seconds for so many bodies on one connection."""
    with load.client(address) as client:
        return sum(client.ask(f"/body/{size}") for _ in range(count))


@dataclass(slots=True)
class Recorded:
    """One tap, from its first transaction to its last."""

    points: list[Point] = field(default_factory=list)
    lost: str = ""
    held: str = ""


def recorded(stage: Stage) -> Recorded:
    """Measured once in a run: memory and growth look at the same tap.

    A point's time is that of single transactions once so many were recorded; its CPU is that of
    those since the point before.
    """
    kept = stage.kept.get("recorded")
    if isinstance(kept, Recorded):
        return kept
    stage.kept["recorded"] = found = Recorded()
    with peers.tap(stage, stage.nginx, "-q", recording=True) as tap:
        with load.client(tap.address) as client, load.client(stage.nginx) as direct:
            without = direct.ask()
            found.points.append(
                Point(1, client.ask(), direct=without, memory=memory(tap.pids(), "Pss"))
            )
        done = 1
        for upto in steps(max(1000, stage.options.transactions), 100):
            count = upto - done
            stage.tell(f"{upto} transactions recorded")
            _, cpu = _cpu(tap, partial(_in_chunks, tap, count), count)
            done = upto
            pids = tap.pids()
            held = memory(pids, "Pss")
            with load.client(tap.address) as client, load.client(stage.nginx) as direct:
                wall, without = client.median(PROBES), direct.median(PROBES)
            done += PROBES
            found.points.append(Point(upto, wall, cpu, without, held))
        by_process = [f"{memory([pid]) / MIB:.0f}" for pid in pids]
        found.held = f"MiB by process {', '.join(by_process)}, with what they share in each"
        found.lost = "; ".join(tap.troubles()[:1])
    return found


def _in_chunks(tap: Running, count: int) -> float:
    """The seconds for so many, without those in which the recorder is waited for."""
    took = 0.0
    for start in range(0, count, CHUNK):
        these = min(CHUNK, count - start)
        took += load.h2load(tap.address, count=these, connections=min(8, these)).seconds
        if count > CHUNK:
            tap.settle()
    return took


def many(stage: Stage) -> Growth:
    """A transaction's cost by how many were recorded before."""
    found = Growth("transactions", "transactions recorded", "transaction")
    found.curves["recording"] = recorded(stage).points
    return found


def cassette(stage: Stage) -> Growth:
    """An interaction's cost by how many the cassette has; measured once in a run."""
    kept = stage.kept.get("cassettes")
    if isinstance(kept, Growth):
        return kept
    stage.kept["cassettes"] = found = Growth(
        "cassette", "interactions in the cassette", "interaction"
    )
    for count in steps(stage.options.interactions):
        stage.tell(f"growth: a cassette of {count} interactions")
        one = cassettes.ours(cassettes.cassette(count))
        times = max(1, 1000 // count)
        for way, action in (("save", one.save), ("load", one.load)):
            found.curves.setdefault(way, []).append(_point(action, count, times))
    return found


def _point(action: Callable[[], object], count: int, times: int) -> Point:
    begun, worked = time.perf_counter(), time.process_time()
    for _ in range(times):
        action()
    all_of_them = count * times
    return Point(
        count,
        (time.perf_counter() - begun) / all_of_them,
        (time.process_time() - worked) / all_of_them,
    )
