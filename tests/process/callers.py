"""Callers who are somebody else, and a daemon that tells them who they are.

The checkout and the interpreter may be where only root can go: so a caller is root until it has
loaded what it needs, and then becomes who it is to be, for good.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tap import PATIENCE, Served, answer, read_until

_PROGRAM = """
import json, os, re, socket, sys
path, target, uid, gid, count, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups])
os.setresgid(int(gid), int(gid), int(gid))
os.setresuid(int(uid), int(uid), int(uid))
def whole(response):
    head, _, body = response.partition("\\r\\n\\r\\n")
    length = re.search("(?i)content-length: *([0-9]+)", head)
    return length is not None and len(body.encode()) >= int(length[1])
socks, heard = [], []
try:
    for _ in range(int(count)):
        socks.append(socket.socket(socket.AF_UNIX))
        socks[-1].settimeout(10)
        socks[-1].connect(path)
    for sock in socks:
        request = f"GET {target} HTTP/1.1\\r\\nHost: lxd\\r\\nConnection: close\\r\\n\\r\\n"
        sock.sendall(request.encode())
    for sock in socks:
        heard.append("")
        while not whole(heard[-1]) and (data := sock.recv(65536)):
            heard[-1] += data.decode()
except OSError as error:
    heard = error.errno
print(json.dumps(heard))
"""


@dataclass(frozen=True)
class Caller:
    """Somebody."""

    uid: int
    gid: int
    groups: Sequence[int] = ()

    def start(self, path: str, count: int = 1, target: str = "/1.0") -> subprocess.Popen[str]:
        """Ask so many times at once."""
        numbers = map(str, (self.uid, self.gid, count, *self.groups))
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, path, target, *numbers],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, path: str, target: str = "/1.0") -> str:
        """Ask once; the response."""
        [response] = heard(self.start(path, 1, target))
        return response

    def error(self, path: str) -> int:
        """Fail to ask; the ``errno``."""
        code = json.loads(self.start(path).communicate(timeout=2 * PATIENCE)[0])
        assert isinstance(code, int), code
        return code


def heard(process: subprocess.Popen[str]) -> list[str]:
    """The responses to what was started."""
    stdout, _ = process.communicate(timeout=2 * PATIENCE)
    responses = json.loads(stdout)
    assert isinstance(responses, list), os.strerror(responses)
    return responses


def content(response: str) -> Any:  # noqa: ANN401 - whatever was sent
    """The JSON of a response."""
    return json.loads(response.replace("\r\n", "\n").partition("\n\n")[2])


def who(sock: socket.socket) -> dict[str, Any]:
    """What the kernel says of the other end (unix(7), SO_PEERCRED and SO_PEERGROUPS)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", raw)
    try:
        groups = list(array.array("I", sock.getsockopt(socket.SOL_SOCKET, 59, 1024)))
    except OSError:  # more than Python has room for
        groups = [-1]
    return {"pid": pid, "uid": uid, "gid": gid, "groups": groups, "name": sock.getpeername()}


def tells(sock: socket.socket, served: Served) -> None:
    """A daemon's script: tell the client who it is."""
    read_until(sock, served, b"\r\n\r\n")
    sock.sendall(answer(json.dumps(who(sock)).encode()))


def children(pid: int) -> list[int]:
    """The processes that a process started, and that are not ended."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def resident(pid: int, what: str = "VmRSS") -> int:
    """KiB of memory that a process has; ``VmHWM``: the most that it has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0])


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
