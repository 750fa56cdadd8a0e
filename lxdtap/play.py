"""``lxdtap replay``: a cassette plays the daemon's part."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette, Interaction
from lxdtap.log.journal import Selection
from lxdtap.record.output import open_file
from lxdtap.replay.player import Player as Recorded
from lxdtap.replay.server import CassetteUpstream, Replay
from lxdtap.stage import CLIENTS, Player, Setting, Stage, handed_over, say
from lxdtap.tap import child, service
from lxdtap.transaction import Peer

if TYPE_CHECKING:
    from lxdtap.log.render import Format
    from lxdtap.record.link import Recorder

NAMED = 20
"""Interactions that were not played which are named, one a line."""


class Options(NamedTuple):
    """What was asked for.

    Attributes:
        cassette: its path.
        command: to run in front of it; empty: until interrupted.
        listen: where to listen; empty: a private place for a command, the stable one else.
        paced: whether the recorded pauses come back.
        strict: whether it is a failure that something was asked that is not recorded, or that
            something recorded was not asked for.
        show: whether transactions are shown.
        output: the file they are shown in; empty: stderr with a command, else stdout.
        format: of what is shown.
        colour: auto, always or never.
        selection: what is shown.
        hello: send a first request, to have something to see.
    """

    cassette: str
    command: Sequence[str] = ()
    listen: str = ""
    paced: bool = False
    strict: bool = False
    show: bool = False
    output: str = ""
    format: Format = "debug"
    colour: str = "auto"
    selection: Selection = Selection()
    hello: bool = False


def replay(options: Options, environ: dict[str, str]) -> int:
    """Play, until the command or a signal ends it; the exit status.

    Raises:
        LxdtapError: the cassette cannot be played, or not there.
    """
    manager = service.Manager("" if options.command else environ.get("NOTIFY_SOCKET", ""))
    given = handed_over(environ, listen=options.listen, command=options.command, group="")
    environ = service.without_sockets(environ)
    cassette = files.load(options.cassette)
    recorder = _recorder(options, environ)
    kind = cassette.server.kind
    setting = Setting(
        command=options.command,
        environ=environ,
        kind=kind,
        what=f"playing {options.cassette}, {CLIENTS[kind]}'s daemon as it was recorded",
        listen=options.listen,
        handed_over=given,
        quiet=True,
        hello=options.hello,
    )
    # Who looks around in a recording has no need of a list of what they did not look at.
    report = Report(strict=options.strict, named=options.strict or bool(options.command))
    stage = Stage(setting, child.Signals(), manager)
    try:
        status = asyncio.run(_play(options, cassette, stage, recorder, report))
    finally:
        if recorder is not None:
            recorder.finish()
    return report.end(status)


class Report:
    """What is said of a replay, and whether that is a failure.

    Args:
        strict: whether more or less than was recorded is one.
        named: whether what was not played is named.
    """

    def __init__(self, *, strict: bool, named: bool) -> None:
        self._strict = strict
        self._named = named
        self._missed = 0
        self._unplayed: list[Interaction] = []

    def tell(self, text: str) -> None:
        """Something was asked that is not recorded, mostly."""
        self._missed += 1
        say(text)

    def unplayed(self, interactions: list[Interaction]) -> None:
        """These were recorded, and nobody asked for them."""
        self._unplayed = interactions

    def end(self, status: int) -> int:
        """Say what was not played; the exit status."""
        if self._unplayed:
            end = ":" if self._named else ""
            say(f"{len(self._unplayed)} recorded interactions were not played{end}")
        if self._named:
            self._name(self._unplayed)
        failed = self._strict and (self._missed or self._unplayed)
        return status or int(bool(failed))

    def _name(self, unplayed: list[Interaction]) -> None:
        for interaction in unplayed[:NAMED]:
            number, asked = interaction.transaction.number, interaction.transaction.request
            say(f"  #{number} {asked.method} {asked.target}")
        if len(unplayed) > NAMED:
            say(f"  and {len(unplayed) - NAMED} more")


def _recorder(options: Options, environ: dict[str, str]) -> Recorder | None:
    """What shows transactions, where they are to be shown."""
    if options.output:
        output = open_file(options.output)
    elif options.show:
        output = sys.stderr.fileno() if options.command else sys.stdout.fileno()
    else:
        return None
    # All that its process needs, before it is forked: from then on it is to take what comes.
    from lxdtap.log.render import renderer
    from lxdtap.record.link import Recorder
    from lxdtap.record.worker import Log, Worker
    from lxdtap.terminal import paint

    painter = paint(options.colour, is_terminal=os.isatty(output), environ=environ)
    log = Log(output, renderer(options.format, options.selection, painter))
    return Recorder(lambda: Worker(log))


async def _play(
    options: Options, cassette: Cassette, stage: Stage, recorder: Recorder | None, report: Report
) -> int:
    loop = asyncio.get_running_loop()
    if recorder is None:
        alone = Replay(Recorded(cassette, paced=options.paced), report.tell, loop)
        return await _until_over(stage, _Alone(alone), alone.never_played, report)
    from lxdtap.tap import core

    recorder.start(loop)
    recording = CassetteUpstream(cassette, report.tell, paced=options.paced)
    tap = core.Core(recording, recorder.hear, loop)
    return await _until_over(stage, tap, recording.never_played, report)


async def _until_over(
    stage: Stage, player: Player, unplayed: Callable[[], list[Interaction]], report: Report
) -> int:
    try:
        return await stage.run(player)
    finally:
        report.unplayed(unplayed())
        player.close()


class _Alone:
    """A recording that is shown to nobody; there is nothing of its to wait for."""

    def __init__(self, replay: Replay) -> None:
        self.served = 0
        self.busy = 0
        self._replay = replay

    def serve(self, client: socket.socket, peer: Peer | None) -> None:
        self.served += 1
        self._replay.serve(client, peer)

    async def drain(self, _seconds: float) -> bool:
        self._replay.close()
        return True

    def close(self) -> None:
        self._replay.close()
