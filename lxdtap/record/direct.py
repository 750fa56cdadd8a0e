"""A recording by whoever makes the events, in their own process: for calls of our own.

The tap's recorder has a process of its own (:mod:`lxdtap.record.link`), because others' traffic
must not wait for a disk. A program that records its own calls may.
"""

from __future__ import annotations

import os
import threading

from lxdtap.cassette.cleaning import Cleaner, Rules
from lxdtap.record.output import complain
from lxdtap.record.recording import prepare
from lxdtap.record.trim import Trimmer
from lxdtap.redact import Redactor
from lxdtap.wire.events import Event
from lxdtap.wire.records import encode


class DirectRecording:
    """Takes events, and makes a cassette of them in the end.

    Args:
        path: of the cassette.
        redactor: gives placeholders; the log's own, so that both have the same ones.
        rules: what is taken out.
        overwrite: whether a cassette that is there may be replaced.

    Raises:
        SpoolError: nothing can be recorded there.
    """

    def __init__(
        self, path: str, redactor: Redactor, rules: Rules | None = None, *, overwrite: bool = False
    ) -> None:
        into = prepare(path, None, Cleaner(redactor, rules), overwrite=overwrite)
        self._spool, self._saver = into.spool, into.saver
        self._trimmer = Trimmer()
        self._complete = True
        self._over = False
        self._lock = threading.Lock()
        self._pid = os.getpid()  # a fork's calls are not ours to record

    def hear(self, event: Event) -> None:
        """Take an event."""
        if self._over or not self._complete or self._pid != os.getpid():
            return
        with self._lock:
            try:
                self._spool.add(b"".join(map(encode, self._trimmer.add(event))))
            except OSError as error:
                self._complete = False
                complain(f"the recording stops here: {error.strerror}; what it has is kept")

    def close(self) -> None:
        """Save the cassette; nothing more is recorded."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._over:
                return
            self._over = True
        saved = self._saver.save(self._spool.path, complete=self._complete)
        self._spool.close(remove=saved)
