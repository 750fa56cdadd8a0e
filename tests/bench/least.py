"""The least that a tap in Python could be: what it costs here to see all and say nothing.

``python -m tests.bench.least UPSTREAM PATH FILE`` relays between that unix socket and this one by
asyncio's protocols, and writes down what passes as it came. It follows no message, shows and tells
nothing, and whoever waits for the disk is everybody.
"""

from __future__ import annotations

import asyncio
import sys
from io import FileIO


class _Side(asyncio.Protocol):
    """One of two sockets, and what came of it before there was another."""

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self.transport: asyncio.WriteTransport | None = None
        self.other: asyncio.WriteTransport | None = None
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        else:
            self.other.write(data)
            self.file.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


class _Client(_Side):
    def __init__(self, upstream: str, file: FileIO) -> None:
        super().__init__(file)
        self.upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connecting = asyncio.ensure_future(self.connect())

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, daemon = await loop.create_unix_connection(lambda: _Side(self.file), self.upstream)
        assert self.transport is not None
        assert daemon.transport is not None
        daemon.other, self.other = self.transport, daemon.transport
        if self.transport.is_closing():  # its client left meanwhile
            daemon.transport.close()
            return
        early, self.early = self.early, b""
        self.data_received(early)


async def main(upstream: str, path: str, file: str) -> None:
    """Relay without end."""
    with FileIO(file, "w") as written:
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Client(upstream, written), path
        )
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
