"""What a call came to, without any daemon: data, summaries, errors, pickles."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from lxdtap.api.result import (
    LONGEST,
    APIConnectionError,
    APIException,
    APINotFoundException,
    APIRequest,
    APIResponse,
    Result,
)
from lxdtap.content import Document
from lxdtap.errors import LxdtapError
from lxdtap.log.entries import TransactionEntry
from lxdtap.transaction import Request, Timing, Transaction

BASE = "http+unix://%2Flxd"
REQUEST = APIRequest("PUT", f"{BASE}/1.0/x?secret=not-to-be-shown", b'{"a": 1}')
JSON = {"Content-Type": "application/json"}


def result(document: object, status: int = 200, *, request: APIRequest = REQUEST) -> Result:
    return Result(request, APIResponse(status, JSON, json.dumps(document).encode()))


def entry(**more: Any) -> TransactionEntry:  # noqa: ANN401 - an entry's fields
    asked = Request("PUT", "/1.0/x?secret=REDACTED-1")
    return TransactionEntry(Transaction(1, BASE, asked, Timing(0, 0)), **more)


def test_response() -> None:
    """Content as it is, as text, and as JSON."""
    response = APIResponse(200, {}, b'"\xc3\xa9"')
    assert (response.text, response.json()) == ('"é"', "é")
    assert APIResponse(200, {}, b"\xff").text == "\ufffd"
    with pytest.raises(ValueError, match="Expecting value"):
        APIResponse(200).json()


@pytest.mark.parametrize(
    ("headers", "content", "data"),
    [
        (JSON, b'{"metadata": 1}', {"metadata": 1}),
        ({"content-type": "Application/JSON; x"}, b"5", 5),
        ({}, b"[1]", [1]),
        ({}, b"5", None),
        (JSON, b"", None),
        (JSON, b"[" * 100_000, None),
        ({"Content-Type": "application/octet-stream"}, b"\x1f\x8b", None),
    ],
)
def test_data(headers: dict[str, str], content: bytes, data: object) -> None:
    """JSON is read where it is said to be, or looks so; what is none is no data."""
    made = Result(REQUEST, APIResponse(200, headers, content))
    assert made.data == data
    assert made.metadata == (1 if isinstance(data, dict) else None)


def test_summaries() -> None:
    """Method, URL, body; status, body: each as in the DEBUG text, without secrets."""
    made = result({"type": "sync"})
    asked = f'PUT {BASE}/1.0/x?secret=REDACTED-1\n{{\n\t"a": 1\n}}'
    assert made.request_summary() == asked
    assert made.response_summary() == 'HTTP/200\n{\n\t"type": "sync"\n}'
    assert made.transaction is None
    assert repr(made) == f"<PUT {BASE}/1.0/x?secret=REDACTED-1: 200, 16 bytes>"


def test_summaries_of_what_was_seen() -> None:
    """Where the core saw the transaction, its words count."""
    seen = entry(request=Document(1), response=Document(2), error="said")
    made = Result(REQUEST, APIResponse(400), seen)
    assert made.request_summary() == f"PUT {BASE}/1.0/x?secret=REDACTED-1\n1"
    assert made.response_summary() == "HTTP/400\n2"
    assert made.transaction is seen.transaction
    assert made.error == "said"
    assert made.url == f"{BASE}/1.0/x?secret=REDACTED-1"
    assert APIException(made).result is made
    assert str(made._broke_off("why")) == f"PUT {made.url} why"  # noqa: SLF001


def test_broke_off() -> None:
    """What the core saw of an end is the better word for it."""
    asked = Request("PUT", "/1.0/x")
    seen = TransactionEntry(Transaction(1, BASE, asked, Timing(0, 0), broken="it left"))
    error = Result(REQUEST, APIResponse(200), seen)._broke_off("why")  # noqa: SLF001
    assert str(error) == f"PUT {BASE}/1.0/x it left"
    assert str(result({})._broke_off("why")).endswith("why")  # noqa: SLF001


NESTED = {"type": "sync", "error": "", "metadata": {"metadata": {"status_code": 400, "err": "e"}}}


@pytest.mark.parametrize("document", [NESTED, {"type": "error", "error": "e", "error_code": 500}])
def test_validate_behind_200(document: object) -> None:
    """A failure raises however deep it is, and wins over the empty error outside."""
    with pytest.raises(APIException, match=r"^PUT .*/1\.0/x\?secret=REDACTED-1 e$") as raised:
        result(document).validate()
    assert raised.value.error == "e"


@pytest.mark.parametrize("document", [{}, [], None, {"metadata": [{"status_code": 400}]}, 5])
def test_validate_success(document: object) -> None:
    """All else is no failure, whatever it is; its error is empty."""
    made = result(document)
    made.validate()
    assert made.error == ""


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (404, b'{"error": "no such x"}', "no such x"),
        (500, b'{"metadata": {"status_code": 400, "err": "inner"}}', "inner"),
        (400, b'{"error": "", "password": "not-to-be-shown"}', '{"error": "", "password": "REDA'),
        (400, b'{"x": NaN, "error": "odd, secret=not-to-be-shown"}', "odd, secret=REDACTED-1"),
        (502, b" bad gateway\n", "bad gateway"),
        (502, b"x" * 5000, "x" * LONGEST),
        (500, b"\xff", "HTTP/500"),
        (500, b"", "HTTP/500"),
    ],
)
def test_errors(status: int, content: bytes, words: str) -> None:
    """A status of 400 or more raises, with the best words there are; 404 has its own exception."""
    kind = APINotFoundException if status == 404 else APIException
    with pytest.raises(APIException) as raised:
        Result(REQUEST, APIResponse(status, {}, content)).validate()
    assert type(raised.value) is kind
    assert raised.value.error.startswith(words)
    assert "not-to-be-shown" not in str(raised.value)
    assert isinstance(raised.value, LxdtapError)


@pytest.mark.parametrize(
    ("operation", "timeout", "url"),
    [
        ("/1.0/operations/u", 30, "/1.0/operations/u/wait?timeout=30"),
        ("/1.0/operations/u?project=p", 1e6, "/1.0/operations/u/wait?timeout=1000000&project=p"),
        ("/1.0/operations/u", 0.2, "/1.0/operations/u/wait?timeout=1"),
        ("/1.0/operations/u", -0.5, "/1.0/operations/u/wait?timeout=-1"),
        ("/1.0/operations/u", float("inf"), "/1.0/operations/u/wait?timeout=-1"),
        ("", 30, None),
        (None, 30, None),
        (5, 30, None),
    ],
)
def test_wait_url(operation: object, timeout: float, url: str | None) -> None:
    """Where to wait, in the operation's project, for a whole number of seconds."""
    assert result({"operation": operation}).wait_url(timeout) == url
    assert result([]).wait_url(timeout) is None


@pytest.mark.parametrize("kind", [APIException, APINotFoundException])
def test_pickles(kind: type[APIException]) -> None:
    """An exception survives pickling and copying with all that it has."""
    error = kind(result(NESTED, 404))
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(again), str(again), again.error) == (kind, str(error), "e")
        assert again.result.data == NESTED
        assert again.result.request == REQUEST


def test_connection_error() -> None:
    """Its message is what was asked and why it broke off; it survives pickling too."""
    error = APIConnectionError(APIRequest("GET", f"{BASE}/1.0"), "broke off")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert str(each) == f"GET {BASE}/1.0 broke off"
        assert (each.request, each.reason) == (error.request, "broke off")
