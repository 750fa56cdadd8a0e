"""What can go wrong, and the command's exit status for it.

::

    LxdtapError             one line: what happened, to what, what to do next      exit 1
    ├── NoDaemonError       no daemon was found, or the one named is not there
    │   ├── NoneFoundError      none was named, and none is in a usual place
    │   └── MissingSocketError  its socket does not exist; a RuntimeError, as programs expect
    ├── UpstreamError       the daemon is there but cannot be connected to
    ├── ListenError         lxdtap's own socket cannot be put where it was asked for
    ├── SpoolError          a recording cannot be kept where it was asked for, or not be read
    ├── CassetteError       a cassette cannot be read, or not be written (lxdtap.cassette)
    ├── ProjectError        a project's own settings, or its function, cannot be used
    ├── LogError            the log cannot be written where it was asked for
    ├── CommandError        the command to run cannot be started                   exit 126, 127
    ├── APIException        the daemon reported an error to a call (lxdtap.api)
    │   └── APINotFoundException   404
    └── APIConnectionError  a call broke off (lxdtap.api)

Wrong options are click's ``UsageError``: exit 2.
"""

from __future__ import annotations

import errno

NO_MEMORY = frozenset({errno.ENOBUFS, errno.ENOMEM})
"""Why a send on a socket fails though its receiver is well: for now, the kernel has no memory
(send(2))."""


class LxdtapError(Exception):
    """The base of lxdtap's own errors; its text is for a person, in one line."""

    exit_status = 1


class NoDaemonError(LxdtapError):
    """There is no daemon to tap."""


class NoneFoundError(NoDaemonError):
    """No daemon was named, and there is none in a usual place."""


class MissingSocketError(NoDaemonError, RuntimeError):
    """A daemon's socket was named that does not exist.

    Args:
        path: of the socket.
    """

    def __init__(self, path: str) -> None:
        super().__init__(f"Socket {path} does not exist; start the daemon, or name another")
        self.path = path


class UpstreamError(LxdtapError):
    """The daemon cannot be connected to.

    Args:
        message: what happened and what to do.
        status: the HTTP status a client is answered with: 403 where not permitted, else 503.
    """

    def __init__(self, message: str, status: int = 503) -> None:
        super().__init__(message)
        self.status = status


class ListenError(LxdtapError):
    """lxdtap's own socket cannot be made where it was asked for."""


class SpoolError(LxdtapError):
    """A recording's spool cannot be written, or not be read."""


class ProjectError(LxdtapError):
    """What a project says of its recordings cannot be used."""


class LogError(LxdtapError):
    """The log cannot be written where it was asked for."""


class CommandError(LxdtapError):
    """The command cannot be started.

    Args:
        message: what happened and what to do.
        exit_status: 127 where it was not found, 126 where it cannot be executed, as shells have it.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status
