"""A tap that alters what it carries: ``altering.py WANTED COUNT_FILE run --upstream PATH ...``.

It puts a relay between lxdtap and the daemon, which replaces what the daemon says of ``WANTED`` by
as many capital X, and runs ``lxdtap run`` with all else that it was given. Each time it is started
it takes one from the number in ``COUNT_FILE``; once that is 0 it alters nothing.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


def _pump(source: socket.socket, sink: socket.socket, wanted: bytes) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data.replace(wanted, b"X" * len(wanted)) if wanted else data)
        sink.shutdown(socket.SHUT_WR)


def _accept(door: socket.socket, upstream: str, wanted: bytes) -> None:
    while True:
        client, _ = door.accept()
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(upstream)
        for pump in ((client, daemon, b""), (daemon, client, wanted)):
            threading.Thread(target=_pump, args=pump, daemon=True).start()


def _counted(count: Path, wanted: bytes) -> bytes:
    left = int(count.read_text())
    count.write_text(str(max(left - 1, 0)))
    return wanted if left else b""


def main() -> int:
    wanted, count, run, option, upstream, *rest = sys.argv[1:]
    assert (run, option) == ("run", "--upstream")
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as door:
        ours = f"{place}/unix.socket"
        door.bind(ours)
        door.listen()
        altered = _counted(Path(count), wanted.encode())
        threading.Thread(target=_accept, args=(door, upstream, altered), daemon=True).start()
        tap = [sys.executable, "-m", "lxdtap", "run", "--upstream", ours, *rest]
        return subprocess.run(tap).returncode


if __name__ == "__main__":
    sys.exit(main())
