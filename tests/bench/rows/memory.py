"""What lxdtap's processes hold: after many transactions, over a large body, of idle websockets."""

from __future__ import annotations

from dataclasses import replace

from tests.bench import growth, load, peers
from tests.bench.figures import Findings, Target, judge
from tests.bench.processes import forget_peak, memory
from tests.bench.stage import Options, Stage

MIB = 1 << 20
AFTER = Target("memory", "", 64, False, "MiB, all processes, what they share once", timed=False)
OVER = Target("memory", "", 32, False, "MiB more at most", timed=False)
IDLE = Target("memory", "", 16, False, "KiB each", timed=False)


def seconds(options: Options) -> float:
    """About how long it takes, without what it shares with growth."""
    return options.body / 0.5e9 + 15


def measure(stage: Stage) -> Findings:
    """All three."""
    each = (_after_many(stage), _over_a_body(stage), _of_websockets(stage))
    return Findings(
        verdicts=[verdict for found in each for verdict in found.verdicts],
        notes=[note for found in each for note in found.notes],
    )


def _named(target: Target, what: str) -> Target:
    return replace(target, what=what)


def _after_many(stage: Stage) -> Findings:
    many = growth.recorded(stage)
    held = many.points[-1].memory or 0
    target = _named(AFTER, f"memory after {many.points[-1].at:,} transactions")
    told = f"memory after {many.points[-1].at:,} transactions: {many.held}"
    return Findings(verdicts=[judge(target, [held / MIB], lost=many.lost)], notes=[told])


def _over_a_body(stage: Stage) -> Findings:
    size = stage.options.body
    stage.tell(f"memory: a body of {size / (1 << 30):g} GiB")
    with peers.tap(stage, stage.sink, "-q", recording=True) as tap:
        load.download(tap.address, MIB)
        tap.settle()
        pids = tap.pids()
        before = memory(pids)
        forget_peak(pids)
        took = load.download(tap.address, size)
        tap.settle()
        grown = memory(pids, "VmHWM") - before
        lost = "; ".join(tap.troubles()[:1])
    target = _named(OVER, f"memory over a body of {size / (1 << 30):g} GiB")
    note = f"a body of {size / (1 << 30):g} GiB came at {size / took / 1e9:.2f} GB/s"
    return Findings(verdicts=[judge(target, [max(0, grown) / MIB], lost=lost)], notes=[note])


def _of_websockets(stage: Stage) -> Findings:
    count = min(9000, load.connections_at_most())
    stage.tell(f"memory: {count} idle websockets")
    with peers.tap(stage, stage.sink, "-q", recording=True) as tap:
        load.download(tap.address, MIB)
        tap.settle()
        before = memory(tap.pids())
        socks = list(load.websockets(tap.address, count))
        tap.settle()
        each = (memory(tap.pids()) - before) / count
        lost = "; ".join(tap.troubles()[:1])
        for sock in socks:
            sock.close()
    target = _named(IDLE, f"memory of {count:,} idle websockets")
    return Findings(verdicts=[judge(target, [max(0.0, each) / 1024], lost=lost)])
