"""JSON as text: nothing but white space changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.cassette import jsontext

from .conversation import cost

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
SPACES = st.text(" \t\r\n", max_size=3)


@given(VALUES, st.booleans())
def test_it_is_laid_out_as_json_does_it(value: object, ascii_: bool) -> None:
    """Two spaces a level, a line for each value, keys in their order."""
    text = json.dumps(value, ensure_ascii=ascii_, separators=(",", ":"))
    assert jsontext.indented(text) == json.dumps(value, ensure_ascii=ascii_, indent=2)


@given(VALUES, SPACES, SPACES)
def test_white_space_comes_and_goes(value: object, one: str, other: str) -> None:
    """However it is spaced, the compact text is the same, and the laid out one too."""
    plain = json.dumps(value, separators=(",", ":"))
    spaced = one + json.dumps(value, separators=(f"{one},{other}", f"{other}:{one}"), indent=1)
    laid = jsontext.indented(spaced, "\t")
    assert laid is not None
    assert jsontext.compact(laid) == jsontext.compact(spaced) == plain
    assert laid == jsontext.indented(plain, "\t")


def test_what_means_something_stays() -> None:
    """Repeated keys, the spelling of numbers, escapes, and brackets and spaces within strings."""
    text = r'{"a":1.0,"a":1E+2,"é\u003e\"[ ,":"{ : }\\","n":123456789012345678901234567890}'
    laid = jsontext.indented(text)
    assert laid is not None
    assert laid.splitlines()[3] == r'  "é\u003e\"[ ,": "{ : }\\",'
    assert jsontext.compact(laid) == text


def test_empty_brackets_stay_together() -> None:
    """An empty list or object takes no line of its own, whatever is between its brackets."""
    assert jsontext.indented('{"a": [ ],"b":{\n}}', "  ") == '{\n    "a": [],\n    "b": {}\n  }'


@pytest.mark.parametrize(
    "text", ["", "{", "nope", "[NaN]", "[Infinity]", "{} {}", '["\t"]', "[" * 10**5, "[1,]"]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    """It is one document of RFC 8259's, or it is not laid out."""
    with pytest.raises(ValueError, match=r"\w"):
        jsontext.check(text)
    assert jsontext.indented(text) is None


def test_what_nobody_could_read_is_left_alone() -> None:
    """Nesting, and so the growth by white space, is bounded; so is the number of lines."""
    deep, long = jsontext.DEEPEST, jsontext.MOST_LINES
    assert jsontext.indented("[" * deep + "1" + "]" * deep)
    assert jsontext.indented("[" * (deep + 1) + "1" + "]" * (deep + 1)) is None
    assert jsontext.indented(f"[{'1,' * (long - 2)}1]")
    assert jsontext.indented(f"[{'1,' * long}1]") is None


@pytest.mark.parametrize("piece", ['"', '"\\', "[", " ", "{", "-", '":"', "[ "])
def test_hostile_text_costs_no_more_than_its_length(piece: str) -> None:
    """Eight times as much takes about eight times as long."""

    def work(times: int) -> None:
        jsontext.compact(piece * times)
        jsontext.indented("[" + piece * times)

    assert cost(lambda: work(80_000)) < 40 * cost(lambda: work(10_000)) + 0.01


def test_a_number_of_many_digits_is_only_text() -> None:
    """Python refuses to know what 5,000 digits are worth, and so do we."""
    number = "1" * 5000
    assert jsontext.indented(f"[{number}]") == f"[\n  {number}\n]"
