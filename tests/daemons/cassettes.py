"""Records ``cassettes/`` again, from a throwaway LXD and Incus: ``make cassettes``.

::

    python -m tests.daemons.cassettes [NAME ...]     # such as launch, or lxd/launch; without: all

Nothing of the machine that records is to be in a cassette that is handed on. Secrets are taken out
by lxdtap itself; what else tells of the machine is replaced here, see :class:`Neutral`, in the
cassette's text, which is made to be edited; and looked for in the end. Clients begin each command
with a ``GET /1.0``, whose answer is 16 KB long: of those with the same answer the first is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette
from tests.scenarios import CASSETTES, PATIENCE, RECORDINGS, VERSIONS, Recording

from .throwaway import INCUS, LXD, Brand, Daemon, throwaway

TRIES = 5
"""How often a scenario is recorded in which the daemon itself may go wrong (see tapping.py)."""
KERNEL = "6.1.0"
HOST = "host"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\\nleft out\\n-----END CERTIFICATE-----\\n"
FINGERPRINT = "0" * 64
ADDRESS = "127.0.0.1:8443"


class RecordingError(Exception):
    """A cassette was not recorded as it is to be."""


# What tells of the machine.


@dataclass(frozen=True, slots=True)
class Neutral:
    """Replaces what tells of the machine on which a cassette was recorded.

    The daemon's directory becomes the usual one; the host's name, its kernel, and the daemon's
    process, address, certificate and that one's fingerprint become something neutral. The versions
    of the daemon, of its storage and of Debian remain: answers depend on them.
    """

    home: Path
    directory: Path
    kind: str
    host: str
    kernel: str
    certificate: str
    fingerprint: str
    address: str = ADDRESS

    @classmethod
    def of(cls, daemon: Daemon) -> Neutral:
        told = daemon.ask("GET", "/1.0")["environment"]
        return cls(
            daemon.home,
            daemon.directory,
            daemon.kind,
            told["server_name"],
            told["kernel_version"],
            told["certificate"].replace("\n", "\\n"),
            told["certificate_fingerprint"],
            *told["addresses"][:1],
        )

    def __call__(self, text: str) -> str:
        """A cassette's text without them."""
        for telling, neutral in self._words():
            text = text.replace(telling, neutral)
        for pattern, neutral in self._places():
            text = re.sub(pattern, neutral, text)
        return text

    def _words(self) -> Iterator[tuple[str, str]]:
        place = f"/var/lib/{self.kind}"
        yield quote_plus(str(self.directory)), quote_plus(place)
        yield str(self.directory), place
        yield self.certificate, CERTIFICATE
        yield self.fingerprint, FINGERPRINT
        yield self.kernel, KERNEL
        yield self.address, ADDRESS

    def _places(self) -> Iterator[tuple[str, str]]:
        yield r'"server_pid": \d+', '"server_pid": 1'
        yield rf'"server_name": "{re.escape(self.host)}"', f'"server_name": "{HOST}"'
        # User-Agent: LXD 5.0.2 (Linux; x86_64; 6.1.0; Debian GNU/Linux; 12)
        yield rf"(\(Linux; \w+; ){re.escape(self.kernel.partition('-')[0])}", rf"\g<1>{KERNEL}"

    def left(self, text: str, cassette: Cassette) -> list[str]:
        """What tells of the machine after all."""
        telling = [
            self.home.name,
            tempfile.gettempdir() + "/",
            self.certificate,
            self.fingerprint,
            self.kernel,
            *([self.address] if self.address != ADDRESS else []),
        ]
        blobs = [text.encode(), *_payloads(cassette)]
        found = [each for each in telling if any(each.encode() in blob for blob in blobs)]
        host = re.compile(rb"[^\w.-]" + re.escape(self.host.encode()) + rb"[^\w.-]")
        return found + [self.host for blob in blobs if self.host != HOST and host.search(blob)]


def _payloads(cassette: Cassette) -> Iterator[bytes]:
    for interaction in cassette.interactions:
        transaction = interaction.transaction
        yield transaction.request.body.captured
        if transaction.response is not None:
            yield transaction.response.body.captured
        yield from (piece.payload.captured for piece in interaction.pieces)


# Recording.


def record(recording: Recording, daemon: Daemon, neutral: Neutral, path: Path) -> None:
    """Make one cassette, at ``path``."""
    with tempfile.TemporaryDirectory(dir=daemon.home) as place:
        draft = Path(place, path.name)
        for attempt in range(TRIES):
            said = _done(recording, daemon, draft, attempt)
            daemon.reset()
            if said == (0, recording.says):
                break
        else:
            raise RecordingError(f"{recording.name} says {said}, not {recording.says!r}")
        draft.write_text(neutral(draft.read_text(encoding="utf-8")), encoding="utf-8")
        cassette = thinned(files.load(str(draft)))
        files.save(cassette, str(draft), overwrite=True)
        text = header(recording) + draft.read_text(encoding="utf-8")
        draft.write_text(text, encoding="utf-8")
        if left := neutral.left(text, cassette):
            raise RecordingError(f"{recording.name} tells of this machine: {', '.join(left)}")
        _put(draft, path)


def thinned(cassette: Cassette) -> Cassette:
    """Without each ``GET /1.0`` whose answer was given before: replay gives that again."""
    seen: set[bytes] = set()
    kept = []
    for interaction in cassette.interactions:
        request, response = interaction.transaction.request, interaction.transaction.response
        if (request.method, request.target) == ("GET", "/1.0") and response is not None:
            if response.body.captured in seen:
                continue
            seen.add(response.body.captured)
        kept.append(interaction)
    return cassette._replace(interactions=tuple(kept))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _done(recording: Recording, daemon: Daemon, draft: Path, attempt: int) -> tuple[int, str]:
    """Do it through a recording lxdtap; the status and what it said."""
    directory = draft.parent / str(attempt)
    directory.mkdir()
    tap = [sys.executable, "-m", "lxdtap", "run", "-q", "-w", str(draft), "--overwrite"]
    done = subprocess.run(
        [*tap, "--upstream", str(daemon.socket), "--", "sh", "-uc", recording.script],
        cwd=directory,
        env=recording.environment(draft.parent),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout


def _put(draft: Path, path: Path) -> None:
    """Put the cassette, and what lies beside it, in its place."""
    beside, theirs = Path(files.beside(str(draft))), Path(files.beside(str(path)))
    path.parent.mkdir(parents=True, exist_ok=True)
    if theirs.exists():
        shutil.rmtree(theirs)
    if beside.exists():
        theirs.mkdir()
        for each in beside.iterdir():
            shutil.copyfile(each, theirs / each.name)
    shutil.copyfile(draft, path)


# What stands above it.


def header(recording: Recording) -> str:
    """What is in the cassette, and how to play it."""
    who = {"lxd": "LXD", "incus": "Incus"}[recording.kind]
    path = recording.path.relative_to(CASSETTES.parent)
    lines = [
        *textwrap.wrap(f"{who} {VERSIONS[recording.kind]}: {recording.scenario.about}.", 96),
        "",
        "To play it, with no daemon anywhere:",
        "",
        f"    lxdtap replay {path}",
        "",
        "and in another terminal, after the line that this says to type there:",
        "",
        *(f"    {line}" for line in recording.script.splitlines()),
        "",
        "which says:",
        "",
        *(f"    {line}" for line in recording.says.splitlines()),
        "",
        "Recorded by `make cassettes`. The host's name and kernel, the daemon's directory, address",
        "and certificate are made up; a GET /1.0 with the same answer stands here once.",
        "",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def main(names: Sequence[str]) -> int:
    """Record them; the exit status."""
    chosen = [r for r in RECORDINGS if not names or {r.name, r.scenario.name} & set(names)]
    if unknown := set(names) - {n for r in chosen for n in (r.name, r.scenario.name)}:
        known = ", ".join(each.name for each in RECORDINGS)
        print(f"there is no cassette {', '.join(sorted(unknown))}; there are {known}")
        return 2
    failed = False
    for brand in (LXD, INCUS):
        of_it = [each for each in chosen if each.kind == brand.kind]
        failed |= bool(of_it) and not _record_all(brand, of_it)
    return int(failed)


def _record_all(brand: Brand, recordings: Sequence[Recording]) -> bool:
    """Record those of one daemon; whether all could be."""
    if why := brand.missing() or next(filter(None, (each.lacks() for each in recordings)), None):
        print(f"cannot record: {why}; see .ci/install-daemons", file=sys.stderr)
        return False
    failed = False
    with throwaway(brand) as daemon:
        daemon.run("config", "set", "core.https_address", f"127.0.0.1:{_free_port()}")
        neutral = Neutral.of(daemon)
        for recording in recordings:
            try:
                record(recording, daemon, neutral, recording.path)
            except RecordingError as error:
                print(error, file=sys.stderr, flush=True)
                failed = True
                continue
            size = os.path.getsize(recording.path)
            print(f"{recording.path.relative_to(CASSETTES.parent)}: {size // 1000} KB", flush=True)
    return not failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
