"""The report of a campaign, which is made in parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.campaign import Report

KILLS = "tests/faults/test_kills.py::test_killed"
SOAK = "tests/faults/test_soak.py::test_soak"


def ran(test: str, outcome: str, **figures: str) -> pytest.TestReport:
    """What pytest says of a test's one step."""
    return pytest.TestReport(
        nodeid=test,
        location=(test, 0, test),
        keywords={},
        outcome=outcome,  # type: ignore[arg-type]
        longrepr=None if outcome == "passed" else "the reason\nand more",
        when="call",
        user_properties=list(figures.items()),
        duration=2,
    )


def part(path: Path, *reports: pytest.TestReport, full: bool = True) -> list[str]:
    """Run a part of a campaign; the report then, without what it says of rows that are not run."""
    report = Report(full=full, path=path)
    for each in reports:
        report.pytest_runtest_logreport(each)
    report.keep()
    lines = (line for line in report.lines() if "NOT RUN" not in line)
    return [re.sub(r"\d+-\d+-\d+ \d+:\d+", "TIME", line) for line in lines]


def test_each_part_adds_to_the_report(tmp_path: Path) -> None:
    """What ran before stays, what ran again is replaced; failures and short counts are told."""
    path = tmp_path / "campaign.json"
    assert part(path, ran(KILLS, "failed", kills="3 times")) == [
        "test_kills: 1 failed in 2 s, TIME",
        "  FAILED test_killed: the reason",
        "  kills: 3 times",
    ]
    short = ["test_soak: 1 passed in 2 s, TIME; 1 with short counts"]
    assert part(path, ran(SOAK, "passed"), full=False)[-1:] == short
    again = part(path, ran(KILLS, "passed", kills="1000 times"))
    assert again == ["test_kills: 1 passed in 2 s, TIME", "  kills: 1000 times", *short]


@pytest.mark.parametrize("found", ["", "[]", '{"a": '])
def test_a_file_that_is_no_report(tmp_path: Path, found: str) -> None:
    """It is replaced, be it of another kind or cut off."""
    path = tmp_path / "campaign.json"
    path.write_text(found)
    assert part(path, ran(KILLS, "passed")) == ["test_kills: 1 passed in 2 s, TIME"]


def test_what_has_not_run_is_told() -> None:
    """In a campaign, of every module; in another run nobody expects all of them."""
    for full, rows in ((True, ["test_soak: NOT RUN"]), (False, [])):
        report = Report(full=full, path=None)
        report.pytest_runtest_logreport(ran(KILLS, "passed"))
        assert [line for line in report.lines() if line.startswith("test_soak")] == rows
