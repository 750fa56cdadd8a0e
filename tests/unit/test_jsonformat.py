"""One JSON object a line, and every line fits the published schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.content import Binary, Content, Document, Part, Parts, Text
from lxdtap.entries import Entry, NoteEntry, OperationEntry, TransactionEntry
from lxdtap.jsonformat import line, timestamp
from lxdtap.transaction import Count, Direction, Moment, Opcode, Peer, Tunnel, decode

from . import builders

SCHEMA = json.loads(
    (Path(__file__).parent.parent.parent / "docs" / "log.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
AT = Moment(0, builders.WALL)
SHA = "0" * 64
PARTS = Parts(
    (
        Part((("A", "b"),), Document({"a": 1})),
        Part((), None),
        Part((), Binary(1, SHA, ""), cut=True),
    ),
    9,
    SHA,
    "multipart/form-data",
)
GET = builders.transaction(
    builders.request(headers=(("Host", "lxd"),)), builders.response(200, b"{}", interim=(100,))
)


def spoken(entry: Entry) -> dict[str, Any]:
    """A line read again: one line, ASCII, and valid."""
    text = line(entry)
    assert text.isascii()
    assert text.count("\n") == 1
    value: dict[str, Any] = json.loads(text)
    VALIDATOR.validate(value)
    return value


@pytest.mark.parametrize(
    "entry",
    [
        TransactionEntry(GET),
        TransactionEntry(builders.transaction(broken="cut")),
        TransactionEntry(replace(GET, peer=Peer(1, 2, 3), own=True), error="x"),
        TransactionEntry(GET, "open", now=9),
        TransactionEntry(
            replace(GET, tunnel=Tunnel("websocket", Count(1, 2), close_code=1000, ended="x")),
            "upgraded",
            stream="stdout",
        ),
        TransactionEntry(GET, operation=builders.seen("Failure", 400, 3, "bad")),
        TransactionEntry(GET, request=PARTS, response=Document(None)),
        builders.frame_entry(Document({"type": "lifecycle"}), stream="control", error="x"),
        builders.frame_entry(what=builders.frame(b"", Opcode.PING), direction=Direction.SENT),
        OperationEntry(builders.seen(maker=None), AT),
        NoteEntry("the tap's own", AT),
    ],
)
def test_every_kind_of_line_fits_the_schema(entry: Entry) -> None:
    """The schema allows no property that it does not describe."""
    assert spoken(entry)["event"]


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        (Document([1, None]), {"json": [1, None]}),
        (Text("a\x1b", "text/plain"), {"text": "a\x1b", "type": "text/plain"}),
        (Binary(3, SHA, "", b"abc"), {"size": 3, "sha256": SHA, "type": ""}),
    ],
)
def test_bodies(says: Content, shown: dict[str, Any]) -> None:
    """JSON as it is, text as text, bytes by description."""
    assert spoken(TransactionEntry(GET, response=says))["response"]["body"] == shown


def test_what_it_says() -> None:
    """The facts of a transaction, by name."""
    value = spoken(TransactionEntry(replace(GET, peer=Peer(1, 2, 3))))
    assert (value["id"], value["method"], value["target"], value["status"]) == (
        1,
        "GET",
        "/1.0",
        200,
    )
    assert (value["duration"], value["waited"]) == (2.0, 0.5)
    assert value["peer"] == {"pid": 1, "uid": 2, "gid": 3}
    assert value["request"] == {"headers": [["Host", "lxd"]], "size": 0}
    assert value["response"]["interim"] == [100]


def test_parts() -> None:
    """A multipart body is its parts."""
    body = spoken(TransactionEntry(GET, request=PARTS))["request"]["body"]
    assert [part["cut"] for part in body["parts"]] == [False, False, True]


@given(st.text() | st.binary().map(decode), st.text())
def test_whatever_the_traffic_holds(target: str, text: str) -> None:
    """Stray bytes and any character at all make a valid line."""
    request = builders.request(target=target, headers=((target, text),))
    spoken(TransactionEntry(builders.transaction(request), request=Text(text), error=text))


def test_timestamp() -> None:
    """RFC 3339 in UTC, to the microsecond."""
    assert timestamp(builders.WALL) == "2023-11-14T22:13:20.123456Z"


def test_the_schema_describes_itself() -> None:
    """It is a valid schema, and refuses what no line holds."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert not VALIDATOR.is_valid({"event": "transaction"})
    assert not VALIDATOR.is_valid(spoken(NoteEntry("x", AT)) | {"more": 1})
