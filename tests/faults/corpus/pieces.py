"""The same conversation in other pieces."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

Word = str | bytes
Words = tuple[Word, ...]


def size(words: Sequence[Word]) -> int:
    """How many bytes are said."""
    return sum(len(word) for word in words if isinstance(word, bytes))


def sent(words: Sequence[Word]) -> bytes:
    """All that the client says."""
    said, speaker = b"", ">>"
    for word in words:
        if isinstance(word, bytes):
            said += word if speaker == ">>" else b""
        elif word in (">>", "<<"):
            speaker = word
    return said


def joined(words: Sequence[Word]) -> Words:
    """The same, in as few pieces as can be."""
    result: list[Word] = []
    speaker = ""
    for word in words:
        if isinstance(word, str):
            if word == speaker and word in (">>", "<<"):
                continue
            speaker = word if word in (">>", "<<") else speaker
            result.append(word)
        elif result and isinstance(result[-1], bytes):
            result[-1] += word
        elif word:
            result.append(word)
    return tuple(result)


def bytewise(words: Sequence[Word]) -> Words:
    """The same, one byte at a time."""
    return _cut(words, lambda word: list(range(1, len(word))))


def scattered(words: Sequence[Word], seed: int) -> Words:
    """The same, cut by chance: here in large pieces, there in small ones."""
    chance = random.Random(seed)

    def places(word: bytes) -> Iterator[int]:
        place = 0
        while place < len(word):
            mean = chance.choice([1, 5, 50, max(5000, len(word) // 4)])
            place += 1 + int(chance.expovariate(1 / mean))
            yield min(place, len(word))

    return _cut(words, lambda word: list(places(word)))


def _cut(words: Sequence[Word], places: Callable[[bytes], list[int]]) -> Words:
    result: list[Word] = []
    for word in words:
        if isinstance(word, bytes):
            ends = sorted({0, *places(word), len(word)})
            result += [word[i:j] for i, j in itertools.pairwise(ends)]
        else:
            result.append(word)
    return tuple(result)


def cuts(words: Words) -> Iterator[Words]:
    """The same with one of its pieces cut in two, in each place there is."""
    for number, word in enumerate(words):
        if isinstance(word, bytes):
            for place in range(1, len(word)):
                yield (*words[:number], word[:place], word[place:], *words[number + 1 :])


ENDINGS: tuple[Words, ...] = ((">x",), ("<x",), (">|", "<x"), ("<|", ">x"))
"""How a conversation may end before its time."""


def beginnings(words: Words) -> Iterator[Words]:
    """All that a conversation may have come to when it ended, each ended in one of the ways."""
    endings = itertools.cycle(ENDINGS)
    for number, word in enumerate(words):
        if isinstance(word, bytes):
            for place in range(1, len(word)):
                yield (*words[:number], word[:place], *next(endings))
        elif "x" in word or "|" in word:
            return
