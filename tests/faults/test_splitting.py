"""How bytes come in pieces says nothing of what was said: the reader by itself.

As ``test_differential``, without sockets and processes: so thousands of ways to cut a conversation
are tried in seconds, and what fails here fails small.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxdtap.transaction import BytesSeen, Direction, Frame, Timing, Transaction
from tests.campaign import Campaign

from .corpus import BITS, CASES, LONG, grammar
from .corpus.pieces import Word, Words, beginnings, bytewise, joined, scattered, size
from .differential import read, short

Heard = tuple[list[Transaction], dict[Direction, list[Frame]], dict[Direction, bytes]]
"""The transactions, each side's frames, and each side's bytes where there are no frames."""

pytestmark = pytest.mark.timeout(3600)  # for the campaign

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
BRIEF = [name for name, case in CASES.items() if size(case.words) < LONG]
"""Cases that can be cut into single bytes."""


def heard(words: Sequence[Word]) -> Heard:
    """What is made of a conversation, but for times and for how the two sides interleave."""
    talk = read(words)
    never = Timing(0, 0)
    transactions = sorted(talk.finished, key=lambda each: each.number)
    frames: dict[Direction, list[Frame]] = {side: [] for side in Direction}
    for side, frame in talk.frames:
        frames[side].append(frame)
    loose = dict.fromkeys(Direction, b"")
    for update in talk.updates:
        if isinstance(update, BytesSeen):
            loose[update.direction] += update.data
    return [each._replace(timing=never) for each in transactions], frames, loose


@pytest.mark.parametrize("name", CASES)
def test_a_case_in_pieces(name: str, campaign: Campaign) -> None:
    """Whole, as written, bytewise, or cut by chance, a case is the same transactions and frames."""
    words = joined(CASES[name].words)
    whole = heard(words)
    assert heard(CASES[name].words) == whole
    if name in BRIEF:
        assert heard(bytewise(words)) == whole
    for seed in range(campaign.count(1, 100)):
        assert heard(scattered(words, seed)) == whole, seed


@pytest.mark.parametrize("name", BRIEF)
def test_a_case_cut_off_in_pieces(name: str, campaign: Campaign) -> None:
    """Cut off at any byte, whole or byte by byte, it is the same: also where it says how far."""
    words = joined(CASES[name].words)
    shortened = list(beginnings(words))
    for begun in shortened[3 :: campaign.count(1 + len(shortened) // 4, 1)]:
        assert heard(bytewise(begun)) == heard(begun), begun


def test_made_up_in_pieces(campaign: Campaign) -> None:
    """What the grammar allows is told as it was made, bodies and all, however it is cut."""
    count = campaign.count(60, 5000)

    @settings(max_examples=count, suppress_health_check=SLOW)
    @given(grammar.conversations(), st.integers(0, 1 << 32))
    def hold(said: grammar.Conversation, seed: int) -> None:
        whole = heard(joined(said.words))
        assert tuple(map(made, whole[0])) == said.made
        assert heard(said.words) == whole
        assert heard(scattered(said.words, seed)) == whole

    hold()
    campaign.figure("splitting: made up", f"{count} conversations")


def made(told: Transaction) -> grammar.Made:
    """A transaction as the grammar tells of it."""
    received = told.response.body.captured if told.response else b""
    return grammar.Made(short(told), told.request.body.captured, received)


def test_garbage_in_pieces(campaign: Campaign) -> None:
    """Whatever is said: cut otherwise, it is the same."""
    count = campaign.count(100, 20_000)

    @settings(max_examples=count, suppress_health_check=SLOW)
    @given(grammar.garbage(BITS), st.integers(0, 1 << 32))
    def hold(words: Words, seed: int) -> None:
        assert heard(scattered(words, seed)) == heard(joined(words))

    hold()
    campaign.figure("splitting: garbage", f"{count} conversations")
