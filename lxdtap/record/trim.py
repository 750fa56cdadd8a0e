"""What of the events goes into a recording: not more of a body than could be played again.

Pure. The rest is counted and hashed, and the recording says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from lxdtap.cassette.model import KEPT_OF_REQUESTS, REPLAYABLE
from lxdtap.transaction import Body, Direction
from lxdtap.wire.events import (
    Closed,
    Data,
    Digest,
    Event,
    FrameData,
    MessageEnd,
    Skipped,
    Switched,
)

LIMITS: Mapping[Direction, int] = {
    Direction.SENT: KEPT_OF_REQUESTS,
    Direction.RECEIVED: REPLAYABLE,
}
"""Bytes kept of one body, by direction. Both directions of a tunnel may be as long as answers."""


@dataclass(slots=True)
class _Flow:
    """One direction of one exchange."""

    left: int
    skipped: bool = False
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def fits(self, size: int) -> bool:
        """Whether so many bytes more are kept; once some were not, none are."""
        self.skipped = self.skipped or size > self.left
        if not self.skipped:
            self.left -= size
        return not self.skipped


class Trimmer:
    """Passes events on, without what is beyond the limits.

    It need not see what came whole: one read is shorter than any of them.
    """

    def __init__(self, limits: Mapping[Direction, int] = LIMITS) -> None:
        self._limits = limits
        self._flows: dict[int, dict[tuple[int, Direction], _Flow]] = {}
        self._tunnels: set[int] = set()

    def add(self, event: Event) -> list[Event]:
        """Take an event; return what is to be recorded of it."""
        match event:
            case Data():
                return [self._data(event)]
            case FrameData():
                return [self._frame(event)]
            case MessageEnd():
                return [*self._digest(event, event.exchange, event.direction), event]
            case Switched():
                self._tunnels.add(event.connection)
            case Closed():
                self._tunnels.discard(event.connection)
                # What broke off has a hash too: of what came of it.
                left = list(self._flows.get(event.connection, {}))
                digests = [d for key in left for d in self._digest(event, *key)]
                self._flows.pop(event.connection, None)
                return [*digests, event]
        return [event]

    def _flow(self, event: Data | FrameData) -> _Flow:
        flows = self._flows.setdefault(event.connection, {})
        key = event.exchange, event.direction
        if key not in flows:
            tunnel = event.connection in self._tunnels
            limit = max(self._limits.values()) if tunnel else self._limits[event.direction]
            flows[key] = _Flow(limit)
        return flows[key]

    def _data(self, event: Data) -> Event:
        flow = self._flow(event)
        flow.hash.update(event.data)
        if flow.fits(len(event.data)):
            return event
        return Skipped(event.connection, event.exchange, event.at, event.direction, len(event.data))

    def _frame(self, event: FrameData) -> Event:
        payload = event.frame.payload
        if event.frame.opcode.control or self._flow(event).fits(payload.size):
            return event
        described = Body(payload.size, b"", payload.sha256)
        return event._replace(frame=event.frame._replace(payload=described))

    def _digest(
        self, event: MessageEnd | Closed, exchange: int, direction: Direction
    ) -> list[Event]:
        flows = self._flows.get(event.connection, {})
        flow = flows.pop((exchange, direction), None)
        if flow is None or not flow.skipped:
            return []
        return [Digest(event.connection, exchange, event.at, direction, flow.hash.hexdigest())]
