"""JSON as text: laid out for people, and back, without touching a character that means something.

Pure. Numbers, escapes, repeated keys and the order of keys stay as they were sent; nothing but the
white space between tokens is added or taken away.
"""

from __future__ import annotations

import json
import re

DEEPEST = 50
"""Levels of nesting that are laid out; LXD's documents have about ten."""
MOST_LINES = 40_000
"""Lines to which a document may grow."""

# Possessive throughout, and a string without an end goes on to the end of the text: so each
# character is looked at once, whatever the text.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+'
_PARTS = (
    rf"{_STRING}(?:[ \t\r\n]*+:)?",  # a string, or a key with its colon
    r'[^ \t\r\n"{}\[\],:]++',
    r"[{\[](?:[ \t\r\n]*+[}\]])?",  # an opening bracket, or an empty pair
    r"[}\],]",
)
_TOKEN = re.compile("|".join(_PARTS), re.DOTALL)
_BLACK = re.compile(rf'{_STRING}|[^ \t\r\n"]++', re.DOTALL)


def _number(_: str) -> None:
    """What a number is worth is nobody's business here, and of 10,000 digits dear to know."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_refuse)


def check(text: str) -> None:
    """See whether it is one JSON document (RFC 8259).

    Raises:
        ValueError: it is not; a ``json.JSONDecodeError`` where the place is known.
    """
    try:
        _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def compact(text: str) -> str:
    """JSON without white space between its tokens."""
    return "".join(_BLACK.findall(text))


def indented(text: str, margin: str = "") -> str | None:
    """JSON laid out by two spaces a level, each line but the first after ``margin``.

    None where that would not be of use: it is not JSON, or too deep or too long to be read.
    """
    if 2 * (text.count("{") + text.count("[")) + text.count(",") > MOST_LINES:
        return None
    try:
        check(text)
    except ValueError:
        return None
    return _lay_out(text, "\n" + margin)


def _lay_out(text: str, newline: str) -> str | None:
    deepest = len(newline) + 2 * DEEPEST
    laid: list[str] = []
    add = laid.append
    for token in _TOKEN.findall(text):
        last = token[-1]
        if last == ",":
            add(f",{newline}")
        elif last == ":":
            add(f"{token[:-1].rstrip()}: ")
        elif token in ("{", "["):
            newline += "  "
            if len(newline) > deepest:
                return None
            add(token + newline)
        elif token in ("}", "]"):
            newline = newline[:-2]
            add(newline + token)
        else:
            add(token if token[0] not in "{[" else token[0] + last)
    return "".join(laid)
