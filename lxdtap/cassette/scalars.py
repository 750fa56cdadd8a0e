"""The scalars of a cassette: strings, blocks, bytes, seconds and times as YAML, and back.

Pure. What stands plain means the same string to every YAML reader, of version 1.1 as of 1.2; all
else is quoted, with what cannot be seen escaped.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re

from lxdtap.transaction import encode

_WORD = r"[A-Za-z0-9_./%+@=()*;!&~$^<>-]"
_BLOCK_WORD = r"""(?:[A-Za-z0-9_./%+@=()*;!&~$^<>?,'"{}\[\]-]|:(?=[A-Za-z0-9_/]))"""
_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"


def _plain(word: str) -> re.Pattern[str]:
    # What begins with a letter is no number and no date; ": " and " #" would end it.
    return re.compile(rf"[A-Za-z/](?:{word}++| (?={word}))*+|{_UUID}")


_PLAIN, _PLAIN_IN_FLOW = _plain(_BLOCK_WORD), _plain(_WORD)
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_LINE = re.compile(r"[^\n]*+\n|[^\n]++")
_UNSEEN = re.compile(r"[^ -~]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TRAILING = re.compile(r"[ \t](?:\n|\Z)")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def is_text(value: str) -> bool:
    """Whether it is Unicode text, with nothing in it that was not UTF-8 on the wire."""
    return value.isprintable() or not _SURROGATE.search(value)


def string(value: str, *, flow: bool = False) -> str:
    """A string in one line: plain or quoted; in base64 where it is not Unicode.

    Args:
        value: as :func:`lxdtap.transaction.decode` made it.
        flow: whether it stands between braces, where commas end it.
    """
    pattern = _PLAIN_IN_FLOW if flow else _PLAIN
    if pattern.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    if is_text(value):
        return quoted(value)
    return f"{{base64: {packed(_bytes(value))}}}"


def quoted(value: str) -> str:
    """A text between quotation marks; what cannot be seen is escaped."""
    if value.isprintable() and "'" not in value and ('"' in value or "\\" in value):
        return f"'{value}'"
    return f'"{_escaped(value)}"'


def packed(data: bytes) -> str:
    """Bytes in base64, in one line; quoted, for digits alone would be a number."""
    return f'"{base64.b64encode(data).decode()}"'


def block(value: str, margin: str) -> str | None:
    """A text as a literal block, each line after ``margin``; None where it would not survive.

    Only what is seen is left to a block: no controls, and no spaces at the end of a line, which
    editors take away.
    """
    stripped = value.rstrip("\n")
    visible = stripped.replace("\n", "").replace("\t", "")
    if not visible or not visible.isprintable() or _TRAILING.search(value):
        return None
    # Where the first line is itself indented, the margin must be told (YAML 1.2, 8.1.1.1).
    indicator = "2" if stripped.lstrip("\n")[0] in " \t" else ""
    laid = re.sub(r"\n(?!\n)", f"\n{margin}", stripped)
    first = "" if laid.startswith("\n") else margin
    blank = "\n" * (len(value) - len(stripped) - 1)
    return f"|{indicator}{ending(value)}\n{first}{laid}{blank}"


def ending(value: str) -> str:
    """How a block says with how many newlines it ends (YAML 1.2, 8.1.1.2)."""
    if not value.endswith("\n"):
        return "-"
    return "+" if value.endswith("\n\n") else ""


def folded(value: str, margin: str) -> str:
    """A text between quotation marks, each of its lines in one of its own."""
    lines = map(_escaped, _LINE.findall(value))
    # White space at the beginning of a line is YAML's own, unless it is escaped.
    escaped = ("\\" + line if line.startswith(" ") else line for line in lines)
    return f'"\\\n{margin}' + f"\\\n{margin}".join(escaped) + '"'


def wrapped(data: bytes, margin: str) -> str:
    """Bytes in base64, as a block of lines."""
    lines = base64.encodebytes(data).decode().splitlines()
    return "|\n" + "\n".join(margin + line for line in lines)


def unpacked(text: str) -> bytes:
    """The bytes of some base64, wherever its lines end.

    Raises:
        ValueError: it is none.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None


def seconds(nanoseconds: int) -> str:
    """Nanoseconds as seconds, exactly."""
    whole, rest = divmod(max(0, nanoseconds), 10**9)
    fraction = f"{rest:09}".rstrip("0") or "0"
    return f"{whole}.{fraction}"


def timestamp(wall: int) -> str:
    """RFC 3339, in UTC, from nanoseconds of Unix time; quoted, for YAML has dates."""
    whole, rest = divmod(wall, 10**9)
    moment = dt.datetime.fromtimestamp(whole, dt.UTC).replace(tzinfo=None)
    return f'"{moment.isoformat()}.{rest:09}Z"'


_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_SECONDS = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?", re.ASCII)


def from_seconds(text: str) -> int:
    """The nanoseconds of what :func:`seconds` wrote, or a person.

    Raises:
        ValueError: it is none.
    """
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise ValueError("it is not a number of seconds")
    return int(match[1]) * 10**9 + int((match[2] or "").ljust(9, "0"))


def from_timestamp(text: str) -> int:
    """Nanoseconds of Unix time.

    Raises:
        ValueError: it is no time, or another zone's.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("it is not a time such as 2026-01-31T12:00:00Z")
    moment = dt.datetime.fromisoformat(match[1] + "+00:00")
    return int(moment.timestamp()) * 10**9 + int((match[2] or "").ljust(9, "0"))


def _bytes(value: str) -> bytes:
    try:
        return encode(value)
    except UnicodeEncodeError:  # half a character that no byte of the wire was decoded to
        return _SURROGATE.sub("\ufffd", value).encode()


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return value if value.isprintable() else _UNSEEN.sub(_escape, value)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
