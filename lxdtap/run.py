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
from typing import TYPE_CHECKING, NamedTuple

from lxdtap import stage
from lxdtap.clock import moment
from lxdtap.endpoint import Endpoint, HttpsEndpoint, Kind
from lxdtap.errors import ListenError, LxdtapError
from lxdtap.finding import Wanted, find, way
from lxdtap.record.output import open_file
from lxdtap.stage import Setting, Stage, say
from lxdtap.tap import child, core, listener, service
from lxdtap.tap.identity import Connector
from lxdtap.tap.readiness import Loop
from lxdtap.wire.events import Event, Said, Whole

if TYPE_CHECKING:
    from lxdtap.log.render import Format
    from lxdtap.record.link import Recorder
    from lxdtap.record.save import Hook
    from lxdtap.record.worker import Log
    from lxdtap.redact import Redactor

NAMES: dict[Kind, str] = {"lxd": "LXD", "incus": "Incus"}
SAVING = 600
"""Seconds that the service manager is asked to grant for saving a recording."""


class Options(NamedTuple):
    """What was asked for, in plain values: what is made of them is imported where it is needed.

    Attributes:
        command: to run behind the tap; empty for a sidecar.
        wanted: which daemon.
        listen: where to listen; empty: a private place for a command, the stable one else.
        group: who else is served, by name or number; empty: nobody.
        format: of the log.
        output: the log's file; empty: stderr with a command, else stdout.
        quiet: no log, but for ``output``.
        colour: auto, always or never.
        only: patterns of what the log shows; none: everything.
        ignore: patterns of what it does not.
        verbose: it shows more.
        show_secrets: it shows credentials as they are.
        write: the cassette to record to; empty: nothing is recorded.
        overwrite: whether that cassette may replace one that is there.
        keep_secrets: credentials stay in it.
        redact_payload: commands and data do not.
        redact: what is secret besides what is known to be, as ``key:NAME``.
        hook: has the last word on what is written.
        hello: send a first request through the tap, to have something to see.
    """

    command: Sequence[str] = ()
    wanted: Wanted = Wanted()
    listen: str = ""
    group: str = ""
    format: Format = "debug"
    output: str = ""
    quiet: bool = False
    colour: str = "auto"
    only: Sequence[str] = ()
    ignore: Sequence[str] = ()
    verbose: bool = False
    show_secrets: bool = False
    write: str = ""
    overwrite: bool = False
    keep_secrets: bool = False
    redact_payload: bool = False
    redact: Sequence[str] = ()
    hook: Hook | None = None
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
    setting = _setting(options, environ, found)._replace(
        group=group, handed_over=socket, as_callers=connector is not None
    )
    signals = child.Signals()
    theatre = Stage(setting, signals, manager)
    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            status = runner.run(_tap(options, theatre, found, recorder, connector))
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
    hear = recorder.hear if recorder is not None else _unheard
    hear_whole = recorder.hear_whole if recorder is not None else _unheard
    behind = recorder.behind if recorder is not None else lambda: False

    def tell(text: str) -> None:
        if unseen:
            say(text, wait=0)  # traffic does not wait for whoever reads it

    def note(text: str) -> None:
        hear(Said(moment(), text))
        tell(text)

    upstream = way(found, note, connector)
    tap = core.Core(upstream, hear, loop, hear_whole=hear_whole, behind=behind, say=tell)
    try:
        return await theatre.run(tap)
    finally:
        tap.close()


def _unheard(_: Event | Whole) -> None:
    """There is neither a log nor a recording."""


def _recorder(
    options: Options, environ: dict[str, str], found: Endpoint | HttpsEndpoint
) -> Recorder | None:
    """What logs and records, where anything is to be logged or recorded."""
    output = _output(options)
    if output is None and not options.write:
        return None
    # All that its process needs, before it is forked: from then on it is to take what comes.
    from lxdtap.masking import masks
    from lxdtap.record.link import Recorder
    from lxdtap.record.worker import Worker

    redactor = masks(options.redact).masker()
    log = None if output is None else _log(options, environ, output, redactor)
    if not options.write:
        return Recorder(lambda: Worker(log))
    from lxdtap.cassette.cleaning import Cleaner, Rules
    from lxdtap.record import recording
    from lxdtap.record.placing import Place
    from lxdtap.record.trim import Trimmer

    rules = Rules(secrets=not options.keep_secrets, payload=options.redact_payload)
    into = recording.prepare(
        options.write,
        found.kind,
        Cleaner(redactor, rules),
        overwrite=options.overwrite,
        base=found.base,
        hook=options.hook,
    )
    if log is not None:  # which is work for a processor of its own
        return Recorder(lambda: Worker(log, into.spool, into.saver), Trimmer())
    tap, processors = os.getpid(), frozenset(os.sched_getaffinity(0))
    return Recorder(
        lambda: Worker(None, into.spool, into.saver, Place(tap, processors)),
        Trimmer(),
        Place(tap, processors),
    )


def _output(options: Options) -> int | None:
    """Where the log goes; None: there is none."""
    if options.output:
        return open_file(options.output)
    if options.quiet:
        return None
    return sys.stderr.fileno() if options.command else sys.stdout.fileno()


def _log(options: Options, environ: dict[str, str], output: int, redactor: Redactor) -> Log:
    from lxdtap.log.journal import Selection
    from lxdtap.log.render import renderer
    from lxdtap.record.worker import Log
    from lxdtap.terminal import paint

    selection = Selection(options.only, options.ignore, options.verbose, options.show_secrets)
    painter = paint(options.colour, is_terminal=os.isatty(output), environ=environ)
    return Log(output, renderer(options.format, selection, painter, redactor))
