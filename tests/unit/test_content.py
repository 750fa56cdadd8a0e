"""What a body says, whatever it was packed in; and no body is too odd."""

from __future__ import annotations

import gzip
import json
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap import content
from lxdtap.content import Binary, Content, Document, Json, Part, Parts, Text, document, read
from lxdtap.transaction import Body, Headers

from . import builders

JSON = (("Content-Type", "application/json; charset=utf-8"),)
PLAIN = (("Content-Type", "text/plain"),)


def said(data: bytes, headers: Headers = ()) -> Content:
    """What a whole body says."""
    return read(builders.body(data), headers)


@pytest.mark.parametrize(
    ("data", "headers", "says"),
    [
        (b"", JSON, None),
        (b"null", JSON, Document(None)),
        (b'{"a": 1}\n', JSON, Document({"a": 1})),
        (b' {"a": 1}', (), Document({"a": 1})),
        (b"[1]", PLAIN, Text("[1]", "text/plain")),
        (b'""\n', (), Text('""\n')),
        (b"{nope", JSON, Text("{nope", "application/json")),
        (b"hello", PLAIN, Text("hello", "text/plain")),
        (b"hello", (("Content-Type", "not a type"),), Text("hello")),
    ],
)
def test_json_and_text(data: bytes, headers: Headers, says: Content) -> None:
    """JSON where the type says so, or where there is none and it looks so; else text."""
    assert said(data, headers) == says


@pytest.mark.parametrize(
    ("data", "compact"),
    [(b'{"a":[1,"  "]}\n', b'{"a":[1,"  "]}'), (b'{"a": 1}', b""), (b'{"a":1.0e0}', b"")],
)
def test_what_came_compact_is_remembered(data: bytes, compact: bytes) -> None:
    """Only what is as it would be written again; two documents that say the same are the same."""
    found = document(data)
    assert found is not None
    assert found.compact == compact
    assert found == Document(json.loads(data))


@pytest.mark.parametrize("data", [b"\0abc", b"\xff\xfe", b"x" * (content.TEXT_LIMIT + 1)])
def test_binary(data: bytes) -> None:
    """What is not text, or too much of it, is described."""
    body = builders.body(data)
    assert read(body, PLAIN) == Binary(body.size, body.sha256, "text/plain", data)


def test_what_was_not_kept_whole_is_described() -> None:
    """The beginning of a document is not taken for the document."""
    body = builders.cut_body(b'{"a": 1}' + b" " * 100, 8)
    assert read(body, JSON) == Binary(108, body.sha256, "application/json", b'{"a": 1}')


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        "NaN",
        "-Infinity",
        "1e400",
        "9" * 5000,
        "[" * 200_000,
        "[" * 200 + "]" * 200,
        "[" * 90 + "1," * 100_000 + "1" + "]" * 90,
        "[" * 50 + "[1]," * 100_000 + "1" + "]" * 50,
        '{"a": "unfinished',
        '"\\',
    ],
)
def test_json_that_is_not_reindented(text: str) -> None:
    """What Python would change, or choke on, is no document; and nothing raises."""
    assert document(text.encode()) is None


def test_brackets_in_strings_are_not_depth() -> None:
    """Only nesting counts as depth, and only 100 levels are followed."""
    assert document(json.dumps(["[" * 500 + '"' + "]" * 10]).encode()) is not None
    assert document(b"[" * 100 + b"]" * 100) is not None
    assert document(json.dumps([[i] for i in range(200)]).encode()) is not None


@given(st.binary(max_size=200))
def test_no_body_is_too_odd(data: bytes) -> None:
    """Whatever comes, something is said of it, under any type."""
    for headers in (JSON, PLAIN, (), (("Content-Type", "multipart/x; boundary=b"),)):
        says = said(data, (*headers, ("Content-Encoding", "gzip")))
        assert (says is None) == (not data)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b'{"a": 1}')),
        ("x-gzip", gzip.compress(b'{"a": 1}')),
        ("Deflate", zlib.compress(b'{"a": 1}')),
        ("identity", b'{"a": 1}'),
    ],
)
def test_packed_bodies_are_unpacked(coding: str, packed: bytes) -> None:
    """A Content-Encoding is undone to be shown."""
    assert said(packed, (*JSON, ("Content-Encoding", coding))) == Document({"a": 1})


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("br", b'{"a": 1}'),
        ("gzip", b'{"a": 1}'),
        ("gzip", gzip.compress(b'{"a": 1}')[:-4]),
        ("gzip", gzip.compress(bytes(content.UNPACKED_LIMIT + 1))),
    ],
)
def test_what_cannot_be_unpacked_is_described(coding: str, packed: bytes) -> None:
    """Unknown, false, cut or exploding encodings are left as they are."""
    assert isinstance(said(packed, (*JSON, ("Content-Encoding", coding))), Binary)


def multipart(*parts: bytes, boundary: bytes = b"b1", end: bytes = b"--") -> bytes:
    """A multipart body."""
    joined = b"".join(b"\r\n--" + boundary + b"\r\n" + part for part in parts)
    return joined[2:] + b"\r\n--" + boundary + end


MIXED = (("Content-Type", 'multipart/form-data; boundary="b1"'),)
METADATA = b'Content-Disposition: form-data; name="metadata"\r\n\r\n{"a": 1}'


def test_a_multipart_body_is_taken_apart() -> None:
    """Each part has its headers, and says what it says."""
    data = multipart(METADATA, b"Content-Type: text/plain\r\n\r\nx\r\ny", b"odd line\r\n\r\n")
    says = said(data, MIXED)
    assert isinstance(says, Parts)
    disposition = (("Content-Disposition", 'form-data; name="metadata"'),)
    assert says.parts == (
        Part(disposition, Document({"a": 1})),
        Part((("Content-Type", "text/plain"),), Text("x\r\ny", "text/plain")),
        Part((), None),
    )
    assert (says.size, says.media_type) == (len(data), "multipart/form-data")


def test_a_part_that_was_not_kept_to_its_end() -> None:
    """A split image's second part is large: its beginning is there, and is said to be cut."""
    data = multipart(METADATA, b"\r\n" + b"x" * 500)
    says = read(builders.cut_body(data, 120), (("Content-Type", "multipart/x; boundary=b1"),))
    assert isinstance(says, Parts)
    assert [part.cut for part in says.parts] == [False, True]


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=other"])
def test_a_multipart_body_without_its_boundary(kind: str) -> None:
    """What cannot be taken apart is shown whole."""
    assert isinstance(said(multipart(METADATA), (("Content-Type", kind),)), Text)


def test_body_builder() -> None:
    """An empty body says nothing, whatever its headers claim."""
    assert read(Body(), (("Content-Encoding", "gzip"), *MIXED)) is None


@pytest.mark.parametrize(
    ("number", "held"),
    [
        ("1.5", True),
        ("-0.25", True),
        ("1.50", True),
        ("1E2", True),
        ("1.00000000000000000001", False),
        ("1e999", False),
    ],
)
def test_numbers_are_shown_only_as_they_are(number: str, *, held: bool) -> None:
    """A number that a double does not hold makes no document."""
    assert (document(number.encode()) == Document(float(number))) is held


def test_too_many_parts_are_not_told_apart() -> None:
    """A body with more parts than anyone sends is only described."""
    data = b"--b\r\n\r\nx\r\n" * (content.MOST_PARTS + 1)
    assert not isinstance(said(data, (("Content-Type", "multipart/mixed; boundary=b"),)), Parts)


@pytest.mark.parametrize("piece", ["[", '{"a":', '["', '[\\"', "\r\n--b", "\r\n-", "1"])
def test_hostile_bodies_raise_nothing(piece: str) -> None:
    """Four megabytes of anything are read, and in linear time."""
    data = (piece * ((4 << 20) // len(piece))).encode()
    assert said(data, JSON) is not None
    assert said(data, (("Content-Type", "multipart/mixed; boundary=b"),)) is not None


@pytest.mark.parametrize(
    "data",
    [
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xed\xa0\x80\xed\xb0\x80"}',
        b'\xef\xbb\xbf{"a": 1}',
        b"1e-99999999999999999999999",
        b'{"a": 1} {"b": 2}',
        b'{"a": 1e-400}',
    ],
)
def test_json_that_another_reader_would_guess_at(data: bytes) -> None:
    """Only strict UTF-8, one document and numbers that are held exactly make a document."""
    assert document(data) is None
    assert isinstance(said(data, JSON), (Text, Binary))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Also half a character, which JSON can only spell.
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON_VALUES, st.sampled_from([None, 1]), st.booleans())
def test_spelling_is_no_difference(value: Json, indent: int | None, ascii_only: bool) -> None:
    """A document says the same however it is written: as daemons write it, or otherwise."""
    separators = (",", ":") if indent is None else None
    written = json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=separators)
    if not ascii_only:
        written = re.sub(r"[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):x}", written)
    found = document(f"{written}\n".encode())
    assert found is not None
    assert json.dumps(found.value) == json.dumps(value)


def test_half_a_character_in_a_string() -> None:
    """JSON may spell a lone surrogate; the document holds it."""
    assert document(b'["\\ud800", "\\ud83d\\ude00"]') == Document(["\ud800", "\U0001f600"])


def test_what_follows_packed_data_is_not_left_out() -> None:
    """Of two gzip members the first is not shown as if it were all."""
    packed = gzip.compress(b'{"a": 1}') * 2
    assert isinstance(said(packed, (*JSON, ("Content-Encoding", "gzip"))), Binary)


@pytest.mark.timeout(20)
def test_parts_within_parts_are_not_followed() -> None:
    """However deep they go, a part of a part is text or bytes."""
    inner = b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    headers = (("Content-Type", "multipart/mixed; boundary=a"),)
    says = said(b"--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + inner * 50, headers)
    assert isinstance(says, Parts)
    assert [type(part.content) for part in says.parts] == [Text]


def test_a_boundary_is_a_whole_line() -> None:
    """A line that only begins like the boundary is the part's own."""
    data = multipart(b"\r\nx\r\n--b12\r\ny")
    says = said(data, MIXED)
    assert isinstance(says, Parts)
    assert says.parts == (Part((), Text("x\r\n--b12\r\ny")),)
