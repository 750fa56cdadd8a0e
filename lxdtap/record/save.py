"""From a spool to a cassette: the same at the end of a recording, on the way, and after a crash."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from lxdtap import __version__, endpoint
from lxdtap.cassette.model import Cassette, Interaction, Server
from lxdtap.endpoint import Kind
from lxdtap.errors import LxdtapError, SpoolError
from lxdtap.record import spool
from lxdtap.record.collect import Collector
from lxdtap.record.output import complain
from lxdtap.transaction import Moment

_SOON = 1.0
"""Seconds after which saving says how far it is."""
_IN_MEMORY = 8 << 20
"""Bytes of interactions that wait in memory to be put in order; more wait on the disk."""

Hook = Callable[[Interaction], Interaction | None]
"""Takes an interaction as it would be written; gives the one to write, None to leave it out."""
Clean = Callable[[Interaction], Interaction]
"""Takes the secrets out of an interaction."""


@dataclass(slots=True)
class Saver:
    """Makes a cassette of a spool, in memory that does not grow with it.

    Attributes:
        path: of the cassette.
        clean: what takes the secrets out.
        hook: has the last word on what is written; None: nobody.
        kind: which daemon it is; None: by its address.
        overwrite: whether a cassette that is there may be replaced.
        base: the daemon's address, for a recording in which nobody asked it anything.
    """

    path: str
    clean: Clean
    kind: Kind | None = None
    overwrite: bool = False
    base: str = ""
    hook: Hook | None = None

    def save(self, spooled: str, *, complete: bool, until: int | None = None) -> bool:
        """Save what the spool has now; whether that went well. If not, it has been said why.

        Args:
            spooled: the spool's path.
            complete: whether nothing that passed is missing in it.
            until: bytes of it that are looked at; None: all.
        """
        try:
            count, damage = self.write(spooled, complete=complete, until=until)
        except LxdtapError as error:
            complain(f"{error}; the recording is in {spooled}, see `lxdtap recover --help`")
            return False
        complain(f"recorded {transactions(count)} to {self.path}{damage and f'; but {damage}'}")
        return True

    def write(self, spooled: str, *, complete: bool, until: int | None = None) -> tuple[int, str]:
        """Save what the spool has; the number of interactions, and what is wrong with the spool.

        Raises:
            LxdtapError: the spool cannot be read, or the cassette not be written.
        """
        try:
            return self._write(spooled, complete, until)
        except OSError as error:
            raise SpoolError(f"cannot save {self.path}: {error.strerror}") from error

    def cassette(self, spooled: str, *, complete: bool) -> tuple[Cassette, str]:
        """The cassette of a spool as a value, and what is wrong with the spool.

        Raises:
            LxdtapError: the spool cannot be read.
        """
        with _Pile(os.path.dirname(self.path) or ".") as pile:
            collector, reading = self._gather(spooled, pile, None)
            found = tuple(self._kept(pile))
        whole = complete and not reading.damage
        return Cassette(*self._head(collector, found), complete=whole), reading.damage

    def _write(self, spooled: str, complete: bool, until: int | None) -> tuple[int, str]:
        from lxdtap.cassette import files

        with _Pile(os.path.dirname(self.path) or ".") as pile:
            collector, reading = self._gather(spooled, pile, until)
            server, _, program, began = self._head(collector, ())
            progress = _Progress(self.path)
            with files.Saving(
                self.path, server, program, began, overwrite=self.overwrite
            ) as saving:
                saving.complete = complete and not reading.damage
                done = 0
                for interaction in self._kept(pile):
                    saving.add(interaction)
                    done += 1
                    progress.at("saving", done / len(pile))
            self.overwrite = True  # from now on the one that is there is ours
            return done, reading.damage

    def _kept(self, pile: _Pile) -> Iterator[Interaction]:
        """What is written, after whoever was asked has seen it."""
        for interaction in pile.cleaned(self.clean):
            try:
                kept = interaction if self.hook is None else self.hook(interaction)
            except Exception as error:
                number = interaction.transaction.number
                raise SpoolError(
                    f"cannot save {self.path}: what --redact-with names failed at #{number},"
                    f" {error!r}; mend it"
                ) from error
            if kept is not None:
                yield kept

    def _gather(
        self, spooled: str, pile: _Pile, until: int | None
    ) -> tuple[Collector, spool.Reading]:
        collector, reading = Collector(), spool.Reading(0)
        progress, last = _Progress(self.path), Moment(0, 0)
        for event in spool.read(spooled, reading, until):
            last = event.at
            for interaction in collector.add(event):
                pile.add(interaction, self.clean(interaction))
            progress.at("reading what was recorded for", reading.offset / max(reading.size, 1))
        for interaction in collector.end(last, "the recording ended"):
            pile.add(interaction, self.clean(interaction))
        return collector, reading

    def _head(
        self, collector: Collector, found: tuple[Interaction, ...]
    ) -> tuple[Server, tuple[Interaction, ...], str, int]:
        began = collector.began.wall if collector.began else 0
        return self._server(collector), found, f"lxdtap {__version__}", began

    def _server(self, collector: Collector) -> Server:
        """Who was recorded; by its usual address, where nothing tells another."""
        base = collector.base or self.base
        kind = self.kind or endpoint.kind_of("", base)
        base = base or endpoint.base_url(f"/var/lib/{kind}/{endpoint.SOCKET}")
        return Server(kind, base, collector.version)


def transactions(count: int) -> str:
    """So many transactions, for a person."""
    return f"{count} transaction{'' if count == 1 else 's'}"


class _Pile:
    """Interactions that come as they end, and are given as they began.

    They wait in an unnamed file: an event stream that is open from the beginning of a recording
    to its end would else keep all others in memory.

    Args:
        directory: where that file is, if it is needed.
    """

    def __init__(self, directory: str) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=directory)  # noqa: SIM115 - closed by __exit__
        self._numbers, self._offsets = array("Q"), array("Q")
        self._told = 0  # how many came until the last one that held a secret

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, was: Interaction, clean: Interaction) -> None:
        """Put one on the pile, as it was cleaned."""
        self._numbers.append(clean.transaction.number)
        self._offsets.append(self._file.tell())
        pickle.dump(clean, self._file, pickle.HIGHEST_PROTOCOL)
        if clean != was:
            self._told = len(self)

    def cleaned(self, clean: Clean) -> Iterator[Interaction]:
        """All, in order; cleaned again where a secret may have been told after it was used."""
        for index in sorted(range(len(self)), key=self._numbers.__getitem__):
            self._file.seek(self._offsets[index])
            interaction: Interaction = pickle.load(self._file)  # nobody else can write there
            yield clean(interaction) if index < self._told else interaction


class _Progress:
    """Says on a terminal, now and then, how far saving is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._told = time.monotonic()

    def at(self, doing: str, part: float) -> None:
        """So much of it is done, from 0 to 1."""
        now = time.monotonic()
        if now - self._told > _SOON:
            self._told = now
            if sys.stderr.isatty():
                complain(f"{doing} {self._path}: {part:.0%}")
