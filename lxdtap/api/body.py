"""A request's body, from whatever the caller has."""

from __future__ import annotations

import io
import json as jsonlib
import os
import urllib.parse
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

PIECE = 1 << 18
"""Bytes read from a file at once."""

T = TypeVar("T")

Do = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Does what may take its time, such as reading a file, where that holds nobody else up."""


class Pieces:
    """A body's pieces, made while it is sent.

    Attributes:
        error: what went wrong in making them: the caller's, who is to get it as it is.
        waits: is told when the caller is asked for a piece, and when it is there.
    """

    def __init__(self, following: Callable[[], Awaitable[bytes | None]]) -> None:
        self.error: Exception | None = None
        self.waits: Callable[[bool], None] = lambda _waiting: None
        self._following = following

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self.waits(True)
        try:
            piece = await self._following()
        except Exception as error:
            self.error = error
            raise
        self.waits(False)
        if piece is None:
            raise StopAsyncIteration
        return piece


@dataclass(frozen=True, slots=True)
class Body:
    """What to send.

    Attributes:
        content: the bytes, or their pieces; None: nothing.
        length: their count, where it is known beforehand.
        headers: what is to be said of them.
        whole: the bytes, where they are all there.
    """

    content: bytes | Pieces | None = None
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    whole: bytes | None = None

    @property
    def error(self) -> Exception | None:
        """What went wrong in making its pieces."""
        return self.content.error if isinstance(self.content, Pieces) else None


def body(data: Any, json: Any, do: Do) -> Body:  # noqa: ANN401 - whatever the caller has
    """The body that ``data`` or ``json`` make; see :meth:`lxdtap.api.API.request`.

    Raises:
        TypeError: both are given, or ``data`` is nothing that can be sent.
        ValueError: JSON cannot say it.
    """
    if json is None:
        return _data(data, do)
    if data is not None:
        raise TypeError("give data or json, not both")
    content = jsonlib.dumps(json, allow_nan=False).encode()
    return _whole(content, "application/json")


def _data(data: Any, do: Do) -> Body:  # noqa: ANN401 - whatever the caller has
    match data:
        case None:
            return Body()
        case bytes() | bytearray() | memoryview():
            return _whole(bytes(data))
        case str():
            return _whole(data.encode())
        case Mapping():
            return _form(data)
        case list() | tuple() if all(isinstance(item, tuple) for item in data):
            return _form(data)
    return _streamed(data, do)


def _form(data: Any) -> Body:  # noqa: ANN401 - a mapping, or pairs
    content = urllib.parse.urlencode(data, doseq=True).encode()
    return _whole(content, "application/x-www-form-urlencoded")


def _whole(data: bytes, media_type: str = "") -> Body:
    """Bytes that are all there; many of them go in pieces, so that nobody else has to wait."""
    headers = {"Content-Type": media_type} if media_type else {}
    if len(data) <= PIECE:
        return Body(data, len(data), headers, data)
    starts = iter(range(0, len(data), PIECE))

    async def following() -> bytes | None:
        at = next(starts, None)
        return None if at is None else data[at : at + PIECE]

    return Body(Pieces(following), len(data), headers, data)


def _streamed(data: Any, do: Do) -> Body:  # noqa: ANN401 - whatever the caller has
    if hasattr(data, "read"):
        length = _length(data)
        return Body(Pieces(_Reading(data, length, do).following), length)
    if isinstance(data, AsyncIterable):
        items = aiter(data)

        async def awaited() -> bytes | None:
            async for item in items:
                if piece := _bytes(item):  # an empty chunk would be the last one
                    return piece
            return None

        return Body(Pieces(awaited))
    if isinstance(data, Iterable):
        following = _each(data)
        return Body(Pieces(lambda: do(following)))
    raise TypeError(f"data is {type(data).__name__}; give bytes, text, a file or an iterable")


class _Reading:
    """A file being read; what was said of its length must come true."""

    def __init__(self, file: Any, length: int | None, do: Do) -> None:  # noqa: ANN401 - a file
        self._file = file
        self._left = length
        self._do = do

    async def following(self) -> bytes | None:
        size = PIECE if self._left is None else min(PIECE, self._left)
        piece = _bytes(await self._do(lambda: self._file.read(size)))
        if self._left is not None:
            self._left -= len(piece)
            if not piece and self._left:
                raise ValueError(f"the file ended {self._left} bytes before its length")
        return piece or None


def _length(file: Any) -> int | None:  # noqa: ANN401 - a file
    """How many bytes there are from here to the file's end; None for what has no end to seek."""
    if isinstance(file, io.TextIOBase):
        return None  # whose positions are no counts of bytes
    try:
        here = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(here)
        return max(0, int(end) - int(here))
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def _each(pieces: Iterable[Any]) -> Callable[[], bytes | None]:
    items = iter(pieces)

    def following() -> bytes | None:
        for item in items:
            if piece := _bytes(item):  # an empty chunk would be the last one
                return piece
        return None

    return following


def _bytes(piece: Any) -> bytes:  # noqa: ANN401 - whatever the caller has
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    kind = type(piece).__name__
    raise TypeError(f"a piece of the body is {kind}; it must be bytes or text")
