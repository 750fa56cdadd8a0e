"""Which changes have been played, and so in which of its recorded states the daemon is.

Pure. A state is the set of the changes made by then. The nearest recorded one answers: nearest by
the changes that concern what is asked, then by all; the earlier one where two are as near.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import islice

from lxdtap.replay.tape import Entry

_QUIET = frozenset({"exec", "console"})
"""What instances are asked to do that hardly changes them."""
_WHERE_IT_SHOWS = frozenset({"files", "logs", "state", "sftp"})


class Progress:
    """The changes that have been played.

    Args:
        changes: the recorded ones, in order.
    """

    def __init__(self, changes: Sequence[Entry]) -> None:
        self._changes = changes
        self._played: set[int] = set()
        self._prefix = 0  # so many of the first ones have been played, and the next one not

    @property
    def complete(self) -> bool:
        """Whether all changes have been played."""
        return self._prefix == len(self._changes)

    def has(self, change: int) -> bool:
        """Whether this change has been played."""
        return change in self._played

    def play(self, change: int) -> None:
        """This change is made."""
        self._played.add(change)
        while self._prefix in self._played:
            self._prefix += 1

    def rewind(self, change: int) -> None:
        """This change and all after it are to be made again."""
        self._played = {each for each in self._played if each < change}
        self._prefix = min(self._prefix, change)

    @property
    def made(self) -> int | None:
        """How many changes have been played, where those are the first ones; else None."""
        return self._prefix if len(self._played) == self._prefix else None

    def first_open(self, entries: Sequence[Entry]) -> Entry | None:
        """The first of these changes that has not been played; None: all have been."""
        start = bisect_left(entries, self._prefix, key=_made)
        return next((e for e in islice(entries, start, None) if e.made not in self._played), None)

    def choose(self, entries: Sequence[Entry]) -> Entry:
        """The one of these answers to one question that was recorded in the state nearest to now.

        Args:
            entries: at least one, in recorded order.
        """
        if entries[0].made == entries[-1].made:
            return entries[-1]  # the same state: the last word of it
        if self.made is not None:
            entries = _around(entries, self.made)
            if entries[0].made == self._prefix:
                return entries[0]
        near = [entry for entry in self._changes if _concerns(entry, entries[0])]
        best = min(entries, key=lambda entry: (*self._distance(entry, near), entry.made))
        return [entry for entry in entries if entry.made == best.made][-1]

    def _distance(self, entry: Entry, near: Sequence[Entry]) -> tuple[int, int]:
        """How many changes lie between its state and now: of those that concern it, of all."""
        of_near = sum((each.made < entry.made) != (each.made in self._played) for each in near)
        return of_near, len(self._played.symmetric_difference(range(entry.made)))


def _made(entry: Entry) -> int:
    return entry.made


def _around(entries: Sequence[Entry], made: int) -> Sequence[Entry]:
    """The last entry of the nearest state before, and of the next one."""
    after = bisect_right(entries, made, key=_made)
    if after == len(entries):
        return entries[-1:]
    end = bisect_right(entries, entries[after].made, key=_made)
    return [*entries[max(after - 1, 0) : after], entries[end - 1]]


def _concerns(change: Entry, entry: Entry) -> bool:
    """Whether a change may show there: one lies below the other, or both in one thing."""
    ours, theirs = _segments(change), _segments(entry)
    if runs_something(change) and not _WHERE_IT_SHOWS.intersection(theirs[3:4]):
        return False
    shorter = min(len(ours), len(theirs), 3)
    return ours[:shorter] == theirs[:shorter]


def runs_something(change: Entry) -> bool:
    """Whether a change is a command, or a console: it hardly changes its instance."""
    return not _QUIET.isdisjoint(_segments(change)[3:4])


def _segments(entry: Entry) -> list[str]:
    return entry.key.path.strip("/").split("/")
