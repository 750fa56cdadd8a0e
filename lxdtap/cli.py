"""The command line: arguments to :class:`lxdtap.run.Options`, errors to exit statuses."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lxdtap import __version__, endpoint
from lxdtap.errors import LxdtapError, NoneFoundError, ProjectError

if TYPE_CHECKING:
    from lxdtap.log.journal import Selection
    from lxdtap.record.save import Hook
    from lxdtap.run import Options

_HELP = """See what passes between an LXD or Incus client and its daemon; record and replay it.

\b
Start with:
  lxdtap run -- lxc list
  lxdtap run -w list.yaml -- lxc list
  lxdtap replay list.yaml -- lxc list
"""
_RUN_HELP = """Tap the daemon: for CMD, or until interrupted.

With CMD, it is run with LXD_DIR and LXD_SOCKET (INCUS_DIR and INCUS_SOCKET in front of Incus)
set to a socket that only it knows of; its transactions are shown on stderr, its output is left
alone, and its exit status is lxdtap's. Without CMD, lxdtap is a sidecar: it says what to set in
another terminal, and shows on stdout what is done there.

\b
Examples:
  lxdtap run -- lxc list
  lxdtap run --format line -- ./deploy.sh
  lxdtap run -o tap.log -v -- python3 my_pylxd_script.py
  lxdtap run -w launch.yaml -- lxc launch bb c1
  lxdtap run --ignore /1.0/events
  lxdtap run --upstream /var/lib/incus/unix.socket -- incus info
  lxdtap run --remote production -- lxc list

\b
Exit status:
  CMD's own; 128+N where signal N ended it; 127 not found; 126 not executable
  0    a sidecar was ended by a signal
  1    lxdtap itself failed: no daemon, no place to listen, no log, no recording
  2    a wrong option
"""


def _one_daemon(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        if value.startswith("https:"):
            return endpoint.https_base(*endpoint.https_address(value))
        return value and endpoint.socket_path(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; name a path, or https://HOST:PORT") from error


def _one_way(upstream: str, remote: str, *files: str) -> None:
    """Options that name the daemon have to agree."""
    if upstream and remote:
        text = "--upstream and --remote (or LXDTAP_UPSTREAM and LXDTAP_REMOTE) name two daemons"
        raise click.UsageError(f"{text}: leave one out")
    if any(files) and not (remote or upstream.startswith("https:")):
        text = "--cert, --key and --server-cert are for https"
        raise click.UsageError(f"{text}: name the daemon by --upstream https://HOST, or --remote")
    if bool(files[0]) != bool(files[1]):
        raise click.UsageError("--cert and --key belong together: give both, or neither")


def _patterns(
    _context: click.Context, _parameter: click.Parameter, value: Sequence[str]
) -> Sequence[str]:
    for pattern in value:
        path = pattern.strip().rpartition(" ")[2]
        if not path.startswith(("/", "*")):
            raise click.BadParameter(f"{pattern!r} is not [METHOD ]PATH, such as 'GET /1.0/events'")
    return value


def _masks(
    _context: click.Context, _parameter: click.Parameter, value: Sequence[str]
) -> Sequence[str]:
    try:
        _check_masks(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


def _check_masks(texts: Sequence[str]) -> None:
    """Whether these are KIND:NAME.

    Raises:
        ValueError: one of them is not.
    """
    if texts:  # most have none, and need nothing of what redacts
        from lxdtap.masking import masks

        masks(texts)


_REDACT = click.option(
    "--redact",
    multiple=True,
    metavar="KIND:NAME",
    callback=_masks,
    help="Take this for a secret too: key:NAME of JSON, header:NAME, query:NAME. May be repeated."
    " Added to `redact` under [tool.lxdtap] in the project's pyproject.toml.",
)
_REDACT_WITH = click.option(
    "--redact-with",
    default="",
    metavar="MODULE:FUNCTION",
    help="Have this function see each interaction before it is written, and change it or leave it"
    " out (None).",
)
_LISTEN = click.option(
    "--listen",
    default="",
    metavar="PATH",
    help="Where to listen: a directory, or a path that ends in unix.socket."
    " Without it: a private place for CMD, else a stable one.",
)
_FORMAT = click.option(
    "--format",
    "form",
    envvar="LXDTAP_FORMAT",
    type=click.Choice(["debug", "line", "json"]),
    default="debug",
    show_default=True,
    help="How transactions are shown: whole, in one line each, or as JSON lines for programs.",
)
_VERBOSE = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Also headers, timing, who asked, exec's data, logging events and control frames.",
)
_ONLY = click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    callback=_patterns,
    help="Show only what matches '[METHOD ]PATH'; * and ? are wild. May be repeated.",
)
_IGNORE = click.option(
    "--ignore",
    multiple=True,
    metavar="PATTERN",
    callback=_patterns,
    help="Do not show what matches. May be repeated.",
)
_COLOUR = click.option(
    "--color",
    "colour",
    envvar="LXDTAP_COLOR",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, minding NO_COLOR and FORCE_COLOR.",
)
_SHOW_SECRETS = click.option(
    "--show-secrets", is_flag=True, help="Show credentials and settings as they are."
)


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lxdtap")
def main() -> None:
    """The command; its help text is :data:`_HELP`."""


@main.command(help=_RUN_HELP, context_settings={"auto_envvar_prefix": "LXDTAP"})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD ...]")
@click.option(
    "--upstream",
    default="",
    metavar="PATH|URL",
    callback=_one_daemon,
    help="The daemon's socket, or its directory, or https://HOST:8443. Without it: LXD_SOCKET,"
    " LXD_DIR, INCUS_SOCKET, INCUS_DIR, then the usual places.",
)
@click.option(
    "--remote",
    default="",
    metavar="NAME",
    help="The daemon, by the name that `lxc remote` or `incus remote` has for it.",
)
@click.option(
    "--cert",
    default="",
    metavar="FILE",
    help="The client certificate for https. Without it, and without --key: lxc's or incus' own.",
)
@click.option("--key", default="", metavar="FILE", help="The key of the client certificate.")
@click.option(
    "--server-cert",
    default="",
    metavar="FILE",
    help="The certificate that the server has to show. Without it: what the remote of that address"
    " has; else one that this system trusts.",
)
@_LISTEN
@click.option(
    "--group",
    default="",
    metavar="NAME",
    help="Serve this group too, each of it as themselves to the daemon; needs root.",
)
@_FORMAT
@click.option(
    "-o",
    "--log",
    "output",
    envvar="LXDTAP_LOG",
    default="",
    metavar="FILE",
    help="Append the log to this file.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show nothing; with -o, write only there.")
@_VERBOSE
@_ONLY
@_IGNORE
@_COLOUR
@_SHOW_SECRETS
@click.option(
    "-w",
    "--write",
    default="",
    metavar="CASSETTE",
    help="Record to this file, without credentials; written when the tap ends, or on SIGUSR1.",
)
@click.option("--overwrite", is_flag=True, help="With -w: replace a cassette that is there.")
@click.option(
    "--keep-secrets", is_flag=True, help="With -w: record credentials and settings as they are."
)
@click.option(
    "--redact-payload",
    is_flag=True,
    help="With -w: leave out commands, exec's data and files; they cannot be played again.",
)
@_REDACT
@_REDACT_WITH
@click.option("--hello", is_flag=True, help="Send a first GET /1.0 through the tap.")
@click.option(
    "--or-replay",
    default="",
    metavar="CASSETTE",
    help="Where no daemon is found, play this cassette in its place, and show that.",
)
def run(
    command: Sequence[str],
    upstream: str,
    remote: str,
    cert: str,
    key: str,
    server_cert: str,
    listen: str,
    group: str,
    form: Any,  # noqa: ANN401 - one of the choices above
    output: str,
    quiet: bool,
    verbose: bool,
    only: Sequence[str],
    ignore: Sequence[str],
    colour: str,
    show_secrets: bool,
    write: str,
    overwrite: bool,
    keep_secrets: bool,
    redact_payload: bool,
    redact: Sequence[str],
    redact_with: str,
    hello: bool,
    or_replay: str,
) -> None:
    """Turn options into a run; its help text is :data:`_RUN_HELP`."""
    from lxdtap import run as running
    from lxdtap.finding import Wanted

    _one_way(upstream, remote, cert, key, server_cert)
    options = running.Options(
        command=command,
        wanted=Wanted(upstream, remote, cert, key, server_cert),
        listen=listen,
        group=group,
        format=form,
        output=output,
        quiet=quiet,
        colour=colour,
        only=only,
        ignore=ignore,
        verbose=verbose,
        show_secrets=show_secrets,
        write=write,
        overwrite=overwrite,
        keep_secrets=keep_secrets,
        redact_payload=redact_payload,
        hello=hello,
    )
    if or_replay and (write or group):
        raise click.UsageError("--or-replay goes with neither --write nor --group: leave it out")

    def work() -> int:
        more = options._replace(redact=_all_redacted(redact), hook=_hook(redact_with))
        return _run_or_replay(more, or_replay, dict(os.environ))

    _exit_by(work)


def _all_redacted(redact: Sequence[str]) -> list[str]:
    """What the project and the command line take for secret besides what is known to be.

    Raises:
        ProjectError: what the project says cannot be used.
    """
    from lxdtap import project

    names = project.redactions(os.getcwd())
    try:
        _check_masks(names)
    except ValueError as error:
        raise ProjectError(f"redact in [tool.lxdtap] of pyproject.toml: {error}") from error
    return [*names, *redact]


def _hook(name: str) -> Hook | None:
    """The function of the user's that sees what is written.

    Raises:
        ProjectError: it cannot be used.
    """
    if not name:
        return None
    from lxdtap import project

    return project.hook(name)


def _run_or_replay(options: Options, cassette: str, environ: dict[str, str]) -> int:
    """Tap; where there is no daemon, and a cassette for that case, play that."""
    from lxdtap import run

    try:
        return run.run(options, environ)
    except NoneFoundError as error:
        if not cassette:
            raise
        missing = str(error)
    from lxdtap import play
    from lxdtap.stage import say

    say(missing)
    say(f"until then, {cassette} is played in its place; what it answers stands at its top")
    instead = play.Options(
        cassette,
        options.command,
        listen=options.listen,
        show=not options.quiet,
        output=options.output,
        format=options.format,
        colour=options.colour,
        selection=_selection(options.only, options.ignore, options.verbose, options.show_secrets),
        hello=options.hello,
    )
    return play.replay(instead, environ)


_RECOVER_HELP = """Make the cassette of a recording that was interrupted.

While lxdtap records to FILE, what has passed is in FILE.spool. Where it could not end in order
(the machine went down, the disk was full), that is left: all that was seen, up to the last whole
record. It is removed once the cassette is there.

\b
Examples:
  lxdtap recover launch.yaml.spool
  lxdtap recover launch.yaml.spool -o part.yaml
"""


@main.command(help=_RECOVER_HELP, context_settings={"auto_envvar_prefix": "LXDTAP"})
@click.argument("spool", metavar="SPOOL")
@click.option(
    "-o", "--output", default="", metavar="CASSETTE", help="Default: SPOOL without its .spool."
)
@click.option("--overwrite", is_flag=True, help="Replace a cassette that is there.")
@click.option("--keep", is_flag=True, help="Do not remove the spool.")
@click.option("--keep-secrets", is_flag=True, help="Leave credentials and settings as they are.")
@click.option("--redact-payload", is_flag=True, help="Leave out commands, exec's data and files.")
@_REDACT
@_REDACT_WITH
def recover(
    spool: str,
    output: str,
    overwrite: bool,
    keep: bool,
    keep_secrets: bool,
    redact_payload: bool,
    redact: Sequence[str],
    redact_with: str,
) -> None:
    """Recover a recording; its help text is :data:`_RECOVER_HELP`."""
    from lxdtap.cassette.cleaning import Cleaner, Rules
    from lxdtap.masking import masks
    from lxdtap.record import recording

    rules = Rules(secrets=not keep_secrets, payload=redact_payload)

    def work() -> int:
        cleaner = Cleaner(masks(_all_redacted(redact)).masker(), rules)
        hook = _hook(redact_with)
        return recording.recover(spool, output, cleaner, overwrite=overwrite, keep=keep, hook=hook)

    _exit_by(work)


_REPLAY_HELP = """Play a cassette in a daemon's place: for CMD, or until interrupted.

CMD, or whoever uses the socket that is named, talks to the recording as to the daemon that was
recorded. What it asks that was not recorded is answered by an error that names the nearest recorded
request, which is said on stderr too; so is what was recorded and not asked for.

\b
Examples:
  lxdtap replay launch.yaml -- lxc launch bb c1
  lxdtap replay --strict launch.yaml -- ./test.sh
  lxdtap replay --show --format line launch.yaml

\b
Exit status:
  CMD's own, as with `lxdtap run`
  1    the cassette cannot be played; or --strict, and what was asked is not what was recorded
  2    a wrong option
"""


@main.command(help=_REPLAY_HELP, context_settings={"auto_envvar_prefix": "LXDTAP"})
@click.argument("cassette", metavar="CASSETTE")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD ...]")
@_LISTEN
@click.option(
    "--pace",
    type=click.Choice(["fast", "recorded"]),
    default="fast",
    show_default=True,
    help="Answer as fast as causes permit, or with the pauses that were recorded.",
)
@click.option("--strict", is_flag=True, help="Fail where more or less was asked than was recorded.")
@click.option("--show", is_flag=True, help="Show transactions, as `lxdtap run` does.")
@click.option("-o", "--log", "output", default="", metavar="FILE", help="Show them in this file.")
@_FORMAT
@click.option("-v", "--verbose", is_flag=True, help="Show more, as with `lxdtap run`.")
@click.option("--hello", is_flag=True, help="Send a first GET /1.0.")
def replay(
    cassette: str,
    command: Sequence[str],
    listen: str,
    pace: str,
    strict: bool,
    show: bool,
    output: str,
    form: Any,  # noqa: ANN401 - one of the choices above
    verbose: bool,
    hello: bool,
) -> None:
    """Play a cassette; its help text is :data:`_REPLAY_HELP`."""
    from lxdtap import play

    options = play.Options(
        cassette,
        command,
        listen=listen,
        paced=pace == "recorded",
        strict=strict,
        show=show or verbose,
        output=output,
        format=form,
        selection=_selection(verbose=verbose),
        hello=hello,
    )
    _exit_by(lambda: play.replay(options, dict(os.environ)))


_SHOW_HELP = """Show a recording as the log that it was made with, or would have been.

FILE is a cassette, or the spool of a recording that goes on or was interrupted. A cassette does not
have who asked, and what was redacted.

\b
Examples:
  lxdtap show launch.yaml
  lxdtap show --format line --only 'POST *' launch.yaml
  lxdtap show --follow launch.yaml.spool

\b
Exit status:
  0    it was shown; or nobody reads any more
  1    it cannot be read, or is damaged: what is before the damage was shown
  2    a wrong option
"""


@main.command(help=_SHOW_HELP, context_settings={"auto_envvar_prefix": "LXDTAP"})
@click.argument("file", metavar="FILE")
@_FORMAT
@_VERBOSE
@_ONLY
@_IGNORE
@_COLOUR
@_SHOW_SECRETS
@_REDACT
@click.option(
    "--follow", is_flag=True, help="Show what comes, as long as the spool is being written."
)
def show(
    file: str,
    form: Any,  # noqa: ANN401 - one of the choices above
    verbose: bool,
    only: Sequence[str],
    ignore: Sequence[str],
    colour: str,
    show_secrets: bool,
    redact: Sequence[str],
    follow: bool,
) -> None:
    """Show a recording; its help text is :data:`_SHOW_HELP`."""
    from lxdtap import showing
    from lxdtap.masking import masks

    selection = _selection(only, ignore, verbose, show_secrets)

    def work() -> int:
        known = masks(_all_redacted(redact))
        options = showing.Options(file, form, colour, selection, follow=follow, masks=known)
        return showing.show(options, dict(os.environ))

    _exit_by(work)


_CHECK_HELP = """Check cassettes before others get them.

Is each valid? Are there credentials left in it, settings, private keys, what looks like a token or
random? One line is printed for each finding, FILE:LINE: first. Notes tell of what is kept by
design and may be private (commands, what they printed, files), and of what cannot be played again.

\b
Examples:
  lxdtap check launch.yaml
  lxdtap check --strict tests/cassettes/*.yaml

\b
Exit status:
  0    nothing was found, but for notes
  1    something was, or a cassette is not valid; with --strict also a note
  2    a wrong option
"""


@main.command(help=_CHECK_HELP, context_settings={"auto_envvar_prefix": "LXDTAP"})
@click.argument("cassettes", nargs=-1, required=True, metavar="CASSETTE...")
@click.option("--strict", is_flag=True, help="Notes count as findings.")
def check(cassettes: Sequence[str], strict: bool) -> None:
    """Check cassettes; its help text is :data:`_CHECK_HELP`."""
    from lxdtap import checking

    _exit_by(lambda: checking.check(cassettes, strict=strict))


_DIFF_HELP = """Tell what changed from recording A to recording B.

What differs from run to run is left out: times, operations' ids, addresses, counters, placeholders
of secrets. A block is printed for each interaction that is only in one, asked in another order,
or not the same: its status, fields of JSON, headers that tell, what exec's streams carried.

\b
Examples:
  lxdtap diff before.yaml after.yaml
  lxdtap diff --ignore 'GET /1.0' --ignore /1.0/events before.yaml after.yaml
  lxdtap diff --all before.yaml after.yaml

\b
Exit status:
  0    they are the same
  1    they differ
  2    trouble: a cassette cannot be read, or a wrong option
"""


@main.command(help=_DIFF_HELP, context_settings={"auto_envvar_prefix": "LXDTAP"})
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--all", "everything", is_flag=True, help="What differs from run to run counts too.")
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    callback=_patterns,
    help="Compare only what matches '[METHOD ]PATH'; * and ? are wild. May be repeated.",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="PATTERN",
    callback=_patterns,
    help="Do not compare what matches. May be repeated.",
)
def diff(a: str, b: str, everything: bool, only: Sequence[str], ignore: Sequence[str]) -> None:
    """Compare two recordings; its help text is :data:`_DIFF_HELP`."""
    from lxdtap import comparing

    _exit_by(lambda: comparing.compare(a, b, _selection(only, ignore), everything=everything))


def _selection(
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    verbose: bool = False,
    show_secrets: bool = False,
) -> Selection:
    """What is shown or compared; a run that shows nothing does without."""
    from lxdtap.log.journal import Selection

    return Selection(only, ignore, verbose, show_secrets)


def _exit_by(work: Callable[[], int]) -> NoReturn:
    """Exit with what the work returns, or by the error that it raises, which is told."""
    from lxdtap.terminal import escape

    # From here on garbage is looked for (see __main__), but never in what was imported, not at the
    # exit either: that was 8 % of all that `lxdtap run -q -- true` took.
    gc.freeze()
    gc.enable()
    try:
        status = work()
    except LxdtapError as error:
        click.echo(f"lxdtap: {escape(str(error))}", err=True)
        status = error.exit_status
    raise SystemExit(status)
