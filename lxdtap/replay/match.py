"""Which recorded request is the one that is asked; else the nearest, and in what they differ.

Pure. Method, path and query decide, the body breaks ties. What differs from run to run does not
count: a wait's timeout, times, generated names, and what redaction put in a secret's place.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from lxdtap import lxd
from lxdtap.content import Json
from lxdtap.redact import is_credential
from lxdtap.transaction import Body, Request, Transaction, header

_PLACEHOLDER = re.compile(r"REDACTED-\d+")  # lxdtap.redact's
_GENERATED = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # a UUID
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"  # a time
)
_VOLATILE = frozenset({"expires_at", "expiry_date"})
"""Members of a request that are made of the time at which it is sent (LXD's lxc/export.go)."""
DECIDING = {206: "range", 304: "if-none-match", 412: "if-match", 416: "range"}
"""Statuses that answer a header of the request, and that header (RFC 9110, 13 and 14)."""
_DEFAULTS = frozenset({("project", "default"), ("recursion", "0"), ("filter", "")})
"""What a query need not say: it is what LXD takes where nothing is said."""
_BOUNDARY = re.compile(rb"boundary=\"?([^\s\";]+)")
_TELLING = ("x-lxd-", "x-incus-")  # headers that say what is done with a file or an image
_NOTHING = (b"", b"null", b'""', b"{}")
"""Bodies that say nothing: Ansible and ``lxc query`` send them with GET and DELETE."""


class Key(NamedTuple):
    """What decides: requests with the same key ask for the same thing.

    ``query`` is in alphabetical order, without what does not count.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    upgrade: str = ""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """No recorded interaction answers a request.

    Attributes:
        method: asked.
        path: asked.
        nearest: the recorded transaction that is nearest; None: nothing is recorded.
        differs: each thing in which that one is different, for a person.
    """

    method: str
    path: str
    nearest: Transaction | None = None
    differs: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"no recorded interaction answers {self.method} {self.path}"
        if self.nearest is None:
            return f"{text}; nothing is recorded"
        request = self.nearest.request
        near = f"#{self.nearest.number} {request.method} {request.path}"
        return f"{text}; nearest recorded: {near}, differs in {', '.join(self.differs)}"


def key(request: Request) -> Key:
    """What decides about a request."""
    path = urllib.parse.unquote(request.path, errors="surrogateescape")
    pairs = urllib.parse.parse_qsl(request.target.partition("?")[2], keep_blank_values=True)
    upgrade = (header(request.headers, "upgrade") or "").lower()
    ignored = _ignored(path)
    query = sorted((n, _spelled(n, v)) for n, v in pairs if n not in ignored)
    return Key(request.method, path, tuple(p for p in query if p not in _DEFAULTS), upgrade)


def _ignored(path: str) -> frozenset[str]:
    """The names in a query that do not count: how long to wait, and what names a stream."""
    if lxd.operation_path(path) is None:
        return frozenset()
    return frozenset({"timeout", "secret"})


def _spelled(name: str, value: str) -> str:
    """A value as all clients would spell it: some begin the path of a file by a slash."""
    return value.lstrip("/") if name == "path" else value


def generic(asked: Key) -> Key:
    """The key with all that is generated, or was redacted, taken for the same."""
    query = tuple((name, _common(value)) for name, value in asked.query)
    return asked._replace(path=_common(asked.path), query=query)


def _common(text: str) -> str:
    return _GENERATED.sub("*", text)


def alike(recorded: str, asked: str) -> bool:
    """Whether two texts are the same but for what is generated and what was redacted."""
    if recorded == asked:
        return True
    recorded, asked = _common(recorded), _common(asked)
    pieces = _PLACEHOLDER.split(recorded)
    if len(pieces) == 1:
        return recorded == asked
    return _in_order(pieces, asked)


def _in_order(pieces: Sequence[str], text: str) -> bool:
    """Whether a text is these pieces with anything in between."""
    first, *middle, last = pieces
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    at = len(first)
    for piece in middle:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return text.endswith(last) and at <= len(text) - len(last)


def answers(recorded: Transaction, asked: Request) -> str:
    """The header for want of which a recorded answer is none to this request; empty if it is one.

    A part of a file, or the refusal of a condition, answers none but the same question.
    """
    assert recorded.response is not None
    name = DECIDING.get(recorded.response.status, "")
    if not name or header(recorded.request.headers, name) == header(asked.headers, name):
        return ""
    return f"header {name.title()}"


def ties(recorded: Request, asked: Request) -> tuple[str, ...]:
    """In what two requests with the same key differ: headers that tell, and members of the body."""
    if asked.method in ("GET", "HEAD"):
        return ()
    return (*_headers_apart(recorded, asked), *_bodies_apart(recorded, asked))


def _headers_apart(recorded: Request, asked: Request) -> Iterator[str]:
    ours, theirs = (
        {
            name.lower(): value
            for name, value in request.headers
            if name.lower().startswith(_TELLING) or name.lower() == "if-match"
        }
        for request in (recorded, asked)
    )
    for name in sorted(ours.keys() | theirs.keys()):
        if not alike(ours.get(name, ""), theirs.get(name, "")):
            yield f"header {name.title()}"


def _bodies_apart(recorded: Request, asked: Request) -> Iterator[str]:
    ours, theirs = recorded.body, asked.body
    if _same_bytes(ours, theirs):
        return
    try:
        documents = _document(ours), _document(theirs)
    except ValueError:
        if not _same_parts(recorded, asked):
            yield "body"
        return
    yield from _apart(*documents, "body")


def _same_bytes(ours: Body, theirs: Body) -> bool:
    if ours.size != theirs.size:
        return False
    if ours.whole and theirs.whole:
        return ours.captured == theirs.captured
    return ours.sha256 == theirs.sha256


def _document(body: Body) -> Json:
    if body.captured.strip() in _NOTHING:
        return None
    document: Json = json.loads(body.captured)
    return document


def _same_parts(recorded: Request, asked: Request) -> bool:
    """Whether two bodies are the same but for the boundaries that their clients made up.

    As many bytes are the same where not all of them were kept (RFC 2046, 5.1.1).
    """
    ours, theirs = _boundary(recorded), _boundary(asked)
    if not (ours and theirs) or recorded.body.size != asked.body.size:
        return False
    if not (recorded.body.whole and asked.body.whole):
        return True
    return recorded.body.captured.replace(ours, theirs) == asked.body.captured


def _boundary(request: Request) -> bytes:
    found = _BOUNDARY.search((header(request.headers, "content-type") or "").encode())
    return found[1] if found else b""


def _apart(ours: Json, theirs: Json, name: str) -> Iterator[str]:
    """The members in which two documents differ; one that is null is one that is absent."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for member in dict.fromkeys((*ours, *theirs)):
            if member not in _VOLATILE:
                yield from _apart(ours.get(member), theirs.get(member), f"{name}.{member}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        for index, pair in enumerate(zip_longest(ours, theirs)):
            yield from _apart(*pair, f"{name}[{index}]")
    elif isinstance(ours, str) and isinstance(theirs, str):
        if not alike(ours, theirs):
            yield name
    elif ours != theirs:
        yield name


def nearest(recorded: Iterable[Transaction], asked: Request) -> Mismatch:
    """Why nothing answers a request: the nearest of what is recorded, and how it differs."""
    wanted = key(asked)
    best: tuple[int, Transaction] | None = None
    for transaction in recorded:
        distance = _distance(key(transaction.request), wanted)
        if best is None or distance < best[0]:
            best = distance, transaction
    if best is None:
        return Mismatch(asked.method, asked.path)
    return explained(best[1], asked)


def explained(recorded: Transaction, asked: Request) -> Mismatch:
    """Why this recorded transaction does not answer a request."""
    reasons = tuple(_reasons(recorded, asked))
    return Mismatch(asked.method, asked.path, recorded, reasons or ("nothing that counts",))


def _reasons(recorded: Transaction, asked: Request) -> Iterator[str]:
    ours, theirs = key(recorded.request), key(asked)
    if ours.method != theirs.method:
        yield "method"
    if ours.path != theirs.path:
        yield "path"
    yield from _queries_apart(ours, theirs)
    if ours.upgrade != theirs.upgrade:
        yield f"upgrade ({ours.upgrade or 'none'} recorded, {theirs.upgrade or 'none'} asked)"
    if recorded.response is None:
        yield "its answer, which was not recorded"
        return
    if not recorded.response.body.whole:
        size = recorded.response.body.size
        yield f"its answer, of which not all {size} bytes were recorded"
    if reason := answers(recorded, asked):
        yield reason
    yield from ties(recorded.request, asked)


def _queries_apart(ours: Key, theirs: Key) -> Iterator[str]:
    recorded, asked = _values(ours), _values(theirs)
    for name in sorted(recorded.keys() | asked.keys()):
        if recorded.get(name) != asked.get(name):
            pair = _shown(recorded.get(name)), _shown(asked.get(name))
            values = "" if is_credential(name) else f" ({pair[0]} recorded, {pair[1]} asked)"
            yield f"query {name}{values}"


def _values(asked: Key) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in asked.query:
        values.setdefault(name, []).append(value)
    return values


def _shown(values: list[str] | None) -> str:
    return "none" if values is None else repr(",".join(values))


def _distance(ours: Key, theirs: Key) -> int:
    """How far a request is from another: what is asked of counts more than how."""
    segments = zip_longest(ours.path.split("/"), theirs.path.split("/"))
    path = sum(_apartness(one, other) for one, other in segments)
    query = len(set(ours.query) ^ set(theirs.query))
    return path + 6 * (ours.method != theirs.method) + query + (ours.upgrade != theirs.upgrade)


def _apartness(one: str | None, other: str | None) -> int:
    """Of two segments of a path: another name is nearer than none."""
    if one == other:
        return 0
    return 12 if one is None or other is None else 8
