"""What was measured, as values; and whether a target was reached. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

NOISY = 0.15
"""How far the middle half of the direct rounds may spread, by their median."""
BUSY = 0.10
"""The part of the machine that others may use before a row."""
ROUNDS = 3
"""Of fewer, nothing is said about noise: they are for trying the bench."""

Outcome = Literal["reached", "missed", "too noisy", "incomplete", "absent"]


@dataclass(slots=True)
class Series:
    """One thing measured of several, round by round.

    Attributes:
        row: the row of the table of targets that it belongs to.
        what: what was measured.
        unit: of the values.
        values: by who was measured.
        absent: who could not be, and why.
        baseline: who stands for the machine alone.
        logarithmic: whether they lie too far apart for a picture of even steps.
    """

    row: str
    what: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    baseline: str = "direct"
    logarithmic: bool = False

    def add(self, who: str, value: float) -> None:
        """One round's value."""
        self.values.setdefault(who, []).append(value)

    def median(self, who: str) -> float:
        """Of all rounds."""
        return statistics.median(self.values[who])

    @property
    def spread(self) -> float:
        """How noisy the machine was meanwhile."""
        return spread(self.values.get(self.baseline, ()))

    def ratios(self, who: str, to: str) -> list[float]:
        """By round: both saw the same machine then."""
        pairs = zip(self.values.get(who, ()), self.values.get(to, ()), strict=False)
        return [one / other for one, other in pairs if other > 0]

    def added(self, who: str, to: str) -> list[float]:
        """What ``who`` adds to the baseline, by what ``to`` adds; by round."""
        base = self.values.get(self.baseline, ())
        rounds = zip(base, self.values.get(who, ()), self.values.get(to, ()), strict=False)
        return [
            (one - nothing) / (other - nothing) for nothing, one, other in rounds if other > nothing
        ]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that is to be held.

    Attributes:
        row: where it stands in the table.
        what: is measured.
        bound: that the figure is held to.
        least: whether the bound is the least, and not the most, that is wanted.
        unit: behind figure and bound, such as ``x haproxy``.
        timed: whether it depends on how busy the machine is.
    """

    row: str
    what: str
    bound: float
    least: bool
    unit: str
    timed: bool = True

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g} {self.unit}"

    def holds(self, value: float) -> bool:
        """Whether this figure reaches it."""
        return value >= self.bound if self.least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a target."""

    target: Target
    outcome: Outcome
    measured: str
    value: float | None = None


def spread(values: Sequence[float]) -> float:
    """The middle half's width by the median; 0 of too few to tell."""
    if len(values) < ROUNDS:
        return 0.0
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return (upper - lower) / middle if middle else 0.0


def judge(
    target: Target, values: Sequence[float], *, noise: float = 0.0, lost: str = "", why: str = ""
) -> Verdict:
    """Hold the median of ``values`` to a target.

    Args:
        target: it.
        values: a figure a round.
        noise: the spread of the machine alone.
        lost: what the tap did not log or record that it was to; a tap that drops its work is fast.
        why: there are no values.
    """
    if not values:
        return Verdict(target, "absent", why or "nothing to compare with")
    value = statistics.median(values)
    told = f"{number(value)} {target.unit}"
    if len(values) > 1:
        told += f" ({number(min(values))} to {number(max(values))})"
    if noise > NOISY:
        return Verdict(
            target, "too noisy", f"{told}; the machine alone varied by {noise:.0%}", value
        )
    if lost:
        return Verdict(target, "incomplete", f"{told}; {lost}", value)
    return Verdict(target, "reached" if target.holds(value) else "missed", told, value)


def doubted(verdict: Verdict, busy: float) -> Verdict:
    """What a verdict is worth where others used so much of the machine before."""
    if not verdict.target.timed or verdict.outcome == "absent" or busy <= BUSY:
        return verdict
    measured = verdict.measured
    if verdict.outcome != "too noisy":
        measured += f"; others used {busy:.0%} of the machine"
    return replace(verdict, outcome="too noisy", measured=measured)


def number(value: float) -> str:
    """Three digits that matter, and no powers of ten."""
    if value == 0:
        return "0"
    digits = 2 - max(-3, min(2, _exponent(value)))
    return f"{value:,.{digits}f}"


def _exponent(value: float) -> int:
    return int(f"{value:.2e}".partition("e")[2])


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which that part of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a growth's curve.

    Attributes:
        at: how many connections, bytes, transactions or interactions.
        wall: seconds for each, as a client sees it.
        cpu: seconds of all of lxdtap's processes for each; None: no processes of its own.
        direct: seconds for each without the tap; None: there is no such thing.
        memory: bytes that lxdtap's processes hold then; None: not looked at.
    """

    at: int
    wall: float
    cpu: float | None = None
    direct: float | None = None
    memory: int | None = None


@dataclass(slots=True)
class Growth:
    """How a cost grows with something."""

    name: str
    along: str
    each: str
    curves: dict[str, list[Point]] = field(default_factory=dict)


@dataclass(slots=True)
class Findings:
    """All that a row comes to."""

    series: list[Series] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)


def growth_factor(points: Sequence[Point], cost: Callable[[Point], float], least: int) -> float:
    """How many times as much the last costs as the first of those from ``least`` on."""
    counted = [point for point in points if point.at >= least]
    if len(counted) < 2:
        return 1.0
    return cost(counted[-1]) / cost(counted[0])


def steps(upper: int, first: int = 1, factor: int = 10) -> Iterator[int]:
    """``first``, and so on by ``factor`` to ``upper``, which is the last."""
    at = first
    while at < upper:
        yield at
        at *= factor
    yield upper
