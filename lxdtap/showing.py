"""``lxdtap show``: recordings as the text that the log was, or would have been."""

from __future__ import annotations

import fcntl
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lxdtap.cassette import files
from lxdtap.cassette.model import CassetteError
from lxdtap.cassette.updates import updates
from lxdtap.errors import LogError
from lxdtap.log.journal import Selection
from lxdtap.log.render import Format, renderer
from lxdtap.masking import Masks
from lxdtap.record import spool
from lxdtap.record.output import complain
from lxdtap.record.worker import Render
from lxdtap.terminal import escape, paint
from lxdtap.transaction import CAPTURE, Moment, Update
from lxdtap.wire.events import Event
from lxdtap.wire.fold import VISIBLE_AFTER, Fold

_TICK = 200_000_000
"""Nanoseconds between two looks at what goes on, as the log has them."""
_LOOK = 64 << 10
_PAGE = 64 << 10
_STDOUT = 1


@dataclass(frozen=True, slots=True)
class Options:
    """What is shown, and how.

    Attributes:
        path: of a cassette or a spool.
        format: of what is shown.
        colour: auto, always or never.
        selection: what of it is shown.
        follow: go on as long as a spool is being written.
        masks: what is secret besides.
    """

    path: str
    format: Format = "debug"
    colour: str = "auto"
    selection: Selection = field(default_factory=Selection)
    follow: bool = False
    masks: Masks = field(default_factory=Masks)


def show(options: Options, environ: dict[str, str]) -> int:
    """Print a recording; the exit status.

    Raises:
        LxdtapError: it cannot be read, or not be printed; its text is for the user.
    """
    painter = paint(options.colour, is_terminal=os.isatty(_STDOUT), environ=environ)
    masker = options.masks.masker()
    page = _Page(renderer(options.format, options.selection, painter, masker))
    try:
        damage = _show(options, page)
        page.flush()
    except BrokenPipeError:
        return 0  # its reader left, as `head` does
    except KeyboardInterrupt:
        return 0 if options.follow else 130
    if damage:
        complain(escape(f"{options.path} is damaged: {damage}; what is shown is before that"))
    return int(bool(damage))


def _show(options: Options, page: _Page) -> str:
    """Print it; what is wrong with it, empty if nothing."""
    file = _opened(options.path)
    try:
        if _is_spool(file, options.path):
            return _Showing(file, page).spool(follow=options.follow)
    finally:
        os.close(file)
    page.show(updates(files.load(options.path).interactions, CAPTURE))
    return ""


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CassetteError(
            f"{path} cannot be read: {error.strerror}; name a cassette, or a spool"
        ) from error


def _is_spool(file: int, path: str) -> bool:
    """Whether it is a spool; else it may be a cassette.

    Raises:
        CassetteError: it is neither.
    """
    regular = stat.S_ISREG(os.fstat(file).st_mode)
    begins = os.pread(file, _LOOK, 0) if regular else b""
    if begins.startswith(spool.MAGIC):
        return True
    if b"version" not in begins:  # whatever its YAML's style, a cassette begins with that
        raise CassetteError(
            f"{path} is neither a cassette nor a spool of lxdtap's; name the FILE of a -w FILE,"
            " or FILE.spool"
        )
    return False


class _Page:
    """Prints updates, many at once."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._waiting = bytearray()

    def show(self, found: Iterable[Update]) -> None:
        for update in found:
            self._waiting += self._render(update).encode("utf-8", "backslashreplace")
            if len(self._waiting) >= _PAGE:
                self.flush()

    def flush(self) -> None:
        """Print what waits.

        Raises:
            BrokenPipeError: nobody reads any more.
            LogError: it cannot be printed.
        """
        data = bytes(self._waiting)
        self._waiting.clear()
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(_STDOUT, left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise LogError(
                f"what is shown cannot be written: {error.strerror}; send it elsewhere"
            ) from error


class _Showing:
    """Shows a spool, by the descriptor of its file: it may be removed meanwhile."""

    def __init__(self, file: int, page: _Page) -> None:
        self._file = file
        self._page = page
        self._teller = _Teller()
        self._reading = spool.Reading(0, offset=len(spool.MAGIC))

    def spool(self, *, follow: bool) -> str:
        """Show all of it; its damage, empty if there is none."""
        busy = self._busy()
        # Of a descriptor of its own, which it closes.
        blocks = spool.blocks(os.dup(self._file), self._reading)
        if follow and busy:
            blocks = self._followed(blocks)
            busy = False
        for event in itertools.chain.from_iterable(blocks):
            self._page.show(self._teller.add(event))
        if busy:
            self._page.show(self._teller.wait(time.monotonic_ns()))
            return "" if self._cut_short() else self._reading.damage
        self._page.show(self._teller.end())
        return self._reading.damage

    def _followed(self, blocks: Iterator[list[Event]]) -> Iterator[list[Event]]:
        """The blocks as they come, until nobody writes any more."""
        over = False
        while True:
            while self._has_record():
                self._reading.size = self._size
                block = next(blocks, None)
                if block is None:
                    return  # damaged
                yield block
            if over:
                yield from blocks  # tells of a last record that is not whole
                return
            over = not self._busy()
            if not over:
                self._page.show(self._teller.wait(time.monotonic_ns()))
                self._page.flush()
                time.sleep(_TICK / 1e9)

    @property
    def _size(self) -> int:
        return os.fstat(self._file).st_size

    def _busy(self) -> bool:
        """Whether somebody is writing it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def _has_record(self) -> bool:
        """Whether there is a whole one more, or one that cannot be."""
        offset = self._reading.offset
        head = os.pread(self._file, spool.HEAD.size, offset)
        if len(head) < spool.HEAD.size:
            return False
        length: int = spool.HEAD.unpack(head)[0]
        return length > spool.LONGEST or self._size >= offset + spool.HEAD.size + length

    def _cut_short(self) -> bool:
        """Whether the last record was read while it was being written."""
        return self._reading.damage == spool.CUT


class _Teller:
    """Makes updates of a spool's events, as the log did while they came.

    What goes on for a while is told of meanwhile; the time between events is theirs.
    """

    def __init__(self) -> None:
        self._fold = Fold(CAPTURE)
        self._last = Moment(0, 0)
        self._ticked = 0

    def add(self, event: Event) -> Iterator[Update]:
        """What an event tells, and what was to be told until then."""
        yield from self.wait(event.at.monotonic)
        self._last = event.at
        yield from self._fold.add(event)

    def wait(self, now: int) -> Iterator[Update]:
        """What is to be told until now if nothing comes."""
        # All that is under way has been told of this long after the last event.
        told = min(now, self._last.monotonic + VISIBLE_AFTER + _TICK)
        for tick in range(self._ticked + _TICK, told + 1, _TICK):
            yield from self._fold.tick(tick)
        self._ticked = max(self._ticked, now - (now - self._ticked) % _TICK)

    def end(self) -> Iterator[Update]:
        """Nobody knows what came of the rest: it is told of as broken off."""
        yield from self._fold.cut(self._last, "the recording ended")
