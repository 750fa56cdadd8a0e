"""YAML read event by event, into values of known shape: nothing that was not asked for is built.

Pure. No tags, anchors and aliases; nesting only as deep as the shapes nest; bounded memory for any
one thing. So hostile YAML costs no more than its beginning: libyaml's own composer overflows the
stack on deep nesting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import yaml

from lxdtap.cassette.model import CassetteError

LONGEST = 8 << 20
"""Bytes that any one value, comment or gap may take."""
LONGEST_PROLOGUE = 64 << 10
"""The same of what precedes the first value; comparing YAML's directives takes quadratic time."""
_PIECE = 64 << 10
_INTEGER = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)

Read = Callable[["Cursor"], Any]
"""Reads one value."""


class _Feed:
    """The stream that the parser reads from: it counts, and gives only so much for each event."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = self._small(chunks)
        self._given = 0
        self._lines = 0
        self._last = b""
        self.budget = LONGEST_PROLOGUE

    def _small(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            for start in range(0, len(chunk), _PIECE):
                yield chunk[start : start + _PIECE]

    def read(self, _: int = 0) -> bytes:
        piece = next(self._chunks, b"")
        if not self._given and piece[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise CassetteError("line 1: it is not in UTF-8: convert it")
        self.budget -= len(piece)
        if self.budget < 0:
            raise CassetteError(
                f"line {self.line(self._given)}: what stands here is too long: attach it as a file"
            )
        if piece:
            self._lines += self._last.count(b"\n")
            self._given += len(piece)
            self._last = piece
        return piece

    def line(self, position: int) -> int:
        """The line of a byte that is among the last."""
        start = self._given - len(self._last)
        return self._lines + self._last[: max(0, position - start)].count(b"\n") + 1

    @property
    def ended_well(self) -> bool:
        """Whether the last line was ended; only after the end."""
        return self._last.endswith(b"\n")


class Cursor:
    """Goes through one document.

    Args:
        chunks: the bytes of it.

    Attributes:
        line: of the value that was read last.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.line = 1
        self._feed = _Feed(chunks)
        self._parser: Any = None
        self._ahead: Any = None

    def fail(self, what: str, line: int = 0) -> NoReturn:
        """Give up, naming the line of the value that was read last, or another."""
        raise CassetteError(f"line {line or self.line}: {what}")

    def document(self, read: Read) -> Any:  # noqa: ANN401 - whatever is read
        """Read the only document, which must be there to its last newline."""
        self._event()  # the stream's beginning
        if type(self._event()) is yaml.StreamEndEvent:
            self.fail("it is empty: record it again")
        value = read(self)
        self._feed.budget = LONGEST_PROLOGUE
        self._event()  # the document's end
        if type(self._event()) is not yaml.StreamEndEvent:
            self.fail("another document follows: keep each cassette in a file of its own")
        if not self._feed.ended_well:
            self.fail("the last line has no newline: if nothing else was cut off, add it")
        return value

    # -- scalars

    def text(self) -> str:
        """A scalar as it is spelled."""
        event = self._next()
        if type(event) is not yaml.ScalarEvent:
            self.fail("text is wanted here, not a list or a mapping: correct it")
        return str(event.value)

    def block(self) -> tuple[str, int]:
        """A scalar, and the line on which its text begins."""
        literal = getattr(self._peek(), "style", None) == "|"
        return self.text(), self.line + literal

    def choice(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of the values
        """One of several words, as what it stands for."""
        word = self.text()
        if word not in values:
            self.fail(f"{word[:40]!r} is none of {', '.join(values)}: correct it")
        return values[word]

    def integer(self) -> int:
        """A number without a sign, of 18 digits at most."""
        plain = self._plain()
        word = self.text()
        if not plain or not _INTEGER.fullmatch(word):
            self.fail(f"{word[:40]!r} is not a whole number: correct it")
        return int(word)

    def boolean(self) -> bool:
        """``true`` or ``false``, without quotation marks."""
        plain = self._plain()
        word = self.text()
        if not plain or word not in ("true", "false"):
            self.fail(f"{word[:40]!r} is neither true nor false: correct it")
        return word == "true"

    def parsed(self, parse: Callable[[str], Any]) -> Any:  # noqa: ANN401 - whatever is parsed
        """A scalar as what ``parse`` makes of it; its ValueError says what it is not."""
        word = self.text()
        try:
            return parse(word)
        except ValueError as error:
            self.fail(f"{word[:40]!r}: {error}: correct it")

    # -- collections

    def mapping(self, what: str, fields: Mapping[str, Read], needed: Collection[str] = ()) -> Any:  # noqa: ANN401 - as in fields
        """A mapping with known keys; the line is then that of its beginning."""
        values: dict[str, Any] = {}
        line = 0
        for key in self.keys(what):
            line = line or self.line
            read = fields.get(key)
            if read is None:
                self.fail(f"{key[:40]!r} is no key of {what}: use one of {', '.join(fields)}")
            values[key] = read(self)
        self.line = line or self.line
        for key in needed:
            if key not in values:
                self.fail(f"{what} has no {key}: add it")
        return values

    def keys(self, what: str) -> Iterator[str]:
        """The keys of a mapping; the value of each is to be read before the next is asked for."""
        if type(self._next()) is not yaml.MappingStartEvent:
            self.fail(f"{what} is wanted here, as a mapping: correct it")
        seen = set()
        while type(self._peek()) is not yaml.MappingEndEvent:
            key = self.text()
            if key in seen:
                self.fail(f"{key[:40]!r} stands twice in {what}: take one out")
            seen.add(key)
            yield key
        self._next()

    def items(self, what: str) -> Iterator[None]:
        """One turn for each item of a list, which is to be read in it."""
        if type(self._next()) is not yaml.SequenceStartEvent:
            self.fail(f"{what} are wanted here, as a list: correct it")
        while type(self._peek()) is not yaml.SequenceEndEvent:
            yield
        self._next()

    def begins_mapping(self) -> bool:
        """Whether a mapping comes next."""
        return type(self._peek()) is yaml.MappingStartEvent

    # -- events

    def _plain(self) -> bool:
        return getattr(self._peek(), "implicit", (False,)) == (True, False)

    def _peek(self) -> Any:  # noqa: ANN401 - one of yaml's events
        if self._ahead is None:
            self._ahead = self._event()
            self._feed.budget = LONGEST
        return self._ahead

    def _next(self) -> Any:  # noqa: ANN401 - one of yaml's events
        event = self._peek()
        self._ahead = None
        self.line = event.start_mark.line + 1
        if isinstance(event, yaml.NodeEvent):
            if event.anchor is not None:
                self.fail("anchors and aliases (& and *) are not taken: write it out, or quote it")
            if getattr(event, "tag", None) is not None:
                self.fail("tags (!) are not taken: take it out, or quote it")
        return event

    def _event(self) -> Any:  # noqa: ANN401 - one of yaml's events
        try:
            if self._parser is None:  # one in Python reads at once, and may stumble at once
                self._parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(self._feed)
            return self._parser.get_event()
        except yaml.YAMLError as error:
            self._explain(error)

    def _explain(self, error: yaml.YAMLError) -> NoReturn:
        if isinstance(error, yaml.reader.ReaderError):
            self.fail(
                "it has a control character, or one that is not UTF-8: take it out, or escape it",
                self._feed.line(error.position),
            )
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it is cut off"
        self.fail(f"not YAML: {problem}: correct it", mark.line + 1 if mark else self.line)
