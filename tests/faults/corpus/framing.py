"""How long a request's body is: what smuggles requests where two readers differ."""

from __future__ import annotations

from .case import BAD, CHUNKED, GET, OK, Case, chunked, post

_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def _whole(name: str, what: str, asked: bytes, *told: str) -> Case:
    """A request that is answered, and another after it: was its end where the daemon saw it?"""
    return Case(
        name, what, (">>", asked, "<<", OK, ">>", GET, "<<", OK), told or ("POST 200", "GET 200")
    )


def _refused(name: str, what: str, asked: bytes, *told: str) -> Case:
    """A request that a strict daemon refuses, and hangs up."""
    return Case(name, what, (">>", asked, "<<", BAD, "<x"), told or ("POST 400 garbled",))


FRAMING = (
    # -- lengths
    _whole("a length", "and so many bytes", post("Content-Length: 2", body=b"hi")),
    _whole("a length of 0", "no body", post("Content-Length: 0")),
    _whole("no length", "a POST without a body", post()),
    _whole(
        "a body of GET",
        "four bytes, as Ansible sends",
        post("Content-Length: 4", line="GET /1.0 HTTP/1.1", body=b"null"),
        "GET 200",
        "GET 200",
    ),
    _whole(
        "CL.0",
        "a body that looks like a request",
        post(f"Content-Length: {len(_SMUGGLED)}", body=_SMUGGLED),
    ),
    _whole(
        "CL.CL, equal",
        "the same length twice",
        post("Content-Length: 2", "Content-Length: 2", body=b"hi"),
    ),
    _refused("CL.CL", "two lengths", post("Content-Length: 2", "Content-Length: 3", body=b"hi!")),
    _refused(
        "CL.CL, the second smuggles",
        "which of them is the body's?",
        post("Content-Length: 0", f"Content-Length: {len(_SMUGGLED)}", body=_SMUGGLED),
    ),
    _refused(
        "a list of lengths",
        "equal ones, in one line (RFC 9112, 6.3)",
        post("Content-Length: 2, 2", body=b"hi"),
    ),
    _refused("a positive length", "with its sign", post("Content-Length: +2", body=b"hi")),
    _refused("a negative length", "less than nothing", post("Content-Length: -2", body=b"hi")),
    _refused("minus zero", "still a sign", post("Content-Length: -0")),
    _refused("a hexadecimal length", "0x2", post("Content-Length: 0x2", body=b"hi")),
    _refused("a length of words", "two", post("Content-Length: two", body=b"hi")),
    _refused("a length with a dot", "2.0", post("Content-Length: 2.0", body=b"hi")),
    _refused(
        "a length with an underscore",
        "as Python's int() takes it",
        post("Content-Length: 1_0", body=b"hi" * 5),
    ),
    _refused("a length with a space in it", "1 0", post("Content-Length: 1 0", body=b"hi" * 5)),
    _refused(
        "a length in other digits",
        "U+0662, which Python's isdigit() takes",
        post("Content-Length: \xd9\xa2", body=b"hi"),
    ),
    _refused(
        "a superscript length",
        "latin-1's ², a digit to str, not to int",
        post("Content-Length: \xb2", body=b"hi"),
    ),
    _refused("a length over 64 bits", "2**64", post(f"Content-Length: {2**64}", body=b"hi")),
    _refused("a length of 2**63", "one too much for an int64", post(f"Content-Length: {2**63}")),
    Case(
        "a length of 2**63 - 1",
        "allowed, and never fulfilled",
        (">>", post(f"Content-Length: {2**63 - 1}", body=b"hi"), "<<", OK, "<x"),
        ("POST 200 broken",),
    ),
    _refused(
        "a length of 5,000 digits",
        "over what Python's int() takes",
        post("Content-Length: " + "9" * 5000),
    ),
    _whole("a length with zeros", "before it", post("Content-Length: 0002", body=b"hi")),
    _whole(
        "5,000 zeros", "before a length", post("Content-Length: " + "0" * 5000 + "2", body=b"hi")
    ),
    _whole("an empty length", "as none, to Go", post("Content-Length:")),
    _refused(
        "a space before the length's colon",
        "seen by one reader, not by another",
        post("Content-Length : 2", body=b"hi"),
        "POST 400",
        "? - garbled broken",
    ),
    # -- chunks
    _whole("chunks", "and the last", post(CHUNKED, body=chunked(b"hello", b"you"))),
    _whole("no chunk but the last", "an empty body", post(CHUNKED, body=chunked())),
    _whole(
        "upper case",
        "the coding's name has none",
        post("transfer-encoding: CHUNKED", body=chunked(b"hello")),
    ),
    _whole(
        "CL.TE",
        "chunks win over a length",
        post("Content-Length: 6", CHUNKED, body=b"0\r\n\r\n"),
        "POST 200",
        "GET 200",
    ),
    Case(
        "CL.TE, smuggling",
        "what follows the last chunk is a request, to who minds chunks",
        (
            ">>",
            post(f"Content-Length: {5 + len(_SMUGGLED)}", CHUNKED, body=b"0\r\n\r\n" + _SMUGGLED),
            "<<",
            OK,
            "<<",
            OK,
        ),
        ("POST 200", "GET 200"),
    ),
    _whole(
        "TE.CL",
        "a length that ends in a chunk",
        post(CHUNKED, "Content-Length: 4", body=chunked(_SMUGGLED)),
    ),
    _refused("TE.TE, a list", "chunked, identity", post("Transfer-Encoding: chunked, identity")),
    _refused("TE.TE, twice", "in two lines", post(CHUNKED, CHUNKED, body=chunked(b"a"))),
    _refused(
        "TE.TE, then another",
        "chunked, and cow",
        post(CHUNKED, "Transfer-Encoding: cow", body=chunked(b"a")),
    ),
    _refused(
        "xchunked",
        "a coding that only ends so",
        post("Transfer-Encoding: xchunked", "Content-Length: 4", body=b"1\r\na"),
    ),
    _refused(
        "chunked in quotes",
        "a string, not a token",
        post('Transfer-Encoding: "chunked"', body=chunked(b"a")),
    ),
    _whole(
        "a tab before chunked",
        "space enough",
        post("Transfer-Encoding:\tchunked", body=chunked(b"a")),
    ),
    _refused(
        "a vertical tab before chunked",
        "which is no space",
        post("Transfer-Encoding:\x0bchunked", body=chunked(b"a")),
    ),
    _refused(
        "a space before the coding's colon",
        "seen by one reader, not by another",
        post("Transfer-Encoding : chunked", body=chunked(b"a")),
        "POST 400",
        "? - garbled broken",
    ),
    _whole(
        "the coding in a folded line",
        "obs-fold",
        post("Transfer-Encoding:", " chunked", body=chunked(b"a")),
    ),
    _refused(
        "the coding behind another header's fold",
        "which is that header's value",
        post("X: a", " Transfer-Encoding: chunked", "Content-Length: 2", body=b"hi"),
        "POST 400",
    ),
    _refused("an empty coding", "Transfer-Encoding of nothing", post("Transfer-Encoding:")),
    _refused("identity", "a coding of old", post("Transfer-Encoding: identity")),
    _refused(
        "gzip, chunked", "two codings", post("Transfer-Encoding: gzip, chunked", body=chunked(b"a"))
    ),
    _refused(
        "chunks in HTTP/1.0",
        "which has none: what follows is another request, or garbage",
        post(CHUNKED, body=chunked(b"a"), line="POST /1.0/nothing HTTP/1.0"),
        "POST 400",
        "? - garbled broken",
    ),
    _whole(
        "chunk extensions",
        "names, values, strings (RFC 9112, 7.1.1)",
        post(CHUNKED, body=b'2;a;b=c;d="e;f"\r\nhi\r\n0;last\r\n\r\n'),
    ),
    _whole(
        "a chunk extension of 3 KiB",
        "still a line",
        post(CHUNKED, body=b"2;" + b"a" * 3000 + b"\r\nhi\r\n0\r\n\r\n"),
    ),
    _refused(
        "a chunk extension of 8 KiB",
        "longer than a line may be",
        post(CHUNKED, body=b"2;" + b"a" * 8192 + b"\r\nhi\r\n0\r\n\r\n"),
    ),
    _whole(
        "a space after the chunk's size",
        "which some allow",
        post(CHUNKED, body=b"2 \r\nhi\r\n0\r\n\r\n"),
    ),
    _whole(
        "a space before a chunk's extension",
        "which some allow",
        post(CHUNKED, body=b"2 ;a\r\nhi\r\n0\r\n\r\n"),
    ),
    _whole(
        "zeros before the chunk's size", "0002", post(CHUNKED, body=b"0002\r\nhi\r\n000\r\n\r\n")
    ),
    _whole("upper-case sizes", "A", post(CHUNKED, body=b"A\r\n" + b"x" * 10 + b"\r\n0\r\n\r\n")),
    _refused("0x before the chunk's size", "0x2", post(CHUNKED, body=b"0x2\r\nhi\r\n0\r\n\r\n")),
    _refused("a sign before the chunk's size", "+2", post(CHUNKED, body=b"+2\r\nhi\r\n0\r\n\r\n")),
    _refused("a negative chunk", "-2", post(CHUNKED, body=b"-2\r\nhi\r\n0\r\n\r\n")),
    _refused(
        "an underscore in the chunk's size",
        "1_0",
        post(CHUNKED, body=b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"),
    ),
    _refused("a chunk of words", "zz", post(CHUNKED, body=b"zz\r\nhi\r\n")),
    _refused(
        "a chunk over 64 bits", "17 digits", post(CHUNKED, body=b"10000000000000002\r\nhi\r\n")
    ),
    Case(
        "a chunk of 2**64 - 1",
        "allowed, and never fulfilled",
        (">>", post(CHUNKED, body=b"f" * 16 + b"\r\nhi"), "<<", BAD, "<x"),
        ("POST 400 broken",),
    ),
    _refused(
        "a chunk longer than its size",
        "no line end where it should be",
        post(CHUNKED, body=b"2\r\nhiya\r\n0\r\n\r\n"),
    ),
    _refused(
        "a chunk shorter than its size",
        "the next size is eaten",
        post(CHUNKED, body=b"5\r\nhi\r\n0\r\n\r\n"),
        "POST 400 broken",
    ),
    _whole("bare LF in chunks", "which Go takes", post(CHUNKED, body=b"2\nhi\n0\n\n")),
    _whole(
        "bare LF after the size",
        "and CRLF after the chunk",
        post(CHUNKED, body=b"2\nhi\r\n0\n\r\n"),
    ),
    _refused("bare CR in chunks", "which nobody takes", post(CHUNKED, body=b"2\rhi\r0\r\r\n")),
    Case(
        "no last chunk",
        "and the client half-closes",
        (">>", post(CHUNKED, body=b"2\r\nhi\r\n"), ">|", "<<", BAD, "<x"),
        ("POST 400 broken",),
    ),
    Case(
        "no end of the last chunk",
        "its empty line is missing",
        (">>", post(CHUNKED, body=b"2\r\nhi\r\n0\r\n"), ">|", "<<", BAD, "<x"),
        ("POST 400 broken",),
    ),
    _whole(
        "trailers",
        "after the last chunk",
        post(CHUNKED, "Trailer: X", body=chunked(b"hi", last=b"0\r\nX: a\r\nY: b\r\n\r\n")),
    ),
    _whole(
        "trailers of framing",
        "which must not be minded (RFC 9110, 6.5.1)",
        post(CHUNKED, body=chunked(b"hi", last=b"0\r\nContent-Length: 9\r\nHost: x\r\n\r\n")),
    ),
    _refused(
        "trailers of garbage",
        "no colon in them",
        post(CHUNKED, body=chunked(b"hi", last=b"0\r\ngarbage\r\n\r\n")),
        "POST 400",
    ),
    _whole("a byte a chunk", "32 of them", post(CHUNKED, body=chunked(*[b"a"] * 32))),
    # -- expectations
    Case(
        "100-continue, granted",
        "the body waits for the word",
        (
            ">>",
            post("Expect: 100-continue", "Content-Length: 2"),
            "<<",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            ">>",
            b"hi",
            "<<",
            OK,
        ),
        ("POST 200",),
    ),
    Case(
        "100-continue, refused",
        "the body never comes",
        (
            ">>",
            post("Expect: 100-continue", "Content-Length: 2"),
            "<<",
            BAD.replace(b"400", b"417"),
            "<x",
        ),
        ("POST 417 broken",),
    ),
    Case(
        "100-continue, ignored",
        "the body comes without the word",
        (">>", post("Expect: 100-continue", "Content-Length: 2", body=b"hi"), "<<", OK),
        ("POST 200",),
    ),
    Case(
        "100-continue, too late",
        "the word comes after the body",
        (
            ">>",
            post("Expect: 100-continue", "Content-Length: 2", body=b"hi"),
            "<<",
            b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        ),
        ("POST 200",),
    ),
    Case(
        "another expectation",
        "which nobody knows",
        (
            ">>",
            post("Expect: 200-ok", "Content-Length: 2"),
            "<<",
            BAD.replace(b"400", b"417"),
            "<x",
        ),
        ("POST 417 broken",),
    ),
)
