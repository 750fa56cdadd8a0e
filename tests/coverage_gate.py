"""Runs the unit tests, file by file: each covers its pure module whole, line and branch, alone."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "tests" / "unit"


def python(*arguments: str, data: str) -> tuple[bool, str]:
    """Run a module of Python's on coverage data of its own; whether it succeeded, what it said."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"COVERAGE_FILE": data},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode == 0, done.stdout


def holds(test_file: Path, data: str) -> tuple[bool, str]:
    """Whether a test file passes, and leaves nothing of its module uncovered; what was said."""
    command = ("coverage", "run", "-m", "pytest", "-q", "--no-header", str(test_file))
    passed, said = python(*command, data=data)
    modules = list((ROOT / "lxdtap").rglob(f"{test_file.stem.removeprefix('test_')}.py"))
    if not (passed and modules):
        return passed, said
    only = f"--include={','.join(map(str, modules))}"
    covered, report = python(
        "coverage", "report", "--show-missing", "--fail-under=100", only, data=data
    )
    return covered, said if covered else said + report


def main() -> int:
    """Run every file, as many at once as there are processors; the exit status."""
    files = sorted(UNIT.glob("test_*.py"))
    failed = []
    with (
        tempfile.TemporaryDirectory() as directory,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        data = (f"{directory}/{number}" for number in range(len(files)))
        for test_file, (good, said) in zip(files, pool.map(holds, files, data), strict=True):
            last = said.strip().splitlines()[-1:] if good else [said]
            print(f"{test_file.name}: {''.join(last)}", flush=True)
            if not good:
                failed.append(test_file.name)
    if failed:
        print(f"failed, or leaving their modules uncovered: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
