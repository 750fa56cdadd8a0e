"""Websocket frames: what passes on an upgraded connection."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from lxdtap.transaction import EMPTY, Body, Frame, Opcode
from lxdtap.wire.websocket import (
    INFLATED_LIMIT,
    Decoder,
    Inflater,
    UnreadableError,
    close_code,
    inflaters,
    unmask,
)

from .conversation import cost

LIMIT = 1 << 16
DEFLATE = "permessage-deflate"


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, final: bool = True) -> Frame:
    """A frame as it is told of."""
    return Frame(opcode, Body(len(payload), payload) if payload else EMPTY, final)


def hear(*pieces: bytes, limit: int = LIMIT, inflater: Inflater | None = None) -> list[Frame]:
    """The frames that these reads make."""
    decoder = Decoder(limit, inflater)
    return [told for piece in pieces for told in decoder.feed(piece)]


def deflated(*pieces: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> list[bytes]:
    """Messages compressed one after the other with one window, without their tails."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    flat = [stream.compress(piece) + stream.flush(flush) for piece in pieces]
    return [piece.removesuffix(b"\x00\x00\xff\xff") for piece in flat]


def compressed(payload: bytes, first: int = 0xC1) -> bytes:
    """A frame of deflated data, of any length."""
    return bytes([first, 127]) + len(payload).to_bytes(8, "big") + payload


@pytest.mark.parametrize(
    ("wire", "told"),
    [
        (b"\x81\x02hi", frame(b"hi")),
        (b"\x82\x00", frame(b"", Opcode.BINARY)),
        (b"\x01\x01h", frame(b"h", final=False)),
        (b"\x80\x01i", frame(b"i", Opcode.CONTINUATION)),
        (b"\x81\x02\xff\xfe", frame(b"\xff\xfe")),
        (b"\x82\x7e\x00\x02hi", frame(b"hi", Opcode.BINARY)),
        (b"\x82\x7f" + bytes(7) + b"\x02hi", frame(b"hi", Opcode.BINARY)),
        (b"\x81\x82\x01\x02\x03\x04ik", frame(b"hi")),
        (b"\x81\x80\x01\x02\x03\x04", frame(b"")),
        (b"\xf1\x02hi", frame(b"hi")),
    ],
)
def test_a_frame_is_told_as_it_came(wire: bytes, told: Frame) -> None:
    """Masked or not, empty, fragmented, not UTF-8: nothing is forbidden, however it is split."""
    assert hear(wire) == hear(*(wire[i : i + 1] for i in range(len(wire)))) == [told]


def test_frames_of_one_read_are_told_apart() -> None:
    """A control frame may come between fragments."""
    assert hear(b"\x01\x01h\x89\x01p\x80\x01i") == [
        frame(b"h", final=False),
        frame(b"p", Opcode.PING),
        frame(b"i", Opcode.CONTINUATION),
    ]


def test_a_frame_over_the_limit_is_counted() -> None:
    """Only the beginning of a long payload is kept; all of it is counted and hashed."""
    (told,) = hear(b"\x82\x0aabcd", b"efghij", limit=3)
    whole = hashlib.sha256(b"abcdefghij").hexdigest()
    assert told.payload == Body(10, b"abc", whole)


def test_a_decoder_is_idle_between_frames() -> None:
    """Half a head or half a payload is something under way."""
    decoder = Decoder(LIMIT)
    seen = [decoder.idle]
    for piece in (b"\x81", b"\x02", b"h", b"i"):
        list(decoder.feed(piece))
        seen.append(decoder.idle)
    assert seen == [True, False, False, False, True]


@pytest.mark.parametrize("kind", [3, 7, 11, 15])
def test_an_unknown_opcode_is_no_frame(kind: int) -> None:
    """What came before it is told; its own bytes are left to be counted."""
    decoder = Decoder(LIMIT)
    frames = decoder.feed(b"\x81\x02hi" + bytes([0x80 | kind, 0]))
    assert next(frames) == frame(b"hi")
    with pytest.raises(UnreadableError, match=f"a frame of unknown kind {kind}"):
        next(frames)
    assert decoder.give_up() == (None, bytes([0x80 | kind, 0]))


def test_a_length_has_63_bits() -> None:
    """A length with its highest bit set is none."""
    with pytest.raises(UnreadableError, match="longer than RFC 6455 allows"):
        hear(b"\x82\x7f\x80" + bytes(7))


def test_giving_up_tells_what_came() -> None:
    """Half a frame is told as one that is not final; then the decoder is idle."""
    decoder = Decoder(LIMIT)
    assert list(decoder.feed(b"\x81\x04hi")) == []
    assert decoder.give_up() == (frame(b"hi", final=False), b"")
    assert decoder.idle
    assert list(decoder.feed(b"\x81")) == []
    assert decoder.give_up() == (None, b"\x81")


@pytest.mark.parametrize(
    ("extensions", "agreed"),
    [
        (None, False),
        ("", False),
        ("x-webkit-deflate-frame", False),
        ("x, Permessage-Deflate; server_max_window_bits=10", True),
    ],
)
def test_compression_is_an_extension(extensions: str | None, agreed: bool) -> None:
    """Only permessage-deflate compresses, whatever else was agreed on."""
    assert (inflaters(extensions) is not None) is agreed


@pytest.mark.parametrize(
    ("parameter", "works"),
    [
        ("", [True, True]),
        ("; client_no_context_takeover", [False, True]),
        ("; server_no_context_takeover", [True, False]),
    ],
)
def test_each_side_keeps_its_window_unless_it_said_not_to(
    parameter: str, works: list[bool]
) -> None:
    """A message that refers to the one before needs its window."""
    first, second = deflated(b"the same words", b"the same words")

    def follows(inflater: Inflater) -> bool:
        try:
            told = hear(compressed(first) + compressed(second), inflater=inflater)
        except UnreadableError:
            return False
        return told == [frame(b"the same words")] * 2

    pair = inflaters(DEFLATE + parameter)
    assert pair is not None
    assert [follows(inflater) for inflater in pair] == works


def test_only_marked_messages_are_compressed() -> None:
    """RSV1 on the first frame of a message says so, for its fragments but not for control."""
    (data,) = deflated(b"hello")
    wire = compressed(data[:3], 0x41) + b"\x89\x01p" + compressed(data[3:], 0x80) + b"\x81\x02hi"
    first, ping, second, plain = hear(wire, inflater=Inflater(takeover=True))
    assert first.payload.captured + second.payload.captured == b"hello"
    assert (ping, plain) == (frame(b"p", Opcode.PING), frame(b"hi"))


def test_an_empty_last_fragment_ends_a_message() -> None:
    """A compressed message may end with a frame of nothing; the next one is read as well."""
    data, more = deflated(b"hello", b"hello")
    wire = compressed(data, 0x41) + b"\x80\x00" + compressed(more)
    told = hear(wire, inflater=Inflater(takeover=True))
    assert b"".join(one.payload.captured for one in told) == b"hellohello"


def test_a_block_marked_as_the_last_is_followed_by_padding() -> None:
    """A message may end its deflate stream; the next one begins another."""
    (data,) = deflated(b"hello", flush=zlib.Z_FINISH)
    wire = compressed(data, 0x41) + compressed(b"\x00", 0x80) + compressed(data)
    told = hear(wire, inflater=Inflater(takeover=True))
    assert [one.payload.captured for one in told] == [b"hello", b"", b"hello"]


def test_what_follows_the_last_block_does_not_pile_up() -> None:
    """Bytes after a block marked as the last are dropped, however many come."""
    inflater = Inflater(takeover=True)
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert inflater.inflate(stream.compress(b"a") + stream.flush(), final=False) == b"a"

    def more() -> None:
        for _ in range(100):
            assert inflater.inflate(bytes(1 << 14), final=False) == b""

    early = cost(more)  # three of them
    for _ in range(6):
        more()
    assert cost(more) < 3 * early + 0.001


def test_what_does_not_decompress_is_left_to_be_counted() -> None:
    """A frame that is not deflated data stops the decoder, its bytes unread."""
    decoder = Decoder(LIMIT, Inflater(takeover=True))
    with pytest.raises(UnreadableError, match="a frame that does not decompress"):
        list(decoder.feed(b"\xc1\x02\xff\xff"))
    assert decoder.give_up() == (frame(b"", final=False), b"\xff\xff")


def test_a_bomb_does_not_go_off() -> None:
    """A message may grow to its limit, over all its fragments, and not by one byte more."""
    (fits, bomb) = (deflated(bytes(INFLATED_LIMIT + more))[0] for more in (0, 1))
    half = len(bomb) // 2
    (told,) = hear(compressed(fits), limit=0, inflater=Inflater(takeover=True))
    assert told.payload.size == INFLATED_LIMIT
    with pytest.raises(UnreadableError, match="over 1 MiB"):
        hear(
            compressed(bomb[:half], 0x41) + compressed(bomb[half:], 0x80),
            limit=0,
            inflater=Inflater(takeover=True),
        )


def test_the_limit_is_for_each_message() -> None:
    """Many messages may together grow beyond what one may."""
    one, two = deflated(bytes(INFLATED_LIMIT), bytes(INFLATED_LIMIT))
    told = hear(compressed(one) + compressed(two), limit=0, inflater=Inflater(takeover=True))
    assert [each.payload.size for each in told] == [INFLATED_LIMIT] * 2


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (frame(b"\x03\xe8bye", Opcode.CLOSE), 1000),
        (frame(b"\x03", Opcode.CLOSE), None),
        (frame(b"", Opcode.CLOSE), None),
        (frame(b"\x03\xe8"), None),
    ],
)
def test_a_close_frame_may_say_why(told: Frame, code: int | None) -> None:
    """Its first two bytes are the code."""
    assert close_code(told) == code


@settings(deadline=None)
@given(st.binary(max_size=50), st.binary(min_size=4, max_size=4), st.integers(0, 50))
def test_unmasking_goes_on_where_it_stopped(data: bytes, mask: bytes, cut: int) -> None:
    """In two pieces it is what it is in one, and done twice it undoes itself."""
    first, turned = unmask(data[:cut], mask)
    second, _ = unmask(data[cut:], turned)
    assert first + second == unmask(data, mask)[0]
    assert unmask(first + second, mask)[0] == data
    assert list(first + second) == [byte ^ mask[i % 4] for i, byte in enumerate(data)]


def encoder(*, client: bool, agreed: str | None) -> FrameProtocol:
    """An independent sender of frames."""
    extensions: list[Extension] = []
    if agreed is not None:
        deflate = PerMessageDeflate()
        deflate.finalize(agreed)
        extensions = [deflate]
    return FrameProtocol(client, extensions)


def joined(frames: Iterable[tuple[bytes, bool]]) -> list[bytes]:
    """The messages that these payloads complete.

    A compressor may keep bytes back until a message's end, so one that has none is left out.
    """
    messages = [b""]
    for payload, final in frames:
        messages[-1] += payload
        if final:
            messages.append(b"")
    return messages[:-1]


AGREED = st.sampled_from(
    [None, DEFLATE, f"{DEFLATE}; client_no_context_takeover; server_no_context_takeover"]
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=200), st.booleans(), st.booleans()), max_size=8),
    st.booleans(),
    AGREED,
    st.lists(st.integers(1, 100), max_size=20),
)
def test_what_was_encoded_is_decoded(
    messages: list[tuple[bytes, bool, bool]], client: bool, agreed: str | None, cuts: list[int]
) -> None:
    """Frames of another implementation, masked, fragmented or compressed, come out as meant."""
    sender = encoder(client=client, agreed=agreed)
    wire = b""
    sent: list[tuple[bytes, bool]] = []
    for payload, final, ping in messages:
        wire += bytes(sender.send_data(payload, final))
        sent.append((payload, final))
        if ping:
            wire += bytes(sender.ping(b"p"))
    pair = inflaters(agreed)
    inflater = pair[0 if client else 1] if pair else None
    decoder = Decoder(LIMIT, inflater)
    told: list[Frame] = []
    for cut in [*cuts, len(wire)]:
        told += decoder.feed(wire[:cut])
        wire = wire[cut:]
    data = [one for one in told if not one.opcode.control]
    assert [one.final for one in data] == [final for _, final in sent]
    assert joined((one.payload.captured, one.final) for one in data) == joined(sent)
    assert len(told) - len(data) == sum(ping for _, _, ping in messages)
    assert decoder.idle


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=6), st.booleans())
def test_garbage_is_unreadable_at_worst(pieces: list[bytes], compress: bool) -> None:
    """Any bytes are frames, or no frames; there is no third."""
    decoder = Decoder(LIMIT, Inflater(takeover=True) if compress else None)
    with contextlib.suppress(UnreadableError):
        for piece in pieces:
            list(decoder.feed(piece))
    decoder.give_up()
    assert decoder.idle
