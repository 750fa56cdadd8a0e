"""``lxdtap diff`` of recordings of real daemons: the same commands are the same recording."""

from __future__ import annotations

from pathlib import Path

from tests.process.tap import run

from .throwaway import Daemon

FLOW = """
set -e
{client} list
{client} info
{client} launch bb d1
{client} config set d1 boot.autostart=false
{client} exec d1 -- sh -c 'echo {said}'
{client} delete -f d1
"""


def recorded(daemon: Daemon, path: Path, *, said: str = "hello") -> str:
    """A recording of the flow."""
    client = "lxc" if daemon.kind == "lxd" else "incus"
    flow = FLOW.format(client=client, said=said)
    tap = ("run", "-q", "--upstream", str(daemon.socket), "-w", str(path))
    done = run(*tap, "--", "sh", "-c", flow, env=daemon.environment)
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
        '  stdout: "hello\\n" -> "goodbye\\n"',
    ], done.stdout
