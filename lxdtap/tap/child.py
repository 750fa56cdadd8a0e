"""The command that is run behind the tap: started, signalled, and its status passed on."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence

from lxdtap.errors import CommandError

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)
"""Signals that are for the command where there is one, and that end a sidecar."""

FORCING = (signal.SIGTERM, signal.SIGQUIT)
"""Those of them that end what takes its time at the end; a second Ctrl-C is mere impatience."""

_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Signals:
    """Takes signals one by one, with the knowledge of who sent them.

    asyncio's own handlers cannot tell a Ctrl-C, which the terminal sends to the command too, from
    a ``kill`` that only lxdtap got: sigwaitinfo(2) can. The signals are blocked from the making
    of this object on, in all threads.
    """

    def __init__(self) -> None:
        self.late = False
        """Whether there was one to end us after the loop was closed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)

    def start(
        self, loop: asyncio.AbstractEventLoop, heard: Callable[[signal.Signals, bool], None]
    ) -> None:
        """Call ``heard(signal, only_us)`` on the loop for each; only us: not from a terminal."""

        def listen() -> None:
            while True:
                info = signal.sigwaitinfo(FORWARDED)
                # sigaction(2): SI_USER, SI_QUEUE and SI_TKILL are not positive, SI_KERNEL is.
                only_us = info.si_code <= 0
                try:
                    loop.call_soon_threadsafe(heard, signal.Signals(info.si_signo), only_us)
                except RuntimeError:  # the loop is closed: we are about to exit
                    self.late = self.late or info.si_signo in FORCING

        threading.Thread(target=listen, name="signals", daemon=True).start()


def start(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Start a command found by ``PATH``; its pid.

    It gets our standard streams, process group and terminal, and the signals' defaults.

    Raises:
        CommandError: it is not there, or cannot be executed.
    """
    try:
        return os.posix_spawnp(
            command[0], list(command), dict(environ), setsigmask=[], setsigdef=_IGNORED_BY_PYTHON
        )
    except OSError as error:
        found = error.errno not in (errno.ENOENT, errno.ENOTDIR)
        reason = error.strerror if found else "command not found"
        raise CommandError(
            f"cannot run {command[0]}: {reason}; check what follows --", 126 if found else 127
        ) from error


async def ended(pid: int, loop: asyncio.AbstractEventLoop) -> int:
    """Wait for the command's end; its exit status, 128 + N where signal N ended it."""
    number = os.pidfd_open(pid)
    over = loop.create_future()

    def ready() -> None:
        loop.remove_reader(number)
        over.set_result(None)

    loop.add_reader(number, ready)
    try:
        await over
    finally:
        os.close(number)
    _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended: this does not wait
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
