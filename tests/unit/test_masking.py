"""Redaction by the names that a test adds."""

from __future__ import annotations

from lxdtap.testing.masking import Masker


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
    """Nothing named is nothing more."""
    assert Masker([], [], []).text("/1.0?who=a&token=b") == "/1.0?who=a&token=REDACTED-1"


def test_one_secret_has_one_placeholder() -> None:
    """Wherever it was named, it is the same afterwards: so matching goes on to work."""
    masker = Masker(["pin"], ["x-pin"], ["pin"])
    found = masker.headers((("X-Pin", "1234"),))[0][1], masker.document({"pin": "1234"})
    assert (*found, masker.text("/?pin=1234")) == (
        *("REDACTED-1", {"pin": "REDACTED-1"}, "/?pin=REDACTED-1"),
    )
