"""The scalars of a cassette: every YAML reader reads what was meant."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.cassette import scalars
from lxdtap.transaction import decode, encode

from .cassettes import TEXT, TIME, WIRE

LINES = st.lists(TEXT | st.sampled_from(["", " ", "\t", " a", "a ", "#", "---", "..."]), max_size=5)


def load(text: str) -> Any:  # noqa: ANN401 - whatever it is
    return yaml.load(text, yaml.SafeLoader)


@given(WIRE, st.booleans())
def test_any_string_survives(value: str, flow: bool) -> None:
    """Among lines or between braces, as a value or a key, it is the same string."""
    written = scalars.string(value, flow=flow)
    assert written.isprintable()
    found = load(f"{{k: {written}, l: 1}}" if flow else f"k: {written}\nl: 1\n")
    if not scalars.is_text(value):
        assert decode(scalars.unpacked(found["k"]["base64"])) == decode(encode(value))
        return
    assert found == {"k": value, "l": 1}
    assert load(f"{scalars.string(value)}: 1") == {value: 1}


@pytest.mark.parametrize(
    "value",
    [
        "GET",
        "unix.socket",
        "/1.0/instances/c1?recursion=1&a=b",
        "gzip, deflate",
        "inline;filename=",
        "LXD 5.0.2 (Linux; x86_64)",
        "http+unix://%2Fvar%2Flib",
        "Mon, 23 Nov 2026 12:53:26 GMT",
        "00000000-0000-1000-8000-00805f9b34fb",
        'form-data; name="x"',
    ],
)
def test_what_is_plain_stands_plain(value: str) -> None:
    """No quotation marks where none are needed."""
    assert scalars.string(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "no",
        "Null",
        "5.0.2",
        "120",
        "1e5",
        "2026-01-31",
        "a: b",
        "a:",
        "a #b",
        "a ",
        " a",
        "-",
        "~",
        "a\tb",
        "é",
        "?",
        "<<",
        "=",
        "&a",
        "*a",
        "!a",
        "{a",
        "a  b",
        "0x10",
        "1:30",
        ".5",
    ],
)
def test_what_could_be_something_else_is_quoted(value: str) -> None:
    """Numbers, dates, booleans and nulls in spelling stay strings, in YAML 1.1 and 1.2."""
    assert scalars.string(value).startswith('"')


def test_quotation_marks_are_not_escaped_where_others_do() -> None:
    """As in an Etag."""
    assert scalars.string('"1f"') == "'\"1f\"'"
    assert scalars.string("\"'") == '"\\"\'"'
    assert scalars.string("\\") == "'\\'"


def test_what_cannot_be_seen_is_escaped() -> None:
    """Controls, line separators, bidirectional marks; and nothing else."""
    value = 'é"\\\n\r\t\x1b\x85\u2028\u202e\U000e0001\U0001f600'
    written = r'"é\"\\\n\r\t\x1b\x85\u2028\u202e\U000e0001😀"'
    assert scalars.string(value) == written


def test_half_a_character_does_no_harm() -> None:
    """What no byte was decoded to becomes U+FFFD."""
    assert load(scalars.string("a\ud800")) == {"base64": "Ye+/vQ=="}


@given(LINES, st.integers(0, 3))
def test_any_text_survives_as_lines(lines: list[str], newlines: int) -> None:
    """A block, where it is to be had, and folded lines say the same text."""
    text = "\n".join(lines) + "\n" * newlines
    block = scalars.block(text, "    ")
    if block is not None:
        assert not any(line != line.rstrip() for line in block.split("\n"))
        assert load(f"a:\n  b: {block}\n  c: 1\n") == {"a": {"b": text, "c": 1}}
    assert load(f"a:\n  b: {scalars.folded(text, '    ')}\n  c: 1\n") == {"a": {"b": text, "c": 1}}


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("a\nb\n", "|\n  a\n  b"),
        ("a\n\n\tb", "|-\n  a\n\n  \tb"),
        ("a\n\n", "|+\n  a\n"),
        ("\n a\n", "|2\n\n   a"),
        ("a \nb", None),
        ("a\t", None),
        ("a\r\nb", None),
        ("\n\n", None),
        ("", None),
        ("a\u2028b", None),
    ],
)
def test_blocks_hold_what_is_seen(text: str, block: str | None) -> None:
    """How it ends is told by one sign; what an editor might change is not left to a block."""
    assert scalars.block(text, "  ") == block


def test_folded_lines_are_the_text_s_own() -> None:
    """Each line of the text is one; its white space is safe from editors."""
    assert scalars.folded("a \r\n b\n", "  ") == '"\\\n  a \\r\\n\\\n  \\ b\\n"'


@given(st.binary(max_size=200))
def test_bytes_survive(data: bytes) -> None:
    """In one line, or in several."""
    assert scalars.unpacked(load(scalars.packed(data))) == data
    assert scalars.unpacked(load("a: " + scalars.wrapped(data, "  "))["a"]) == data


@pytest.mark.parametrize("text", ["a", "a===", "é", "-_==", "YQ==="])
def test_what_is_no_base64_is_refused(text: str) -> None:
    """Nothing is passed over but white space."""
    with pytest.raises(ValueError, match="not base64"):
        scalars.unpacked(text)


@given(TIME)
def test_nanoseconds_survive(moment: int) -> None:
    """Seconds and times are exact."""
    assert scalars.from_seconds(scalars.seconds(moment)) == moment
    wall = moment % 4 * 10**18
    assert scalars.from_timestamp(load(scalars.timestamp(wall))) == wall


def test_seconds_are_short() -> None:
    """No more digits than it takes; what is less than nothing is nothing."""
    numbers = [0, 5 * 10**9, 1_500_000_000, 1, -1]
    assert [scalars.seconds(each) for each in numbers] == [
        "0.0",
        "5.0",
        "1.5",
        "0.000000001",
        "0.0",
    ]
    assert scalars.from_seconds("7") == 7 * 10**9


@pytest.mark.parametrize(
    "text", ["", "-1", "1e5", ".5", "1.", "1.0000000001", "inf", "٣", "1" * 13]
)
def test_what_are_no_seconds_is_refused(text: str) -> None:
    """Nothing that would not be exact."""
    with pytest.raises(ValueError, match="seconds"):
        scalars.from_seconds(text)


@pytest.mark.parametrize(
    "text", ["", "2026-01-31", "2026-01-31T12:00:00+01:00", "2026-02-30T12:00:00Z", "1"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """Only UTC, and only days that there are."""
    with pytest.raises(ValueError, match=r"time|day"):
        scalars.from_timestamp(text)


def test_times_have_fractions_or_none() -> None:
    """A person need not write nine digits."""
    assert scalars.from_timestamp("1970-01-01T00:00:01Z") == 10**9
    assert scalars.from_timestamp("1970-01-01T00:00:01.5Z") == 1_500_000_000
