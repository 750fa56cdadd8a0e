"""A recording to a cassette, set up before anything passes."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from lxdtap.cassette.cleaning import Cleaner
from lxdtap.cassette.files import beside
from lxdtap.endpoint import Kind
from lxdtap.errors import SpoolError
from lxdtap.record.output import complain
from lxdtap.record.save import Hook, Saver, transactions
from lxdtap.record.spool import Spool, busy

ENDING = ".spool"
"""What a spool's name has behind its cassette's."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Where events go, and what makes a cassette of them."""

    spool: Spool
    saver: Saver


def prepare(
    path: str,
    kind: Kind | None,
    cleaner: Cleaner,
    *,
    overwrite: bool,
    base: str = "",
    hook: Hook | None = None,
) -> Recording:
    """Begin a recording.

    Args:
        path: of the cassette; the spool lies beside it, as ``path`` with ``.spool`` behind it.
        kind: which daemon it is, where that is known.
        overwrite: whether a cassette that is there may be replaced, once the recording is over.
        cleaner: takes the secrets out.
        base: the daemon's address, where that is known.
        hook: has the last word on what is written.

    Raises:
        SpoolError: there is a cassette already, or a spool; or none can be made there.
    """
    _check_free(path, "-w", overwrite=overwrite)
    return Recording(Spool(path + ENDING), Saver(path, cleaner.clean, kind, overwrite, base, hook))


def _check_free(path: str, option: str, *, overwrite: bool) -> None:
    """See before anything is recorded whether the cassette may be put there."""
    if os.path.lexists(path):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise SpoolError(f"{path} is not a file, and left alone: name another with {option}")
        if not overwrite:
            raise SpoolError(
                f"there is a file at {path}, which is left alone: name another with {option}, or"
                " allow it to be replaced by --overwrite"
            )
    place = beside(path)
    if os.path.lexists(place) and not stat.S_ISDIR(os.lstat(place).st_mode):
        raise SpoolError(
            f"there is something at {place}, where large bodies would lie beside the cassette: name"
            f" another with {option}"
        )


def recover(
    spooled: str,
    output: str,
    cleaner: Cleaner,
    *,
    overwrite: bool,
    keep: bool,
    hook: Hook | None = None,
) -> int:
    """Make a cassette of a spool that was left; the exit status.

    Args:
        spooled: the spool's path.
        output: the cassette's; empty: the spool's without its ending.
        cleaner: takes the secrets out.
        overwrite: whether a cassette that is there may be replaced.
        keep: whether the spool stays.
        hook: has the last word on what is written.

    Raises:
        LxdtapError: it is no spool, or is being written; or the cassette cannot be written.
    """
    path = output or spooled.removesuffix(ENDING)
    if path == spooled:
        raise SpoolError(f"where should the cassette of {spooled} go? name it with -o CASSETTE")
    if busy(spooled):
        raise SpoolError(f"{spooled} is being written: end that lxdtap, or send it SIGUSR1")
    _check_free(path, "-o", overwrite=overwrite)
    saver = Saver(path, cleaner.clean, None, overwrite, hook=hook)
    count, damage = saver.write(spooled, complete=False)
    if not keep:
        os.unlink(spooled)
    complain(f"recovered {transactions(count)} to {path}{damage and f', up to where {damage}'}")
    return 0
