"""What ``lxdtap run -q -- true`` takes more than ``true``."""

from __future__ import annotations

import compileall
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.bench.figures import Findings, Series, Target, judge
from tests.bench.stage import ROOT, Options, Stage
from tests.process.tap import environment

TARGET = Target("start", "lxdtap run -q -- true, more than true", 120, False, "ms")
TIMES = 3
"""Of each in a round, in turn."""


def seconds(options: Options) -> float:
    """About how long it takes."""
    return options.rounds * TIMES * 0.5


def measure(stage: Stage) -> Findings:
    """In turn with Python's own start, and with that of what no tap in it can do without."""
    series = Series("start", "time from start to end", "ms", baseline="python -c pass")
    env = environment(LXD_SOCKET=str(stage.nginx.where), PYTHONPATH=str(ROOT))
    commands = {
        "true": ["true"],
        "python -c pass": [sys.executable, "-c", "pass"],
        "the same, asyncio and click": [sys.executable, "-c", "import asyncio, click"],
        "lxdtap run -q": [sys.executable, "-m", "lxdtap", "run", "-q", "--", "true"],
    }
    compileall.compile_dir(str(ROOT / "lxdtap"), quiet=1)  # as pip does when it installs
    for _ in stage.rounds("start"):
        for _ in range(TIMES):
            for name, command in commands.items():
                series.add(name, _timed(command, env) * 1e3)
    pairs = zip(series.values["lxdtap run -q"], series.values["true"], strict=True)
    verdict = judge(TARGET, [tapped - plain for tapped, plain in pairs], noise=series.spread)
    return Findings([series], [verdict])


def _timed(command: Sequence[str], env: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, env=env, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begun
