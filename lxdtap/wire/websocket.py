"""Websocket frames of one direction, read from the bytes that pass (RFC 6455, RFC 7692).

This decoder is a listener: it answers nothing and forbids nothing. Fragments, zero-length
frames, unmasked client frames and text that is not UTF-8 are all given as they came. What
cannot be a frame at all raises :class:`UnreadableError`, and the caller counts bytes from there on.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from lxdtap.transaction import Capture, Frame, Opcode

INFLATED_LIMIT = 1 << 20
"""Bytes to which one compressed message may grow before it is taken for an attack.

Inflating and keeping so much takes a few ms, for which one frame may keep everybody waiting.
Neither LXD nor Incus negotiates compression.
"""

_DEFLATE_TAIL = b"\x00\x00\xff\xff"  # what a sender leaves out (RFC 7692, 7.2.1)


class UnreadableError(ValueError):
    """The bytes are not websocket frames; the text says why."""


class Inflater:
    """Undoes permessage-deflate for one direction.

    Args:
        takeover: whether the window lives on from message to message (RFC 7692, 7.1.1).
    """

    def __init__(self, takeover: bool) -> None:
        self._takeover = takeover
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._size = 0

    def inflate(self, data: bytes, *, final: bool) -> bytes:
        """The next bytes of a message.

        Raises:
            UnreadableError: it is not deflated data, or grows beyond :data:`INFLATED_LIMIT`.
        """
        plain = self._decompress(data + (_DEFLATE_TAIL if final else b""))
        self._size += len(plain)
        if self._size > INFLATED_LIMIT:
            raise UnreadableError(f"a message that decompresses to over {INFLATED_LIMIT >> 20} MiB")
        if final:
            self._size = 0
            if self._stream.eof or not self._takeover:
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        return plain

    def _decompress(self, data: bytes) -> bytes:
        if self._stream.eof:
            return b""  # after a block marked as the last one (RFC 7692, 7.2.3.4), only padding
        try:
            return self._stream.decompress(data, INFLATED_LIMIT - self._size + 1)
        except zlib.error as error:
            raise UnreadableError(f"a frame that does not decompress ({error})") from None


def inflaters(extensions: str | None) -> tuple[Inflater, Inflater] | None:
    """What undoes (sent, received), by the response's Sec-WebSocket-Extensions; None: nothing."""
    for offer in (extensions or "").split(","):
        name, *parameters = (part.strip().lower() for part in offer.split(";"))
        if name == "permessage-deflate":
            return (
                Inflater("client_no_context_takeover" not in parameters),
                Inflater("server_no_context_takeover" not in parameters),
            )
    return None


class Decoder:
    """Bytes in, frames out.

    Args:
        limit: bytes of a payload that are kept; what is over is counted and hashed.
        inflater: undoes compression, where it was negotiated.
    """

    def __init__(self, limit: int, inflater: Inflater | None = None) -> None:
        self._limit = limit
        self._inflater = inflater
        self._buffer = bytearray()
        self._compressed = False
        self._inside: _Payload | None = None

    @property
    def idle(self) -> bool:
        """Whether it stands between two frames."""
        return self._inside is None and not self._buffer

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take the next bytes; yield the frames they complete.

        Raises:
            UnreadableError: what follows is no frame, or does not decompress.
        """
        self._buffer += data
        while True:
            if self._inside is None:
                self._inside = self._begin()
            if self._inside is None or not self._inside.take(self._buffer):
                return
            yield self._inside.frame()
            self._inside = None

    def give_up(self) -> tuple[Frame | None, bytes]:
        """What has come of the frame under way, and the bytes not read; then it is idle."""
        frame = None if self._inside is None else self._inside.frame(cut=True)
        rest = bytes(self._buffer)
        self._inside = None
        self._buffer.clear()
        return frame, rest

    def _begin(self) -> _Payload | None:
        head = _frame_head(self._buffer)
        if head is None:
            return None
        first, length, mask, size = head
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise UnreadableError(f"a frame of unknown kind {first & 0x0F}") from None
        del self._buffer[:size]
        return _Payload(opcode, bool(first & 0x80), length, mask, self._limit, self._unzip(first))

    def _unzip(self, first: int) -> Inflater | None:
        """The inflater for the frame that begins so: RSV1 on a message's first frame says it."""
        if first & 0x0F >= Opcode.CLOSE:
            return None
        if first & 0x0F != Opcode.CONTINUATION:
            self._compressed = bool(first & 0x40)
        return self._inflater if self._compressed else None


def _frame_head(buffer: bytearray) -> tuple[int, int, bytes, int] | None:
    """First byte, payload length, mask and the head's own size; None until all of it is there."""
    if len(buffer) < 2:
        return None
    length, at = buffer[1] & 0x7F, 2
    if length >= 126:
        layout = ">H" if length == 126 else ">Q"
        at += struct.calcsize(layout)
        if len(buffer) < at:
            return None
        (length,) = struct.unpack_from(layout, buffer, 2)
    if length >> 63:
        raise UnreadableError("a frame longer than RFC 6455 allows")
    mask = b""
    if buffer[1] & 0x80:
        mask = bytes(buffer[at : at + 4])
        at += 4
    return (buffer[0], length, mask, at) if len(buffer) >= at else None


class _Payload:
    """One frame's payload, as it comes."""

    def __init__(
        self,
        opcode: Opcode,
        final: bool,
        left: int,
        mask: bytes,
        limit: int,
        inflater: Inflater | None,
    ) -> None:
        self._opcode = opcode
        self._final = final
        self._left = left
        self._mask = mask
        self._inflater = inflater
        self._capture = Capture(limit)

    def take(self, buffer: bytearray) -> bool:
        """Take what is there from the buffer; whether that was the last of it."""
        piece = bytes(buffer[: self._left])
        size = len(piece)
        if self._mask:
            piece, self._mask = unmask(piece, self._mask)
        if self._inflater is not None:
            last = self._final and size == self._left
            piece = self._inflater.inflate(piece, final=last)
        del buffer[:size]  # only now: what cannot be inflated stays there to be counted
        self._left -= size
        self._capture.add(piece)
        return not self._left

    def frame(self, *, cut: bool = False) -> Frame:
        return Frame(self._opcode, self._capture.body(), self._final and not cut)


def unmask(data: bytes, mask: bytes) -> tuple[bytes, bytes]:
    """Undo a mask (RFC 6455, 5.3); also the mask to go on with after these bytes.

    XOR of two big integers: some 200 times faster than byte by byte.
    """
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    plain = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    turn = size % 4
    return plain, mask[turn:] + mask[:turn]


def close_code(frame: Frame) -> int | None:
    """The status code in a Close frame (RFC 6455, 5.5.1); None where it holds none."""
    payload = frame.payload.captured
    if frame.opcode is not Opcode.CLOSE or len(payload) < 2:
        return None
    return int.from_bytes(payload[:2], "big")
