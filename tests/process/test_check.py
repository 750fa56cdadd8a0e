"""``lxdtap check`` as CI and pre-commit use it."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from .tap import answer, fake_daemon, read_until, run

SECRET = "correct-horse-battery"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``clean.yaml``, ``kept.yaml`` with its secret, and ``exec.yaml`` with a command."""
    here = tmp_path_factory.mktemp("recordings")

    def script(sock, served) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        read_until(sock, served, b"}")
        sock.sendall(answer(b'{"type":"sync","metadata":{}}\n'))

    asking = (
        "import http.client, os, socket, sys\n"
        "c = http.client.HTTPConnection('x'); c.sock = s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(os.environ['LXD_SOCKET'])\n"
        "c.request('POST', '/1.0', sys.argv[1], {'Content-Type': 'application/json'})\n"
        "c.getresponse().read()\n"
    )
    sent = json.dumps({"password": SECRET}), json.dumps({"command": ["id"]})
    with fake_daemon(here / "lxd", script) as daemon:
        for name, body, *options in (
            ("clean", sent[0]),
            ("kept", sent[0], "--keep-secrets"),
            ("exec", sent[1]),
        ):
            tap = ("run", "-q", "--upstream", daemon.path, "-w", f"{here}/{name}.yaml", *options)
            done = run(*tap, "--", "python3", "-c", asking, body)
            assert done.returncode == 0, done.stderr
    return here


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = run("check", *map(str, arguments))
    assert SECRET not in done.stdout + done.stderr
    return done


def test_a_clean_one(recordings: Path) -> None:
    """Says nothing, as a recording is by default."""
    done = check(recordings / "clean.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_secret_is_found(recordings: Path) -> None:
    """On the line where it stands; others are checked all the same."""
    kept = recordings / "kept.yaml"
    done = check(kept, recordings / "clean.yaml")
    (line,) = done.stdout.splitlines()
    path, number, rest = line.split(":", 2)
    assert (done.returncode, path) == (1, str(kept))
    assert SECRET in kept.read_text().splitlines()[int(number) - 1]
    assert rest == " interaction #1: a credential, request body: password"


def test_notes_do_not_fail(recordings: Path) -> None:
    """Unless that is asked for."""
    path = recordings / "exec.yaml"
    done, strict = check(path), check("--strict", path)
    assert (done.returncode, strict.returncode) == (0, 1)
    assert done.stdout == strict.stdout
    assert ": note: interaction #1: a command that was run, request body\n" in done.stdout


def test_what_is_not_valid(recordings: Path, tmp_path: Path) -> None:
    """One line each, with the place; nothing is printed as it is."""
    whole = (recordings / "clean.yaml").read_text()
    cut = tmp_path / "cut.yaml"
    cut.write_text(whole[: len(whole) // 2])
    odd = tmp_path / "o\x1bdd.yaml"
    odd.write_text("hello: 1\n")
    done = check(cut, odd, tmp_path / "none.yaml", tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert len(lines) == 4
    assert lines[0].startswith(f"{cut}:")
    assert int(lines[0].removeprefix(f"{cut}:").partition(":")[0]) > 1
    assert "\x1b" not in done.stdout
    assert "cannot be read" in lines[2]
    assert "cannot be read" in lines[3]


def test_a_private_key_beside_a_cassette(recordings: Path, tmp_path: Path) -> None:
    """What is encoded is looked into."""
    key = b"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIDZk3qP9xL2mV7tB4nR8wS\0\n"
    text = (recordings / "clean.yaml").read_text()
    at = text.index("      json: |")
    end = text.index("  response:")
    coded = base64.b64encode(key).decode()
    path = tmp_path / "key.yaml"
    kind = text[:at].replace("application/json", "application/octet-stream")
    path.write_text(f"{kind}      base64: {coded}\n{text[end:]}")
    done = check(path)
    assert done.returncode == 1
    assert "interaction #1: a private key, request body" in done.stdout


def test_nothing_to_check() -> None:
    """Is a mistake."""
    assert check().returncode == 2
    assert check("--nonesuch", "x").returncode == 2
