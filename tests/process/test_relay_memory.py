"""What a connection that failed leaves behind in the tap's memory: nothing."""

from __future__ import annotations

import asyncio
import gc
import socket

from lxdtap.tap.readiness import Loop
from lxdtap.tap.relay import Relay
from lxdtap.transaction import Direction, Moment

MUCH = bytes(100_000)


class Nobody:
    """Is told of what passes, and minds nothing."""

    def passed(self, direction: Direction, data: bytes, at: Moment) -> None: ...
    def ended(self, direction: Direction, at: Moment, *, cut: bool) -> None: ...
    def closed(self, why: str) -> None: ...


async def _fails(relay: Relay) -> None:
    """The client is gone while the daemon's answer is on its way."""
    client, ours = socket.socketpair()
    theirs, daemon = socket.socketpair()
    relay.join(ours, theirs, Nobody())
    daemon.send(MUCH)
    client.close()
    await asyncio.sleep(0.01)
    daemon.close()
    await asyncio.sleep(0.01)


def test_a_failure_is_no_ring() -> None:
    """Its bytes are free at once, not when all memory is gone through, which stops all traffic."""

    async def scene() -> list[object]:
        relay = Relay(asyncio.get_running_loop())
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        for _ in range(5):
            await _fails(relay)
        gc.collect()
        relay.close()
        return [each for each in gc.garbage if isinstance(each, OSError)]

    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            assert runner.run(scene()) == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
