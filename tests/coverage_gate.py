"""Each pure module is covered, line and branch, by its own test file alone.

Reads the data of ``coverage run`` with ``dynamic_context = "test_function"``: only what the
module's own tests did counts for it.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import coverage

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "tests" / "unit"


def shortfall(data: coverage.Coverage, test_file: Path) -> str:
    """What a module's own tests leave uncovered; empty if nothing."""
    module = test_file.stem.removeprefix("test_")
    report = io.StringIO()
    # Import lines run before any test, in the empty context.
    contexts = [rf"^tests\.unit\.{test_file.stem}\.", "^$"]
    total = data.report(
        include=[f"*/lxdtap/{module}.py"], contexts=contexts, show_missing=True, file=report
    )
    return "" if total == 100 else report.getvalue()


def main() -> int:
    """Check every test file; the exit status."""
    data = coverage.Coverage(config_file=str(ROOT / "pyproject.toml"))
    data.load()
    tests = [
        path
        for path in sorted(UNIT.glob("test_*.py"))
        if (ROOT / "lxdtap" / f"{path.stem.removeprefix('test_')}.py").exists()
    ]
    short = [report for path in tests if (report := shortfall(data, path))]
    print("".join(short) or f"{len(tests)} modules are covered whole by their own test files")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
