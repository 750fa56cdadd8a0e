"""A recording's values: what can be played again, and what passed."""

from __future__ import annotations

from lxdtap.cassette.model import Interaction, Piece, counts
from lxdtap.transaction import Count, Direction, Opcode

from .builders import body, cut_body, request, response, transaction

CUT = cut_body(b"abcdef", 3)


def test_what_the_daemon_said_must_be_whole_to_be_played() -> None:
    """What the client said need not be: it says it again."""
    asked = request()._replace(body=CUT)
    whole = Interaction(transaction(asked, response(200, "x")))
    assert whole.replayable
    assert Interaction(transaction(asked)).replayable
    assert not Interaction(transaction(answer=response()._replace(body=CUT))).replayable
    assert whole._replace(pieces=(Piece(Direction.SENT, 0, CUT),)).replayable
    assert not whole._replace(pieces=(Piece(Direction.RECEIVED, 0, CUT),)).replayable


def test_data_is_counted_without_control_frames() -> None:
    """Bytes without frames count as bytes alone."""
    pieces = (
        Piece(Direction.SENT, 0, body("abc"), Opcode.TEXT),
        Piece(Direction.SENT, 1, body("de")),
        Piece(Direction.SENT, 2, body("ping"), Opcode.PING),
        Piece(Direction.RECEIVED, 3, body("f"), Opcode.CONTINUATION),
    )
    assert counts(pieces, Direction.SENT) == Count(1, 5)
    assert counts(pieces, Direction.RECEIVED) == Count(1, 1)
