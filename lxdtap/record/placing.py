"""Which processor a busy tap and its recorder work on: one and the same, where there are only two.

Client, daemon, tap and recorder are more than two processors can run at once. While the recorder
has the one that the tap has not, the kernel wakes the client and the daemon on the tap's, by whom
they are woken, and leaves them there: the tap is interrupted by each answer, or has to move with
nothing of it in the other's caches, and a processor stands idle meanwhile. So the tap stays where
it is, and the recorder has what the tap leaves it there. That is worth more than a tenth of all
requests; the documentation's page on speed has the figures.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Set as AbstractSet

FEW = 2
"""Processors, of which one is to be left to client and daemon."""
OFTEN = 0.02
"""Seconds after which it is looked again where the tap is: it costs 20 µs."""
_PROCESSOR = 36
"""The field of proc(5)'s stat that says so, counted from the one behind the name."""


class Place:
    """This process' place beside another's, or where it is. Whoever else gives it one, is heeded.

    Args:
        pid: of the other, or its own.
        processors: those that this one may use.
    """

    def __init__(self, pid: int, processors: frozenset[int]) -> None:
        self._processors = processors
        self._beside: int | None = None  # the processor; None: wherever
        self._looked = 0.0
        self._stat = -1
        if len(processors) == FEW:
            with contextlib.suppress(OSError):
                self._stat = os.open(f"/proc/{pid}/task/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)

    def follow(self) -> None:
        """Go where the other one is, and stay there, if there are only two processors."""
        now = time.monotonic()
        if self._stat < 0 or now - self._looked < OFTEN:
            return
        self._looked = now
        try:
            stat = os.pread(self._stat, 1024, 0)
            processor = int(stat.rpartition(b")")[2].split()[_PROCESSOR])
        except (OSError, ValueError, IndexError):
            self.leave()  # it has ended, or this is another proc(5)
            return
        if processor != self._beside and self._go({processor}):
            self._beside = processor

    def leave(self) -> None:
        """Go wherever there is room."""
        if self._beside is not None and self._go(self._processors):
            self._beside = None

    def _go(self, processors: AbstractSet[int]) -> bool:
        was = self._processors if self._beside is None else {self._beside}
        try:
            if os.sched_getaffinity(0) != was:  # somebody else's wish
                self._beside = None
                return False
            os.sched_setaffinity(0, processors)
        except OSError:  # they have just been taken away from us
            return False
        return True
