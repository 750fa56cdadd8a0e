"""Redaction by the names that a user adds."""

from __future__ import annotations

import pytest

from lxdtap.masking import Masker, Masks, masks
from lxdtap.redact import Redactor


def test_members_of_documents_are_masked_by_their_keys() -> None:
    """What stands under a named key is out, in any case and at any depth; the rest stays."""
    found = Masker(["pin"], [], []).document({"a": [{"PIN": "1234"}], "pins": 3})
    assert found == {"a": [{"PIN": "REDACTED-1"}], "pins": 3}


def test_what_else_is_secret_stays_so() -> None:
    """Names are added: known ones, and the caller's, count as before."""
    masker = Masker(["pin"], [], [])
    found = masker.document({"password": "x", "b": "y"}, lambda key, _value: key == "b")
    assert found == {"password": "REDACTED-1", "b": "REDACTED-2"}


def test_headers_are_masked_by_their_names() -> None:
    """In any case; an empty one has nothing to hide."""
    found = Masker([], ["X-Tenant"], []).headers(
        (("x-tenant", "acme"), ("X-Tenant", ""), ("Host", "lxd"))
    )
    assert found == (("x-tenant", "REDACTED-1"), ("X-Tenant", ""), ("Host", "lxd"))


def test_parameters_of_urls_are_masked_by_their_names() -> None:
    """The whole name counts, and only in a query."""
    found = Masker([], [], ["who"]).text("/1.0/x?who=a%20b&knowhow=c&z=1&who=a+b who=d")
    assert found == "/1.0/x?who=REDACTED-1&knowhow=c&z=1&who=REDACTED-1 who=d"


def test_without_names_it_is_any_redactor() -> None:
    """Nothing named is nothing more, and costs nothing."""
    for masker in masks([]).masker(), Masker([], [], []):
        assert masker.text("/1.0?who=a&token=b") == "/1.0?who=a&token=REDACTED-1"
        headers = (("X-Token", "b"), ("Host", "lxd"))
        assert masker.headers(headers) == (("X-Token", "REDACTED-1"), ("Host", "lxd"))
    assert type(masks([]).masker()) is Redactor


def test_one_secret_has_one_placeholder() -> None:
    """Wherever it was named, it is the same afterwards: so matching goes on to work."""
    masker = Masker(["pin"], ["x-pin"], ["pin"])
    found = masker.headers((("X-Pin", "1234"),))[0][1], masker.document({"pin": "1234"})
    assert (*found, masker.text("/?pin=1234")) == (
        *("REDACTED-1", {"pin": "REDACTED-1"}, "/?pin=REDACTED-1"),
    )


def test_names_as_they_are_typed() -> None:
    """A kind, a colon and a name; the redactor that they make takes these out."""
    given = masks(["key:pin", "header:X-Pin", "query:pin", "key:puk"])
    assert given == Masks(("pin", "puk"), ("X-Pin",), ("pin",))
    assert given.masker().document({"PUK": "1234", "b": "1234"}) == {
        "PUK": "REDACTED-1",
        "b": "1234",
    }
    assert given.masker().text("/1.0?pin=1234") == "/1.0?pin=REDACTED-1"


@pytest.mark.parametrize("text", ["", "pin", "key:", "cookie:pin", ":pin"])
def test_what_names_nothing_is_refused(text: str) -> None:
    """With the three ways to say it."""
    with pytest.raises(ValueError, match="is not key:NAME, header:NAME or query:NAME"):
        masks([text])
