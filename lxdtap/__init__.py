"""lxdtap: a debugging proxy and transaction recorder for LXD and Incus.

The map. Arrows point at what is imported; nothing points up::

    __main__ -> cli -> run               arguments, wiring, exit statuses
                        |
      tap  (I/O)        +-> child        the command behind the tap, signals
                        +-> listener     lxdtap's own socket
                        +-> core         connections made into transactions
                             +-> relay         bytes both ways
                             +-> upstream      how to get to the daemon
                             +-> refusal       what a client is told where there is none
      wire (pure)            +-> connection    bytes of a connection -> events,
                             |                 by http1, then tunnel and websocket
                             +-> fold          events -> transactions
      log  (pure)       journal                transactions -> entries,
                             |                 with lxd, content, redact
                        debugformat, lineformat, jsonformat    entries -> text
           (I/O)        process                the log, in a process of its own
      values (pure)     transaction, events, entries, endpoint, errors; terminal: safe text

What a client sends takes this way: ``relay`` sends the bytes on, and then hands a copy to
``wire.connection``, whose events ``fold`` makes into transactions. Updates on those go to the log's
process, where ``journal`` chooses, explains and redacts, and a format makes text of it.

Modules marked pure know no sockets, files, clocks or environment. A test keeps it so.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
