"""What a run came to, row by row; as JSON and back, so that a row can be measured again. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .figures import ROUNDS, Findings, Growth, Point, Series, Target, Verdict, doubted


@dataclass(slots=True)
class Row:
    """What one row came to.

    Attributes:
        when: the day.
        rounds: of how many.
        busy: the part of the machine that others used before.
        findings: what was found.
    """

    when: str
    rounds: int
    busy: float
    findings: Findings


@dataclass(slots=True)
class Report:
    """All rows, of one machine.

    Attributes:
        machine: what it is, and which versions of everything it has.
        rows: by name.
        warnings: what could not be measured, and why.
    """

    machine: Mapping[str, str]
    rows: dict[str, Row] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def verdicts(self) -> list[Verdict]:
        """Of all rows, and what they are worth."""
        return [
            doubted(each, row.busy) for row in self.rows.values() for each in row.findings.verdicts
        ]

    def series(self) -> list[Series]:
        """Of all rows."""
        return [each for row in self.rows.values() for each in row.findings.series]

    def growths(self) -> list[Growth]:
        """Of all rows."""
        return [each for row in self.rows.values() for each in row.findings.growths]

    def notes(self) -> list[str]:
        """Of all rows, and what is to be known about all of them."""
        found = list(self.warnings)
        if few := [name for name, row in self.rows.items() if row.rounds < ROUNDS]:
            found.append(f"fewer than {ROUNDS} rounds, which tell nothing: {', '.join(few)}")
        return found + [each for row in self.rows.values() for each in row.findings.notes]

    def with_others(self, before: Report) -> Report:
        """This one, and the rows that only a run before it has, in that one's order.

        Raises:
            ValueError: that was another machine, or other versions: they cannot be compared.
        """
        if dict(before.machine) != dict(self.machine):
            raise ValueError("the rows that were kept are of another machine or other versions")
        names = [*before.rows, *(name for name in self.rows if name not in before.rows)]
        rows = {name: self.rows.get(name) or before.rows[name] for name in names}
        return Report(self.machine, rows, self.warnings)


def as_json(report: Report) -> dict[str, object]:
    """All of it, every round's value too; before that the verdicts, for whoever wants no more."""
    return {
        "machine": dict(report.machine),
        "targets": [_target(each) for each in report.verdicts()],
        "notes": report.notes(),
        "rows": {name: dataclasses.asdict(row) for name, row in report.rows.items()},
    }


def from_json(data: Mapping[str, Any]) -> Report:
    """What :func:`as_json` made."""
    return Report(data["machine"], {name: _row(each) for name, each in data["rows"].items()})


def _row(data: Mapping[str, Any]) -> Row:
    found = data["findings"]
    verdicts = [{**each, "target": Target(**each["target"])} for each in found["verdicts"]]
    findings = Findings(
        [Series(**each) for each in found["series"]],
        [Verdict(**each) for each in verdicts],
        found["notes"],
        [_growth(each) for each in found["growths"]],
    )
    return Row(data["when"], data["rounds"], data["busy"], findings)


def _growth(data: Mapping[str, Any]) -> Growth:
    curves = {name: [Point(**point) for point in points] for name, points in data["curves"].items()}
    return Growth(data["name"], data["along"], data["each"], curves)


def _target(verdict: Verdict) -> dict[str, object]:
    return {
        "row": verdict.target.row,
        "what": verdict.target.what,
        "target": str(verdict.target),
        "measured": verdict.measured,
        "value": verdict.value,
        "outcome": verdict.outcome,
    }
