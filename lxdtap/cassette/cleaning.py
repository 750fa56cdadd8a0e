"""What is taken out of a recording before it is written: credentials, settings, logging events.

Pure. Bodies that are not JSON are never edited: they are files, images, what a command said.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from lxdtap import content, lxd
from lxdtap.cassette.model import Interaction, Piece
from lxdtap.content import Document, Json
from lxdtap.redact import Redactor
from lxdtap.transaction import Body, Headers, Opcode, Transaction

_SETTINGS = re.compile(r"environment\.|user\.|cloud-init\.|raw\.")
"""Keys of settings in which people keep secrets (LXD's doc/reference/instance_options.md)."""


def is_setting(key: str, value: Json) -> bool:
    """Whether a member of a document holds what people set for themselves.

    An exec's ``environment`` is, but not that of ``GET /1.0``, which tells of the daemon.
    """
    if key == "environment":
        return not (isinstance(value, dict) and "server_version" in value)
    return bool(_SETTINGS.match(key))


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
        data = interaction.stream not in ("", "control")
        kept = [p for p in interaction.pieces if not (self._rules.logging and _is_logging(p))]
        pieces = tuple(
            replace(piece, payload=self._payload(piece.payload, (), data or _is_data(piece)))
            for piece in kept
        )
        return replace(
            interaction, transaction=self._transaction(interaction.transaction), pieces=pieces
        )

    def _transaction(self, transaction: Transaction) -> Transaction:
        asked, answer = transaction.request, transaction.response
        # In this order: an answer may tell the secrets that its own target holds.
        request_body = self._payload(asked.body, asked.headers)
        answer_body = answer and self._payload(answer.body, answer.headers)
        request = replace(
            asked,
            body=request_body,
            target=self._text(asked.target),
            headers=self._headers(asked.headers),
            trailers=self._headers(asked.trailers),
        )
        response = answer and replace(
            answer,
            body=answer_body or answer.body,
            headers=self._headers(answer.headers),
            trailers=self._headers(answer.trailers),
        )
        return replace(transaction, request=request, response=response)

    def _text(self, text: str) -> str:
        return self._redactor.text(text) if self._rules.secrets else text

    def _headers(self, headers: Headers) -> Headers:
        return self._redactor.headers(headers) if self._rules.secrets else headers

    def _is_secret(self, key: str, value: Json) -> bool:
        return is_setting(key, value) or (self._rules.payload and is_command(key, value))

    def _payload(self, body: Body, headers: Headers, data: bool = False) -> Body:
        """A body, or a frame's payload, cleaned where it is JSON."""
        says = None if data else content.read(body, headers)
        if not isinstance(says, Document):
            dropped = self._rules.payload and body.size
            return Body(body.size, b"", body.sha256) if dropped else body
        if not self._rules.secrets:
            return body
        clean = self._redactor.document(says.value, self._is_secret)
        return body if clean == says.value else _written(clean, body)


def _written(value: Json, was: Body) -> Body:
    """JSON as LXD writes it, with the line ends that it had."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    ends = len(was.captured) - len(was.captured.rstrip(b"\n"))
    data = text.encode("utf-8", "surrogatepass") + b"\n" * ends
    return Body(len(data), data)


def _is_data(piece: Piece) -> bool:
    """Whether it is bytes rather than words: a terminal's, a file's."""
    return piece.opcode is not Opcode.TEXT


def _is_logging(piece: Piece) -> bool:
    if piece.opcode is not Opcode.TEXT or b'"logging"' not in piece.payload.captured:
        return False
    says = content.document(piece.payload.captured)
    return says is not None and lxd.event_type(says.value) == "logging"
