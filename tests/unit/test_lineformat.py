"""One line a transaction."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.log.entries import Entry, FrameEntry, NoteEntry, OperationEntry, TransactionEntry
from lxdtap.log.lineformat import clock, line, size
from lxdtap.lxd import Operation, Seen
from lxdtap.transaction import Body, Count, Direction, Frame, Moment, Opcode, Tunnel

from . import builders

AT = Moment(0, builders.WALL)
UUID = builders.UUID
FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
GET = builders.transaction(builders.request(), builders.response(200, b"{}"), number=7)


def words(entry: Entry, *, verbose: bool = False) -> str:
    """A line without its time."""
    text = line(entry, verbose=verbose)
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} ", text)
    assert text.count("\n") == 1
    return text[13:-1]


def seen(status: str, maker: int | None, err: str = "") -> Seen:
    """What was told of an operation."""
    return Seen(Operation(UUID, status, 200, err), maker, news=True)


def test_a_transaction() -> None:
    """Number, method, target, status, duration and both sizes."""
    assert words(TransactionEntry(GET)) == "#7 GET /1.0 200 2.0s 0B>2B"


def test_an_operation_and_its_maker() -> None:
    """The operation's state, and whose it is where that is another transaction."""
    own = TransactionEntry(GET, operation=seen("Running", 7))
    assert words(own).endswith(f" operation={UUID} Running")
    other = TransactionEntry(GET, operation=seen("Failure", 3), error="exit status 1")
    assert words(other).endswith(f' operation={UUID} Failure of #3 error="exit status 1"')
    unknown = TransactionEntry(GET, operation=seen("Success", None))
    assert words(unknown).endswith(" Success")


@pytest.mark.parametrize(
    ("entry", "end"),
    [
        (TransactionEntry(GET._replace(broken="cut")), ' broken="cut"'),
        (TransactionEntry(GET._replace(own=True)), " by=lxdtap"),
        (TransactionEntry(builders.transaction(builders.request(garbled="x"))), ' garbled="x"'),
        (TransactionEntry(GET, "open", now=2_500_000_000), " 0B>2B open"),
        (TransactionEntry(builders.transaction()), " - 2.0s 0B>0B"),
    ],
)
def test_troubles(entry: TransactionEntry, end: str) -> None:
    """What is wrong stands at the end."""
    assert words(entry).endswith(end)


def test_an_error_stays_between_its_quotation_marks() -> None:
    """A quotation mark in the daemon's words does not end them."""
    entry = TransactionEntry(GET, error='no "x" by=lxdtap')
    assert words(entry).endswith(' error="no \\"x\\" by=lxdtap"')


def test_a_tunnel() -> None:
    """An upgraded connection's sizes are of the data it carried; its stream is named."""
    tunnel = Tunnel("websocket", Count(1, 5), Count(2, 3_200_000))
    entry = TransactionEntry(GET._replace(tunnel=tunnel), stream="stdout")
    assert words(entry).endswith(" 5B>3.2MB websocket stdout")


def test_frames_and_upgrades_only_if_verbose() -> None:
    """A line is for a transaction; with -v, frames have theirs too."""
    frame = Frame(Opcode.TEXT, Body(3, b"abc"))
    entry = FrameEntry(GET, Direction.RECEIVED, frame, None, AT, "stdout", "bad")
    assert line(entry) == ""
    assert words(entry, verbose=True) == '#7 GET /1.0 received stdout text 3B error="bad"'
    quiet = entry._replace(error="", stream="")
    assert words(quiet, verbose=True) == "#7 GET /1.0 received text 3B"
    upgraded = TransactionEntry(GET, "upgraded")
    assert line(upgraded) == ""
    assert words(upgraded, verbose=True)


def test_an_operations_end_has_its_own_line() -> None:
    """It begins with the number of the request that made it, where that is known."""
    failed = OperationEntry(seen("Failure", 3, "exit status 1"), AT)
    assert words(failed) == f'#3 operation={UUID} Failure error="exit status 1"'
    assert words(OperationEntry(seen("Success", None), AT)) == f"#- operation={UUID} Success"


def test_a_note() -> None:
    """A word of the tap's own says whose it is, on one line whatever it holds."""
    assert words(NoteEntry("a\nb", AT)) == "lxdtap: a\\x0ab"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (2400, "2.4kB"),
        (999_999, "1MB"),
        (10**16, "10PB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    """Three digits and a unit, in powers of 1000."""
    assert size(count) == shown


def test_clock() -> None:
    """Local time to the millisecond."""
    assert re.fullmatch(r"\d\d:\d\d:20\.123", clock(builders.WALL))


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ('no "c1"', r'error="no \"c1\""'),
        ("two\nlines", r'error="two\x0alines"'),
        ("\x1b[2J\x9b\u202e\ud800", r'error="\x1b[2J\u009b\u202e\ud800"'),
        ('x" 200', r'error="x\" 200"'),
    ],
)
def test_an_error_stays_between_its_quotes(error: str, shown: str) -> None:
    """What a daemon says cannot pass for a word of the log's own, nor for a line."""
    assert words(TransactionEntry(GET, error=error)).endswith(f" {shown}")


@given(st.text(st.characters(exclude_categories=()), max_size=20), st.booleans())
def test_nothing_forges_a_line(word: str, verbose: bool) -> None:
    """Whatever the traffic holds, an entry has one line, with nothing that a terminal obeys."""
    tunnel = Tunnel(word, reason=word, ended=word)
    asked = builders.request(word, word, garbled=word)
    of = GET._replace(request=asked, broken=word, tunnel=tunnel)
    told = Seen(Operation(word, word, 400, word), 3, news=True)
    entries: list[Entry] = [
        TransactionEntry(of, error=word, operation=told, stream=word),
        FrameEntry(of, Direction.SENT, Frame(Opcode.TEXT, Body()), None, AT, word, word),
        OperationEntry(told, AT),
        NoteEntry(word, AT),
    ]
    for entry in entries:
        text = line(entry, verbose=verbose)
        assert text.count("\n") <= 1
        assert FORBIDDEN.search(text.removesuffix("\n")) is None
