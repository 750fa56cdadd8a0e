"""Who leaves, and when."""

from __future__ import annotations

from .case import CHUNKED, GET, OK, Case, answer, post, request

_ASKED = request("Connection: Upgrade", "Upgrade: websocket", line="GET /1.0/events HTTP/1.1")
_GRANTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
_HALF = post("Content-Length: 10", body=b"hello")
_LONG = answer("Content-Length: 10", body=b"hello", length=False)

ENDS = (
    Case("nothing", "a client that comes and goes", (">x",), ()),
    Case("nothing, half-closed", "and the daemon hangs up", (">|", "<x"), ()),
    Case("the daemon hangs up at once", "before anything", ("<x",), ()),
    Case(
        "the daemon half-closes at once",
        "and is written to all the same",
        ("<|", ">>", GET, ">x"),
        ("GET - broken",),
    ),
    Case(
        "half-closed before the answer",
        "which comes all the same",
        (">>", GET, ">|", "<<", OK, "<x"),
        ("GET 200",),
    ),
    Case(
        "half-closed in the head",
        "and answered",
        (">>", GET[:10], ">|", "<<", answer(line="HTTP/1.1 400 Bad"), "<x"),
        ("? 400 garbled",),
    ),
    Case(
        "half-closed in the body",
        "and answered",
        (">>", _HALF, ">|", "<<", OK, "<x"),
        ("POST 200 broken",),
    ),
    Case(
        "half-closed in a chunk",
        "and answered",
        (">>", post(CHUNKED, body=b"5\r\nhel"), ">|", "<<", OK, "<x"),
        ("POST 200 broken",),
    ),
    Case(
        "half-closed in the answer",
        "of which the rest comes",
        (">>", GET, "<<", _LONG, ">|", "<<", b"world", "<x"),
        ("GET 200",),
    ),
    Case(
        "the daemon half-closes after the answer",
        "and the client says more",
        (">>", GET, "<<", OK, "<|", ">>", GET, ">x"),
        ("GET 200", "GET - broken"),
    ),
    Case(
        "the daemon half-closes in the body",
        "which still comes",
        (">>", _HALF, "<<", OK, "<|", ">>", b"world", ">x"),
        ("POST 200",),
    ),
    Case("both half-close", "the client first", (">>", GET, ">|", "<<", OK, "<|"), ("GET 200",)),
    Case(
        "both half-close, the daemon first",
        "then the client",
        (">>", GET, "<<", OK, "<|", ">|"),
        ("GET 200",),
    ),
    Case("the client leaves before the answer", "altogether", (">>", GET, ">x"), ("GET - broken",)),
    Case(
        "the client leaves in the head",
        "altogether",
        (">>", GET[:10], ">x"),
        ("? - garbled broken",),
    ),
    Case("the client leaves in the body", "altogether", (">>", _HALF, ">x"), ("POST - broken",)),
    Case(
        "the client leaves in the answer",
        "altogether",
        (">>", GET, "<<", _LONG, ">x"),
        ("GET 200 broken",),
    ),
    Case(
        "the client half-closes, then leaves",
        "before the answer",
        (">>", GET, ">|", ">x"),
        ("GET - broken",),
    ),
    Case("the daemon leaves before the answer", "altogether", (">>", GET, "<x"), ("GET - broken",)),
    Case(
        "the daemon leaves in the body",
        "without an answer",
        (">>", _HALF, "<x"),
        ("POST - broken",),
    ),
    Case(
        "the daemon leaves in the answer",
        "which is cut there",
        (">>", GET, "<<", _LONG, "<x"),
        ("GET 200 broken",),
    ),
    Case(
        "the daemon leaves in the answer's head",
        "which is cut there",
        (">>", GET, "<<", OK[:12], "<x"),
        ("GET - broken",),
    ),
    Case(
        "the daemon leaves behind a half-closed client",
        "without an answer",
        (">>", GET, ">|", "<x"),
        ("GET - broken",),
    ),
    Case(
        "a client that leaves an answer unread",
        "which makes a reset of its end",
        (">~", ">>", GET, "<<", OK, ">x"),
        ("GET 200",),
    ),
    Case(
        "a daemon that leaves a request unread",
        "which makes a reset of its end",
        ("<~", ">>", GET, "<x"),
        ("GET - broken",),
    ),
    Case(
        "a websocket's client half-closes",
        "and the daemon goes on",
        (">>", _ASKED, "<<", _GRANTED, ">|", "<<", b"\x81\x02ho", "<x"),
        ("GET 101 websocket",),
    ),
    Case(
        "a websocket's daemon half-closes",
        "and the client goes on",
        (">>", _ASKED, "<<", _GRANTED, "<|", ">>", b"\x81\x82abcd\x09\x0b", ">x"),
        ("GET 101 websocket",),
    ),
    Case(
        "a websocket's client leaves",
        "without a word",
        (">>", _ASKED, "<<", _GRANTED, ">x"),
        ("GET 101 websocket",),
    ),
    Case(
        "a websocket's daemon leaves",
        "without a word",
        (">>", _ASKED, "<<", _GRANTED, "<x"),
        ("GET 101 websocket",),
    ),
    Case(
        "the client leaves before its upgrade is answered",
        "with frames on their way",
        (">>", _ASKED + b"\x81\x80abcd", ">x"),
        ("GET - broken", "? - garbled broken"),
    ),
    Case(
        "half-closed before an upgrade is refused",
        "with a request behind it",
        (">>", _ASKED + GET, ">|", "<<", answer(line="HTTP/1.1 403 No") + OK, "<x"),
        ("GET 403", "GET 200"),
    ),
    Case(
        "half-closed before an upgrade is granted",
        "with frames behind it",
        (">>", _ASKED + b"\x81\x80abcd", ">|", "<<", _GRANTED, "<x"),
        ("GET 101 websocket",),
    ),
)
