"""All decks of one test: what its ``lxdtap`` fixture is."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from lxdtap.cassette.model import CassetteError, Interaction
from lxdtap.errors import SpoolError
from lxdtap.testing import settings
from lxdtap.testing.claims import Claims
from lxdtap.testing.deck import Deck, Playing, Taping
from lxdtap.testing.settings import Settings

_VARIABLES = (
    *("LXD_DIR", "LXD_SOCKET", "LXC_REMOTE"),
    *("INCUS_DIR", "INCUS_SOCKET", "INCUS_REMOTE"),
)
"""What steers clients to a daemon, and would lead them past ours."""
_CONFIGURATIONS = ("LXD_CONF", "INCUS_CONF")
"""Where clients keep what they know; on a first run there they ask and say more."""
_CONFIGURATION = """\
default-remote: local
remotes:
  local:
    addr: unix://
    public: false
"""
"""As lxc and incus write it on their first run, but for the servers of images."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known before a test begins.

    Attributes:
        test: the test, by its node id.
        directory: where its cassettes are.
        choose: settings, from those that one cassette asks for.
        claims: who records which cassette.
        command: the line to type to record it.
    """

    test: str
    directory: str
    choose: Callable[[Mapping[str, Any]], Settings]
    claims: Callable[[], Claims]
    command: str


class Decks:
    """The cassettes of a test, each a daemon with a socket of its own.

    What is asked of this itself is about the first of them.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._environ = dict(os.environ)
        self._decks: dict[str, Deck] = {}
        self._settings: dict[str, Settings] = {}
        self._configuration = tempfile.TemporaryDirectory(prefix="lxdtap-")
        with open(f"{self._configuration.name}/config.yml", "w", encoding="ascii") as file:
            file.write(_CONFIGURATION)
        self._told = 0

    # -- for tests

    def __getitem__(self, name: str) -> Deck:
        """The deck of the cassette of this name."""
        return self._decks[self._path(name)]

    @property
    def first(self) -> Deck:
        """The deck that the environment points at."""
        return next(iter(self._decks.values()))

    @property
    def socket(self) -> str:
        """The path of the socket that clients connect to."""
        return self.first.socket

    @property
    def directory(self) -> str:
        """The directory of that socket, as ``LXD_DIR`` names it."""
        return self.first.directory

    @property
    def environ(self) -> dict[str, str]:
        """What is set so that clients use it."""
        return self.first.environ

    @property
    def path(self) -> str:
        """The cassette's."""
        return self.first.path

    @property
    def recording(self) -> bool:
        """Whether the cassette is being recorded."""
        return self.first.recording

    @property
    def misses(self) -> list[str]:
        """What was asked for and is not recorded, of all decks."""
        return [text for deck in self._decks.values() for text in deck.misses]

    @property
    def unplayed(self) -> list[Interaction]:
        """The recorded interactions that nobody has asked for, of all decks."""
        return [each for deck in self._decks.values() for each in deck.unplayed]

    @contextlib.contextmanager
    def use(self, name: str, **options: Any) -> Iterator[Deck]:  # noqa: ANN401 - see Settings
        """Point clients at another cassette, for as long as this context lasts.

        Args:
            name: of the cassette.
            options: as the marker takes them.
        """
        deck = self.insert(name, options)
        with self._environment([deck]):
            yield deck

    # -- for the plugin

    def insert(self, name: str, options: Mapping[str, Any]) -> Deck:
        """The deck of a cassette, which is served from now on.

        Raises:
            LxdtapError: the cassette is missing or damaged, or cannot be recorded.
            ValueError: an option is not known.
        """
        path = self._path(name)
        if path not in self._decks:
            wanted = self._settings[path] = self._plan.choose(options)
            self._decks[path] = self._deck(path, wanted)
        return self._decks[path]

    def environment(self) -> contextlib.AbstractContextManager[None]:
        """Have clients use these decks."""
        return self._environment(list(self._decks.values()))

    def close(self) -> None:
        """Serve no more."""
        for deck in self._decks.values():
            deck.close()
        self._configuration.cleanup()

    def finish(self, *, keep: bool) -> list[str]:
        """Save what was recorded, or forget it; what is to be said of that.

        Raises:
            LxdtapError: it could not be written.
        """
        said = []
        with contextlib.ExitStack() as recordings:
            for deck in self._decks.values():
                if isinstance(deck, Taping):
                    recordings.callback(deck.discard)
            for deck in self._decks.values():
                if isinstance(deck, Playing):
                    said.append(deck.left())
                elif isinstance(deck, Taping) and keep:
                    said.append(deck.save())
                else:
                    said.append(f"not recorded: {deck.place}, because the test did not pass")
                    self._plan.claims().give_up(deck.path)
        return [text for text in said if text]

    def complaint(self) -> str:
        """What was asked for and is not recorded, since the last complaint; empty if nothing."""
        misses = self.misses
        new, self._told = misses[self._told :], len(misses)
        return "\n".join(f"lxdtap: {text}" for text in new)

    def left(self) -> str:
        """What strict cassettes have that nobody asked for; empty if there is nothing."""
        return "\n".join(
            f"lxdtap: strict, and {text.rstrip()}"
            for path, deck in self._decks.items()
            if isinstance(deck, Playing) and self._settings[path].strict and (text := deck.left())
        )

    def report(self) -> str:
        """What a failing test shows of its cassettes."""
        return "".join(deck.report() for deck in self._decks.values()).rstrip()

    # -- inside

    def _path(self, name: str) -> str:
        return os.path.abspath(os.path.join(self._plan.directory, settings.file_name(name)))

    def _deck(self, path: str, wanted: Settings) -> Deck:
        exists = os.path.lexists(path)
        if wanted.record_mode == "all" or (wanted.record_mode == "once" and not exists):
            self._claim(path)
            try:
                return Taping(path, wanted, self._environ)
            except BaseException:
                self._plan.claims().give_up(path)
                raise
        if not exists:
            raise CassetteError(
                f"there is no cassette {path}: with a daemon to record, type\n"
                f"  {self._plan.command} --lxdtap-record-mode=once"
            )
        return Playing(path, wanted)

    def _claim(self, path: str) -> None:
        owner = self._plan.claims().take(path, self._plan.test)
        if owner != self._plan.test:
            raise SpoolError(
                f"{path} is recorded by {owner} in this run: give one of the two a cassette of its"
                " own, or record that one alone and have this one replay it"
            )

    @contextlib.contextmanager
    def _environment(self, decks: Sequence[Deck]) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in _VARIABLES:
                patch.delenv(name, raising=False)
            for deck in reversed(decks):
                for name, value in deck.environ.items():
                    patch.setenv(name, value)
            for name in _CONFIGURATIONS:
                patch.setenv(name, self._configuration.name)
            yield
