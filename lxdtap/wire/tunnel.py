"""What passes on a connection that has left HTTP: frames where there are decoders, else bytes."""

from __future__ import annotations

from collections.abc import Iterator

from lxdtap.transaction import Direction, Moment
from lxdtap.wire import websocket
from lxdtap.wire.events import Data, Event, FrameData, Switched

Decoders = dict[Direction, websocket.Decoder]


def decoders(extensions: str, limit: int) -> Decoders:
    """One decoder each way.

    Args:
        extensions: the response's Sec-WebSocket-Extensions.
        limit: bytes kept of each payload.
    """
    inflaters = websocket.inflaters(extensions) or (None, None)
    directions = (Direction.SENT, Direction.RECEIVED)
    return {d: websocket.Decoder(limit, i) for d, i in zip(directions, inflaters, strict=True)}


class Tunnel:
    """What passes after HTTP: frames where there are decoders, else bytes."""

    def __init__(self, connection: int, exchange: int, decoders: Decoders | None) -> None:
        self._connection = connection
        self._exchange = exchange
        self._decoders = decoders

    def feed(self, direction: Direction, data: bytes, at: Moment) -> Iterator[Event]:
        """Take bytes that passed in one direction."""
        if self._decoders is None:
            yield Data(self._connection, self._exchange, at, direction, data)
            return
        try:
            for frame in self._decoders[direction].feed(data):
                yield FrameData(self._connection, self._exchange, at, direction, frame)
        except websocket.UnreadableError as error:
            yield from self.give_up(str(error), at)

    def give_up(self, reason: str, at: Moment) -> Iterator[Event]:
        """Count bytes from here on; ``reason`` is for the people who read of it."""
        yield Switched(self._connection, self._exchange, at, "opaque", reason)
        yield from self.untold(at)

    def untold(self, at: Moment) -> Iterator[Event]:
        """Stop decoding; what has come of frames that are not complete."""
        decoders, self._decoders = self._decoders or {}, None
        for direction, decoder in decoders.items():
            frame, rest = decoder.give_up()
            if frame is not None:
                yield FrameData(self._connection, self._exchange, at, direction, frame)
            if rest:
                yield Data(self._connection, self._exchange, at, direction, rest)
