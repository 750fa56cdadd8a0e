"""YAML read event by event: only what was asked for, whatever there is."""

from __future__ import annotations

from typing import Any

import pytest

from lxdtap.cassette import cursor
from lxdtap.cassette.cursor import Cursor, Read
from lxdtap.cassette.model import CassetteError


def read(text: str | bytes, how: Read) -> Any:  # noqa: ANN401 - whatever is read
    data = text.encode() if isinstance(text, str) else text
    return Cursor([data]).document(how)


def numbers(at: Cursor) -> list[int]:
    return [at.integer() for _ in at.items("numbers")]


def mapping(at: Cursor) -> Any:  # noqa: ANN401 - whatever is read
    return at.mapping("a thing", {"a": Cursor.integer, "b": numbers}, ["a"])


def choices(at: Cursor) -> Any:  # noqa: ANN401 - whatever is read
    return at.mapping("a choice", dict.fromkeys("ab", lambda at: at.choice({"1": 1})))


def refused(text: str | bytes, how: Read) -> str:
    with pytest.raises(CassetteError) as caught:
        read(text, how)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_values_have_the_types_that_are_asked_for() -> None:
    """A scalar is what it is spelled as, until it is asked to be more."""
    assert read("no\n", Cursor.text) == "no"
    assert read("120\n", Cursor.integer) == 120
    assert read("false\n", Cursor.boolean) is False
    assert read("b\n", lambda at: at.choice({"a": 1, "b": 2})) == 2
    assert read("ff\n", lambda at: at.parsed(lambda word: int(word, 16))) == 255
    assert read("b: [1, 2]\na: 0\n", mapping) == {"a": 0, "b": [1, 2]}


@pytest.mark.parametrize("text", ['"1"\n', "01\n", "-1\n", "1.0\n", "x\n", "9" * 99 + "\n", "٣\n"])
def test_numbers_are_plain_and_short(text: str) -> None:
    """What YAML's readers take for different numbers, or for none, is none."""
    assert "not a whole number" in refused(text, Cursor.integer)


@pytest.mark.parametrize("text", ['"true"\n', "yes\n", "True\n", "1\n", "\n"])
def test_truth_has_one_spelling(text: str) -> None:
    """The one that all of YAML's versions know."""
    assert refused(text, Cursor.boolean).startswith("line 1: ")


def test_blocks_tell_where_their_text_begins() -> None:
    """A literal one begins in the line after its sign."""
    assert read("|\n  a\n  b\n", Cursor.block) == ("a\nb\n", 2)
    assert read('"a"\n', Cursor.block) == ("a", 1)


def test_a_mapping_s_errors_name_the_line() -> None:
    """Unknown, repeated and missing keys, and what is no mapping at all."""
    assert refused("a: 1\nc: 2\n", mapping) == "line 2: 'c' is no key of a thing: use one of a, b"
    assert refused("a: 1\na: 2\n", mapping) == "line 2: 'a' stands twice in a thing: take one out"
    assert refused("\nb: []\n", mapping) == "line 2: a thing has no a: add it"
    assert refused("{}\n", mapping) == "line 1: a thing has no a: add it"
    assert "as a mapping" in refused("- a\n", mapping)
    assert "text is wanted" in refused("[a]: 1\n", mapping)
    assert "as a list" in refused("a: 1\nb: 2\n", mapping)
    assert "line 2: 'x' is none of 1" in refused("a: 1\nb: x\n", choices)
    assert "line 1: 'x': invalid literal" in refused("x\n", lambda at: at.parsed(int))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("!!python/object:os.system x\n", "tags"),
        ("! x\n", "tags"),
        ("&a x\n", "anchors"),
        ("*a\n", "aliases"),
        ("a: !!str 1\n", "tags"),
        ("a: &b 1\nb: *b\n", "anchors"),
        ("a: 1\nb: !!seq []\n", "tags"),
        ("a: 1\nb: &x []\n", "anchors"),
    ],
)
def test_tags_and_aliases_are_not_taken(text: str, what: str) -> None:
    """Nothing is made by a cassette's word, and nothing grows out of itself."""
    assert what in refused(text, mapping)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("b: [1}\n", 1),
        ("a: 1\nb: 'x\n", 3),
        ("a: 1\n\tb: 1\n", 2),
        ("a: 1\nb: \x01\n", 2),
        (b"a: 1\nb: \xff\n", 2),
        (b"a: 1\n#\n#" + b"x" * 100_000 + b"\n\nb: \x00\n", 5),
        (b"a: 1\nb: \xc3", 2),
        ("a: 1\nb: [\x7f]\n", 2),
        ("%YAML 9.9\n---\na: 1\n", 1),
    ],
)
def test_what_is_no_yaml_is_told_of_by_its_line(text: str | bytes, line: int) -> None:
    """Where the parser stumbled, or the character that may not be."""
    assert refused(text, mapping).startswith(f"line {line}: ")


@pytest.mark.parametrize("bom", [b"\xff\xfe", b"\xfe\xff"])
def test_only_utf_8_is_read(bom: bytes) -> None:
    """Other encodings cannot be told from damage."""
    assert "UTF-8" in refused(bom + "a: 1\n".encode("utf-16-le"), mapping)


def test_what_editors_add_is_taken() -> None:
    """A byte order mark, line ends of other systems, comments, document marks."""
    text = "\ufeff# hello\r\n---\r\na: 1 # one\r\nb:\r\n- 2\r\n...\r\n# bye\r\n"
    assert read(text, mapping) == {"a": 1, "b": [2]}


@pytest.mark.parametrize("text", ["", "\n", "# a\n"])
def test_an_empty_text_is_no_document(text: str) -> None:
    """Nothing is not an empty recording."""
    assert "empty" in refused(text, mapping)


def test_it_ends_with_its_last_newline() -> None:
    """A text that was cut before it is not whole; nor is one with something behind it."""
    assert "newline" in refused("a: 1", mapping)
    assert "another document" in refused("a: 1\n---\na: 1\n", mapping)
    assert "not YAML" in refused("a: 1\n...\n[\n", mapping)


HOSTILE = [
    *("a: " + each * 200_000 for each in ("[", "{", "- ", "? ", "[{a: ", "\n ", "#", "'", "| ")),
    "%TAG !a! b\n" * 200_000,
    "a: 1\n...\n" + "".join(f"%TAG !{n}! b\n" for n in range(20_000)),
    "".join(f"%TAG !{n}! b\n" for n in range(20_000)),
    "a: " + "9" * 1_000_000,
    "a: " + "x" * (cursor.LONGEST * 2),
    "a: 1\n" + "#" * (cursor.LONGEST * 2),
    "a: 1\nb: [" + "\n" * (cursor.LONGEST * 2),
    "a: &a [*a, *a]\n" * 200_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.timeout(10)
def test_hostile_text_is_refused_soon(text: str) -> None:
    """Nesting, length, repetition: none of them takes time or stack."""
    refused(text + "\n", mapping)


def test_small_pieces_and_large_make_no_difference() -> None:
    """Byte for byte, or all at once."""
    data = b"a: 1\nb: [" + b"1, " * 50_000 + b"2]\n"
    whole = Cursor([data]).document(mapping)
    assert (
        Cursor([b"", *(data[i : i + 1] for i in range(200)), data[200:]]).document(mapping) == whole
    )


def test_what_comes_next_can_be_asked_for() -> None:
    """A value may have two forms."""
    assert read("a: 1\n", lambda at: at.begins_mapping() and mapping(at)) == {"a": 1}
    assert read("x\n", lambda at: at.begins_mapping() or at.text()) == "x"
