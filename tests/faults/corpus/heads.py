"""First lines and headers."""

from __future__ import annotations

from .case import BAD, GET, OK, Case, answer, request


def _asked(name: str, what: str, head: bytes, told: str) -> Case:
    """A request that is answered, whatever it is."""
    return Case(name, what, (">>", head, "<<", OK), (told,))


def _refused(name: str, what: str, head: bytes, told: str) -> Case:
    """A request that a strict daemon refuses, and hangs up."""
    return Case(name, what, (">>", head, "<<", BAD, "<x"), (told,))


def _line(line: str) -> bytes:
    return request(line=line)


HEADS = (
    _asked("a plain request", "nothing special", GET, "GET 200"),
    # -- first lines
    _asked(
        "absolute form",
        "a target with scheme and host (RFC 9112, 3.2.2)",
        _line("GET http://lxd/1.0 HTTP/1.1"),
        "GET 200",
    ),
    _asked(
        "authority form",
        "CONNECT to a host and a port (RFC 9112, 3.2.3)",
        _line("CONNECT lxd:8443 HTTP/1.1"),
        "CONNECT 200",
    ),
    _asked(
        "asterisk form",
        "OPTIONS of the server itself (RFC 9112, 3.2.4)",
        _line("OPTIONS * HTTP/1.1"),
        "OPTIONS 200",
    ),
    _refused(
        "no slash", "a target that is none of the four forms", _line("GET 1.0 HTTP/1.1"), "GET 400"
    ),
    _refused(
        "a space in the target",
        "which makes four words of the line",
        _line("GET /1.0 /x HTTP/1.1"),
        "GET 400",
    ),
    _refused("two spaces", "between target and version", _line("GET /1.0  HTTP/1.1"), "GET 400"),
    _refused(
        "two spaces before the target", "an empty word", _line("GET  /1.0 HTTP/1.1"), "GET 400"
    ),
    _refused(
        "a tab for a space", "in the request line", _line("GET\t/1.0\tHTTP/1.1"), "? 400 garbled"
    ),
    _refused(
        "a space at the end", "of the request line", _line("GET /1.0 HTTP/1.1 "), "? 400 garbled"
    ),
    _refused(
        "a space at the beginning",
        "of the request line",
        _line(" GET /1.0 HTTP/1.1"),
        "? 400 garbled",
    ),
    _asked(
        "lower case", "a method of its own (RFC 9110, 9.1)", _line("get /1.0 HTTP/1.1"), "get 200"
    ),
    _refused(
        "a method of separators",
        "not a token (RFC 9110, 5.6.2)",
        _line("(GET) /1.0 HTTP/1.1"),
        "(GET) 400",
    ),
    _refused(
        "no method",
        "the line begins with a space and a slash",
        _line(" /1.0 HTTP/1.1"),
        "? 400 garbled",
    ),
    _refused(
        "a long method", "of 8 KiB", _line("G" * 8192 + " /1.0 HTTP/1.1"), "G" * 8192 + " 400"
    ),
    _asked("a long target", "of 8 KiB", _line("GET /" + "a" * 8192 + " HTTP/1.1"), "GET 200"),
    _asked(
        "percent in the target", "an escape that is none", _line("GET /1.0/%zz HTTP/1.1"), "GET 200"
    ),
    _asked(
        "NUL in the target",
        "a byte that ends strings in C",
        _line("GET /1.0\0x HTTP/1.1"),
        "GET 200",
    ),
    _asked(
        "bytes over 127 in the target",
        "which are not UTF-8",
        _line("GET /\xff\xfe HTTP/1.1"),
        "GET 200",
    ),
    _asked("a fragment", "which is never sent", _line("GET /1.0#x HTTP/1.1"), "GET 200"),
    _asked(
        "a query of everything",
        "separators, spaces as plus, escapes",
        _line("GET /1.0?a=b&&=c;d+e%20f?g HTTP/1.1"),
        "GET 200",
    ),
    # -- versions
    _asked("HTTP/1.0", "without a host", request(line="GET /1.0 HTTP/1.0", host=False), "GET 200"),
    Case(
        "HTTP/1.0 keep-alive",
        "two requests on a connection kept by asking for it",
        (
            ">>",
            request("Connection: keep-alive", line="GET /1.0 HTTP/1.0"),
            "<<",
            answer("Connection: keep-alive", line="HTTP/1.0 200 OK"),
            ">>",
            request(line="GET /1.0 HTTP/1.0"),
            "<<",
            answer(line="HTTP/1.0 200 OK"),
            "<x",
        ),
        ("GET 200", "GET 200"),
    ),
    _refused("HTTP/0.9", "a line without a version", b"GET /1.0\r\n\r\n", "? 400 garbled"),
    _refused("HTTP/1.2", "a minor version that is none yet", _line("GET /1.0 HTTP/1.2"), "GET 400"),
    _refused("HTTP/2.0", "in the text of HTTP/1", _line("GET /1.0 HTTP/2.0"), "GET 400"),
    _refused("HTTP/1.10", "two digits", _line("GET /1.0 HTTP/1.10"), "? 400 garbled"),
    _refused(
        "http/1.1", "the version's name in lower case", _line("GET /1.0 http/1.1"), "? 400 garbled"
    ),
    _refused("HTTP/-1.1", "a negative version", _line("GET /1.0 HTTP/-1.1"), "? 400 garbled"),
    _refused("a bare version", "HTTP/1", _line("GET /1.0 HTTP/1"), "? 400 garbled"),
    Case(
        "HTTP/2, prior knowledge",
        "the preface (RFC 9113, 3.4), and a SETTINGS frame",
        (
            ">>",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
            "<<",
            BAD,
            "<x",
        ),
        ("PRI 400", "? - garbled broken"),
    ),
    Case(
        "HTTP/2 by upgrade, ignored",
        "h2c (RFC 7540, 3.2) from a daemon that has none",
        (
            ">>",
            request(
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABkAAQAAP__",
            ),
            "<<",
            OK,
            ">>",
            GET,
            "<<",
            OK,
        ),
        ("GET 200", "GET 200"),
    ),
    Case(
        "HTTP/2 by upgrade",
        "h2c granted: frames follow",
        (
            ">>",
            request(
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABkAAQAAP__",
            ),
            "<<",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            + bytes.fromhex("000000040000000000"),
            ">>",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ),
        ("GET 101 h2c",),
    ),
    # -- line ends
    _asked("bare LF", "ends each line", GET.replace(b"\r\n", b"\n"), "GET 200"),
    _asked("mixed line ends", "LF and CRLF", GET.replace(b"\r\n", b"\n", 1), "GET 200"),
    _asked("LF ends the head", "after lines that end in CRLF", GET[:-2] + b"\n", "GET 200"),
    _refused(
        "bare CR",
        "for line ends: no line ever ends",
        GET.replace(b"\r\n", b"\r") + b"\n\n",
        "? 400 garbled",
    ),
    _asked(
        "CR in a value", "neither a line end nor forbidden enough", request("X: a\rY: b"), "GET 200"
    ),
    _asked("CR CR LF", "a value that ends in CR", request("X: a\r"), "GET 200"),
    Case(
        "an empty line first",
        "before the request line (RFC 9112, 2.2)",
        (">>", b"\r\n" + GET, "<<", BAD, "<x"),
        ("? 400 garbled",),
    ),
    Case(
        "an empty line between",
        "as some clients send after a POST",
        (
            ">>",
            request("Content-Length: 2", line="POST /1.0/nothing HTTP/1.1", body=b"hi"),
            "<<",
            OK,
            ">>",
            b"\r\n" + GET,
            "<<",
            OK,
        ),
        ("POST 200", "GET 200"),
    ),
    # -- headers
    _asked("no headers", "an empty line after the first", b"GET /1.0 HTTP/1.0\r\n\r\n", "GET 200"),
    _refused("no host", "in HTTP/1.1 (RFC 9112, 3.2)", request(host=False), "GET 400"),
    _refused("two hosts", "which one is meant?", request("Host: other"), "GET 400"),
    _refused(
        "a host of garbage", "which is no authority", request("Host: a b", host=False), "GET 400"
    ),
    _asked("an empty host", "allowed (RFC 9112, 3.2)", request("Host:", host=False), "GET 200"),
    _asked(
        "localhost:None",
        "what pylxd's websockets send",
        request("Host: localhost:None", host=False),
        "GET 200",
    ),
    _asked(
        "obs-fold",
        "a value that goes on in the next line (RFC 9112, 5.2)",
        request("X: a", " b", "\tc"),
        "GET 200",
    ),
    _asked(
        "obs-fold of a length",
        "a length that begins in the next line",
        request("Content-Length:", " 2", line="POST /1.0/nothing HTTP/1.1", body=b"hi"),
        "POST 200",
    ),
    _refused(
        "a fold first", "before there is a header to go on", request(" X: a", host=False), "GET 400"
    ),
    _refused(
        "a space before the colon", "of a header (RFC 9112, 5.1)", request("X : a"), "GET 400"
    ),
    _refused("no colon", "in a header line", request("X"), "GET 400"),
    _refused("no name", "a colon first", request(": a"), "GET 400"),
    _refused("a name of separators", "not a token", request("X(Y): a"), "GET 400"),
    _refused("a name beyond ASCII", "not a token either", request("\xc4: a"), "GET 400"),
    _asked("no value", "a header of nothing", request("X:"), "GET 200"),
    _asked("spaces around a value", "and tabs", request("X: \t a \t "), "GET 200"),
    _refused("NUL in a value", "a byte that ends strings in C", request("X: a\0b"), "GET 400"),
    _refused("NUL in a name", "the same", request("X\0: a"), "GET 400"),
    _asked("bytes over 127 in a value", "which are not UTF-8", request("X: \xff\xfe"), "GET 200"),
    _refused(
        "DEL and escapes in a value",
        "what would steer a terminal",
        request("X: \x1b[31m\x7f\x9b"),
        "GET 400",
    ),
    _asked("a header many times", "the same one 100 times", request(*["X: a"] * 100), "GET 200"),
    _asked(
        "1,000 headers", "each another", request(*[f"X-{i}: {i}" for i in range(1000)]), "GET 200"
    ),
    _asked("a header of 64 KiB", "in one line", request("X: " + "a" * (64 << 10)), "GET 200"),
    Case(
        "a head of 3 MiB",
        "refused before it is whole",
        (
            ">>",
            request("X: " + "a" * (3 << 20))[:-4],
            "<<",
            BAD.replace(b"400 Bad Request", b"431 Too Large  "),
            "<x",
        ),
        ("GET 431 garbled",),
    ),
    # -- no HTTP at all
    Case(
        "garbage",
        "bytes of no protocol, half-closed",
        (">>", b"\x00\x01\x02\r\n\r\n\xff\xfe", ">|", "<<", BAD, "<x"),
        ("? 400 garbled",),
    ),
    Case(
        "a TLS hello",
        "to a daemon that speaks plain text",
        (">>", bytes.fromhex("1603010005010000010303"), "<<", BAD, "<x"),
        ("? 400 garbled",),
    ),
    Case(
        "an SSH greeting",
        "and the daemon hangs up without a word",
        (">>", b"SSH-2.0-x\r\n", "<x"),
        ("? - garbled broken",),
    ),
    Case("a lonely CRLF", "and nothing else", (">>", b"\r\n", ">|", "<x"), ("? - garbled broken",)),
    Case(
        "a forged line",
        "a target that would write a line of log, had it its way",
        (">>", b'GET /\x1b]0;x\x07\x0b{"event":"note"} HTTP/1.1\r\nHost: x\r\n\r\n', "<<", OK),
        ("GET 200",),
    ),
)
