"""``lxdtap diff`` of recordings of real daemons: the same commands are the same recording."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.process.tap import LXDTAP, run

from .throwaway import Daemon

SECONDS = 60
"""Within which a recording is made, however busy the machine is."""
FLOW = """
set -e
{client} list
{client} info
{client} launch bb d1
{client} config set d1 boot.autostart=false
{client} exec d1 -- sh -c 'echo {said}'
{client} snapshot {create}d1 s
echo text | {client} file push - d1/tmp/f
{client} stop -f d1
{client} start d1
{client} list
{client} delete -f d1
"""


def recorded(daemon: Daemon, path: Path, *, said: str = "hello") -> str:
    """A recording of the flow."""
    client = "lxc" if daemon.kind == "lxd" else "incus"
    flow = FLOW.format(client=client, said=said, create="" if client == "lxc" else "create ")
    tap = ("run", "-q", "--upstream", str(daemon.socket), "-w", str(path))
    done = subprocess.run(
        [*LXDTAP, *tap, "--", "sh", "-c", flow],
        env=daemon.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return str(path)


def test_the_same_commands_make_no_difference(daemon: Daemon, tmp_path: Path) -> None:
    """Recorded twice on the same daemon; what was said otherwise is all that is told."""
    recorded(daemon, tmp_path / "first.yaml")  # the client's own files are made
    one, two = (recorded(daemon, tmp_path / name) for name in ("one.yaml", "two.yaml"))
    done = run("diff", one, two)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run("diff", "--all", one, two).returncode == 1
    other = recorded(daemon, tmp_path / "other.yaml", said="goodbye")
    done = run("diff", one, other)
    assert done.returncode == 1
    changes = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert changes == [
        '  request.command[2]: "echo hello" -> "echo goodbye"',
        '  response.metadata.metadata.command[2]: "echo hello" -> "echo goodbye"',
        '  stdout: "hello\\n" -> "goodbye\\n"',
        '  response.metadata.metadata.command[2]: "echo hello" -> "echo goodbye"',
    ], done.stdout
