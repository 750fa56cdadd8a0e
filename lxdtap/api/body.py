"""A request's body, from whatever the caller has."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os
import urllib.parse
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

PIECE = 1 << 18
"""Bytes read from a file at once."""


@dataclass(frozen=True, slots=True)
class Body:
    """What to send.

    Attributes:
        content: the bytes, or their pieces; None: nothing.
        length: their count, where it is known beforehand.
        headers: what is to be said of them.
    """

    content: bytes | AsyncIterator[bytes] | None = None
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bytes | None:
        """The bytes, where they are all there."""
        return self.content if isinstance(self.content, bytes) else None


def body(data: Any, json: Any) -> Body:  # noqa: ANN401 - whatever the caller has
    """The body that ``data`` or ``json`` make; see :meth:`lxdtap.api.API.request`.

    Raises:
        TypeError: both are given, or ``data`` is nothing that can be sent.
    """
    if json is None:
        return _data(data)
    if data is not None:
        raise TypeError("give data or json, not both")
    return Body(jsonlib.dumps(json).encode(), headers={"Content-Type": "application/json"})


def _data(data: Any) -> Body:  # noqa: ANN401 - whatever the caller has
    match data:
        case None:
            return Body()
        case bytes() | bytearray() | memoryview():
            return Body(bytes(data))
        case str():
            return Body(data.encode())
        case Mapping():
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            return Body(urllib.parse.urlencode(data, doseq=True).encode(), headers=form)
    return _streamed(data)


def _streamed(data: Any) -> Body:  # noqa: ANN401 - whatever the caller has
    if hasattr(data, "read"):
        return Body(_pieces(data), _length(data))
    if isinstance(data, AsyncIterable):
        return Body(aiter(data))
    if isinstance(data, Iterable):
        return Body(_each(data))
    raise TypeError(f"data is {type(data).__name__}; give bytes, text, a file or an iterable")


def _length(file: IO[bytes]) -> int | None:
    """How many bytes there are from here to the file's end; None for what has no end to seek."""
    try:
        here = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(here)
    except (AttributeError, OSError, ValueError):
        return None
    return max(0, end - here)


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """A file's bytes, read in a thread: a disk may be slow."""
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """An iterable's items, made in a thread: it may do work of its own."""
    following: Callable[[], bytes | None] = _following(pieces)
    while (piece := await asyncio.to_thread(following)) is not None:
        if piece:  # an empty chunk would be the last one
            yield piece


def _following(pieces: Iterable[bytes]) -> Callable[[], bytes | None]:
    items = iter(pieces)
    return lambda: next(items, None)
