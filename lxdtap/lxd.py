"""LXD's own rules, which Incus shares: envelopes, operations, nested failures, exec's streams.

Pure, and forgiving: whatever a document holds, nothing here raises.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

from lxdtap.content import Json

FINAL = 200
"""From this status code on an operation has ended (LXD's shared/api/status_code.go)."""
FAILED = 400
"""From this one on it, or the call, has failed (the same file)."""
REMEMBERED = 1_000
"""Operations kept in mind, and secrets of their streams; the oldest are forgotten first."""

_OPERATION_PATH = re.compile(r"/1\.0/operations/([^/?]+)")
_WEBSOCKET_SECRET = re.compile(r"[0-9a-f]{64}")
_SECRET_QUERY = re.compile(r"[?&]secret=([^&]*)")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation's state at one time (LXD's shared/api/operation.go).

    Attributes:
        id: its UUID.
        status: such as ``Running``, ``Success``, ``Failure``.
        status_code: the same as a number.
        err: why it failed; empty where it did not.
        description: what it does, in the daemon's words.
    """

    id: str
    status: str
    status_code: int
    err: str = ""
    description: str = ""

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.status_code >= FINAL


def failure(document: Json) -> str:
    """The error in an envelope or an event, lifted out of nested metadata; empty if there is none.

    A nested failure wins over an empty outer ``error``, which every success carries.
    """
    if not isinstance(document, dict):
        return ""
    error = document.get("error")
    if isinstance(error, str) and error:
        return error
    if _code(document.get("error_code")) >= FAILED:
        return str(document.get("status") or document["error_code"])
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    if _code(metadata.get("status_code")) >= FAILED:
        return str(metadata.get("err") or metadata.get("status") or metadata["status_code"])
    return failure(metadata)


def server_version(document: Json) -> str:
    """The daemon's version, from the answer to ``GET /1.0``; empty where it does not tell."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    about = metadata.get("environment") if isinstance(metadata, dict) else None
    version = about.get("server_version") if isinstance(about, dict) else None
    return version if isinstance(version, str) else ""


def operation(document: Json) -> Operation | None:
    """The operation that an envelope or an event describes; None where it describes none."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict):
        return None
    identifier, status = metadata.get("id"), metadata.get("status")
    if not (isinstance(identifier, str) and isinstance(status, str) and "class" in metadata):
        return None
    return Operation(
        identifier,
        status,
        _code(metadata.get("status_code")),
        str(metadata.get("err") or ""),
        str(metadata.get("description") or ""),
    )


def operation_path(path: str) -> str | None:
    """The operation's id in a path under ``/1.0/operations/``."""
    match = _OPERATION_PATH.match(path)
    return match[1] if match else None


def streams(document: Json) -> dict[str, str]:
    """What each websocket secret of the operation in an envelope carries, by secret."""
    return operation_streams(document.get("metadata") if isinstance(document, dict) else None)


def operation_streams(document: Json) -> dict[str, str]:
    """What each websocket secret of this operation carries, by secret.

    An exec's ``0``, ``1``, ``2`` are stdin, stdout and stderr; where one socket carries a
    terminal both ways, its ``0`` is that (LXD's lxd/instance_exec.go). A migration's secrets
    stand without ``fds``, under the names of its streams (lxd/migrate.go).
    """
    if not isinstance(document, dict) or document.get("class") != "websocket":
        return {}
    operation_metadata = document.get("metadata")
    if not isinstance(operation_metadata, dict):
        return {}
    fds = operation_metadata.get("fds")
    if not isinstance(fds, dict):
        found = operation_metadata.items()
        return {v: key for key, v in found if isinstance(v, str) and _WEBSOCKET_SECRET.fullmatch(v)}
    names = {"1": "stdout", "2": "stderr", "0": "stdin" if "1" in fds else "terminal"}
    return {secret: names.get(fd, fd) for fd, secret in fds.items() if isinstance(secret, str)}


def event_type(document: Json) -> str:
    """The type of an event: ``operation``, ``lifecycle``, ``logging``, …; empty if it is none."""
    kind = document.get("type") if isinstance(document, dict) else None
    return kind if isinstance(kind, str) else ""


def _code(value: Json) -> int:
    return value if isinstance(value, int) else 0


@dataclass(slots=True)
class _Known:
    maker: int | None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What a document told of an operation.

    Attributes:
        operation: its state now.
        maker: the number of the transaction that made it; None where that was not seen.
        news: whether this is the first word of its end.
    """

    operation: Operation
    maker: int | None
    news: bool


class Operations:
    """Remembers which request made which operation, how it ended, and whose each secret is."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._streams: OrderedDict[str, str] = OrderedDict()

    def learn(self, document: Json, *, made_by: int | None = None) -> Seen | None:
        """Take note of a document; ``made_by`` is the transaction whose answer created it."""
        self._streams.update(streams(document))
        state = operation(document)
        if state is None:
            return None
        known = self._known.setdefault(state.id, _Known(made_by))
        if known.maker is None:
            known.maker = made_by
        news = state.final and not known.ended
        known.ended = known.ended or state.final
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        while len(self._streams) > REMEMBERED:
            self._streams.popitem(last=False)
        return Seen(state, known.maker, news)

    def stream(self, target: str) -> str:
        """The name of the stream that a websocket's target is for; empty where unknown."""
        match = _SECRET_QUERY.search(target)
        return self._streams.get(match[1], "") if match else ""
