"""Misses and repeats of a recording that is played."""

from __future__ import annotations

import json

from lxdtap.cassette.model import Interaction
from lxdtap.content import Json
from lxdtap.replay.player import Action, Answer, Miss
from lxdtap.testing.watching import WatchingPlayer
from tests.unit.builders import response
from tests.unit.recordings import SFTP, asked, cassette, seen

LOOK = seen(1, asked("GET", "/1.0"), response(200, {"a": 1}))
MAKE = seen(2, asked("POST", "/1.0/instances", {"name": "c1"}), response(200, {"b": 1}))


def playing(*interactions: Interaction, repeats: bool = False) -> WatchingPlayer:
    return WatchingPlayer(cassette(*interactions), repeats=repeats)


def ask(player: WatchingPlayer, method: str, target: str, data: bytes | Json = b"") -> str:
    """Ask; the answer's status and what it says."""
    actions: list[Action] = player.asked(1, asked(method, target, data), 0)
    said = next(action.response for action in actions if isinstance(action, Answer | Miss))
    return f"{said.status} {said.body.captured.decode()}"


def test_what_is_recorded_is_no_miss() -> None:
    """A recording that is played as it was has nothing to tell, however often it is looked at."""
    player = playing(LOOK, MAKE)
    for _ in range(3):
        assert ask(player, "GET", "/1.0").startswith("200")
    assert ask(player, "POST", "/1.0/instances", {"name": "c1"}).startswith("200")
    assert player.misses == []


def test_a_miss_is_kept_with_what_is_nearest() -> None:
    """What the client was told, the test is told too."""
    player = playing(LOOK)
    assert ask(player, "GET", "/1.0/instances").startswith("501")
    assert len(player.misses) == 1
    assert "no recorded interaction answers GET /1.0/instances" in player.misses[0]


def test_a_recorded_501_is_no_miss() -> None:
    """LXD says 501 itself: that is an answer like any other."""
    error: Json = {"type": "error", "error": "lxdtap: no", "error_code": 501}
    player = playing(seen(1, asked("GET", "/1.0/x"), response(501, error)))
    assert ask(player, "GET", "/1.0/x").startswith("501")
    assert player.misses == []


def test_a_change_more_often_than_recorded_is_a_miss() -> None:
    """The daemon that was recorded was asked once: nobody knows what it would have said."""
    player = playing(LOOK, MAKE)
    ask(player, "POST", "/1.0/instances", {"name": "c1"})
    said = ask(player, "POST", "/1.0/instances", {"name": "c1"})
    assert json.loads(said[4:])["error_code"] == 501
    assert [text.partition(",")[0] for text in player.misses] == [
        "POST /1.0/instances was recorded once"
    ]


def test_each_recorded_time_counts() -> None:
    """What was recorded twice may be done twice."""
    again = seen(3, asked("POST", "/1.0/instances", {"name": "c1"}), response(200, {"b": 2}))
    player = playing(MAKE, again)
    said = [ask(player, "POST", "/1.0/instances", {"name": "c1"})[:3] for _ in range(3)]
    assert said == ["200", "200", "501"]
    assert "was recorded 2 times" in player.misses[0]


def test_repeats_may_be_allowed() -> None:
    """Then a recording begins anew."""
    player = playing(LOOK, MAKE, repeats=True)
    for _ in range(3):
        assert ask(player, "POST", "/1.0/instances", {"name": "c1"}).startswith("200")
    assert player.misses == []


def test_what_a_session_without_frames_lacks_is_a_miss() -> None:
    """A session that goes another way than the recorded one is ended, and that is told."""
    switched = response(101, headers=(("Upgrade", "sftp"), ("Connection", "Upgrade")))
    player = playing(seen(1, asked("GET", "/1.0/instances/c1/sftp", headers=SFTP), switched))
    player.asked(1, asked("GET", "/1.0/instances/c1/sftp", headers=SFTP), 0)
    player.heard(1, b"\xff\xff\xff\xffno packet", 0)
    assert len(player.misses) == 1
