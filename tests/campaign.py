"""How often the tests of faults try, and what came of it.

A test says both counts: a few for every run, and how many the campaign makes (``make campaign``).
The report has a row for each module of these tests: how its tests ended, how long they took, what
they measured, and what was made less of than a campaign is to. It is kept in a file, to which
every run adds, one beside another too; so a campaign can be made in parts.
"""

from __future__ import annotations

import fcntl
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict, TypeVar

import pytest

Item = TypeVar("Item")
_EVERY = 5.0
"""Seconds from one word of progress to the next, and from one writing of the report."""
FAULTS = Path(__file__).parent / "faults"


SHORT = "SHORT"
"""What a figure is of that says why less was made than a campaign is to."""

Figure = tuple[str, str]
"""What was measured, and what of it."""


class Campaign:
    """What a run of the tests has for those that count.

    Args:
        full: whether the full counts are to be made.
    """

    def __init__(self, *, full: bool) -> None:
        self.full = full
        self._figures: list[Figure] = []

    def count(self, short: int, full: int) -> int:
        """How many: ``short`` in a run of the tests, ``full`` in a campaign."""
        return full if self.full else short

    def spare(self, seconds: float) -> float:
        """What a bound is exceeded by where a machine has much else to do: not in a campaign."""
        return 0 if self.full else seconds

    def figure(self, what: str, figures: str) -> None:
        """Have it in the report."""
        self._figures.append((what, figures))

    def made(self, what: str, count: int, full: int) -> None:
        """Have it in the report if a campaign makes fewer than it is to."""
        if self.full and count < full:
            self.figure(SHORT, f"{what}: {count:,} of {full:,}")

    def taken(self) -> list[Figure]:
        """What came since this was asked last."""
        figures, self._figures = self._figures, []
        return figures

    def progress(self, what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
        """Go through ``items``; in a campaign, say now and then how far it is."""
        said = time.monotonic()
        for number, item in enumerate(items, 1):
            yield item
            if self.full and time.monotonic() - said >= _EVERY:
                said = time.monotonic()
                print(f"{what}: {number} of {total}", file=sys.__stderr__, flush=True)


# -- the report


class Result(TypedDict):
    """What one test came to."""

    outcome: str
    """``passed``, ``failed`` or ``skipped``; ``unfinished`` where the run was ended in it."""
    why: str
    """Of a failure or a skip, in a line."""
    full: bool
    """Whether the full counts were made."""
    begun: str
    """When, by the wall's clock."""
    seconds: float
    figures: list[Figure]


class Report:
    """What became of the tests of faults: a plugin of pytest's.

    Args:
        full: whether the full counts are made.
        path: the file to keep it in, with what others put there.
    """

    def __init__(self, *, full: bool, path: Path | None) -> None:
        self.results: dict[str, Result] = {}
        """By the test."""
        self._full = full
        self._path = path
        self._kept = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One of the three steps of a test is over; the worst one is its outcome."""
        if f"{FAULTS.name}/" not in report.nodeid:
            return
        result = self.results.setdefault(report.nodeid, self._begun())
        if report.outcome != "passed" and result["outcome"] != "failed":
            result["outcome"], result["why"] = report.outcome, _why(report)
        elif report.when == "call" and result["outcome"] == "unfinished":
            result["outcome"] = "passed"
        result["seconds"] += report.duration
        result["figures"] += [(what, str(told)) for what, told in report.user_properties]
        if time.monotonic() - self._kept >= _EVERY:
            self.keep()

    def keep(self) -> None:
        """Add to what is in the file; where a test is in both, the later one counts."""
        self._kept = time.monotonic()
        if self._path is None:
            return
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another run may do the same
            whole = kept(self._path) | self.results
            beside = self._path.with_suffix(".new")
            beside.write_text(json.dumps(whole, indent=1))
            beside.replace(self._path)

    def lines(self) -> Iterator[str]:
        """The report, of this run or of all that is in the file; a row for each module."""
        results = kept(self._path) if self._path else self.results
        for module in sorted(FAULTS.glob("test_*.py")):
            name = f"{FAULTS.name}/{module.name}::"
            yield from row(module.stem, {k: v for k, v in results.items() if name in k}, self._full)

    def _begun(self) -> Result:
        now = time.strftime("%Y-%m-%d %H:%M")
        return Result(
            outcome="unfinished", why="", full=self._full, begun=now, seconds=0, figures=[]
        )


def kept(path: Path) -> dict[str, Result]:
    """What is in a file of results; nothing, where it is not there, or is something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def row(name: str, results: Mapping[str, Result], whole: bool) -> Iterator[str]:
    """A module's lines; if all are to be there, one says of it that it is not.

    Not full counts are told of, and whatever did not pass.
    """
    if not results:
        if whole:
            yield f"{name}: NOT RUN"
        return
    outcomes = Counter(result["outcome"] for result in results.values())
    short = sum(not result["full"] for result in results.values())
    seconds = sum(result["seconds"] for result in results.values())
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    few = f"; {short} with short counts" if short else ""
    begun = min(result["begun"] for result in results.values())
    yield f"{name}: {told} in {seconds:.0f} s, {begun}{few}"
    for test, result in results.items():
        if result["outcome"] != "passed":
            yield f"  {result['outcome'].upper()} {test.partition('::')[2]}: {result['why']}"
        yield from (f"  {what}: {figures}" for what, figures in result["figures"])


def _why(report: pytest.TestReport) -> str:
    """In a line."""
    if isinstance(report.longrepr, tuple):  # of a skip: where, and why
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(getattr(crash, "message", report.longrepr)).partition("\n")[0]
