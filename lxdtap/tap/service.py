"""Under a service manager: the socket that it hands over, and what it is told.

Both are systemd's, and simple enough to be spoken without its library: sd_listen_fds(3) and
sd_notify(3). Without their variables nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from lxdtap.errors import ListenError
from lxdtap.terminal import escape

_FIRST = 3
"""SD_LISTEN_FDS_START."""
_SOCKETS = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_PATIENCE = 1.0
"""Seconds to wait where the manager is too busy to listen."""


def handed_over(environ: Mapping[str, str]) -> int | None:
    """The descriptor of the socket to listen on, where we were given one.

    It is ours alone from here on: no command inherits it.

    Raises:
        ListenError: there is more than one, or none where one was announced.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None  # for somebody else, whose environment we have
    given = environ.get("LISTEN_FDS", "")
    if not given.isdecimal() or int(given) > 1:
        what = f"{given} sockets" if given.isdecimal() else f"LISTEN_FDS={given!r}"
        raise ListenError(
            f"cannot listen: the service manager handed over {what}, and a tap has one socket;"
            " keep one ListenStream= in its .socket unit"
        )
    if int(given) == 0:
        return None
    try:
        os.set_inheritable(_FIRST, False)
    except OSError as error:
        raise ListenError(
            f"cannot listen: the service manager announced a socket, and descriptor {_FIRST} is"
            f" not open ({error.strerror}); unset LISTEN_FDS and LISTEN_PID"
        ) from error
    return _FIRST


def without_sockets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for our children, who get no socket of the manager's."""
    return {name: value for name, value in environ.items() if name not in _SOCKETS}


@dataclass(frozen=True, slots=True)
class Manager:
    """Who wants to know how we are.

    Attributes:
        address: NOTIFY_SOCKET: a path, or ``@`` and an abstract name; empty: nobody.
    """

    address: str = ""

    def tell(self, status: str, *states: str) -> None:
        """Say what we do, in words, and with it states such as ``READY=1``.

        A manager that cannot be told is no reason to stop.
        """
        if not self.address:
            return
        text = "\n".join((*states, f"STATUS={escape(status)}"))
        name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with (
            contextlib.suppress(OSError, ValueError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.settimeout(_PATIENCE)
            sock.connect(name)  # sendto() would not be waited for: poll(2) needs a peer
            sock.send(text.encode())
