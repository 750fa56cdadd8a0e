"""lxdtap: a debugging proxy and transaction recorder for LXD and Incus.

The map. Arrows point at what is imported; nothing points up::

    __main__ -> cli -> run                      arguments, wiring, exit statuses
                        |
        I/O             +-> child               the command behind the tap, signals
                        +-> listener            lxdtap's own socket
                        +-> logprocess          the log, in a process of its own
                        +-> core -> relay       connections to the daemon; bytes both ways
                             |
        pure                 +-> wire -> http1, websocket      bytes of a connection -> events
                             +-> fold                          events -> transactions
        pure            journal -> lxd, content, redact        transactions -> log entries
                        debugformat, lineformat, jsonformat    entries -> text
                        entries, events, transaction           the values in between
                        endpoint, errors, terminal             addresses, failures, safe text

What a client sends takes this way: ``relay`` sends the bytes on, and then hands a copy to ``wire``,
whose events ``fold`` makes into transactions. Updates on those go to the log's process, where
``journal`` chooses, explains and redacts, and a format makes text of it.

Modules marked pure know no sockets, files, clocks or environment. A test keeps it so.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
