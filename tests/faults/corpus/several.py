"""Several requests on a connection."""

from __future__ import annotations

from .case import BAD, CHUNKED, GET, OK, Case, answer, chunked, post, request

_POST = post("Content-Length: 4", body=b"ping")
_CHUNKS = post(CHUNKED, body=chunked(b"hello"))
_HEAD = request(line="HEAD /1.0 HTTP/1.1")
_NO_BODY = answer(body=b"", line="HTTP/1.1 200 OK\r\nContent-Length: 9", length=False)
_ASKED = request("Connection: Upgrade", "Upgrade: websocket", line="GET /1.0/events HTTP/1.1")
_REFUSED = answer(line="HTTP/1.1 403 Forbidden", body=b"no")
_GRANTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def _long(head: bytes, size: int) -> bytes:
    """A head of that many bytes."""
    filled = head[:-2] + b"X: " + b"a" * (size - len(head) - 5) + b"\r\n\r\n"
    assert len(filled) == size
    return filled


SEVERAL = (
    Case("keep-alive", "one after the other", (">>", GET, "<<", OK) * 5, ("GET 200",) * 5),
    Case(
        "pipelined",
        "three at once, answered at once",
        (">>", GET * 3, "<<", OK * 3),
        ("GET 200",) * 3,
    ),
    Case(
        "pipelined, 100", "as many at once", (">>", GET * 100, "<<", OK * 100), ("GET 200",) * 100
    ),
    Case(
        "pipelined, answered one by one",
        "three at once",
        (">>", GET * 3, "<<", OK, OK, OK),
        ("GET 200",) * 3,
    ),
    Case(
        "pipelined of all kinds",
        "with bodies counted and chunked, and HEAD",
        (">>", GET + _POST + _CHUNKS + _HEAD + GET, "<<", OK + OK + OK + _NO_BODY + OK),
        ("GET 200", "POST 200", "POST 200", "HEAD 200", "GET 200"),
    ),
    Case(
        "pipelined, with half a head",
        "of the third",
        (">>", GET * 2 + GET[:9], "<<", OK * 2, ">>", GET[9:], "<<", OK),
        ("GET 200",) * 3,
    ),
    Case(
        "pipelined, with half an answer",
        "of the second",
        (">>", GET * 2, "<<", OK + OK[:9], OK[9:]),
        ("GET 200",) * 2,
    ),
    Case(
        "pipelined behind a close",
        "the second is not answered",
        (">>", request("Connection: close") + GET, "<<", answer("Connection: close"), "<x"),
        ("GET 200", "GET - broken"),
    ),
    Case(
        "pipelined behind a refusal",
        "the second is not answered",
        (">>", post("Content-Length: x") + GET, "<<", BAD, "<x"),
        ("POST 400 garbled",),
    ),
    Case(
        "pipelined behind an early answer",
        "in the body of the first",
        (
            ">>",
            post("Content-Length: 4", body=b"ab"),
            "<<",
            OK,
            ">>",
            b"cd" + GET + GET,
            "<<",
            OK * 2,
        ),
        ("POST 200", "GET 200", "GET 200"),
    ),
    Case(
        "pipelined chunks",
        "three bodies of chunks at once",
        (">>", _CHUNKS * 3, "<<", OK * 3),
        ("POST 200",) * 3,
    ),
    Case(
        "pipelined, interims between",
        "each answer has its 100",
        (">>", GET * 3, "<<", (b"HTTP/1.1 100 Continue\r\n\r\n" + OK) * 3),
        ("GET 200",) * 3,
    ),
    Case(
        "pipelined, half-closed",
        "and then answered",
        (">>", GET * 3, ">|", "<<", OK * 3, "<x"),
        ("GET 200",) * 3,
    ),
    Case(
        "pipelined behind a 101 refused",
        "an upgrade first",
        (">>", _ASKED + GET, "<<", _REFUSED + OK),
        ("GET 403", "GET 200"),
    ),
    Case(
        "an upgrade in the middle, refused",
        "requests before and after it, all at once",
        (">>", GET + _ASKED + GET, "<<", OK + _REFUSED + OK),
        ("GET 200", "GET 403", "GET 200"),
    ),
    Case(
        "an upgrade in the middle, granted",
        "what follows it are frames",
        (">>", GET + _ASKED + b"\x81\x80abcd", "<<", OK + _GRANTED + b"\x81\x02hi"),
        ("GET 200", "GET 101 websocket"),
    ),
    Case(
        "an upgrade in the middle, one by one",
        "each answered by itself",
        (">>", GET + _ASKED + GET, "<<", OK, _REFUSED, OK),
        ("GET 200", "GET 403", "GET 200"),
    ),
    Case(
        "two upgrades",
        "the first refused, the second granted",
        (">>", _ASKED + _ASKED + b"\x81\x80abcd", "<<", _REFUSED, _GRANTED),
        ("GET 403", "GET 101 websocket"),
    ),
    Case(
        "an answer too many",
        "one request, two answers, and the next request",
        (">>", GET, "<<", OK + OK, ">>", GET),
        ("GET 200", "? 200 garbled"),
    ),
    Case(
        "interleaved",
        "the next request while the answer still comes",
        (">>", GET, "<<", OK[:-1], ">>", GET, "<<", OK[-1:] + OK),
        ("GET 200",) * 2,
    ),
    Case(
        "a large body each way",
        "300 KiB: over what a socket takes at once",
        (
            ">>",
            post("Content-Length: 300000", body=b"a" * 300000),
            "<<",
            answer(body=b"b" * 300000),
        ),
        ("POST 200",),
    ),
    # -- what looks the same, and is not
    Case(
        "one head, other bodies",
        "the same first lines, five times",
        (
            ">>",
            post("Content-Length: 2", body=b"a1"),
            "<<",
            answer(body=b"b1"),
            ">>",
            post("Content-Length: 2", body=b"a2"),
            "<<",
            answer(body=b"b2"),
            ">>",
            post("Content-Length: 2", body=b"a3") + post("Content-Length: 2", body=b"a4"),
            "<<",
            answer(body=b"b3") + answer(body=b"b4"),
            ">>",
            post("Content-Length: 2", body=b"a5"),
            "<<",
            answer(body=b"b5"),
        ),
        ("POST 200",) * 5,
    ),
    Case(
        "one head of an answer",
        "to HEAD, to GET, and to HEAD again",
        (">>", _HEAD, "<<", OK[:-2], ">>", GET, "<<", OK, ">>", _HEAD, "<<", OK[:-2]),
        ("HEAD 200", "GET 200", "HEAD 200"),
    ),
    Case(
        "one head of a request",
        "in a body, and by itself",
        (">>", post(f"Content-Length: {len(GET)}"), GET, "<<", OK, ">>", GET, "<<", OK),
        ("POST 200", "GET 200"),
    ),
    Case(
        "a request in the body of another",
        "each in a write of its own",
        (">>", post(f"Content-Length: {2 * len(GET)}"), GET, GET, GET, "<<", OK, OK),
        ("POST 200", "GET 200"),
    ),
    Case(
        "an answer in the body of another",
        "each in a write of its own",
        (
            ">>",
            GET,
            GET,
            "<<",
            answer(f"Content-Length: {len(OK)}", body=b"", length=False),
            OK,
            OK,
        ),
        ("GET 200", "GET 200"),
    ),
    Case(
        "an answer in a chunk",
        "in a write of its own",
        (
            ">>",
            GET,
            GET,
            "<<",
            answer(CHUNKED, body=b"%x\r\n" % len(OK), length=False),
            OK,
            b"\r\n0\r\n\r\n",
            OK,
        ),
        ("GET 200", "GET 200"),
    ),
    Case(
        "an answer in an answer until close",
        "in a write of its own",
        (">>", GET, GET, "<<", answer(body=b"", length=False), OK, "<x"),
        ("GET 200", "GET - broken"),
    ),
    Case(
        "an answer between the halves of a request",
        "the head's, then the body's",
        (">>", GET + GET[:9], "<<", OK, ">>", GET[9:], "<<", OK),
        ("GET 200",) * 2,
    ),
    Case(
        "a request between the halves of an answer",
        "the head's, then the body's",
        (">>", GET, "<<", OK[:9], ">>", GET, "<<", OK[9:], OK),
        ("GET 200",) * 2,
    ),
    Case(
        "a whole answer to half a body",
        "and the next request in one write with the rest",
        (">>", post("Content-Length: 4", body=b"ab"), "<<", OK, ">>", b"cd", GET, "<<", OK),
        ("POST 200", "GET 200"),
    ),
    Case(
        "a whole answer to half a body, and another",
        "the second before the first's body is whole",
        (">>", post("Content-Length: 4", body=b"ab"), "<<", OK, OK, ">>", b"cd", "<x"),
        ("POST 200 broken", "? 200 garbled"),
    ),
    Case(
        "a whole answer to an upgrade",
        "refused, and then whole requests",
        (">>", _ASKED, GET, "<<", _REFUSED, OK, ">>", GET, "<<", OK),
        ("GET 403", "GET 200", "GET 200"),
    ),
    Case(
        "whole requests behind garbage",
        "none of which is one any more",
        (">>", b"garbage\r\n\r\n", GET, GET, "<<", BAD, "<x"),
        ("? 400 garbled",),
    ),
    Case(
        "whole requests behind two lengths",
        "which are the body's",
        (">>", post("Content-Length: 1", "Content-Length: 2"), GET, GET, "<<", BAD, "<x"),
        ("POST 400 garbled",),
    ),
    Case(
        "whole answers behind an interim one",
        "which is no answer",
        (">>", GET, GET, "<<", b"HTTP/1.1 100 Continue\r\n\r\n", OK, OK),
        ("GET 200",) * 2,
    ),
    Case(
        "a whole answer in a tunnel",
        "which is bytes there",
        (
            ">>",
            request("Upgrade: tcp"),
            "<<",
            b"HTTP/1.1 101 Yes\r\nUpgrade: tcp\r\n\r\n",
            OK,
            ">>",
            GET,
        ),
        ("GET 101 tcp",),
    ),
    Case(
        "a whole answer that ends early",
        "its first empty line ends in LF alone",
        (">>", GET, "<<", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nX\r\n\r\n", "<x"),
        ("GET 200", "? - opaque garbled"),
    ),
    Case(
        "a whole request that ends early",
        "its first empty line ends in LF alone",
        (">>", b"GET /1.0 HTTP/1.1\nHost: x\n\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n", "<<", OK + OK),
        ("GET 200", "GET 200"),
    ),
    *[
        Case(
            f"a head of {size} bytes",
            "around 4 KiB",
            (">>", _long(GET, size), "<<", _long(OK[:-2], size) + b"hi"),
            ("GET 200",),
        )
        for size in (4091, 4092, 4093, 4095, 4096, 4097, 4100)
    ],
    *[
        Case(
            f"{count} chunks",
            "both ways, in one write each",
            (
                ">>",
                post(CHUNKED, body=chunked(*[b"a"] * count)),
                "<<",
                answer(CHUNKED, body=chunked(*[b"b"] * count), length=False),
                ">>",
                GET,
                "<<",
                OK,
            ),
            ("POST 200", "GET 200"),
        )
        for count in (63, 64, 65, 1000)
    ],
)
