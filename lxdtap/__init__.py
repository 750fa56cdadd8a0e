"""lxdtap: a debugging proxy and transaction recorder for LXD and Incus.

The map. Arrows point at what is imported; nothing points up::

    __main__ -> cli -> run, play      arguments; a tap, or a recording, set up and taken down
                        project         what a project wants redacted besides
                        checking        cassettes looked through before others get them
                        comparing       what changed from one recording to another
                        showing         recordings as the log's text
                        finding         which daemon is meant
                        stage           our socket with a command before it, or as a sidecar
      tap       I/O   core            connections relayed, and what passes told as events
                        relay           bytes both ways, by readiness: of which sockets
                        upstream        how to get to the daemon, by identity: as each caller,
                                        by tls: over https, with pump
                        refusal         what a client is told where there is none
                      listener        lxdtap's own socket
                      service         a socket handed over, and what systemd is told
                      child           the command behind the tap, signals
      record    I/O   link -> worker  events, sent to the recorder's process, and what it does:
                        spool           first they go to a file,
                        output          then what is made of them to the log,
                        placing         all on a processor that disturbs nobody;
                        recording, save in the end the spool becomes a cassette;
                        direct          the same without a process, for calls of our own;
                pure    trim, collect   by bounds on bodies, and transactions with their frames
      wire      pure  connection      bytes of a connection -> events, by whole (messages that came
                                      at once), http1, tunnel, websocket
                      fold            events -> transactions
                      events, records the events, and as bytes
      log       pure  journal         transactions -> entries
                      render          entries -> text, by debugformat, lineformat, jsonformat
      cassette  pure  model           a recording as values; cleaning: without its secrets;
                                      check: what of them is left; updates: as the log had it
                      writing, reading  as YAML and back, by scalars, jsontext, cursor
                I/O   files           on the disk
                pure  differences     of two recordings; above replay, whose keys align them
      replay    pure  player          a recording as a daemon: what it is asked -> what it says,
                                      by tape, match (what answers) and progress (its state),
                                      playback (frames after their causes), sftp, answer
                I/O   server          sockets and the clock for it
      api       I/O   synchronous, asynchronous -> common -> exchange, body, endpoints
                                      calls of our own, over the same core
                pure  result          what a call came to, and the exceptions
      pytest_plugin   testing.decks   the cassettes of one test, each a deck: a tap or a recording
                I/O                     served by a service in a thread of its own; claims
                pure  settings        modes, names of files;
                                        watching: misses and repeats of a recording
      (root)    pure  transaction, endpoint, remotes, lxd, content, redact, masking, errors,
                                      terminal:
                                      the values, where daemons are, LXD's own rules, bodies,
                                      secrets, more of them, failures, safe text
                I/O   clock           what time it is

What a client sends takes this way: ``tap.relay`` sends the bytes on, and then hands a copy to
``wire.connection``, which makes events of it. These go to the recorder's process, which spools
them, and then makes transactions of them by ``wire.fold``; ``log.journal`` chooses, explains and
redacts, and a format makes text. The cassette is made of the spooled events in the same way.

Modules marked pure know no sockets, files, clocks or environment. A test keeps it so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lxdtap.api import (
        API,
        APIConnectionError,
        APIException,
        APINotFoundException,
        APIResult,
        AsyncAPI,
        AsyncAPIResult,
    )

__version__ = "0.1.0"
__all__ = [
    "API",
    "APIConnectionError",
    "APIException",
    "APINotFoundException",
    "APIResult",
    "AsyncAPI",
    "AsyncAPIResult",
    "__version__",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whichever is asked for
    """Import the API only where it is used: aiohttp would double the command's start-up."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lxdtap import api

    return getattr(api, name)
