"""What was found, as text for a terminal, and as Markdown for the docs. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from .figures import NOISY, Growth, Point, Series, Verdict, number
from .results import Report

HEADS = ("row", "what", "target", "measured", "verdict")
BEGIN = "<!-- written by `make bench PUBLISH=docs`: from here -->"
END = "<!-- to here -->"


def terminal(report: Report) -> str:
    """Aligned tables."""
    lines = [f"{name}: {what}" for name, what in report.machine.items()]
    lines += ["", *_aligned([HEADS, *map(_judged, report.verdicts())])]
    for series in report.series():
        lines += ["", _title(series), *_aligned([_heads(series), *_measured(series)])]
    for growth in report.growths():
        lines += ["", f"growth: {growth.along}", *_aligned([_growth_heads(), *_grown(growth)])]
    lines += ["", *(f"- {note}" for note in report.notes())]
    return "\n".join(lines).rstrip() + "\n"


def markdown(report: Report, pictures: Iterable[tuple[str, str]]) -> str:
    """Tables and pictures, to stand in a page."""
    told = ", ".join(f"{name} {what}" for name, what in report.machine.items() if name != "machine")
    days = " and ".join(sorted({row.when for row in report.rows.values()}))
    lines = [f"{days}, on {report.machine['machine']}; {told}.", ""]
    lines += _table([HEADS, *map(_judged, report.verdicts())])
    lines += ["", *(f"- {note}" for note in report.notes())]
    for title, path in pictures:
        lines += ["", f"![{title}]({path})"]
    for series in report.series():
        lines += ["", f"**{_title(series)}**", "", *_table([_heads(series), *_measured(series)])]
    for growth in report.growths():
        lines += ["", f"**By {growth.along}**", ""]
        lines += _table([_growth_heads(), *_grown(growth)])
    return "\n".join(lines) + "\n"


def published(page: str, text: str) -> str:
    """The page with this between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN if not begin else END}")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


# -- rows


Cells = Sequence[str]


def _judged(verdict: Verdict) -> Cells:
    target = verdict.target
    return (target.row, target.what, str(target), verdict.measured, verdict.outcome)


def _title(series: Series) -> str:
    noise = f"; {series.baseline} varied by {series.spread:.0%}" if series.spread > NOISY else ""
    return f"{series.row}: {series.what}{noise}"


def _heads(series: Series) -> Cells:
    ratio = f"x {series.baseline}" if series.baseline in series.values else ""
    return ("", f"median, {series.unit}", "least", "most", ratio)


def _measured(series: Series) -> Iterator[Cells]:
    base = statistics.median(series.values.get(series.baseline, [0.0]))
    for who, values in series.values.items():
        middle = statistics.median(values)
        ratio = number(middle / base) if base else ""
        yield (who, number(middle), number(min(values)), number(max(values)), ratio)
    for who, why in series.absent.items():
        yield (who, why, "", "", "")


def _growth_heads() -> Cells:
    return ("", "at", "µs, wall", "µs, direct", "µs of CPU", "MiB held")


def _grown(growth: Growth) -> Iterator[Cells]:
    for name, points in growth.curves.items():
        for point in points:
            yield (name, f"{point.at:,}", *_costs(point))


def _costs(point: Point) -> Iterator[str]:
    for cost in (point.wall, point.direct, point.cpu):
        yield "" if cost is None else number(cost * 1e6)
    yield "" if point.memory is None else number(point.memory / (1 << 20))


# -- tables


def _aligned(rows: Sequence[Cells]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _table(rows: Sequence[Cells]) -> list[str]:
    first, *others = (f"| {' | '.join(row)} |" for row in rows)
    return [first, "|" + "---|" * len(rows[0]), *others]
