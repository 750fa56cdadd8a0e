"""A recording to a cassette, set up before anything passes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lxdtap.cassette.cleaning import Cleaner
from lxdtap.endpoint import Kind
from lxdtap.errors import SpoolError
from lxdtap.record.save import Saver
from lxdtap.record.spool import Spool


@dataclass(frozen=True, slots=True)
class Recording:
    """Where events go, and what makes a cassette of them."""

    spool: Spool
    saver: Saver


def prepare(path: str, kind: Kind | None, cleaner: Cleaner, *, overwrite: bool) -> Recording:
    """Begin a recording.

    Args:
        path: of the cassette; the spool lies beside it, as ``path`` with ``.spool`` behind it.
        kind: which daemon it is, where that is known.
        overwrite: whether a cassette that is there may be replaced, once the recording is over.
        cleaner: takes the secrets out.

    Raises:
        SpoolError: there is a cassette already, or a spool; or none can be made there.
    """
    if not overwrite and os.path.lexists(path):
        raise SpoolError(
            f"there is a cassette at {path}, which is left alone: name another with -w, or allow"
            " it to be replaced by --overwrite"
        )
    return Recording(Spool(f"{path}.spool"), Saver(path, cleaner.clean, kind, overwrite))
