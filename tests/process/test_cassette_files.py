"""Cassettes as files: whole or not at all, nobody else's touched, hostile ones refused soon."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette, CassetteError, Interaction, Server
from lxdtap.transaction import Body, Request, Response, Timing, Transaction
from tests.unit.builders import BASE, body

DATA = b"\xff" * 10_000
SHA256 = hashlib.sha256(DATA).hexdigest()
SERVER = Server("lxd", BASE, "5.0.2")


def recorded(data: bytes = DATA, times: int = 1) -> Cassette:
    """A recording of something that was downloaded, some times."""
    answer = Response(200, "OK", body=body(data))
    told = Transaction(1, BASE, Request("GET", "/1.0"), Timing(1, 0), answer)
    numbered = (told._replace(number=number + 1) for number in range(times))
    return Cassette(SERVER, tuple(map(Interaction, numbered)), "lxdtap", 1)


def listing(directory: Path) -> dict[str, int]:
    """All names below a directory, with their modes."""
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.lstat().st_mode)
        for path in directory.rglob("*")
    }


def refused(path: Path, cassette: Cassette | None = None, *, overwrite: bool = False) -> str:
    with pytest.raises(CassetteError) as caught:
        files.save(cassette or recorded(), str(path), overwrite=overwrite)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """With what lies beside it; and nothing else is left behind, readable by its owner alone."""
    path = tmp_path / "c1.yaml"
    files.save(recorded(times=2), str(path))
    assert files.load(str(path)) == recorded(times=2)
    assert listing(tmp_path) == {"c1.yaml": 0o600, "c1.files": 0o700, f"c1.files/{SHA256}": 0o600}
    (interaction, _) = files.load(str(path), attachments=False).interactions
    assert interaction.transaction.response == Response(
        200, "OK", body=Body(len(DATA), b"", SHA256)
    )


@pytest.mark.parametrize("umask", [0, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    """Not for an instant more open than meant, whatever the shell's settings."""
    before = os.umask(umask)
    try:
        files.save(recorded(), str(tmp_path / "c1.yml"))
    finally:
        os.umask(before)
    assert sorted(listing(tmp_path).values()) == [0o600, 0o600, 0o700]


def test_a_relative_name_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is then the current one; a name without a suffix stays whole."""
    monkeypatch.chdir(tmp_path)
    files.save(recorded(), "c1")
    assert files.load("c1") == recorded()
    assert set(listing(tmp_path)) == {"c1", "c1.files", f"c1.files/{SHA256}"}


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    """Neither at the beginning, nor if it comes to be there while a recording goes on."""
    path = tmp_path / "c1.yaml"
    path.write_text("mine")
    assert "left alone" in refused(path)
    path.unlink()
    saving = files.Saving(str(path), SERVER)
    saving.add(recorded().interactions[0])
    path.write_text("mine")
    with pytest.raises(CassetteError, match="left alone"), saving:
        pass
    assert path.read_text() == "mine"
    assert set(listing(tmp_path)) == {"c1.yaml"}


def test_overwriting_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    """What belonged to it goes; what others put there stays."""
    path, other = str(tmp_path / "c1.yaml"), tmp_path / "c1.files" / ("a" * 64)
    files.save(recorded(), path)
    files.save(recorded(DATA * 2), path, overwrite=True)
    assert files.load(path) == recorded(DATA * 2)
    assert SHA256 not in {Path(name).name for name in listing(tmp_path)}
    files.save(recorded(DATA * 2), path, overwrite=True)
    assert files.load(path) == recorded(DATA * 2)
    other.write_text("mine")
    files.save(recorded(b"x"), path, overwrite=True)
    assert set(listing(tmp_path)) == {"c1.yaml", "c1.files", f"c1.files/{other.name}"}
    other.unlink()
    files.save(recorded(b"x"), path, overwrite=True)
    assert set(listing(tmp_path)) == {"c1.yaml"}


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_only_files_are_replaced(tmp_path: Path, kind: str) -> None:
    """A link is not followed, a FIFO not written to."""
    path, victim = tmp_path / "c1.yaml", tmp_path / "victim"
    victim.write_text("mine")
    {"symlink": lambda: path.symlink_to(victim), "fifo": lambda: os.mkfifo(path)}.get(
        kind, path.mkdir
    )()
    for overwrite in (False, True):
        assert "left alone" in refused(path, overwrite=overwrite)
    assert victim.read_text() == "mine"
    assert set(listing(tmp_path)) == {"c1.yaml", "victim"}


def test_a_hard_link_is_not_written_through(tmp_path: Path) -> None:
    """The other name keeps what it had."""
    path, victim = tmp_path / "c1.yaml", tmp_path / "victim"
    victim.write_text("mine")
    path.hardlink_to(victim)
    files.save(recorded(), str(path), overwrite=True)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_attachments_go_to_a_directory_of_our_own(tmp_path: Path, kind: str) -> None:
    """Not through a link, to somebody else's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = tmp_path / "c1.files"
    place.symlink_to(elsewhere) if kind == "link" else place.touch()
    assert "cannot be written" in refused(tmp_path / "c1.yaml")
    assert set(listing(tmp_path)) == {"elsewhere", "c1.files"}


def test_what_lies_beside_is_not_believed_by_its_name(tmp_path: Path) -> None:
    """A file with the right name and the wrong content, or a link, is replaced."""
    place = tmp_path / "c1.files" / SHA256
    place.parent.mkdir()
    for name in ("wrong", "link", "fifo"):
        place.unlink(missing_ok=True)
        {"wrong": spoilt, "link": link, "fifo": fifo}[name](place)
        path = tmp_path / "c1.yaml"
        files.save(recorded(), str(path), overwrite=True)
        assert files.load(str(path)) == recorded()


def test_an_interrupted_save_leaves_nothing(tmp_path: Path) -> None:
    """Whoever gives up, what was there before is there still, and no more."""
    path = tmp_path / "c1.yaml"
    files.save(recorded(), str(path))
    before = path.read_bytes(), listing(tmp_path)
    saving = files.Saving(str(path), SERVER, overwrite=True)
    saving.add(recorded(b"\xfe" * 9_999).interactions[0])
    with pytest.raises(KeyboardInterrupt), saving:
        raise KeyboardInterrupt
    assert (path.read_bytes(), listing(tmp_path)) == before


def test_a_place_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    """In one line, before anything is recorded."""
    assert "No such file or directory" in refused(tmp_path / "nowhere/c1.yaml")


SAVER = """
import sys
from lxdtap.cassette.model import CassetteError
from tests.process import test_cassette_files as t
try:
    t.files.save(t.recorded(), sys.argv[1])
except CassetteError as error:
    print(error)
"""


def saved_with(fault: str, path: Path) -> str:
    """Save in a process in which a system call fails; what it says."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}"]
    command = [*strace, sys.executable, "-c", SAVER, str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60).stdout


def test_where_there_are_no_links_it_is_renamed(tmp_path: Path) -> None:
    """And nothing is overwritten there either."""
    path = tmp_path / "c1.yaml"
    assert saved_with("linkat:error=EPERM", path) == ""
    assert files.load(str(path)) == recorded()
    assert "left alone" in saved_with("linkat:error=EPERM", path)
    assert set(listing(tmp_path)) == {"c1.yaml", "c1.files", f"c1.files/{SHA256}"}


@pytest.mark.parametrize("which", range(1, 4))
def test_what_does_not_last_is_not_there(tmp_path: Path, which: int) -> None:
    """An fsync may fail: of what lies beside, of the text, of the directory."""
    path = tmp_path / "c1.yaml"
    assert "cannot be written: Input/output error" in saved_with(
        f"fsync:error=EIO:when={which}", path
    )
    assert listing(tmp_path) == {}


def test_what_may_not_last_is_told_of(tmp_path: Path) -> None:
    """Once it is in its place it stays there, with all that belongs to it."""
    path = tmp_path / "c1.yaml"
    assert "cannot be written" in saved_with("fsync:error=EIO:when=4", path)
    assert files.load(str(path)) == recorded()


@pytest.mark.parametrize("data", [b"a" * 500_000, b"\xff" * 500_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    """Files are limited to 100,000 bytes; the text, or what lies beside it, is larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        assert "File too large" in refused(tmp_path / "c1.yaml", recorded(data))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert listing(tmp_path) == {}


def attached(path: Path) -> Path:
    """The only file beside a cassette."""
    (only,) = Path(files.beside(str(path))).iterdir()
    return only


def spoilt(path: Path) -> None:
    path.write_text("x")


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/hostname")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "cannot be read: No such file"),
        (lambda path: path.write_text(""), ", line 1: it is empty"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), ": the last line has no newline"),
        (directory, "cannot be read: Is a directory"),
        (lambda path: attached(path).unlink(), "is not beside the cassette"),
        (lambda path: spoilt(attached(path)), "has been altered"),
        (lambda path: fifo(attached(path)), "is not beside the cassette"),
        (lambda path: link(attached(path)), "cannot be read: Too many levels"),
    ],
)
def test_a_damaged_cassette_is_told_of(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """With its name, the line, and what is wrong."""
    path = tmp_path / "c1.yaml"
    files.save(recorded(), str(path))
    spoil(path)
    with pytest.raises(CassetteError) as caught:
        files.load(str(path))
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


LOADER = """
import sys, time
from lxdtap.cassette import files
from lxdtap.cassette.model import CassetteError
begun = time.process_time()
try:
    files.load(sys.argv[1])
except CassetteError as error:
    print(error)
print(time.process_time() - begun, file=sys.stderr)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1024, file=sys.stderr)
"""
HEAD = "version: 1\nserver:\n  kind: lxd\n  address: x\ninteractions:"
REQUEST = f"{HEAD}\n- request:\n    method: G\n    uri: /\n    body: "
HOSTILE = {
    "nested": ("", "[", 50_000_000, ""),
    "nested within": (HEAD, " [", 200_000, ""),
    "long": (REQUEST + "{text: ", "x", 50_000_000, ""),
    "huge": ("version: ", "9", 50_000_000, ""),
    "aliases": ("a: &a [", "*a, ", 10_000_000, ""),
    "comment": ("", "#", 50_000_000, ""),
    "zeros": ("", "\0", 50_000_000, ""),
    "nested JSON": (REQUEST + "{json: '", "[", 7_000_000, "'}\n"),
    "long JSON": (REQUEST + "{json: '[", "1,", 3_500_000, "]'}\n"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_cassette_costs_little(tmp_path: Path, name: str) -> None:
    """One line, within a second of the processor's time and 100 MiB."""
    before, piece, times, after = HOSTILE[name]
    path = tmp_path / "c1.yaml"
    path.write_text(before + piece * times + after)
    command = [sys.executable, "-c", LOADER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}, line ")
    assert done.stdout.count("\n") == 1
    seconds, mebibytes = map(float, done.stderr.split())
    assert seconds < 1
    assert mebibytes < 100


def test_a_killed_save_leaves_what_was_there(tmp_path: Path) -> None:
    """Whenever it dies: the old cassette or the new one, whole."""
    path = tmp_path / "c1.yaml"
    files.save(recorded(), str(path))
    script = (
        "import sys; from lxdtap.cassette import files; from tests.process import"
        " test_cassette_files as t; print(flush=True)\n"
        "while True: files.save(t.recorded(b'x' * 999, 500), sys.argv[1], overwrite=True)"
    )
    old, new = recorded(), recorded(b"x" * 999, 500)
    for delay in range(10):
        command = [sys.executable, "-c", script, str(path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(delay * 0.007)
            child.kill()
        assert files.load(str(path)) in (old, new)
