"""A recording as the text of a cassette, piece by piece. Pure.

YAML is written directly, line by line: it is a small part of YAML, several times faster than a
dumper, and nothing need be held until the end. docs/cassette-format.md describes what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lxdtap.cassette import jsontext, scalars
from lxdtap.cassette.model import Cassette, Interaction, Piece, Server, counts
from lxdtap.transaction import (
    Body,
    Direction,
    Headers,
    Request,
    Response,
    Timing,
    Transaction,
    Tunnel,
    header,
)

LONGEST_TEXT = 1 << 20
"""Bytes of text that stand in the cassette itself; what is longer is attached."""
LONGEST_BINARY = 4 << 10
"""The same of what is not text."""
SHORT = 120
"""Characters of a frame, or a tunnel, that stands in one line."""
ONE_LINE = 72
"""Bytes in base64 that stand in one line."""
LONGEST_NAME = 200
"""Characters of a header's name that is a key; YAML's keys have at most 1,024 (YAML 1.2, 7.4.2)."""

Attach = Callable[[Body], None]
"""Keeps bytes beside the cassette, under their SHA-256."""

_COMMENT = "# Recorded by lxdtap; docs/cassette-format.md tells what may be edited, and how.\n"


class Writer:
    """Writes one cassette: ``begin``, then each ``interaction``, then ``end``.

    Args:
        attach: is given each body that does not stand in the text.
    """

    def __init__(self, attach: Attach) -> None:
        self._payloads = _Payloads(attach)
        self._base = ""
        self._number = 0
        self._open = False  # whether the last block keeps the newlines that follow it

    def begin(self, server: Server, recorded_with: str = "", recorded_at: int = 0) -> str:
        """What stands before the interactions."""
        self._base = server.base
        lines = [_COMMENT, "version: 1\n"]
        if recorded_with:
            lines.append(f"recorded_with: {scalars.string(recorded_with)}\n")
        if recorded_at:
            lines.append(f"recorded_at: {scalars.timestamp(recorded_at)}\n")
        lines.append(f"server:\n  kind: {server.kind}\n")
        if server.version:
            lines.append(f"  version: {scalars.string(server.version)}\n")
        lines.append(f"  address: {scalars.string(server.base)}\n\ninteractions:\n")
        return "".join(lines)

    def interaction(self, interaction: Interaction) -> str:
        """The text of the next one."""
        transaction = interaction.transaction
        lines = list(self._lines(interaction))
        lines[0] = f"- {lines[0][2:]}"
        if not self._open and self._number:
            lines.insert(0, "\n")
        self._number = transaction.number
        self._open = lines[-1].endswith("\n\n")
        return "".join(lines)

    def end(self, *, complete: bool) -> str:
        """What stands behind the interactions: without it, a cassette has been cut."""
        none = "" if self._number else "  []\n"
        return f"{none}{'' if self._open else chr(10)}complete: {'true' if complete else 'false'}\n"

    # -- an interaction

    def _lines(self, interaction: Interaction) -> Iterator[str]:
        transaction = interaction.transaction
        if transaction.number != self._number + 1:
            yield f"  number: {transaction.number}\n"
        yield from self._request(transaction.request)
        if transaction.response is not None:
            yield from self._response(transaction.response)
        yield from _circumstances(transaction, self._base)
        if interaction.operation:
            yield f"  operation: {scalars.string(interaction.operation)}\n"
        if interaction.stream:
            yield f"  stream: {scalars.string(interaction.stream)}\n"
        if transaction.tunnel is not None:
            yield _tunnel(transaction.tunnel, interaction.pieces)
        if interaction.pieces:
            yield "  frames:\n"
            yield from map(self._frame, interaction.pieces)

    def _request(self, request: Request) -> Iterator[str]:
        yield "  request:\n"
        yield f"    method: {scalars.string(request.method)}\n"
        yield f"    uri: {scalars.string(request.target)}\n"
        yield from self._message(request)
        if request.garbled:
            yield f"    garbled: {scalars.string(request.garbled)}\n"

    def _response(self, response: Response) -> Iterator[str]:
        yield "  response:\n"
        if response.interim:
            yield f"    interim: [{', '.join(map(str, response.interim))}]\n"
        message = scalars.string(response.reason, flow=True)
        yield f"    status: {{code: {response.status}, message: {message}}}\n"
        yield from self._message(response)

    def _message(self, message: Request | Response) -> Iterator[str]:
        if message.version != "HTTP/1.1":
            yield f"    version: {scalars.string(message.version)}\n"
        yield from _headers("headers", message.headers)
        if message.body.size:
            loose = "json" in (header(message.headers, "content-type") or "").lower()
            yield "    body:\n"
            for key, value in self._payloads.entries(message.body, " " * 8, loose=loose):
                yield f"      {key}: {value}\n"
        yield from _headers("trailers", message.trailers)

    def _frame(self, piece: Piece) -> str:
        entries = [
            ("direction", piece.direction.value),
            ("offset", scalars.seconds(piece.offset)),
            ("type", "bytes" if piece.opcode is None else piece.opcode.name.lower()),
        ]
        if not piece.final:
            entries.append(("final", "false"))
        entries += self._payloads.entries(piece.payload, " " * 6, loose=False)
        line = ", ".join(f"{key}: {value}" for key, value in entries)
        if "\n" not in line and len(line) <= SHORT:
            return f"  - {{{line}}}\n"
        return "  - " + "    ".join(f"{key}: {value}\n" for key, value in entries)


def text(cassette: Cassette, attach: Attach) -> Iterator[str]:
    """A whole cassette, in pieces."""
    writer = Writer(attach)
    yield writer.begin(cassette.server, cassette.recorded_with, cassette.recorded_at)
    yield from map(writer.interaction, cassette.interactions)
    yield writer.end(complete=cassette.complete)


class _Payloads:
    """Bodies in the form that suits them."""

    def __init__(self, attach: Attach) -> None:
        self._attach = attach

    def entries(self, body: Body, margin: str, *, loose: bool) -> list[tuple[str, str]]:
        """Keys and values; those of several lines go on after ``margin``.

        Args:
            body: what is to be written.
            margin: of further lines.
            loose: whether the white space within JSON means nothing.
        """
        if not body.size:
            return []
        if not body.whole:
            return [("size", str(body.size)), ("sha256", scalars.quoted(body.sha256))]
        found = self._text(body.captured, margin, loose=loose)
        if found is not None:
            return [found]
        if body.size <= LONGEST_BINARY:
            return [("base64", _base64(body.captured, margin))]
        self._attach(body)
        return [("file", scalars.quoted(body.sha256)), ("size", str(body.size))]

    def _text(self, data: bytes, margin: str, *, loose: bool) -> tuple[str, str] | None:
        if len(data) > LONGEST_TEXT or b"\0" in data:
            return None
        try:
            found = data.decode()
        except UnicodeDecodeError:
            return None
        if loose or found[0] in "{[":
            laid = _json(found, margin, loose=loose)
            if laid is not None:
                return "json", laid
        if "\n" not in found[:-1]:
            return "text", scalars.quoted(found)
        return "text", scalars.block(found, margin) or scalars.folded(found, margin)


def _json(found: str, margin: str, *, loose: bool) -> str | None:
    """JSON laid out, if that can be undone; the block ends with the newlines that the body does."""
    document = found.rstrip("\n")
    if not document.replace("\n", " ").replace("\t", " ").isprintable():
        return None
    if not loose and jsontext.compact(document) != document:
        return None
    laid = jsontext.indented(document, margin)
    if laid is None:
        return None
    blank = "\n" * (len(found) - len(document) - 1)
    return f"|{scalars.ending(found)}\n{margin}{laid}{blank}"


def _base64(data: bytes, margin: str) -> str:
    return scalars.packed(data) if len(data) <= ONE_LINE else scalars.wrapped(data, margin)


def _headers(key: str, headers: Headers) -> Iterator[str]:
    if not headers:
        return
    yield f"    {key}:\n"
    names = {name for name, _ in headers}
    # A key stands once: where names are repeated, or are no text, they are values themselves.
    if len(names) == len(headers) and all(map(_is_key, names)):
        for name, value in headers:
            yield f"      {scalars.string(name)}: {scalars.string(value)}\n"
        return
    for name, value in headers:
        yield f"      - name: {scalars.string(name)}\n        value: {scalars.string(value)}\n"


def _is_key(name: str) -> bool:
    return len(name) <= LONGEST_NAME and scalars.is_text(name)


def _circumstances(transaction: Transaction, base: str) -> Iterator[str]:
    yield f"  timing: {_timing(transaction.timing)}\n"
    if transaction.connection:
        yield f"  connection: {transaction.connection}\n"
    if transaction.base != base:
        yield f"  address: {scalars.string(transaction.base)}\n"
    if transaction.broken:
        yield f"  broken: {scalars.string(transaction.broken)}\n"
    if transaction.own:
        yield "  own: true\n"


def _timing(timing: Timing) -> str:
    entries = [f"began: {scalars.seconds(timing.begun)}"]
    moments = ("sent", timing.sent), ("answered", timing.answered), ("duration", timing.ended)
    entries += [
        f"{key}: {scalars.seconds(moment - timing.begun)}"
        for key, moment in moments
        if moment is not None
    ]
    return f"{{{', '.join(entries)}}}"


def _tunnel(tunnel: Tunnel, pieces: tuple[Piece, ...]) -> str:
    entries = [f"protocol: {scalars.string(tunnel.protocol, flow=True)}"]
    for direction, count in (Direction.SENT, tunnel.sent), (Direction.RECEIVED, tunnel.received):
        if count != counts(pieces, direction):
            entries.append(f"{direction.value}: {{frames: {count.frames}, bytes: {count.size}}}")
    if tunnel.close_code is not None:
        entries.append(f"close_code: {tunnel.close_code}")
    if tunnel.reason:
        entries.append(f"reason: {scalars.string(tunnel.reason, flow=True)}")
    if tunnel.ended:
        entries.append(f"ended: {scalars.string(tunnel.ended, flow=True)}")
    line = f"  tunnel: {{{', '.join(entries)}}}\n"
    return line if len(line) <= SHORT else "\n    ".join(["  tunnel:", *entries]) + "\n"
