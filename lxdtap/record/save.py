"""From a spool to a cassette: the same at the end of a recording, on the way, and after a crash."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from lxdtap import __version__, endpoint
from lxdtap.cassette.model import Cassette, Interaction, Server
from lxdtap.endpoint import Kind
from lxdtap.errors import LxdtapError
from lxdtap.record import spool
from lxdtap.record.collect import Collector
from lxdtap.record.output import complain
from lxdtap.transaction import Moment

_SOON = 1.0
"""Seconds after which saving says how far it is."""

Clean = Callable[[Interaction], Interaction]
"""Takes the secrets out of an interaction."""


@dataclass(slots=True)
class Saver:
    """Makes a cassette of a spool.

    Attributes:
        path: of the cassette.
        clean: what takes the secrets out.
        kind: which daemon it is; None: by its address.
        overwrite: whether a cassette that is there may be replaced.
    """

    path: str
    clean: Clean
    kind: Kind | None = None
    overwrite: bool = False

    def save(self, spooled: str, *, complete: bool) -> bool:
        """Save what the spool has now; whether that went well. If not, it has been said why."""
        try:
            count, damage = self.write(spooled, complete=complete)
        except LxdtapError as error:
            complain(f"{error}; the recording is in {spooled}, see `lxdtap recover --help`")
            return False
        complain(f"recorded {count} transactions to {self.path}{damage and f'; but {damage}'}")
        return True

    def write(self, spooled: str, *, complete: bool) -> tuple[int, str]:
        """Save what the spool has; the number of interactions, and what is wrong with the spool.

        Raises:
            LxdtapError: the spool cannot be read, or the cassette not be written.
        """
        from lxdtap.cassette import files

        cassette, damage = self.cassette(spooled, complete=complete)
        files.save(cassette, self.path, overwrite=self.overwrite)
        self.overwrite = True  # from now on the one that is there is ours
        return len(cassette.interactions), damage

    def cassette(self, spooled: str, *, complete: bool) -> tuple[Cassette, str]:
        """The cassette of a spool, and what is wrong with the spool; empty if nothing is.

        Raises:
            LxdtapError: the spool cannot be read.
        """
        collector, reading = Collector(), spool.Reading(0)
        interactions: list[Interaction] = []
        last, told = Moment(0, 0), time.monotonic()
        for event in spool.read(spooled, reading):
            last = event.at
            interactions += map(self.clean, collector.add(event))
            if time.monotonic() - told > _SOON:
                told = time.monotonic()
                _progress(self.path, reading)
        interactions += map(self.clean, collector.end(last, "the recording ended"))
        interactions.sort(key=lambda each: each.transaction.number)
        base = collector.base
        cassette = Cassette(
            Server(self.kind or endpoint.kind_of("", base), base, collector.version),
            tuple(interactions),
            f"lxdtap {__version__}",
            collector.began.wall if collector.began else 0,
            complete and not reading.damage,
        )
        return cassette, reading.damage


def _progress(path: str, reading: spool.Reading) -> None:
    if sys.stderr.isatty():
        complain(f"saving {path}: {reading.offset * 100 // max(reading.size, 1)} %")
