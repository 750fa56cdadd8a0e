"""How often the tests of faults try, and what they measured.

A test says both counts: a few for every run, and how many the campaign makes (``make campaign``).
What it measured goes into the report at the end, a row each.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
_EVERY = 5.0
"""Seconds from one word of progress to the next."""


class Campaign:
    """What a run of the tests has for those that count.

    Args:
        full: whether the full counts are to be made.
    """

    def __init__(self, *, full: bool) -> None:
        self.full = full
        self.figures: list[tuple[str, str]] = []
        """What was measured: the row, and its figures in words."""

    def count(self, short: int, full: int) -> int:
        """How many: ``short`` in a run of the tests, ``full`` in a campaign."""
        return full if self.full else short

    def figure(self, row: str, figures: str) -> None:
        """Have a row in the report."""
        self.figures.append((row, figures))

    def progress(self, what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
        """Go through ``items``; in a campaign, say now and then how far it is."""
        said = time.monotonic()
        for number, item in enumerate(items, 1):
            yield item
            if self.full and time.monotonic() - said >= _EVERY:
                said = time.monotonic()
                print(f"{what}: {number} of {total}", file=sys.__stderr__, flush=True)

    def lines(self) -> Iterator[str]:
        """The report."""
        width = max((len(row) for row, _ in self.figures), default=0)
        for row, figures in self.figures:
            yield f"{row:{width}}  {figures}"

    def write(self, path: Path) -> None:
        """The report as JSON: a list of objects with ``row`` and ``figures``."""
        rows = [{"row": row, "figures": figures} for row, figures in self.figures]
        path.write_text(json.dumps(rows, indent=2) + "\n")
