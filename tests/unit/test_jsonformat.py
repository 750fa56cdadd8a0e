"""The JSON log: one object a line, held to its schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.content import Binary, Content, Document, Json, Part, Parts, Text
from lxdtap.log import jsonformat
from lxdtap.log.entries import Entry, NoteEntry, OperationEntry
from lxdtap.transaction import Peer, Tunnel

from .builders import AT, WALL, entry, frame_entry, request, response, seen, transaction

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/log.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SHA = "ab" * 32
ANY = st.text(st.characters(exclude_categories=[]), max_size=12)

PART = Part((("A", "b"),), Text("x"), cut=True)
CONTENTS: list[tuple[Content, Json]] = [
    (Document({"a": [1, None]}), {"json": {"a": [1, None]}}),
    (Document(None), {"json": None}),
    (Text("a\udc80", "text/plain"), {"text": "a\ufffd", "type": "text/plain"}),
    (Binary(3, SHA, kept=b"abc"), {"size": 3, "sha256": SHA, "type": ""}),
    (
        Parts((PART, Part((), None)), 9, SHA, "multipart/mixed"),
        {
            "parts": [
                {"headers": [["A", "b"]], "body": {"text": "x", "type": ""}, "cut": True},
                {"headers": [], "body": {}, "cut": False},
            ],
            "sha256": SHA,
            "type": "multipart/mixed",
        },
    ),
]


def read(entry_: Entry) -> dict[str, Json]:
    """An entry's only line, valid by the schema."""
    written = jsonformat.line(entry_)
    assert written.isascii()
    assert written[:-1].isprintable()
    assert written[-1] == "\n"
    value: dict[str, Json] = json.loads(written)
    VALIDATOR.validate(value)
    return value


def test_the_schema_is_one() -> None:
    """The schema is valid itself, and every object in it is closed and described."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name, definition in SCHEMA["$defs"].items():
        assert definition["description"], name
        assert definition.get("additionalProperties") is not True


@pytest.mark.parametrize(("says", "expected"), CONTENTS)
def test_each_content_has_its_form(says: Content, expected: Json) -> None:
    """A body is told as JSON, text, parts, or by size, type and digest."""
    assert read(entry(asked=says))["request"] == {"headers": [], "size": 0, "body": expected}
    assert read(frame_entry(says))["body"] == expected


@given(word=ANY, other=ANY)
def test_any_text_makes_one_valid_line(word: str, other: str) -> None:
    """Whatever the wire held, an entry is one line of ASCII that the schema allows."""
    asked = request(word, "/" + other, headers=((word, other),), garbled=other)
    answer = response(headers=((other, word),), interim=(103,))
    of = transaction(
        asked, answer, tunnel=Tunnel(word, reason=other, ended=word), broken=other
    )._replace(
        peer=Peer(1, 2, 3),
    )
    told = replace(seen(), operation=replace(seen().operation, id=word, err=other))
    says = Document({word: other})
    lines: list[Entry] = [
        entry(of, asked=says, answered=Text(word), stream=other, error=word, operation=told),
        entry(of, "upgraded"),
        entry(transaction(asked), "open", now=9_000_000_000),
        frame_entry(Text(word), of, stream=other, error=word),
        OperationEntry(told, AT),
        NoteEntry(word, AT),
    ]
    events = [read(each)["event"] for each in lines]
    assert events == ["transaction", "upgraded", "open", "frame", "operation", "note"]


def test_an_unanswered_transaction_has_nulls() -> None:
    """What is not known yet is null, and an empty body is absent."""
    value = read(entry(transaction(), "open", now=2_500_000_000))
    assert (value["status"], value["response"], value["tunnel"]) == (None, None, None)
    assert value["request"] == {"headers": [], "size": 0}


@pytest.mark.parametrize(
    ("wall", "written"),
    [(0, "1970-01-01T00:00:00.000000Z"), (WALL, "2023-11-14T22:13:20.123456Z")],
)
def test_times_are_in_utc(wall: int, written: str) -> None:
    """A time is written to the microsecond, in UTC."""
    assert jsonformat.timestamp(wall) == written


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\ud83dx", "\ufffdx"),
        ("\udc80", "\ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\U0001f600\ud83d", "\U0001f600\ufffd"),
        ("\\ud800 \\\\ud800", "\\ud800 \\\\ud800"),
        ("\\\ud800", "\\\ufffd"),
        ("\x7f\x1b\x9b\u202e", "\x7f\x1b\x9b\u202e"),
    ],
)
def test_half_characters_become_whole_ones(text: str, told: str) -> None:
    """Strict JSON readers refuse a lone surrogate; all else is told as it was, escaped."""
    assert read(entry(asked=Document({"a": text})))["request"] == {
        "headers": [],
        "size": 0,
        "body": {"json": {"a": told}},
    }
