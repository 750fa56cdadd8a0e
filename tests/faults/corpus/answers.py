"""What daemons answer: bodies that have none, framings, several, too early, too many."""

from __future__ import annotations

from .case import CHUNKED, GET, OK, Case, answer, chunked, post, request

_HEAD = request(line="HEAD /1.0 HTTP/1.1")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def _answered(name: str, what: str, response: bytes, *told: str, asked: bytes = GET) -> Case:
    """A request, what is answered, and the daemon hangs up."""
    return Case(name, what, (">>", asked, "<<", response, "<x"), told or ("GET 200",))


def _next(name: str, what: str, response: bytes, *told: str, asked: bytes = GET) -> Case:
    """A request and its answer, and another: was the answer's end where it was taken to be?"""
    words = (">>", asked, "<<", response, ">>", GET, "<<", OK)
    return Case(name, what, words, told or ("GET 200", "GET 200"))


ANSWERS = (
    # -- without bodies
    _next(
        "HEAD",
        "a length, and no body (RFC 9110, 9.3.2)",
        answer(body=b"", line="HTTP/1.1 200 OK\r\nContent-Length: 120", length=False),
        "HEAD 200",
        "GET 200",
        asked=_HEAD,
    ),
    _next(
        "HEAD, 501",
        "as LXD answers it",
        answer(body=b"", line="HTTP/1.1 501 No\r\nContent-Length: 120", length=False),
        "HEAD 501",
        "GET 200",
        asked=_HEAD,
    ),
    _next(
        "HEAD of chunks",
        "the header and no chunk",
        answer(CHUNKED, body=b"", length=False),
        "HEAD 200",
        "GET 200",
        asked=_HEAD,
    ),
    Case(
        "HEAD with a body",
        "which it must not have: the body is taken for an answer",
        (">>", _HEAD, "<<", answer(), "<x"),
        ("HEAD 200", "? - opaque garbled"),
    ),
    _next(
        "204",
        "no content",
        answer(line="HTTP/1.1 204 No Content", body=b"", length=False),
        "GET 204",
        "GET 200",
    ),
    _next(
        "204 with a length",
        "which it must not have",
        answer(line="HTTP/1.1 204 No Content\r\nContent-Length: 2", body=b"", length=False),
        "GET 204",
        "GET 200",
    ),
    _next(
        "304 with a length",
        "of what would be sent",
        answer(line="HTTP/1.1 304 Not Modified\r\nContent-Length: 2", body=b"", length=False),
        "GET 304",
        "GET 200",
    ),
    Case(
        "304 with a body",
        "which it must not have: it is taken for an answer",
        (">>", GET, "<<", answer(line="HTTP/1.1 304 Not Modified"), "<x"),
        ("GET 304", "? - opaque garbled"),
    ),
    # -- framings
    _next(
        "an answer of chunks", "and the last", answer(CHUNKED, body=chunked(b"hello"), length=False)
    ),
    _next(
        "an answer with trailers",
        "after its last chunk",
        answer(CHUNKED, body=chunked(b"hello", last=b"0\r\nX: a\r\n\r\n"), length=False),
    ),
    _next(
        "an answer of a byte a chunk",
        "32 of them",
        answer(CHUNKED, body=chunked(*[b"a"] * 32), length=False),
    ),
    _next(
        "an answer of chunks and a length",
        "chunks win",
        answer(CHUNKED, "Content-Length: 3", body=chunked(b"hello"), length=False),
    ),
    _answered("until close", "neither length nor chunks", answer(length=False)),
    _answered("until close in HTTP/1.0", "the same", answer(length=False, line="HTTP/1.0 200 OK")),
    _answered(
        "an answer of chunks in HTTP/1.0",
        "which has none: until close",
        answer(CHUNKED, body=chunked(b"a"), length=False, line="HTTP/1.0 200 OK"),
    ),
    _answered(
        "an answer of two lengths",
        "neither is right",
        answer("Content-Length: 2", "Content-Length: 3", length=False),
        "GET 200 broken",
    ),
    _answered("an answer of two equal lengths", "are one", answer("Content-Length: 2")),
    _answered(
        "an answer of another coding",
        "gzip",
        answer("Transfer-Encoding: gzip", length=False),
        "GET 200 broken",
    ),
    _answered(
        "a malformed chunk in an answer",
        "zz",
        answer(CHUNKED, body=b"2\r\nhi\r\nzz\r\n", length=False),
        "GET 200 broken",
    ),
    _answered(
        "no last chunk in an answer",
        "the daemon dies",
        answer(CHUNKED, body=b"2\r\nhi\r\n", length=False),
        "GET 200 broken",
    ),
    _answered(
        "a body cut short",
        "98 of 100 bytes are missing",
        answer("Content-Length: 100", length=False),
        "GET 200 broken",
    ),
    _answered(
        "a body too long",
        "two bytes of 100 more than said: taken for an answer",
        answer("Content-Length: 2", body=b"hiho", length=False),
        "GET 200",
        "? - opaque garbled",
    ),
    # -- heads
    _answered(
        "no reason", "nor the space before it", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi"
    ),
    _answered("an empty reason", "and its space", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi"),
    _answered("a reason beyond ASCII", "in latin-1", answer(line="HTTP/1.1 200 \xc4\xd6")),
    _answered("bare LF in an answer", "ends its lines", OK.replace(b"\r\n", b"\n")),
    _answered(
        "obs-fold in an answer",
        "a folded length",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nhi",
    ),
    _answered(
        "a status of two digits", "no answer of HTTP", b"HTTP/1.1 20 OK\r\n\r\n", "GET - opaque"
    ),
    _answered("a status of four digits", "nor this", b"HTTP/1.1 2000 OK\r\n\r\n", "GET - opaque"),
    _answered("a status of 999", "is one", answer(line="HTTP/1.1 999 What"), "GET 999"),
    _answered("a status of 000", "is interim to nobody", answer(line="HTTP/1.1 000 What"), "GET 0"),
    _answered("HTTP/0.9's answer", "no head at all", b"<html>hi</html>\n", "GET - broken"),
    _answered(
        "an answer of garbage", "with an empty line in it", b"\xff\xfe\r\n\r\n\x00", "GET - opaque"
    ),
    _answered("an empty line before an answer", "which is none", b"\r\n" + OK, "GET - opaque"),
    _answered(
        "response splitting",
        "a value that went for two answers: the second is nobody's",
        answer("X: a") + answer("Set-Cookie: x"),
        "GET 200",
        "? 200 garbled",
    ),
    # -- 1xx
    _next(
        "several interim answers",
        "100, 102, 103, then the real one",
        _CONTINUE + b"HTTP/1.1 102 Processing\r\n\r\n" + _HINTS + OK,
    ),
    _next(
        "an interim answer with a length",
        "which says nothing of it",
        b"HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\n" + OK,
    ),
    Case("200 interim answers", "in a row", (">>", GET, "<<", _CONTINUE * 200, OK), ("GET 200",)),
    _answered("nothing after an interim answer", "the daemon dies", _CONTINUE, "GET - broken"),
    Case(
        "an interim answer between requests",
        "to a question that comes later",
        (">>", GET, "<<", OK, _CONTINUE, ">>", GET, "<<", OK),
        ("GET 200", "? 200 garbled"),
    ),
    # -- too early, too late
    Case(
        "answered before the head is whole",
        "408",
        (">>", GET[:10], "<<", answer("Connection: close", line="HTTP/1.1 408 Timeout"), "<x"),
        ("? 408 garbled",),
    ),
    Case(
        "answered before a byte is sent",
        "408 on an idle connection",
        ("<<", answer("Connection: close", line="HTTP/1.1 408 Timeout"), "<x"),
        ("? 408 garbled",),
    ),
    Case(
        "answered before the body is whole",
        "413, and the rest comes all the same",
        (
            ">>",
            post("Content-Length: 10", body=b"hello"),
            "<<",
            answer(line="HTTP/1.1 413 Too Large"),
            ">>",
            b"world" + GET,
            "<<",
            OK,
        ),
        ("POST 413", "GET 200"),
    ),
    Case(
        "answered before the chunks are over",
        "413, and the rest never comes",
        (
            ">>",
            post(CHUNKED, body=b"5\r\nhello\r\n"),
            "<<",
            answer("Connection: close", line="HTTP/1.1 413 Too Large"),
            "<x",
        ),
        ("POST 413 broken",),
    ),
    Case(
        "an answer in pieces around the body",
        "its head before the request's end, its body after",
        (">>", post("Content-Length: 4", body=b"ab"), "<<", OK[:-2], ">>", b"cd", "<<", b"hi"),
        ("POST 200",),
    ),
    _answered("no answer", "the daemon hangs up", b"", "GET - broken"),
    _answered("half a head of an answer", "the daemon dies", b"HTTP/1.1 200", "GET - broken"),
    Case(
        "a daemon that greets",
        "as SMTP does",
        ("<<", b"220 ready\r\n", "<x"),
        ("? - opaque garbled",),
    ),
)
