"""``make bench``: lxdtap beside its peers, in one run, on one machine, in turn.

The table of targets is printed; all values go to ``build/bench.json``, pictures of them beside it.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.daemons.throwaway import DaemonError

from . import load, machine, packages, report
from .processes import BenchError
from .results import Report, Row, as_json, from_json
from .rows import ROWS, estimate
from .stage import BUILD, ROOT, Options, stage

SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
BARS, CURVES = "speed.svg", "speed-growth.svg"


def size(text: str) -> int:
    """``64M`` as bytes."""
    factor = SIZES.get(text[-1:].upper(), 1)
    return int(text.rstrip("KMGkmg")) * factor


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit status says whether all could be, and not whether targets were reached."""
    given = _parser().parse_args(arguments)
    wanted = _rows(given.rows)
    options = Options(
        given.rounds, given.seconds, given.bulk, given.body, given.transactions, given.interactions
    )
    minutes = max(1, round(estimate(wanted, options) / 60))
    print(f"bench: {', '.join(wanted)}: about {minutes} min", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by a signal: nothing is left
    mitmproxy = bool({"relay", "replay"} & set(wanted))
    packages.install(lambda text: print(f"bench: {text}", file=sys.stderr), mitmproxy=mitmproxy)
    load.connections_at_most()
    values = Path(given.json)
    before = from_json(json.loads(values.read_text())) if given.add else None
    found = measure(options, wanted)
    failed = bool(found.warnings)
    if before is not None:
        found = found.with_others(before)
    print(report.terminal(found))
    write(found, values, Path(given.publish) if given.publish else None)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    add = parser.add_argument
    add("--rows", default="", help=f"some of {','.join(ROWS)}; all without it")
    add("--rounds", type=int, default=Options.rounds, help="how often all are measured in turn")
    add("--seconds", type=int, default=Options.seconds, help="of load, each time")
    add("--bulk", type=size, default=Options.bulk, help="a large body, such as 64M")
    add("--body", type=size, default=Options.body, help="the body over which memory is watched")
    add("--transactions", type=int, default=Options.transactions, help="that one tap records")
    add("--interactions", type=int, default=Options.interactions, help="of the largest cassette")
    add("--json", default=str(BUILD / "bench.json"), help="where all values go")
    add("--add", action="store_true", help="keep the other rows that are in the file of values")
    add("--publish", metavar="DIR", help="put table and pictures into DIR/speed.md and DIR/images")
    return parser


def _rows(text: str) -> list[str]:
    names = [name for name in text.split(",") if name] or list(ROWS)
    if unknown := [name for name in names if name not in ROWS]:
        raise SystemExit(f"bench: no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if name in names]


def measure(options: Options, wanted: Sequence[str]) -> Report:
    """Each row; one that fails is told of, and the others are measured."""
    found, today = Report(machine.description()), time.strftime("%Y-%m-%d")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        with stage(options, Path(directory)) as shared:
            for name in wanted:
                shared.tell(f"{name}: {ROWS[name].what}")
                busy = machine.others()
                try:
                    findings = ROWS[name].measure(shared)
                except (BenchError, DaemonError, OSError, subprocess.SubprocessError) as error:
                    found.warnings.append(f"{name} could not be measured: {error}")
                else:
                    found.rows[name] = Row(today, options.rounds, busy, findings)
            shared.tell("")
    return found


def write(found: Report, path: Path, publish: Path | None) -> None:
    """The values, the pictures, and where they are wanted the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(found), indent=1) + "\n")
    images = publish / "images" if publish else path.parent
    images.mkdir(parents=True, exist_ok=True)
    drawn = _draw(found, images)
    if publish:
        page = publish / "speed.md"
        titles = [(title, f"images/{name}") for name, title in drawn.items()]
        page.write_text(report.published(page.read_text(), report.markdown(found, titles)))
    shown = [path, *(images / name for name in drawn)]
    print(f"bench: written: {', '.join(map(_short, shown))}", file=sys.stderr)


def _draw(found: Report, images: Path) -> dict[str, str]:
    """Files and their titles; none where matplotlib is not installed."""
    try:
        from . import picture
    except ImportError:
        print("bench: no pictures: pip install '.[bench]' for matplotlib", file=sys.stderr)
        return {}
    drawn = {}
    if series := found.series():
        picture.bars(series, images / BARS)
        drawn[BARS] = "Medians and ranges of all rounds"
    if growths := found.growths():
        picture.curves(growths, images / CURVES)
        drawn[CURVES] = "What one more costs"
    return drawn


def _short(path: Path) -> str:
    absolute = path.resolve()
    return str(absolute.relative_to(ROOT) if absolute.is_relative_to(ROOT) else absolute)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, ValueError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        print("\nbench: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
