"""What should be known of a cassette before others get it: secrets that are left, and payload.

Pure. Known fields are found by cleaning the cassette once more: what that would take out is left
in it. Besides, private keys and tokens are known by their looks, and so are strings that look
random; hashes, UUIDs, fingerprints and certificates are none of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lxdtap import content
from lxdtap.cassette.cleaning import (
    Cleaner,
    carries_data,
    is_command,
    is_of_the_database,
    takes_a_file,
)
from lxdtap.cassette.model import Cassette, Interaction, Piece
from lxdtap.content import Document, Json
from lxdtap.redact import Redactor, is_setting
from lxdtap.transaction import Body, Headers, Opcode, Request, Response, decode

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----\s*(?:\\n)?[0-9A-Za-z+/]{20}")
# What issuers begin their tokens with, so that they are found.
_TOKEN = re.compile(
    r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"  # a JWT
    r"|\beyJ[0-9A-Za-z+/_-]{60,}"  # JSON in base64, as the tokens of LXD and Incus
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{36}|\bgithub_pat_\w{40}"
    r"|\bglpat-[\w-]{20}|\bxox[abprs]-[\w-]{20}|\bsk-[\w-]{32}|\bMDA[\w-]{60}"
)
_PUBLIC = re.compile(
    r"-----BEGIN CERTIFICATE-----.*?(?:-----END CERTIFICATE-----|\Z)"
    r"|\bMII[A-Za-z0-9+/=\s]{100,}"  # the same without its armour
    r"|\bAAAA[BCE]3Nz[A-Za-z0-9+/]+|\bSHA256:[A-Za-z0-9+/]{43}",  # SSH's public keys
    re.DOTALL,
)
_RUN = re.compile(r"[0-9A-Za-z+]{20,}")
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_NOT_SECRET = re.compile(r"sec-websocket-|etag\Z|if-(?:none-)?match\Z", re.IGNORECASE)
_LONGEST_RUN = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know.

    Attributes:
        index: of the interaction in the cassette; -1: it is about the cassette itself.
        number: of the interaction.
        what: it is.
        where: it stands.
        note: whether it is not necessarily wrong.
        text: as it stands there, to find its line by.
    """

    index: int
    number: int
    what: str
    where: str = ""
    note: bool = False
    text: str = ""

    def line(self, path: str, places: Places) -> str:
        """For a person, and for what reads ``FILE:LINE:``."""
        note = "note: " if self.note else ""
        about = f"interaction #{self.number}: " if self.number else ""
        where = f", {self.where}" if self.where else ""
        return f"{path}:{places.find(self.index, self.text)}: {note}{about}{self.what}{where}"


class Places:
    """Where the interactions of a cassette stand in its text.

    Args:
        lines: of the text.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._starts: list[int] = []
        item: str | None = None
        inside = False
        for number, line in enumerate(lines):
            if not inside:
                inside = line.startswith("interactions:")
            elif item is None:
                item = line[: len(line) - len(line.lstrip(" "))] + "- " if line.strip() else None
            if item is not None and line.startswith(item):
                self._starts.append(number)

    def find(self, index: int, text: str) -> int:
        """The line of a text in an interaction, else of its beginning; counted from 1."""
        if not 0 <= index < len(self._starts):
            return 1
        begin, end = (*self._starts, len(self._lines))[index : index + 2]
        within = (n for n in range(begin, end) if text and text in self._lines[n])
        return next(within, begin) + 1


def findings(cassette: Cassette) -> Iterator[Finding]:
    """All that is to be known of a cassette, in its order."""
    if not cassette.complete:
        yield Finding(-1, 0, "the recording is not complete", note=True)
    redactor = Redactor()
    cleaner = Cleaner(redactor)
    for interaction in cassette.interactions:
        cleaner.clean(interaction)  # a secret may be told only after it was used
    for index, interaction in enumerate(cassette.interactions):
        number = interaction.transaction.number
        clean = cleaner.clean(interaction)
        told = set()
        for what, where, text in (*_left(interaction, clean), *_looks(clean)):
            if (what, where) not in told:
                told.add((what, where))
                yield Finding(index, number, what, where, text=text)
        for what, where in _notes(interaction):
            yield Finding(index, number, what, where, note=True)


_Found = tuple[str, str, str]
"""What, where, and as which text."""


# -- what cleaning would take out


def _left(was: Interaction, clean: Interaction) -> Iterator[_Found]:
    if was == clean:
        return
    asked, cleaned = was.transaction.request, clean.transaction.request
    if asked.target != cleaned.target:
        yield "a credential", "uri", asked.target
    yield from _left_in_message("request", asked, cleaned)
    answer, answered = was.transaction.response, clean.transaction.response
    if answer is not None and answered is not None:
        yield from _left_in_message("response", answer, answered)
    yield from _left_in_pieces(was.pieces, clean.pieces)


def _left_in_message(
    name: str, was: Request | Response, clean: Request | Response
) -> Iterator[_Found]:
    for field, old, new in (
        ("headers", was.headers, clean.headers),
        ("trailers", was.trailers, clean.trailers),
    ):
        kept = set(new)
        for header in old:
            if header not in kept and header[0].lower() != "content-encoding":
                yield "a credential", f"{name} {field}: {header[0]}", header[1]
    if was.body != clean.body:
        yield from _left_in_body(f"{name} body", was.body, was.headers, clean.body)


def _left_in_body(name: str, was: Body, headers: Headers, clean: Body) -> Iterator[_Found]:
    old = content.read(was, headers)
    old = old if isinstance(old, Document) else content.document(was.captured)
    new = content.document(clean.captured)
    if old is None or new is None:
        yield "a credential", name, ""
        return
    for path, text in _differing(old.value, new.value, ()):
        setting = any(is_setting(key, None) for key in path)
        what = "a setting that may be secret" if setting else "a credential"
        yield what, f"{name}: {'.'.join(path)}", text


def _differing(
    was: Json, clean: Json, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The places in a document where something was taken out, and what."""
    if isinstance(was, dict) and isinstance(clean, dict):
        for (key, old), (new_key, new) in zip(was.items(), clean.items(), strict=True):
            if key != new_key:
                yield (*path, "a key"), key
            yield from _differing(old, new, (*path, new_key))
    elif isinstance(was, list) and isinstance(clean, list):
        for index, (old, new) in enumerate(zip(was, clean, strict=True)):
            yield from _differing(old, new, (*path, str(index)))
    elif was != clean:
        yield path, str(was)


def _left_in_pieces(was: tuple[Piece, ...], clean: tuple[Piece, ...]) -> Iterator[_Found]:
    kept = set(clean)
    cleaned = {(piece.direction, piece.offset): piece for piece in clean if piece not in was}
    for piece in was:
        if piece in kept:
            continue
        other = cleaned.get((piece.direction, piece.offset))
        if other is not None:
            yield from _left_in_body("frame", piece.payload, (), other.payload)
        elif b'"logging"' in piece.payload.captured:
            yield "a logging event, which may hold a copy of anything", "frame", ""


# -- what looks secret


def _looks(clean: Interaction) -> Iterator[_Found]:
    asked, answer = clean.transaction.request, clean.transaction.response
    yield from _looks_of("uri", asked.target)
    yield from _looks_in_message("request", asked)
    if answer is not None:
        yield from _looks_in_message("response", answer)
    data = carries_data(clean)
    for piece in clean.pieces:
        words = not data and piece.opcode is Opcode.TEXT
        yield from _looks_in_body("frame", piece.payload, (), words=words)


def _looks_in_message(name: str, message: Request | Response) -> Iterator[_Found]:
    for key, value in (*message.headers, *message.trailers):
        if not _NOT_SECRET.match(key):
            yield from _looks_of(f"{name} headers: {key}", value)
    yield from _looks_in_body(f"{name} body", message.body, message.headers, words=True)


def _looks_in_body(name: str, body: Body, headers: Headers, *, words: bool) -> Iterator[_Found]:
    says = content.read(body, headers) if words else None
    if isinstance(says, Document):
        for path, text in _strings(says.value, ()):
            yield from _looks_of(f"{name}: {'.'.join(path)}", text)
        return
    text = decode(body.captured)
    for what, found in _known_looks(text):
        yield what, name, found


def _strings(value: Json, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, (*path, str(index)))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield path, key
            yield from _strings(item, (*path, key))


def _looks_of(where: str, text: str) -> Iterator[_Found]:
    known = list(_known_looks(text))
    for what, found in known:
        yield what, where, found
    if known:
        return
    for run in _RUN.finditer(_PUBLIC.sub(" ", text)):
        if _is_random(run[0][:_LONGEST_RUN]):
            what = f"{len(run[0])} characters that look random"
            yield what, where, run[0]


def _known_looks(text: str) -> Iterator[tuple[str, str]]:
    if "-----BEGIN" in text and (key := _PRIVATE_KEY.search(text)):
        yield "a private key", key[0].splitlines()[0]
    if token := _TOKEN.search(text):
        yield "what looks like a token", token[0]


def _is_random(run: str) -> bool:
    """Whether letters and digits change as often as by chance, unlike in words and names.

    Of random letters and digits, neighbours are of another kind with a chance of 0.62 where both
    cases are in use, of 0.40 where one is. Hexadecimal is for hashes and identifiers, letters
    alone are for words.
    """
    if _HEX.fullmatch(run) or run.isalpha():
        return False
    kinds = ["0" if c.isdigit() else "a" if c.islower() else "A" for c in run]
    changes = sum(one != other for one, other in pairwise(kinds)) / (len(run) - 1)
    return changes >= (0.4 if len(set(kinds)) > 2 else 0.28) and len(set(run)) > len(run) ** 0.5


# -- what is good to know


def _notes(interaction: Interaction) -> Iterator[tuple[str, str]]:
    asked, answer = interaction.transaction.request, interaction.transaction.response
    yield from _notes_on(asked, "request", asked, file=takes_a_file(asked))
    if answer is not None:
        yield from _notes_on(asked, "response", answer, file=False)
    data = [p for p in interaction.pieces if _is_payload(interaction, p)]
    if data:
        size = sum(piece.payload.size for piece in data)
        yield f"{size} bytes that were typed, printed or sent", interaction.stream or "frames"
    if not interaction.stream and any(_tells_a_command(p) for p in interaction.pieces):
        yield "a command that was run", "frame"
    if not interaction.replayable:
        yield "it cannot be played again, for not all of the answer was kept", ""


def _notes_on(
    asked: Request, name: str, message: Request | Response, *, file: bool
) -> Iterator[tuple[str, str]]:
    if not message.body.captured:
        return
    says = content.read(message.body, message.headers)
    if file or not isinstance(says, Document):
        yield f"{message.body.size} bytes that are never edited", f"{name} body"
    elif is_of_the_database(asked):
        yield "what the database was asked, or said", f"{name} body"
    elif _has_command(says):
        yield "a command that was run", f"{name} body"


def _has_command(says: Document) -> bool:
    return any(is_command(key, None) for key in _commands(says.value))


def _commands(value: Json) -> Iterator[str]:
    """Keys of commands, where they are more than placeholders."""
    if isinstance(value, list):
        for item in value:
            yield from _commands(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            parts = item if isinstance(item, list) else [item]
            if all(str(part).startswith("REDACTED-") for part in parts):
                continue
            yield key
            yield from _commands(item)


def _is_payload(interaction: Interaction, piece: Piece) -> bool:
    if not piece.payload.captured or (piece.opcode is not None and piece.opcode.control):
        return False
    return carries_data(interaction) or piece.opcode is not Opcode.TEXT


def _tells_a_command(piece: Piece) -> bool:
    """Whether it is an event of one (LXD's lxd/lifecycle/instance.go)."""
    if piece.opcode is not Opcode.TEXT or b'"command"' not in piece.payload.captured:
        return False
    says = content.document(piece.payload.captured)
    return says is not None and _has_command(says)
