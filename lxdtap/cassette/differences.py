"""What changed from one recording to another, without what differs from run to run anyway.

Pure. Interactions are aligned as two sequences, by what they ask; an operation is known by the
request that made it, not by its id. Times, generated names and placeholders of secrets count for
nothing, nor do headers that say when, nor members such as ``pid`` and ``volatile.*``: unless all
is asked for.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from lxdtap import content, lxd
from lxdtap.cassette.model import Cassette, Interaction, Piece, Server
from lxdtap.content import Binary, Content, Document, Json, Parts, Text
from lxdtap.replay import match as matching
from lxdtap.replay import tape
from lxdtap.terminal import escape_json, escape_token
from lxdtap.transaction import Body, Direction, Headers, Opcode, Request, Transaction

SHOWN = 160
"""Characters of a value that are shown."""
_CONTEXT = 30
"""Characters before the first difference of two long values that are shown."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_GENERATED = re.compile(
    rf"{_UUID.pattern}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"  # a time
    r"|\b[0-9a-f]{64}\b"  # an image's fingerprint, a websocket's secret
    r"|\bveth[0-9a-f]{8}\b|\b00:16:3e(?::[0-9a-f]{2}){3}\b"  # LXD's names of interfaces, and MACs
    r"|REDACTED-\d+"  # lxdtap.redact's
)
_VOLATILE = frozenset(
    {
        *("created_at", "updated_at", "last_used_at", "uploaded_at", "timestamp"),
        *("expires_at", "expiry_date"),  # made of the time at which they are sent
        *("addresses", "hwaddr", "host_name", "location", "counters"),
        *("pid", "processes", "cpu", "memory", "usage", "usage_peak", "used", "free"),
        *("server_pid", "kernel_version", "certificate", "certificate_fingerprint", "progress"),
    }
)
"""Members that tell of the time, the host or the load."""
_UNDER_WAY = frozenset({"Pending", "Running"})
_OF_THE_STAGE = frozenset({"status", "status_code", "err", "may_cancel", "metadata"})
"""Members of an operation that change while it runs (LXD's shared/api/operation.go)."""
_TELLING = ("content-type", "location", "x-lxd-", "x-incus-")
_NOT_TELLING = ("x-lxd-modified", "x-incus-modified")
_BOUNDARY = re.compile(r';\s*boundary=("[^"]*"|[^;\s]*)', re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not the same.

    Attributes:
        where: it is, such as ``response.metadata.status``.
        was: in A, as JSON; empty: it is not there.
        now: in B.
    """

    where: str
    was: str
    now: str

    def __str__(self) -> str:
        if not self.was:
            return f"{self.where}: only in B: {self.now}"
        if not self.now:
            return f"{self.where}: only in A: {self.was}"
        return f"{self.where}: {self.was} -> {self.now}"


@dataclass(frozen=True, slots=True)
class Difference:
    """An interaction that is not the same in both.

    Attributes:
        ours: in A; None: it is not there.
        theirs: in B. Both are None where it is the server that differs.
        changes: what differs where it is in both.
        passed: an interaction of A on the other side of which it is in B; None: it has kept its
            place.
    """

    ours: Transaction | None = None
    theirs: Transaction | None = None
    changes: tuple[Change, ...] = ()
    passed: Transaction | None = None

    def lines(self) -> Iterator[str]:
        """For a person."""
        if self.ours and self.theirs:
            yield f"#{self.ours.number} ~ #{self.theirs.number} {_called(self.ours)}"
        elif self.ours:
            yield f"only in A: #{self.ours.number} {_called(self.ours)}"
        elif self.theirs:
            yield f"only in B: #{self.theirs.number} {_called(self.theirs)}"
        else:
            yield "the recordings"
        if self.ours and self.passed:
            first, then = ("after", "before")
            if self.ours.number < self.passed.number:
                first, then = then, first
            yield f"  order: {first} #{self.passed.number} {_called(self.passed)}, {then} it in B"
        for change in self.changes:
            yield f"  {change}"


def _called(transaction: Transaction) -> str:
    request = transaction.request
    return f"{escape_token(request.method)} {escape_token(request.target)}"


def differences(
    ours: Cassette,
    theirs: Cassette,
    *,
    everything: bool = False,
    wanted: Callable[[Request], bool] = lambda _: True,
) -> Iterator[Difference]:
    """All in which two recordings differ, in A's order; what is only in B comes last.

    Args:
        ours: A.
        theirs: B.
        everything: whether what differs from run to run counts too.
        wanted: a test on requests: the interactions to compare.
    """
    sides = (_Side(ours, wanted, everything), _Side(theirs, wanted, everything))
    comparison = _Comparison(*sides, everything)
    told = _server(ours.server, everything), _server(theirs.server, everything)
    if changes := tuple(comparison.members(*told, "")):
        yield Difference(changes=changes)
    yield from comparison.differences()


def _server(server: Server, everything: bool) -> dict[str, Json]:
    told: dict[str, Json] = {"server.kind": server.kind, "server.version": server.version}
    return told | ({"server.address": server.base} if everything else {})


# -- one recording


class _Side:
    """A recording, and what its generated names stand for."""

    def __init__(
        self,
        cassette: Cassette,
        wanted: Callable[[Request], bool],
        everything: bool,
    ) -> None:
        self.made: dict[int, str] = {}
        self.told: dict[str, Json] = {}
        self.answered: dict[str, Json] = {}
        self._names: dict[str, str] = {}
        self._makers: Counter[str] = Counter()
        self._everything = everything
        for interaction in cassette.interactions:
            self._learn(interaction)
        chosen = [each for each in cassette.interactions if wanted(each.transaction.request)]
        self.tokens = [self._token(each) for each in chosen]
        self.interactions = chosen
        if not everything:
            self._last_words()

    def settled(self, text: str) -> str:
        """A text with one name for all that is generated, and an operation by its maker."""
        return text if self._everything else self._named(text)

    def end(self, identifier: str) -> Json:
        """How an operation ended, as far as is known."""
        return self.told.get(identifier) or self.answered.get(identifier)

    def _learn(self, interaction: Interaction) -> None:
        transaction = interaction.transaction
        request, response = transaction.request, transaction.response
        if response is None:
            return
        if matching.key(request).path == tape.EVENTS:
            for message in tape.messages(interaction.pieces):
                self._ended(tape.document(message.payload.captured), self.told)
            return
        said = tape.document(response.body.captured)
        operation = lxd.operation(said)
        if operation is None:
            return
        if response.status == 202:
            asked = f"{request.method} {_GENERATED.sub('*', matching.key(request).path)}"
            self._makers[asked] += 1
            self._names.setdefault(operation.id, f"{asked} ({self._makers[asked]})")
            self.made[transaction.number] = operation.id
        self._ended(said, self.answered)

    def _ended(self, said: Json, ends: dict[str, Json]) -> None:
        operation = lxd.operation(said)
        if operation is not None and operation.final and isinstance(said, dict):
            ends[operation.id] = said["metadata"]

    def _token(self, interaction: Interaction) -> Hashable:
        """What is asked: interactions of both recordings with the same token are the same."""
        asked = matching.key(interaction.transaction.request)
        query = tuple((name, self._named(value)) for name, value in asked.query)
        return asked._replace(path=self._named(asked.path), query=query), interaction.stream

    def _named(self, text: str) -> str:
        return _GENERATED.sub(lambda found: self._names.get(found[0], "*"), text)

    def _last_words(self) -> None:
        """How often an operation was asked for is chance: the last answer counts."""
        kept: dict[Hashable, int] = {}
        for index, (token, each) in enumerate(zip(self.tokens, self.interactions, strict=True)):
            polled = tape.operation_asked(matching.key(each.transaction.request)) is not None
            kept[token if polled else index] = index
        chosen = sorted(kept.values())
        self.tokens = [self.tokens[index] for index in chosen]
        self.interactions = [self.interactions[index] for index in chosen]


# -- both


class _Comparison:
    """Compares two recordings."""

    def __init__(self, ours: _Side, theirs: _Side, everything: bool) -> None:
        self._ours = ours
        self._theirs = theirs
        self._everything = everything

    def differences(self) -> Iterator[Difference]:
        """All interactions that differ."""
        pairs = dict(_aligned(self._ours.tokens, self._theirs.tokens))
        kept = list(pairs.items())
        moved = self._moved(pairs)
        for index, mine in enumerate(self._ours.interactions):
            if index not in pairs and index not in moved:
                yield Difference(mine.transaction)
                continue
            other = moved[index] if index in moved else pairs[index]
            changes = tuple(self._changes(mine, self._theirs.interactions[other]))
            passed = self._passed(index, other, kept) if index in moved else None
            if changes or passed:
                yours = self._theirs.interactions[other].transaction
                yield Difference(mine.transaction, yours, changes, passed)
        found = {*pairs.values(), *moved.values()}
        for index, yours_ in enumerate(self._theirs.interactions):
            if index not in found:
                yield Difference(theirs=yours_.transaction)

    def _moved(self, pairs: Mapping[int, int]) -> dict[int, int]:
        """What is in both, and not in the same place."""
        found = set(pairs.values())
        left: dict[Hashable, deque[int]] = defaultdict(deque)
        for index, token in enumerate(self._theirs.tokens):
            if index not in found:
                left[token].append(index)
        return {
            index: left[token].popleft()
            for index, token in enumerate(self._ours.tokens)
            if index not in pairs and left[token]
        }

    def _passed(self, mine: int, yours: int, kept: Sequence[tuple[int, int]]) -> Transaction | None:
        """What one that has moved has changed places with, if neither was under way with it."""
        ours, theirs = self._ours.interactions, self._theirs.interactions
        for one, other in kept:
            if (one < mine) != (other < yours) and not (
                _together(ours[one], ours[mine]) or _together(theirs[other], theirs[yours])
            ):
                return ours[one].transaction
        return None

    # -- an interaction

    def _changes(self, mine: Interaction, yours: Interaction) -> Iterator[Change]:
        one, other = self._facts(mine), self._facts(yours)
        if not self._everything:
            _at_one_stage(one, other)
        yield from self.members(one, other, "")
        made = self._ours.made.get(mine.transaction.number)
        again = self._theirs.made.get(yours.transaction.number)
        if made and again and (made in self._ours.told or again in self._theirs.told):
            end, other_end = self._ours.end(made), self._theirs.end(again)
            if end and other_end:  # else it had not ended by then, or nobody was told
                yield from self._apart(_outcome(end), _outcome(other_end), "operation")

    def _facts(self, interaction: Interaction) -> dict[str, Json]:
        """All of an interaction that is compared, by where it stands."""
        transaction = interaction.transaction
        request, response = transaction.request, transaction.response
        facts: dict[str, Json] = {"request.header": self._headers(request.headers)}
        facts |= _body("request", content.read(request.body, request.headers))
        if response is not None:
            facts["response.status"] = response.status
            facts["response.header"] = self._headers(response.headers)
            facts |= _body("response", content.read(response.body, response.headers))
        facts |= _streamed(interaction)
        if self._everything:
            facts |= _rest(interaction)
        return facts

    def _headers(self, headers: Headers) -> Json:
        found: dict[str, list[str]] = defaultdict(list)
        for name, value in headers:
            known = name.lower()
            telling = known.startswith(_TELLING) and known not in _NOT_TELLING
            if self._everything or telling:
                found[known].append(value if self._everything else _BOUNDARY.sub("", value))
        return {name: ", ".join(values) for name, values in found.items()}

    # -- values

    def members(
        self, ours: Mapping[str, Json], theirs: Mapping[str, Json], where: str
    ) -> Iterator[Change]:
        """The members in which two objects differ."""
        for name in dict.fromkeys((*ours, *theirs)):
            if where and self._volatile(name):
                continue
            place = _member(where, name)
            if name not in theirs:
                yield Change(place, _shown(ours[name]), "")
            elif name not in ours:
                yield Change(place, "", _shown(theirs[name]))
            else:
                yield from self._apart(ours[name], theirs[name], place)

    def _volatile(self, name: str) -> bool:
        return not self._everything and _volatile(name)

    def _apart(self, ours: Json, theirs: Json, where: str) -> Iterator[Change]:
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from self.members(ours, theirs, where)
        elif isinstance(ours, list) and isinstance(theirs, list):
            yield from self._elements(ours, theirs, where)
        elif isinstance(ours, str) and isinstance(theirs, str):
            if not self._alike(ours, theirs):
                yield _change(where, ours, theirs)
        elif ours != theirs or type(ours) is not type(theirs):
            yield _change(where, ours, theirs)

    def _alike(self, ours: str, theirs: str) -> bool:
        one, other = self._ours.settled(ours), self._theirs.settled(theirs)
        if one == other or self._everything:
            return one == other
        return matching.alike(ours, theirs) or matching.alike(
            theirs, ours
        )  # redacted in one of them

    def _elements(self, ours: list[Json], theirs: list[Json], where: str) -> Iterator[Change]:
        """Elements by what they are: one that was put in does not make others differ."""
        mine = [self._text(each, self._ours) for each in ours]
        yours = [self._text(each, self._theirs) for each in theirs]
        for tag, i, j, k, m in _blocks(mine, yours):
            if tag == "replace" and j - i == m - k:
                for index in range(j - i):
                    yield from self._apart(
                        ours[i + index], theirs[k + index], f"{where}[{i + index}]"
                    )
            elif tag != "equal":
                for index in range(i, j):
                    yield Change(f"{where}[{index}]", _shown(ours[index]), "")
                for index in range(k, m):
                    yield Change(f"{where}[{index}]", "", _shown(theirs[index]))

    def _text(self, value: Json, side: _Side) -> str:
        return json.dumps(self._settled(value, side), sort_keys=True)

    def _settled(self, value: Json, side: _Side) -> Json:
        """A value without what does not count."""
        if isinstance(value, dict):
            kept = (pair for pair in value.items() if not self._volatile(pair[0]))
            return {name: self._settled(member, side) for name, member in kept}
        if isinstance(value, list):
            return [self._settled(element, side) for element in value]
        return side.settled(value) if isinstance(value, str) else value


def _volatile(name: str) -> bool:
    return name in _VOLATILE or name.startswith("volatile.") or name.endswith("_progress")


_Block = tuple[str, int, int, int, int]


def _blocks(ours: Sequence[Hashable], theirs: Sequence[Hashable]) -> Iterator[_Block]:
    """What is equal in two sequences, and what is not, as difflib tells it.

    What both begin and end with is set aside: to difflib much of the same is much work.
    """
    begin = _same(ours, theirs)
    end = _same(ours[begin:][::-1], theirs[begin:][::-1])
    mine, yours = ours[begin : len(ours) - end], theirs[begin : len(theirs) - end]
    yield "equal", 0, begin, 0, begin
    for tag, i, j, k, m in SequenceMatcher(None, mine, yours, autojunk=False).get_opcodes():
        yield tag, begin + i, begin + j, begin + k, begin + m
    yield "equal", len(ours) - end, len(ours), len(theirs) - end, len(theirs)


def _aligned(ours: Sequence[Hashable], theirs: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
    for tag, i, j, k, m in _blocks(ours, theirs):
        if tag == "equal":
            yield from zip(range(i, j), range(k, m), strict=True)


def _same(ours: Sequence[object], theirs: Sequence[object]) -> int:
    """How much two sequences have in common at their beginning."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(ours), len(theirs)))


def _together(one: Interaction, other: Interaction) -> bool:
    """Whether one began before the other had ended: which was first is chance then."""
    first, then = sorted((one.transaction.timing, other.transaction.timing), key=lambda t: t.begun)
    return first.ended is None or first.ended > then.begun


# -- what is compared


def _body(name: str, says: Content) -> dict[str, Json]:
    return {} if says is None else {name: _value(says)}


def _value(says: Content) -> Json:
    match says:
        case Document():
            return says.value
        case Text():
            return says.text
        case Binary():
            return _described(says.size, says.sha256)
        case Parts():
            return [
                {"headers": [list(each) for each in part.headers], "body": _value(part.content)}
                for part in says.parts
            ]
    return None


def _described(size: int, sha256: str) -> str:
    return f"{size} bytes, sha256 {sha256[:16]}"  # not all of it, which would count as generated


def _at_one_stage(ours: dict[str, Json], theirs: dict[str, Json]) -> None:
    """Take out how far an operation was, where one answer was given before it had ended.

    It runs while the answer is written: what that says of its progress is chance.
    """
    said = ours.get("response"), theirs.get("response")
    one, other = map(lxd.operation, said)
    if one is None or other is None:
        return
    dropped: frozenset[str] = frozenset()
    if one.final != other.final:
        dropped = _OF_THE_STAGE
    elif {one.status, other.status} <= _UNDER_WAY:
        dropped = frozenset({"status", "status_code"})
    for facts, envelope in zip((ours, theirs), said, strict=True):
        facts["response"] = _without(envelope, dropped)


def _without(envelope: Json, dropped: frozenset[str]) -> Json:
    assert isinstance(envelope, dict)
    operation = envelope["metadata"]
    assert isinstance(operation, dict)
    kept = {name: value for name, value in operation.items() if name not in dropped}
    results = kept.get("metadata")
    if isinstance(results, dict) and all(map(_volatile, results)):
        kept["metadata"] = None  # as it was before there was progress
    return envelope | {"metadata": kept}


def _outcome(operation: Json) -> Json:
    """What an operation came to; what it was to do stands in the request."""
    assert isinstance(operation, dict)
    results = operation.get("metadata")
    told = {name: operation.get(name) for name in ("status", "status_code", "err")}
    return told | {"return": results.get("return") if isinstance(results, dict) else None}


def _streamed(interaction: Interaction) -> dict[str, Json]:
    """What exec's streams carried, however it was cut into frames."""
    name, pieces = interaction.stream, interaction.pieces
    match name:
        case "stdin":
            return {name: _data(pieces, Direction.SENT)}
        case "stdout" | "stderr":
            return {name: _data(pieces, Direction.RECEIVED)}
        case "terminal":
            return {
                "terminal.sent": _data(pieces, Direction.SENT),
                "terminal.received": _data(pieces, Direction.RECEIVED),
            }
        case "control":  # exec's are JSON in text; a migration's are not
            texts = [each for each in pieces if each.opcode is Opcode.TEXT]
            return {name: _data(texts, Direction.SENT)}
    return {}


def _rest(interaction: Interaction) -> dict[str, Json]:
    """What is chance, or the client's taste."""
    transaction, pieces = interaction.transaction, interaction.pieces
    facts: dict[str, Json] = {"broken": transaction.broken}
    if transaction.tunnel is not None:
        facts["tunnel.close_code"] = transaction.tunnel.close_code
        facts["tunnel.ended"] = transaction.tunnel.ended
    if matching.key(transaction.request).path == tape.EVENTS:
        messages = [message.payload for message in tape.messages(pieces)]
        facts["events"] = [_value(content.read(message)) for message in messages]
    elif pieces:
        facts["sent"] = _data(pieces, Direction.SENT)
        facts["received"] = _data(pieces, Direction.RECEIVED)
    return facts


def _data(pieces: Sequence[Piece], direction: Direction) -> Json:
    carried = [
        piece.payload
        for piece in pieces
        if piece.direction is direction and not (piece.opcode and piece.opcode.control)
    ]
    if not all(payload.whole for payload in carried):
        return f"{sum(payload.size for payload in carried)} bytes, not all of them kept"
    data = b"".join(payload.captured for payload in carried)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _described(len(data), Body(len(data), data).sha256)


# -- for a person


def _member(where: str, name: str) -> str:
    if not where:
        return name
    return f"{where}.{name}" if _WORD.fullmatch(name) else f"{where}[{_json(name)}]"


def _change(where: str, ours: Json, theirs: Json) -> Change:
    was, now = _json(ours), _json(theirs)
    begin = _same(was, now) - _CONTEXT if max(len(was), len(now)) > SHOWN else 0
    if begin > 0:
        was, now = f"…{was[begin:]}", f"…{now[begin:]}"
    return Change(where, _cut(was), _cut(now))


def _shown(value: Json) -> str:
    return _cut(_json(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _json(value: Json) -> str:
    return escape_json(json.dumps(value, ensure_ascii=False))
