"""``lxdtap diff`` as it is used: its output, its exit status, and cassettes that were edited."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lxdtap.cassette import files
from lxdtap.cassette.model import Interaction
from lxdtap.transaction import Body

from .tap import run

CASSETTES = Path(__file__).parents[2] / "cassettes"
EXEC = CASSETTES / "lxd" / "exec.yaml"


def diff(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("diff", *map(str, arguments))


def with_body(interaction: Interaction, old: bytes, new: bytes) -> Interaction:
    """An interaction whose answer says something else."""
    response = interaction.transaction.response
    assert response is not None
    assert old in response.body.captured
    data = response.body.captured.replace(old, new)
    response = response._replace(body=Body(len(data), data))
    return interaction._replace(transaction=interaction.transaction._replace(response=response))


@pytest.mark.parametrize("kind", ["lxd", "incus"])
def test_a_recording_is_itself(kind: str) -> None:
    """Each that is shipped, whatever counts."""
    path = CASSETTES / kind / "exec.yaml"
    for options in ((), ("--all",)):
        done = diff(*options, path, path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_edit_is_found(tmp_path: Path) -> None:
    """And nothing else: a missing interaction, a field, what a command printed."""
    recorded = files.load(str(EXEC))
    whole = list(recorded.interactions)
    printed = next(i for i, each in enumerate(whole) if each.stream == "stdout")
    old = whole[printed]
    pieces = tuple(
        each._replace(payload=Body(4, b"new\n")) if each.payload.captured == b"out\n" else each
        for each in old.pieces
    )
    edits = {
        "less": [each for each in whole if each is not whole[-1]],
        "field": [with_body(whole[0], b'"storage_zfs_remove_snapshots"', b'"other"'), *whole[1:]],
        "printed": [*whole[:printed], old._replace(pieces=pieces), *whole[printed + 1 :]],
    }
    found = {}
    for name, interactions in edits.items():
        path = str(tmp_path / f"{name}.yaml")
        files.save(recorded._replace(interactions=tuple(interactions)), path)
        done = diff(EXEC, path)
        assert (done.returncode, done.stderr) == (1, "")
        found[name] = done.stdout.splitlines()
    (missing,) = found["less"]
    assert missing.startswith(f"only in A: #{whole[-1].transaction.number} GET ")
    assert found["field"] == [
        "#1 ~ #1 GET /1.0",
        '  response.metadata.api_extensions[0]: "storage_zfs_remove_snapshots" -> "other"',
    ]
    assert found["printed"][1:] == ['  stdout: "out\\n" -> "new\\n"']
    done = diff("--ignore", "GET /1.0", EXEC, tmp_path / "field.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    done = diff("--only", "GET /1.0", EXEC, tmp_path / "printed.yaml")
    assert (done.returncode, done.stdout) == (0, "")


def test_trouble(tmp_path: Path) -> None:
    """Is 2, as diff's, and one line."""
    damaged = tmp_path / "damaged.yaml"
    damaged.write_text("hello: 1\n")
    for pair in ((EXEC, tmp_path / "none.yaml"), (damaged, EXEC)):
        done = diff(*pair)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("lxdtap: ")
    assert diff(EXEC).returncode == 2
    assert diff("--only", "x", EXEC, EXEC).returncode == 2
