"""A player that keeps what a test is to be told: what was asked for and is not recorded. Pure."""

from __future__ import annotations

from collections import Counter

from lxdtap.cassette.model import Cassette
from lxdtap.replay import match
from lxdtap.replay.match import Key
from lxdtap.replay.player import Action, Miss, Player, Tell
from lxdtap.transaction import Request


class WatchingPlayer(Player):
    """Plays one recording.

    Args:
        cassette: the recording.
        repeats: whether a change may be made more often than it was recorded.

    Attributes:
        misses: what was asked for and not answered from the recording, in order.
    """

    def __init__(self, cassette: Cassette, *, repeats: bool = True) -> None:
        super().__init__(cassette)
        self.misses: list[str] = []
        self._repeats = repeats
        self._made: Counter[Key] = Counter()

    def asked(self, connection: int, request: Request, now: int) -> list[Action]:
        """A request has come, whole."""
        key = match.key(request)
        if text := self._too_often(key):
            self.misses.append(text)
            return [Miss(connection, text), *self.tick(now)]
        actions = super().asked(connection, request, now)
        self.misses += [action.text for action in actions if isinstance(action, Miss)]
        return actions

    def heard(self, connection: int, data: bytes, now: int) -> list[Action]:
        """A client sent bytes on an upgraded connection without frames: all it is told is amiss."""
        actions = super().heard(connection, data, now)
        self.misses += [action.text for action in actions if isinstance(action, Tell)]
        return actions

    def _too_often(self, key: Key) -> str:
        recorded = [entry for entry in self.tape.find(key) if entry.changing]
        if self._repeats or not recorded:
            return ""
        self._made[key] += 1
        if self._made[key] <= len(recorded):
            return ""
        times = "once" if len(recorded) == 1 else f"{len(recorded)} times"
        return (
            f"{key.method} {key.path} was recorded {times}, and is asked for once more; that is"
            " answered with allow_repeats=True"
        )
