"""A daemon recorded in this process: for tests that need no command line.

::

    with recorded(daemon) as (socket, recording):
        ...                         # clients use the socket
    with replaying.replayed(recording.cassette) as (socket, replay):
        ...                         # and again, with no daemon
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxdtap.cassette.model import Cassette, Interaction, Server
from lxdtap.clock import moment
from lxdtap.endpoint import Endpoint, Kind
from lxdtap.record.collect import Collector
from lxdtap.tap.core import Core
from lxdtap.tap.upstream import UnixUpstream
from lxdtap.wire.events import Event
from tests.process.replaying import Serving


@dataclass(slots=True)
class Recording:
    """What was seen; complete when its ``with`` has ended."""

    kind: Kind
    base: str
    events: list[Event] = field(default_factory=list)

    @property
    def cassette(self) -> Cassette:
        collector = Collector()
        found: list[Interaction] = []
        for event in self.events:
            found += collector.add(event)
        found += collector.end(moment(), "the recording ended")
        found.sort(key=lambda each: each.transaction.number)
        return Cassette(Server(self.kind, self.base), tuple(found), "a test")


@contextlib.contextmanager
def recorded(socket: str, kind: Kind) -> Iterator[tuple[str, Recording]]:
    """Record what passes between the clients of a new socket and the daemon behind ``socket``."""
    endpoint = Endpoint(socket, "the test")
    recording = Recording(kind, endpoint.base)
    service = Serving(lambda loop: Core(UnixUpstream(endpoint), recording.events.append, loop))
    with service.running() as path:
        yield path, recording
