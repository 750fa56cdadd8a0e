"""Runs the unit tests, file by file: each covers its pure module whole, line and branch, alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "tests" / "unit"


def python(*arguments: str, data: str) -> bool:
    """Run a module of Python's on coverage data of its own; whether it succeeded."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"COVERAGE_FILE": data})
    return done.returncode == 0


def holds(test_file: Path, data: str) -> bool:
    """Whether a test file passes, and leaves nothing of its module uncovered."""
    if not python(
        "coverage", "run", "-m", "pytest", "-q", "--no-header", str(test_file), data=data
    ):
        return False
    modules = list((ROOT / "lxdtap").rglob(f"{test_file.stem.removeprefix('test_')}.py"))
    if not modules:
        return True
    only = f"--include={','.join(map(str, modules))}"
    return python("coverage", "report", "--show-missing", "--fail-under=100", only, data=data)


def main() -> int:
    """Run every file; the exit status."""
    failed = []
    with tempfile.TemporaryDirectory() as directory:
        for number, test_file in enumerate(sorted(UNIT.glob("test_*.py"))):
            if not holds(test_file, f"{directory}/{number}"):
                failed.append(test_file.name)
    if failed:
        print(f"failed, or leaving their modules uncovered: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
