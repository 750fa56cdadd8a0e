"""Text that is safe to print, and its colours.

What came over the wire may hold anything. Nothing of it may move the cursor, change the
terminal's state, reorder what is read, or begin a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# C0 and C1 controls, line and paragraph separators, the marks that reorder text (Unicode's
# bidirectional controls), invisible annotation marks, the byte order mark and surrogates.
_NO_C0 = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
_UNSAFE = f"\x00-\x1f{_NO_C0}"
# In indented JSON, newlines and tabs are only ever the indentation.
_UNSAFE_IN_JSON = re.compile(f"[\x00-\x08\x0b-\x1f{_NO_C0}]")
_UNSAFE_OR_BACKSLASH = re.compile(f"[\\\\{_UNSAFE}]")
_UNSAFE_IN_TOKEN = re.compile(f"[\\\\ {_UNSAFE}]")
_ESCAPED = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|(\\))")

Paint = Callable[[str, str], str]
"""Colours a text by its role: ``Paint(role, text)``."""

_COLOURS = {
    "method": "1",
    "url": "36",
    "good": "32",
    "odd": "33",
    "bad": "31",
    "key": "34",
    "dim": "2",
}


def escape(text: str) -> str:
    r"""Text on one line: ``\xNN`` for controls and stray bytes, ``\uNNNN`` for the rest, ``\\``."""
    if text.isprintable() and "\\" not in text:  # all that is unsafe is not: mostly, that was it
        return text
    return _UNSAFE_OR_BACKSLASH.sub(_escaped, text)


def escape_token(text: str) -> str:
    """The same, and spaces too: one word, such as a URL."""
    if text.isprintable() and "\\" not in text and " " not in text:
        return text
    return _UNSAFE_IN_TOKEN.sub(_escaped, text)


def unescape(text: str) -> str:
    """The text that :func:`escape` or :func:`escape_token` was given."""
    return _ESCAPED.sub(_plain, text)


def escape_json(text: str) -> str:
    r"""Indented JSON with what is unsafe in its strings as ``\uNNNN``: still the same JSON."""
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def _plain(match: re.Match[str]) -> str:
    if match[1]:
        code = int(match[1], 16)
        return chr(code if code < 0x80 else code + 0xDC00)
    return chr(int(match[2], 16)) if match[2] else "\\"


def plain(role: str, text: str) -> str:  # noqa: ARG001 - a Paint that does not
    """No colour."""
    return text


def coloured(role: str, text: str) -> str:
    """ECMA-48 colours, as every terminal has them."""
    return f"\x1b[{_COLOURS[role]}m{text}\x1b[0m"


def paint(when: str, *, is_terminal: bool, environ: dict[str, str]) -> Paint:
    """The painter for an output: ``when`` is auto, always or never.

    With auto: FORCE_COLOR, then NO_COLOR (where set and not empty), then whether it is a terminal
    that is not ``dumb``.
    """
    if when == "auto":
        terminal = is_terminal and environ.get("TERM") != "dumb"
        colour = bool(environ.get("FORCE_COLOR")) or (terminal and not environ.get("NO_COLOR"))
        return coloured if colour else plain
    return coloured if when == "always" else plain
