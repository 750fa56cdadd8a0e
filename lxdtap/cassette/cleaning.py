"""What is taken out of a recording before it is written: credentials, settings, logging events.

Pure. Bodies that are not the API's own words are never edited: they are files, images, what a
command said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxdtap import content, lxd
from lxdtap.cassette.model import Interaction, Piece
from lxdtap.content import Document, Json
from lxdtap.redact import Redactor
from lxdtap.transaction import (
    Body,
    Direction,
    Headers,
    Opcode,
    Request,
    Transaction,
    decode,
    encode,
    header,
)

_Message = list[tuple[int, Piece]]
"""The pieces of a message, and where they stand among all."""
_FILES = re.compile(r"/1\.0/.*/(?:files|metadata/templates)")
_DATABASE = "/internal/sql"


def takes_a_file(request: Request) -> bool:
    """Whether a request's body is a file: also where it looks like JSON, and nothing says what."""
    return bool(_FILES.fullmatch(request.path))


def is_of_the_database(request: Request) -> bool:
    """Whether it is for the daemon's database itself, as ``lxd sql`` asks; nobody knows what."""
    return request.path == _DATABASE


def carries_data(interaction: Interaction) -> bool:
    """Whether its connection carries what was typed or printed, rather than the daemon's words.

    So does an operation's of which nobody knows what it is for, as the answer was not recorded.
    """
    if interaction.stream:
        return interaction.stream != "control"
    return lxd.operation_path(interaction.transaction.request.path) is not None


def is_command(key: str, _value: Json) -> bool:
    """Whether it holds what was run."""
    return key == "command"


@dataclass(frozen=True, slots=True)
class Rules:
    """What is done.

    Attributes:
        secrets: credentials and settings are taken out.
        payload: also commands, exec's data and files.
        logging: events of the type ``logging``, which hold copies of everything, are left out.
    """

    secrets: bool = True
    payload: bool = False
    logging: bool = True


class Cleaner:
    """Cleans the interactions of one recording.

    Args:
        redactor: gives placeholders; the log's own, so that both have the same ones.
        rules: what is done.
    """

    def __init__(self, redactor: Redactor, rules: Rules | None = None) -> None:
        self._redactor = redactor
        self._rules = rules or Rules()

    def clean(self, interaction: Interaction) -> Interaction:
        """The interaction as it is to be written."""
        data = carries_data(interaction)
        clean = [
            numbered
            for message in _messages(interaction.pieces)
            for numbered in self._message(message, data=data or _is_data(message[0][1]))
        ]
        clean.sort(key=lambda numbered: numbered[0])
        pieces = tuple(piece for _, piece in clean)
        return interaction._replace(
            transaction=self._transaction(interaction.transaction), pieces=pieces
        )

    def _message(self, message: _Message, *, data: bool) -> _Message:
        """A message's pieces; where something was taken out of it, it is one piece."""
        if data:
            return [(at, p._replace(payload=self._data(p.payload))) for at, p in message]
        at, whole = message[-1][0], _joined(message)
        if self._rules.logging and _is_logging(whole):
            return []
        payload = self._payload(whole.payload, (), words=True)
        return message if payload == whole.payload else [(at, whole._replace(payload=payload))]

    def _transaction(self, transaction: Transaction) -> Transaction:
        asked, answer = transaction.request, transaction.response
        # In this order: an answer may echo what its target holds, and a body tell what that is.
        self._text(asked.target)
        dropped = self._rules.payload and is_of_the_database(asked)
        words = bool(asked.garbled) or _is_words(asked.headers, asked.body)
        request_body = (
            self._data(asked.body)
            if dropped or takes_a_file(asked)
            else self._payload(asked.body, asked.headers, words=words)
        )
        answer_body = answer and (
            self._data(answer.body)
            if dropped
            else self._payload(
                answer.body, answer.headers, words=_is_words(answer.headers, answer.body)
            )
        )
        request = asked._replace(
            body=request_body,
            target=self._text(asked.target),
            headers=self._headers(_unpacked(asked.headers, asked.body, request_body)),
            trailers=self._headers(asked.trailers),
        )
        response = answer and answer._replace(
            body=answer_body or answer.body,
            headers=self._headers(
                _unpacked(answer.headers, answer.body, answer_body or answer.body)
            ),
            trailers=self._headers(answer.trailers),
        )
        return transaction._replace(request=request, response=response)

    def _text(self, text: str) -> str:
        return self._redactor.text(text) if self._rules.secrets else text

    def _headers(self, headers: Headers) -> Headers:
        return self._redactor.headers(headers) if self._rules.secrets else headers

    def _payload(self, body: Body, headers: Headers, *, words: bool = False) -> Body:
        """A body or a message, cleaned where it is JSON.

        Args:
            body: as it was.
            headers: that tell what it is.
            words: whether it is the API's own even where it is no JSON: then it is cleaned too.
        """
        says = content.read(body, headers)
        words = words and body.whole
        if words and not isinstance(says, Document):
            says = content.document(body.captured) or says
        if isinstance(says, Document):
            return self._document(says, body) if self._rules.secrets else body
        return self._words(body) if words and not self._rules.payload else self._data(body)

    def _document(self, says: Document, body: Body) -> Body:
        also = is_command if self._rules.payload else None
        clean = self._redactor.document(says.value, also)
        return body if clean == says.value else _written(clean, body)

    def _words(self, body: Body) -> Body:
        """Text of which only its looks tell what is secret."""
        clean = encode(self._text(decode(body.captured)))
        return body if clean == body.captured else Body(len(clean), clean)

    def _data(self, body: Body) -> Body:
        """What is never edited: files, what a command said."""
        dropped = self._rules.payload and body.size
        return Body(body.size, b"", body.sha256) if dropped else body


def _written(value: Json, was: Body) -> Body:
    """JSON as LXD writes it, with the line ends that it had."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    ends = len(was.captured) - len(was.captured.rstrip(b"\n"))
    data = text.encode("utf-8", "surrogatepass") + b"\n" * ends
    return Body(len(data), data)


def _messages(pieces: tuple[Piece, ...]) -> Iterator[_Message]:
    """The pieces of each message, numbered, for gorilla/websocket cuts what is over 4 KiB."""
    begun: dict[Direction, _Message] = {}
    for at, piece in enumerate(pieces):
        if piece.opcode is None or piece.opcode.control:
            yield [(at, piece)]
            continue
        message = begun.setdefault(piece.direction, [])
        message.append((at, piece))
        if piece.final:
            yield begun.pop(piece.direction)
    yield from begun.values()


def _joined(message: _Message) -> Piece:
    """A message in one piece, as it ended."""
    first, last = message[0][1], message[-1][1]
    if first is last:
        return first
    data = b"".join(piece.payload.captured for _, piece in message)
    size = sum(piece.payload.size for _, piece in message)
    return last._replace(payload=Body(size, data), opcode=first.opcode)


def _is_words(headers: Headers, body: Body) -> bool:
    """Whether a body is the API's own: JSON that is odd, or that curl calls a form, or nobody."""
    kind = (header(headers, "content-type") or "").lower()
    if not kind:
        return body.captured.lstrip()[:1] in (b"{", b"[")
    return "json" in kind or "x-www-form-urlencoded" in kind


def _unpacked(headers: Headers, was: Body, now: Body) -> Headers:
    """The headers of a body that was edited, which is in plain text then."""
    if now == was or not now.captured:
        return headers
    return tuple(pair for pair in headers if pair[0].lower() != "content-encoding")


def _is_data(piece: Piece) -> bool:
    """Whether it is bytes rather than words: a terminal's, a file's."""
    return piece.opcode is not Opcode.TEXT


def _is_logging(piece: Piece) -> bool:
    if piece.opcode is not Opcode.TEXT or b'"logging"' not in piece.payload.captured:
        return False
    says = content.document(piece.payload.captured)
    return says is not None and lxd.event_type(says.value) == "logging"
