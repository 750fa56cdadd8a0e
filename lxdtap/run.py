"""``lxdtap run``: a tap set up, used, and taken down again.

Everything that was decided on the command line comes in as :class:`Options`; what the machine
holds (environment, files) is looked at here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lxdtap import stage
from lxdtap.cassette.cleaning import Cleaner, Rules
from lxdtap.endpoint import Endpoint, HttpsEndpoint, Kind
from lxdtap.errors import ListenError, LxdtapError
from lxdtap.finding import Wanted, find, way
from lxdtap.log.journal import Selection
from lxdtap.log.render import Format, renderer
from lxdtap.masking import Masks
from lxdtap.record.link import Recorder
from lxdtap.record.output import open_file
from lxdtap.record.worker import Log, Worker
from lxdtap.redact import Redactor
from lxdtap.stage import Setting, Stage, say
from lxdtap.tap import child, core, listener, service
from lxdtap.tap.identity import Connector
from lxdtap.terminal import paint
from lxdtap.wire.events import Event, Said, word

if TYPE_CHECKING:
    from lxdtap.record.save import Hook

NAMES: dict[Kind, str] = {"lxd": "LXD", "incus": "Incus"}
SAVING = 600
"""Seconds that the service manager is asked to grant for saving a recording."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for.

    Attributes:
        command: to run behind the tap; empty for a sidecar.
        wanted: which daemon.
        listen: where to listen; empty: a private place for a command, the stable one else.
        group: who else is served, by name or number; empty: nobody.
        format: of the log.
        output: the log's file; empty: stderr with a command, else stdout.
        quiet: no log, but for ``output``.
        colour: auto, always or never.
        selection: what the log shows.
        write: the cassette to record to; empty: nothing is recorded.
        overwrite: whether that cassette may replace one that is there.
        cleaning: what is taken out of it.
        hook: has the last word on what is written there.
        masks: what is secret besides what is known to be.
        hello: send a first request through the tap, to have something to see.
    """

    command: Sequence[str] = ()
    wanted: Wanted = field(default_factory=Wanted)
    listen: str = ""
    group: str = ""
    format: Format = "debug"
    output: str = ""
    quiet: bool = False
    colour: str = "auto"
    selection: Selection = field(default_factory=Selection)
    write: str = ""
    overwrite: bool = False
    cleaning: Rules = field(default_factory=Rules)
    hook: Hook | None = None
    masks: Masks = field(default_factory=Masks)
    hello: bool = False


def run(options: Options, environ: dict[str, str]) -> int:
    """Tap, until the command or the sidecar ends; the exit status.

    Raises:
        LxdtapError: the tap could not be set up; its text is for the user.
    """
    # With a command, a service of that kind is the command, and told of as such by itself.
    manager = service.Manager("" if options.command else environ.get("NOTIFY_SOCKET", ""))
    try:
        return _run(options, environ, manager)
    except LxdtapError as error:
        manager.tell(str(error))
        raise


def _run(options: Options, environ: dict[str, str], manager: service.Manager) -> int:
    socket = stage.handed_over(
        environ, listen=options.listen, command=options.command, group=options.group
    )
    group = listener.group_id(options.group) if options.group else None
    environ = service.without_sockets(environ)
    found = _find(options, environ)
    recorder = _recorder(options, environ, found)
    # Forked after the recorder, which would hold its end open.
    connector = Connector() if os.geteuid() == 0 and isinstance(found, Endpoint) else None
    setting = replace(_setting(options, environ, found), group=group, handed_over=socket)
    setting = replace(setting, as_callers=connector is not None)
    signals = child.Signals()
    theatre = Stage(setting, signals, manager)
    try:
        status = asyncio.run(_tap(options, theatre, found, recorder, connector))
    finally:
        if options.write:
            manager.tell(f"saving {options.write}", f"EXTEND_TIMEOUT_USEC={SAVING}000000")
        recorded = recorder is None or recorder.finish(
            begun=theatre.begun, forced=lambda: signals.late
        )
    return status if recorded or not options.write else status or 1


def _find(options: Options, environ: dict[str, str]) -> Endpoint | HttpsEndpoint:
    found = find(options.wanted, environ)
    if options.group and isinstance(found, HttpsEndpoint):
        raise ListenError(
            f"cannot serve group {options.group}: to {found.base} all requests are made with one"
            " certificate, its owner's; leave --group out, or start a tap for each"
        )
    return found


def _setting(options: Options, environ: dict[str, str], found: Endpoint | HttpsEndpoint) -> Setting:
    kind = found.kind or "lxd"
    path = found.path if isinstance(found, Endpoint) else ""
    return Setting(
        command=options.command,
        environ=environ,
        kind=kind,
        what=f"in front of {NAMES[kind]} at {path or found.base} (from {found.found_by})",
        listen=options.listen,
        is_remote=bool(options.wanted.remote) or not path,
        ours=path,
        quiet=options.quiet,
        hello=options.hello,
    )


async def _tap(
    options: Options,
    theatre: Stage,
    found: Endpoint | HttpsEndpoint,
    recorder: Recorder | None,
    connector: Connector | None,
) -> int:
    loop = asyncio.get_running_loop()
    if recorder is not None:
        recorder.start(loop)
        if options.write:
            loop.add_signal_handler(signal.SIGUSR1, recorder.save)
    unseen = recorder is None or bool(options.output) or options.quiet

    def hear(event: Event) -> None:
        if recorder is not None:
            recorder.hear(event)
        if unseen and (told := word(event)):
            say(told, wait=0)  # traffic does not wait for whoever reads it

    daemon = way(found, lambda text: hear(Said(core.moment(), text)), connector)
    behind = recorder.behind if recorder is not None else lambda: False
    tap = core.Core(daemon, hear, loop, behind=behind)
    try:
        return await theatre.run(tap)
    finally:
        tap.close()


def _recorder(
    options: Options, environ: dict[str, str], found: Endpoint | HttpsEndpoint
) -> Recorder | None:
    """What logs and records, where anything is to be logged or recorded."""
    redactor = options.masks.masker()
    log = _log(options, environ, redactor)
    if not options.write:
        return None if log is None else Recorder(lambda: Worker(log))
    from lxdtap.record import recording

    cleaner = Cleaner(redactor, options.cleaning)
    into = recording.prepare(
        options.write,
        found.kind,
        cleaner,
        overwrite=options.overwrite,
        base=found.base,
        hook=options.hook,
    )
    return Recorder(lambda: Worker(log, into.spool, into.saver))


def _log(options: Options, environ: dict[str, str], redactor: Redactor) -> Log | None:
    if options.output:
        output = open_file(options.output)
    elif options.quiet:
        return None
    else:
        output = sys.stderr.fileno() if options.command else sys.stdout.fileno()
    painter = paint(options.colour, is_terminal=os.isatty(output), environ=environ)
    return Log(output, renderer(options.format, options.selection, painter, redactor))
