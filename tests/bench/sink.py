"""A daemon that costs little: sends and takes bodies of any size, and holds websockets open.

``python -m tests.bench.sink PATH`` listens on that unix socket. ``GET /body/SIZE`` is answered by
so many bytes, an upgrade by 101 and silence, anything else by 200 after its body.
"""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import sys

PIECE = memoryview(bytes(1 << 20))


async def serve(sock: socket.socket) -> None:
    """One connection, to its end."""
    loop, buffer = asyncio.get_running_loop(), bytearray(1 << 20)
    with sock:
        try:
            while await _answer(loop, sock, buffer):
                pass
        except ConnectionError:
            pass


async def _answer(loop: asyncio.AbstractEventLoop, sock: socket.socket, buffer: bytearray) -> bool:
    received = b""
    while b"\r\n\r\n" not in received:
        if not (data := await loop.sock_recv(sock, 1 << 16)):
            return False
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    if re.search(rb"(?im)^upgrade:", head):
        del buffer[:]  # thousands of them wait here
        await loop.sock_sendall(
            sock, b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await loop.sock_recv(sock, 1 << 10)
        return False
    if sized := re.match(rb"GET /body/(\d+) ", head):
        await _send(loop, sock, int(sized[1]))
    else:
        length = re.search(rb"(?im)^content-length: (\d+)", head)
        left = int(length[1]) - len(body) if length else 0
        while left > 0 and (count := await loop.sock_recv_into(sock, buffer)):
            left -= count
        await loop.sock_sendall(sock, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    return not re.search(rb"(?im)^connection: close", head)


async def _send(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> None:
    kind = "Content-Type: application/octet-stream"
    head = f"HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {size}\r\n\r\n"
    await loop.sock_sendall(sock, head.encode())
    for left in range(size, 0, -len(PIECE)):
        await loop.sock_sendall(sock, PIECE[: min(left, len(PIECE))])


async def main(path: str) -> None:
    """Accept without end."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop, tasks = asyncio.get_running_loop(), set()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(path)
        listener.listen(1024)
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            task = loop.create_task(serve(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
