"""What is printed is safe to print."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.terminal import coloured, escape, escape_json, escape_token, paint, plain, unescape
from lxdtap.transaction import decode

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60) | st.binary(
    max_size=60
).map(decode)


def controls(text: str) -> set[str]:
    """The characters of a text that a terminal may obey."""
    return {
        c
        for c in text
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(c) in ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "PDI")
    }


@given(TEXT)
def test_escaped_text_is_one_safe_line(text: str) -> None:
    """Nothing is left that moves the cursor, reorders text or ends the line."""
    assert not controls(escape(text))
    assert " " not in escape_token(text)


@given(TEXT)
def test_escapes_can_be_undone(text: str) -> None:
    """The text comes back, stray bytes included."""
    # A lone surrogate of a stray byte is written as that byte, and read as one.
    assert unescape(escape(text)) == unescape(escape_token(text)) == text


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_escaped_json_is_the_same_json(value: object) -> None:
    """Escapes inside strings change how JSON is written, not what it says."""
    text = escape_json(json.dumps(value, indent="\t", ensure_ascii=False))
    assert json.loads(text) == value
    assert not controls(text) - {"\n", "\t"}
    assert escape_json("\n\t\x08\x0b\x1f\x7f") == "\n\t\\u0008\\u000b\\u001f\\u007f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\\b", "a\\\\b"),
        ("\u202e", "\\u202e"),
        ("\x9b", "\\u009b"),
        (decode(b"\xff"), "\\xff"),
        ("é ü", "é ü"),
    ],
)
def test_how_it_looks(text: str, shown: str) -> None:
    """Controls below 0x80 and stray bytes as hexadecimal bytes, the rest by code point."""
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("when", "terminal", "environ", "colour"),
    [
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"FORCE_COLOR": "1"}, False),
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", False, {"FORCE_COLOR": "1"}, True),
    ],
)
def test_when_there_is_colour(
    when: str, terminal: bool, environ: dict[str, str], colour: bool
) -> None:
    """As asked for; else by FORCE_COLOR, NO_COLOR, and whether it is a terminal that can."""
    assert paint(when, is_terminal=terminal, environ=environ) is (coloured if colour else plain)


def test_paint() -> None:
    """Colour is put around a text and taken off behind it."""
    assert coloured("bad", "x") == "\x1b[31mx\x1b[0m"
    assert plain("bad", "x") == "x"
