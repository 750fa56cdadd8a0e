"""Messages of each framing, that know what is payload up to any byte of theirs."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from lxdtap.cassette.model import Interaction
from tests.process.tap import Sidecar, connect, eventually
from tests.process.test_relay import frame

from .upstreams import Connection, GoneError, Upstream


@dataclass(frozen=True)
class Piece:
    """Some bytes of a message, and whether they are payload: what a size counts."""

    data: bytes
    payload: bool = False
    counted_if_cut: bool = False
    """Framing that counts as data where the message ends within it: a frame's head."""


@dataclass(frozen=True)
class Message:
    """A head, and what follows it."""

    head: bytes
    pieces: tuple[Piece, ...] = ()

    @property
    def data(self) -> bytes:
        """All of it."""
        return self.head + b"".join(piece.data for piece in self.pieces)

    def payload(self, cut: int) -> int:
        """How many bytes of payload are in its first ``cut`` bytes."""
        left, size = cut - len(self.head), 0
        for piece in self.pieces:
            here = max(0, min(left, len(piece.data)))
            left -= len(piece.data)
            if piece.payload or (piece.counted_if_cut and here < len(piece.data)):
                size += here
        return size


def chunked(*chunks: bytes) -> tuple[Piece, ...]:
    """A chunked body with an extension and a trailer."""
    pieces = []
    for chunk in chunks:
        pieces += [Piece(b"%x;ext=1\r\n" % len(chunk)), Piece(chunk, payload=True), Piece(b"\r\n")]
    return *pieces, Piece(b"0\r\nTrailer: x\r\n\r\n")


def frames(payloads: Iterable[tuple[int, bytes]], mask: bytes = b"") -> tuple[Piece, ...]:
    """Websocket frames; control frames are no data."""
    pieces = []
    for opcode, payload in payloads:
        whole = frame(opcode, payload, mask=mask)
        head = len(whole) - len(payload)
        pieces.append(Piece(whole[:head], counted_if_cut=True))
        pieces.append(Piece(whole[head:], payload=opcode < 8))
    return tuple(pieces)


_BODY = bytes(range(256)) * 2
_TYPED = ((1, b'{"command":"window-resize"}'), (2, b"ls\n" * 60), (9, b"ping"), (2, b""), (8, b""))

REQUESTS: Mapping[str, Message] = {
    "GET": Message(b"GET / HTTP/1.1\r\nHost: lxd\r\nUser-Agent: cut\r\n\r\n"),
    "PUT": Message(
        b"PUT / HTTP/1.1\r\nHost: lxd\r\nContent-Length: %d\r\n\r\n" % len(_BODY),
        (Piece(_BODY, payload=True),),
    ),
    "chunks": Message(
        b"PUT / HTTP/1.1\r\nHost: lxd\r\nTransfer-Encoding: chunked\r\n\r\n",
        chunked(_BODY[:100], _BODY[100:]),
    ),
    "exec": Message(
        b"GET / HTTP/1.1\r\nHost: lxd\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        frames(_TYPED, b"mask"),
    ),
}
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ANSWERS: Mapping[str, Message] = {
    "length": Message(
        b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nContent-Length: %d\r\n\r\n" % len(_BODY),
        (Piece(_BODY, payload=True),),
    ),
    "chunks": Message(
        b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n",
        chunked(_BODY[:100], _BODY[100:]),
    ),
    "until-close": Message(
        b"HTTP/1.0 200 OK\r\nContent-Type: x/y\r\n\r\n", (Piece(_BODY, payload=True),)
    ),
    "exec": Message(SWITCHING, frames(_TYPED)),
}


class Outcome(NamedTuple):
    """What a recording says of a message that broke off."""

    what: str
    """The method, or the status."""
    size: int
    """Bytes of its payload."""
    who: str
    """Who ended it, and where; empty: nothing broke off."""


class Cut(NamedTuple):
    """A message that ends after so many bytes."""

    kind: str
    message: Message
    size: int

    @property
    def data(self) -> bytes:
        """What there is of it."""
        return self.message.data[: self.size]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.size == len(self.message.data)

    @property
    def payload(self) -> int:
        """How many bytes of payload there are of it."""
        return self.message.payload(self.size)

    @property
    def get(self) -> bytes:
        """A request for an answer that is cut so."""
        upgrade = "Upgrade: websocket\r\n" if self.kind == "exec" else ""
        return f"GET /{self.kind}/{self.size} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n".encode()

    def as_request(self, who: str) -> Outcome:
        """What should be recorded where ``who`` cut a request so; of half a head, all of it."""
        line = self.data.partition(b"\r")[0]
        method = line.split(b" ")[0].decode() if line.endswith(b" HTTP/1.1") else "?"
        size = self.size if self.size < len(self.message.head) else self.payload
        return Outcome(method, size, who)

    def as_answer(self, who: str, *, clean: Sequence[str] = ()) -> tuple[str, Outcome]:
        """What should be recorded where ``who`` cut an answer so, with what was asked for.

        Args:
            who: whose end it was.
            clean: the kinds that this is no cut for, once their head is there.
        """
        begun = self.size >= len(self.message.head)
        status = self.message.head.split(b" ")[1].decode() if begun else ""
        over = self.kind in clean or (self.whole and self.kind in ("length", "chunks"))
        outcome = Outcome(status, self.payload, "" if over and begun else who)
        return f"/{self.kind}/{self.size}", outcome

    @classmethod
    def asked(cls, head: bytes) -> Self:
        """What a request made by :attr:`get` asks for."""
        _, kind, size = head.split(b" ")[1].decode().split("/")
        return cls(kind, ANSWERS[kind], int(size))


_WHO = re.compile(r"the (?:client|daemon)(?: closed the connection|'s connection was cut)|")


def _who(why: str) -> str:
    """Whose end it was, without what was under way."""
    found = _WHO.match(why)
    assert found is not None
    assert bool(found[0]) == bool(why), why
    return found[0]


def request_told(interaction: Interaction) -> Outcome:
    """What is recorded of a request."""
    request, tunnel = interaction.transaction.request, interaction.transaction.tunnel
    size = request.body.size if tunnel is None else tunnel.sent.size
    why = interaction.transaction.broken if tunnel is None else tunnel.ended
    return Outcome(request.method, size, _who(why))


def answer_told(interaction: Interaction) -> tuple[str, Outcome]:
    """What is recorded of an answer, with what was asked for."""
    transaction = interaction.transaction
    response, tunnel = transaction.response, transaction.tunnel
    size = response.body.size if response is not None else 0
    size = size if tunnel is None else tunnel.received.size
    why = transaction.broken if tunnel is None else tunnel.ended
    status = str(response.status) if response is not None else ""
    return transaction.request.target, Outcome(status, size, _who(why))


def cuts(messages: Mapping[str, Message], few: int = 0) -> list[Cut]:
    """Every one of them, cut after every byte; or after a ``few``, from its first to its last."""
    found = []
    for kind, message in messages.items():
        last = len(message.data)
        sizes = [1 + (last - 1) * i // (few - 1) for i in range(few)] or range(1, last + 1)
        found += [Cut(kind, message, size) for size in sizes]
    return found


def batches(all_of_them: list[Cut], at_once: int = 100) -> list[list[Cut]]:
    """As many as go together."""
    return [all_of_them[i : i + at_once] for i in range(0, len(all_of_them), at_once)]


# -- held by many at once


async def begins(connection: Connection) -> None:
    """Grant an upgrade, if one is asked for."""
    with contextlib.suppress(GoneError):
        if b"Upgrade" in await connection.head():
            await connection.send(SWITCHING)


async def takes(connection: Connection) -> None:
    """Grant an upgrade, say nothing else, and hear the client to its very end."""
    await begins(connection)
    await connection.hangup()


def everyone(
    daemon: Upstream, tap: Sidecar, batch: list[Cut], what: Callable[[Cut], bytes]
) -> list[socket.socket]:
    """Connect a client for each cut, and have it send; come back when all of it has arrived."""
    before = len(daemon.asked), sum(account.size for account in daemon.connections)
    clients = [connect(tap.path) for _ in batch]
    for client, cut in zip(clients, batch, strict=True):
        client.sendall(what(cut))
    total = before[1] + sum(len(what(cut)) for cut in batch)
    eventually(lambda: sum(account.size for account in daemon.connections) == total)
    assert len(daemon.asked) == before[0] + len(batch)
    return clients
