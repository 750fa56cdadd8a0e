"""A deck: one cassette on a socket of its own, being recorded or played.

::

    Deck            what a client needs to know of it
    ├── Playing     a recording in the daemon's place
    └── Taping      the daemon itself, tapped
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lxdtap import endpoint
from lxdtap.cassette import files
from lxdtap.cassette.cleaning import Cleaner, Rules
from lxdtap.cassette.model import Interaction
from lxdtap.endpoint import Endpoint, HttpsEndpoint, Kind
from lxdtap.errors import SpoolError
from lxdtap.finding import Wanted, find, way
from lxdtap.log.journal import Selection
from lxdtap.log.render import renderer
from lxdtap.masking import Masks
from lxdtap.record.save import Saver, transactions
from lxdtap.record.spool import Reading, Spool, read
from lxdtap.record.trim import Trimmer
from lxdtap.redact import Redactor
from lxdtap.replay.server import Replay
from lxdtap.tap.core import Core
from lxdtap.tap.listener import Serve
from lxdtap.terminal import escape
from lxdtap.testing.service import Service
from lxdtap.testing.settings import Settings
from lxdtap.testing.watching import WatchingPlayer
from lxdtap.transaction import CAPTURE
from lxdtap.wire.events import Event
from lxdtap.wire.fold import Fold
from lxdtap.wire.records import encode

_DRAIN = 2.0
"""Seconds that what is under way is given to finish when a recording ends."""
_TICK = 0.005
_TICKS = 60
"""Seconds, and how often, it is looked whether a client knows more than we do."""
_SHOWN = 50
"""Lines of each kind that a failing test shows."""


class Deck(ABC):
    """A cassette that stands in for a daemon, or that a daemon is recorded to.

    Attributes:
        path: of the cassette.
        kind: which daemon it is.
        notes: what a person should know, in order.
    """

    recording = False
    """Whether the cassette is being recorded."""

    def __init__(self, path: str, kind: Kind) -> None:
        self.path = path
        self.kind: Kind = kind
        self.notes: list[str] = []
        self._service: Service | None = None
        self._socket = ""

    @property
    def socket(self) -> str:
        """The path of the socket that clients connect to."""
        return self._socket

    @property
    def directory(self) -> str:
        """The directory of that socket, as ``LXD_DIR`` names it."""
        return os.path.dirname(self._socket)

    @property
    def environ(self) -> dict[str, str]:
        """What to set so that clients use this deck."""
        return endpoint.client_environment(self.kind, self._socket)

    @property
    def place(self) -> str:
        """The cassette's path as a person would type it here."""
        path = os.path.relpath(self.path)
        return self.path if path.startswith("..") else path

    @property
    def misses(self) -> Sequence[str]:
        """What was asked for and is not in the cassette; each says what is nearest."""
        return ()

    @property
    def unplayed(self) -> Sequence[Interaction]:
        """The recorded interactions that nobody has asked for."""
        return ()

    def close(self) -> None:
        """Serve no more."""
        if self._service is not None:
            self._service.close()
            self._service = None

    @abstractmethod
    def report(self) -> str:
        """What a failing test shows of it."""

    def _serve(self, service: Service) -> None:
        self._service = service
        self._socket = service.path


class Playing(Deck):
    """A cassette, played from now on.

    Raises:
        LxdtapError: it cannot be read, or not be served.
    """

    def __init__(self, path: str, settings: Settings) -> None:
        cassette = files.load(path)
        super().__init__(path, cassette.server.kind)
        self._count = len(cassette.interactions)
        self._player = WatchingPlayer(cassette, repeats=settings.allow_repeats)
        self._serve(Service(lambda loop: _Player(self._player, self, loop), self.notes.append))

    @property
    def misses(self) -> Sequence[str]:
        """What was asked for and is not in the cassette; each says what is nearest."""
        return self._player.misses

    @property
    def unplayed(self) -> Sequence[Interaction]:
        """The recorded interactions that nobody has asked for."""
        return self._player.never_played()

    def report(self) -> str:
        """Misses, what else is to be known, and what nobody asked for."""
        told = [note for note in self.notes if note not in self.misses]
        text = f"replayed from {self.place}\n"
        text += _listed(f"{len(self.misses)} asked for and not recorded:", self.misses)
        text += _listed("to be known:", told)
        return text + self.left()

    def left(self) -> str:
        """What nobody asked for; empty where there is none."""
        unplayed = [_line(interaction) for interaction in self.unplayed]
        heading = f"{len(unplayed)} of {self._count} recorded and never asked for:"
        return _listed(heading, unplayed)


class Taping(Deck):
    """A daemon, tapped and recorded from now on; :meth:`save` makes the cassette.

    Args:
        path: of the cassette; what is there is replaced by :meth:`save`, and not before.
        settings: what is wanted.
        environ: where the daemon is looked for.

    Raises:
        LxdtapError: there is no daemon, or no place for the recording.
    """

    recording = True

    def __init__(self, path: str, settings: Settings, environ: dict[str, str]) -> None:
        self._daemon = _daemon(settings, environ)
        super().__init__(path, self._daemon.kind or "lxd")
        self._settings = settings
        self._trimmer = Trimmer()
        self._failure = ""
        self._directory = tempfile.TemporaryDirectory(prefix="lxdtap-")
        self._spool = Spool(f"{self._directory.name}/spool")
        try:
            self._serve(Service(self._tap, self.notes.append))
        except BaseException:
            self.discard()
            raise

    def _tap(self, loop: asyncio.AbstractEventLoop) -> _Tap:
        say = self.notes.append
        return _Tap(Core(way(self._daemon, say), self._hear, loop, say=say))

    def save(self) -> str:
        """Make the cassette, once it is closed; what is to be said of it, in one line.

        Raises:
            LxdtapError: it cannot be written.
        """
        if self._failure:
            raise SpoolError(
                f"{self.place} is not recorded, {self._failure}: make room in"
                f" {tempfile.gettempdir()}, and try again"
            )
        rules = Rules(payload=self._settings.redact_payload)
        saver = Saver(self.path, Cleaner(self._masker(), rules).clean, self.kind)
        cassette, _damage = saver.cassette(self._spool.path, complete=True)
        kept = cassette.interactions
        if hook := self._settings.before_record:
            kept = tuple(each for each in map(hook, kept) if each is not None)
        server = cassette.server._replace(base=cassette.server.base or self._daemon.base)
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        files.save(cassette._replace(interactions=kept, server=server), self.path, overwrite=True)
        none = "" if kept else f": does the client use {' or '.join(self.environ)}?"
        return f"recorded {transactions(len(kept))} to {self.place}{none}"

    def discard(self) -> None:
        """Give up what it takes to record; what was not saved is gone."""
        self.close()
        if os.path.exists(self._spool.path):
            self._spool.close(remove=True)
        self._directory.cleanup()

    def report(self) -> str:
        """What has passed until now, a line for each transaction, without secrets."""
        if self._service is not None:
            self._service.settle()
        render = renderer("line", Selection(), redactor=self._masker())
        fold = Fold(CAPTURE)
        lines: list[str] = []
        for event in read(self._spool.path, Reading(0)):
            for update in fold.add(event):
                lines += render(update).splitlines()
        text = f"recorded from {self._daemon.base}; not kept, because the test failed\n"
        text += _listed(f"what has passed, {len(lines)} lines, the last:", lines[-_SHOWN:])
        return text + _listed("to be known:", self.notes)

    # -- inside

    def _hear(self, event: Event) -> None:
        """On the service's thread."""
        block = b"".join(map(encode, self._trimmer.add(event)))
        if self._failure:
            return
        try:
            self._spool.add(block)
        except OSError as error:
            self._failure = error.strerror or str(error)

    def _masker(self) -> Redactor:
        wanted = self._settings
        return Masks(wanted.redact_keys, wanted.redact_headers, wanted.redact_query).masker()


class _Player:
    """Serves a player."""

    def __init__(self, player: WatchingPlayer, deck: Deck, loop: asyncio.AbstractEventLoop) -> None:
        self._replay = Replay(player, deck.notes.append, loop)

    @property
    def serve(self) -> Serve:
        return self._replay.serve

    async def settle(self) -> None:
        pass  # an answer is known before it is sent

    async def finish(self) -> None:
        self._replay.close()


class _Tap:
    """Serves a daemon."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def serve(self) -> Serve:
        return self._core.serve

    async def settle(self) -> None:
        for _ in range(_TICKS):
            if not self._core.busy:
                return
            await asyncio.sleep(_TICK)

    async def finish(self) -> None:
        await self._core.drain(_DRAIN)
        self._core.close()


def _daemon(settings: Settings, environ: dict[str, str]) -> Endpoint | HttpsEndpoint:
    """The daemon to record."""
    upstream, remote = settings.upstream, settings.remote
    if not (upstream or remote):
        upstream, remote = (environ.get(f"LXDTAP_{name}", "") for name in ("UPSTREAM", "REMOTE"))
    # In a thread, because it may want a loop of its own where the test has one that runs.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(find, Wanted(upstream, remote), environ).result()


def _line(interaction: Interaction) -> str:
    request = interaction.transaction.request
    return f"#{interaction.transaction.number} {request.method} {escape(request.target)}"


def _listed(heading: str, lines: Sequence[str]) -> str:
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  ... and {len(lines) - _SHOWN} more")
    return "\n".join([heading, *shown, ""]) if lines else ""
