"""Connections that leave HTTP, or ask to."""

from __future__ import annotations

import struct
import zlib

from .case import CHUNKED, GET, OK, Case, answer, chunked, post, request

_MASK = b"abcd"
_KEY = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
_EVENTS = "GET /1.0/events HTTP/1.1"
_ASKED = request("Connection: Upgrade", "Upgrade: websocket", *_KEY, line=_EVENTS)
_GRANTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_SFTP = request("Connection: Upgrade", "Upgrade: sftp", line="GET /1.0/nothing HTTP/1.1")
_SFTP_GRANTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n"
_REFUSED = answer(line="HTTP/1.1 403 Forbidden", body=b"no")


def frame(first: int, payload: bytes = b"", *, mask: bytes = b"") -> bytes:
    """A frame by its first byte (RFC 6455, 5.2)."""
    size, masked = len(payload), 0x80 if mask else 0
    if size < 126:
        head = struct.pack(">BB", first, masked | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, masked | 126, size)
    else:
        head = struct.pack(">BBQ", first, masked | 127, size)
    covered = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else payload
    return head + mask + covered


def sent(first: int, payload: bytes = b"") -> bytes:
    """A frame of the client's."""
    return frame(first, payload, mask=_MASK)


def _frames(name: str, what: str, up: bytes, down: bytes, protocol: str = "websocket") -> Case:
    """A websocket, these frames, and the daemon hangs up."""
    words = (">>", _ASKED, "<<", _GRANTED, ">>", up, "<<", down, "<x")
    return Case(name, what, words, (f"GET 101 {protocol}",))


def _deflated(text: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


TUNNELS = (
    # -- the upgrade
    Case(
        "a websocket",
        "asked for and granted; text both ways",
        (">>", _ASKED, "<<", _GRANTED, ">>", sent(0x81, b"hi"), "<<", frame(0x81, b"ho")),
        ("GET 101 websocket",),
    ),
    Case(
        "frames with the 101",
        "in the same write",
        (">>", _ASKED, "<<", _GRANTED + frame(0x89, b"keepalive") + frame(0x81, b"ho")),
        ("GET 101 websocket",),
    ),
    Case(
        "frames before the 101",
        "a client that does not wait",
        (">>", _ASKED + sent(0x81, b"hi"), "<<", _GRANTED),
        ("GET 101 websocket",),
    ),
    Case(
        "frames before the 101, later",
        "a client that does not wait, in a write of its own",
        (">>", _ASKED, sent(0x81, b"hi"), "<<", _GRANTED + frame(0x81, b"ho")),
        ("GET 101 websocket",),
    ),
    Case(
        "bytes before the 101, later",
        "which look like a request, and are sftp's",
        (">>", _SFTP, GET, "<<", _SFTP_GRANTED, ">>", GET),
        ("GET 101 sftp",),
    ),
    Case(
        "a websocket refused",
        "and HTTP goes on",
        (">>", _ASKED, "<<", _REFUSED, ">>", GET, "<<", OK),
        ("GET 403", "GET 200"),
    ),
    Case(
        "a websocket ignored",
        "answered as if it were no upgrade",
        (">>", _ASKED, "<<", OK, ">>", GET, "<<", OK),
        ("GET 200", "GET 200"),
    ),
    Case(
        "101 without asking",
        "a daemon that switches by itself",
        (">>", GET, "<<", _GRANTED + frame(0x81, b"ho"), "<x"),
        ("GET 101 websocket",),
    ),
    Case(
        "101 behind 100",
        "an interim answer first",
        (">>", _ASKED, "<<", b"HTTP/1.1 100 Continue\r\n\r\n" + _GRANTED),
        ("GET 101 websocket",),
    ),
    Case(
        "101 of another protocol",
        "than was asked for",
        (">>", _ASKED, "<<", _SFTP_GRANTED + b"\x00\x00\x00\x05", "<x"),
        ("GET 101 sftp",),
    ),
    Case(
        "101 of no protocol",
        "nor a Connection",
        (">>", _ASKED, "<<", b"HTTP/1.1 101 Yes\r\n\r\nbytes", "<x"),
        ("GET 101 unnamed",),
    ),
    Case(
        "sftp",
        "bytes both ways",
        (
            ">>",
            _SFTP,
            "<<",
            _SFTP_GRANTED,
            ">>",
            b"\x00\x00\x00\x05\x01\x00\x00\x00\x03",
            "<<",
            b"\x00\x00\x00\x05\x02\x00\x00\x00\x03",
        ),
        ("GET 101 sftp",),
    ),
    Case(
        "sftp with the 101",
        "the daemon's first bytes in the same write",
        (">>", _SFTP, "<<", _SFTP_GRANTED + b"first", ">>", b"second"),
        ("GET 101 sftp",),
    ),
    Case(
        "sftp refused",
        "and HTTP goes on",
        (">>", _SFTP, "<<", _REFUSED, ">>", GET, "<<", OK),
        ("GET 403", "GET 200"),
    ),
    Case(
        "sftp without a Connection header",
        "as LXD takes it",
        (
            ">>",
            request("Upgrade: sftp", line="GET /1.0/nothing HTTP/1.1"),
            "<<",
            _SFTP_GRANTED + b"x",
        ),
        ("GET 101 sftp",),
    ),
    Case(
        "an upgrade with a body",
        "and frames right behind it",
        (
            ">>",
            post("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 4", body=b"ping")
            + sent(0x81, b"hi"),
            "<<",
            _GRANTED + frame(0x81, b"ho"),
        ),
        ("POST 101 websocket",),
    ),
    Case(
        "an upgrade with chunks",
        "and frames right behind them",
        (
            ">>",
            post("Connection: Upgrade", "Upgrade: websocket", CHUNKED, body=chunked(b"ping"))
            + sent(0x81, b"hi"),
            "<<",
            _GRANTED,
        ),
        ("POST 101 websocket",),
    ),
    Case(
        "an upgrade with a body, refused",
        "before the body is whole",
        (
            ">>",
            post("Upgrade: tcp", "Content-Length: 4", body=b"pi"),
            "<<",
            _REFUSED,
            ">>",
            b"ng" + GET,
            "<<",
            OK,
        ),
        ("POST 403", "GET 200"),
    ),
    Case(
        "CONNECT",
        "a tunnel to who knows it; here its answer is read as one",
        (
            ">>",
            request(line="CONNECT lxd:8443 HTTP/1.1"),
            "<<",
            b"HTTP/1.1 200 Connected\r\n\r\n",
            ">>",
            b"\x16\x03\x01",
            "<<",
            b"\x16\x03\x03",
            "<x",
        ),
        ("CONNECT 200", "? - garbled broken"),
    ),
    Case(
        "STARTTLS",
        "what lxd-user sends first",
        (">>", b"STARTTLS\n\x16\x03\x01", "<<", b"\x16\x03\x03" + bytes(100)),
        ("STARTTLS - tls",),
    ),
    Case(
        "STARTTLS without its line end",
        "the eight bytes decide",
        (">>", b"STARTTLS", "<<", b"\x16\x03\x03"),
        ("STARTTLS - tls",),
    ),
    Case(
        "half of STARTTLS",
        "and then a request's line",
        (">>", b"START /1.0 HTTP/1.1\r\n\r\n", "<<", OK),
        ("START 200",),
    ),
    Case(
        "two protocols offered",
        "and the second taken",
        (
            ">>",
            request("Connection: Upgrade", "Upgrade: websocket, sftp", line=_EVENTS),
            "<<",
            _SFTP_GRANTED + b"x",
        ),
        ("GET 101 sftp",),
    ),
    # -- frames
    _frames(
        "fragments",
        "with an empty one among them",
        sent(0x01, b"a") + sent(0x00) + sent(0x80, b"b"),
        frame(0x02, b"a") + frame(0x80),
    ),
    _frames(
        "control frames in between",
        "a ping and a pong inside a message",
        sent(0x01, b"a") + sent(0x89, b"p") + sent(0x80, b"b"),
        frame(0x01, b"a") + frame(0x8A, b"p") + frame(0x80, b"b"),
    ),
    _frames(
        "empty frames", "text, binary, ping", sent(0x81) + sent(0x82) + sent(0x89), frame(0x81)
    ),
    _frames(
        "reserved bits",
        "RSV1 to RSV3, with nothing agreed",
        sent(0xC1, b"a") + sent(0xA1, b"a") + sent(0x91, b"a"),
        frame(0xF1, b"b"),
    ),
    _frames("unknown kinds", "3 and 11", sent(0x83, b"a"), frame(0x8B, b"b"), "opaque"),
    _frames(
        "a control frame too long",
        "of 126 bytes, and in fragments",
        sent(0x89, b"a" * 126),
        frame(0x08, b"\x03\xe8"),
    ),
    _frames(
        "unmasked from the client", "which RFC 6455 forbids", frame(0x81, b"hi"), frame(0x81, b"ho")
    ),
    _frames(
        "masked from the daemon", "the same the other way", sent(0x81, b"hi"), sent(0x81, b"ho")
    ),
    _frames("text that is not UTF-8", "stray bytes", sent(0x81, b"\xff\xfe"), frame(0x81, b"\xc3")),
    _frames("a continuation of nothing", "first of all", sent(0x80, b"a"), frame(0x00, b"b")),
    _frames(
        "a message in a message",
        "a text begun before the other ended",
        sent(0x01, b"a") + sent(0x81, b"b"),
        frame(0x01, b"a") + frame(0x02, b"b"),
    ),
    _frames(
        "lengths longer than need be",
        "16 and 64 bits for 2 bytes",
        b"\x81\xfe\x00\x02abcd" + sent(0x81, b"hi")[6:],
        b"\x81\x7f" + struct.pack(">Q", 2) + b"ho",
    ),
    _frames(
        "a frame of 2**63 bytes",
        "which is negative",
        b"\x82\xff" + struct.pack(">Q", 1 << 63) + _MASK,
        b"",
        "opaque",
    ),
    _frames(
        "a frame of 2**63 - 1 bytes",
        "allowed, and never fulfilled",
        b"\x82\xff" + struct.pack(">Q", (1 << 63) - 1) + _MASK + b"abc",
        frame(0x81, b"ho"),
    ),
    _frames(
        "16-bit lengths", "126 bytes and 65,535", sent(0x82, b"a" * 126), frame(0x82, b"b" * 65535)
    ),
    _frames("64-bit lengths", "65,536 bytes", sent(0x82, b"a" * 65536), frame(0x82, b"b" * 65536)),
    _frames("close", "1000, and its echo", sent(0x88, b"\x03\xe8bye"), frame(0x88, b"\x03\xe8")),
    _frames("close without a code", "empty", sent(0x88), frame(0x88)),
    _frames("close with half a code", "one byte", sent(0x88, b"\x03"), frame(0x88, b"\x03")),
    _frames(
        "close with bad codes",
        "0, 999, 1005, 1006, 1015, 65535",
        b"".join(sent(0x88, struct.pack(">H", code)) for code in (0, 999, 1005)),
        b"".join(frame(0x88, struct.pack(">H", code)) for code in (1006, 1015, 65535)),
    ),
    _frames(
        "close with a reason that is not UTF-8",
        "stray bytes",
        sent(0x88, b"\x03\xe8\xff"),
        frame(0x88, b"\x03\xe8\xfe"),
    ),
    _frames(
        "frames after close",
        "which nobody should read",
        sent(0x88, b"\x03\xe8") + sent(0x81, b"hi"),
        frame(0x81, b"ho"),
    ),
    _frames("half a frame's head", "and the end", sent(0x82, b"a" * 126)[:3], b"\x81"),
    _frames("half a frame", "and the end", sent(0x82, b"abc")[:-1], frame(0x82, b"abc")[:-1]),
    _frames("1,000 frames", "of a byte", sent(0x82, b"a") * 1000, frame(0x82, b"b") * 1000),
    Case(
        "permessage-deflate, offered",
        "and not taken: RSV1 means nothing",
        (
            ">>",
            _ASKED[:-2]
            + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
            "<<",
            _GRANTED,
            ">>",
            sent(0x81, b"hi"),
            "<<",
            frame(0x81, b"ho"),
        ),
        ("GET 101 websocket",),
    ),
    Case(
        "permessage-deflate",
        "agreed on: compressed both ways, some plain",
        (
            ">>",
            _ASKED[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            "<<",
            _GRANTED[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            ">>",
            sent(0xC1, _deflated(b"hello " * 20)) + sent(0x81, b"plain"),
            "<<",
            frame(0xC1, _deflated(b"ho"))
            + frame(0x41, _deflated(b"in ")[:2])
            + frame(0x80, _deflated(b"in ")[2:]),
        ),
        ("GET 101 websocket",),
    ),
    Case(
        "permessage-deflate of garbage",
        "which does not decompress",
        (
            ">>",
            _ASKED,
            "<<",
            _GRANTED[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            ">>",
            sent(0xC1, b"\xff\xff\xff\xff"),
            "<<",
            frame(0x81, b"ho"),
        ),
        ("GET 101 opaque",),
    ),
)
