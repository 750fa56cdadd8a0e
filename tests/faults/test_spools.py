"""Spools that are damaged: it is seen, and all that stands before the damage is recovered."""

from __future__ import annotations

import os
import random
import signal
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxdtap.cassette import files
from lxdtap.cassette.model import Cassette, Server
from lxdtap.errors import SpoolError
from lxdtap.record import spool
from lxdtap.record.collect import Collector
from lxdtap.transaction import Moment
from lxdtap.wire.events import Event, WholeMessage
from lxdtap.wire.records import UnreadableRecordError, decode, encode
from tests.campaign import Campaign
from tests.process.recording import SPOOL, SYNC, get, recorder_of, recover, targets
from tests.process.tap import answer, ask, eventually, sidecar
from tests.unit.conversation import GET, OK, POST, SWITCHING, UPGRADE, talk

from .upstreams import serving, upstream

TIMES = 12
BODY = b"\xff\0" * 500


@dataclass(frozen=True)
class Spooled:
    """A spool, and what was known of it as it grew.

    Attributes:
        shown: how large it was, at most, when the log had shown 1, 2, 3 … transactions.
    """

    data: bytes
    events: list[Event]
    shown: list[int]

    def known(self, size: int) -> int:
        """How many transactions were shown when it had no more than so many bytes."""
        return sum(each <= size for each in self.shown)


@pytest.fixture(scope="module")
def spooled(tmp_path_factory: pytest.TempPathFactory) -> Spooled:
    """The spool of a tap that was killed."""
    here = tmp_path_factory.mktemp("spooled")
    path = here / SPOOL
    shown: list[int] = []
    bodies = [answer(SYNC), answer(BODY, kind="application/octet-stream")]
    with upstream(here / "lxd", serving(lambda r: bodies[b"/1" in r.line])) as daemon:
        with sidecar(here / "tap", daemon.path, "-w", str(here / "c.yaml")) as tap:
            for number in range(TIMES):
                ask(tap.path, get(f"/{number}"))
                eventually(lambda: len(tap.entries("transaction")) > len(shown))
                shown.append(path.stat().st_size)
            for pid in (recorder_of(tap), tap.process.pid):
                os.kill(pid, signal.SIGKILL)
            tap.process.communicate()
    events, damage = read(path)
    assert not damage
    assert whole(events) == TIMES
    return Spooled(path.read_bytes(), events, shown)


def read(path: Path) -> tuple[list[Event], str]:
    """The events of a spool, and its damage; one that is none has no events."""
    reading = spool.Reading(0)
    try:
        events = list(spool.read(str(path), reading))
    except SpoolError as error:
        return [], str(error)
    if not reading.damage:
        assert reading.offset == reading.size
    return events, reading.damage


def whole(events: list[Event]) -> int:
    """How many transactions have ended among these events."""
    collector = Collector()
    return sum(1 for event in events for _ in collector.add(event))


def test_cut_at_any_byte(tmp_path: Path, campaign: Campaign, spooled: Spooled) -> None:
    """What is read is a prefix, with all that had been shown at that size; the cut is told.

    It is not where a tap would have ended too: there are no more such places than events.
    """
    path = tmp_path / "cut"
    sizes = range(0, len(spooled.data), campaign.count(61, 1))
    untold = 0
    for size in campaign.progress("spool cut", sizes, len(sizes)):
        path.write_bytes(spooled.data[:size])
        events, damage = read(path)
        assert events == spooled.events[: len(events)]
        assert whole(events) >= spooled.known(size)
        untold += not damage
    assert untold <= len(spooled.events)
    campaign.figure("spool cut at a byte", f"{len(sizes)} of {len(spooled.data)} bytes: a prefix")


def test_checked_by_what_everybody_has(spooled: Spooled) -> None:
    """The checksums are zlib's, whatever made them here: any machine reads any other's spool."""
    at, records = len(spool.MAGIC), 0
    while at < len(spooled.data):
        length, checksum = spool.HEAD.unpack_from(spooled.data, at)
        at += spool.HEAD.size + length
        assert zlib.crc32(spooled.data[at - length : at]) == checksum
        records += 1
    assert records >= TIMES


def test_any_bit_flipped(tmp_path: Path, campaign: Campaign, spooled: Spooled) -> None:
    """It is seen, whichever it is, and all before it is there."""
    path = tmp_path / "flipped"
    bits = range(0, 8 * len(spooled.data), campaign.count(601, 1))
    for bit in campaign.progress("bit flipped", bits, len(bits)):
        data = bytearray(spooled.data)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        events, damage = read(path)
        assert damage
        assert events == spooled.events[: len(events)]
        assert whole(events) >= spooled.known(bit // 8)
    campaign.figure("bit of a spool flipped", f"{len(bits)} bits: each seen")


def test_recover_tells_of_the_damage(tmp_path: Path, campaign: Campaign, spooled: Spooled) -> None:
    """In one line; the cassette has what stands before it, and says that it is not complete."""
    dice = random.Random(8)
    times = campaign.count(4, 200)
    for number in campaign.progress("damage recovered", range(times), times):
        place = dice.randrange(len(spooled.data))
        data = bytearray(spooled.data)
        if number % 2:
            del data[place:]
        else:
            data[place] ^= 1 << dice.randrange(8)
        path, cassette = tmp_path / f"{number}.yaml.spool", tmp_path / f"{number}.yaml"
        path.write_bytes(data)
        _, damage = read(path)
        done = recover(path, "--keep")
        assert done.stderr.count("\n") == 1
        assert path.read_bytes() == data
        if "is not a spool" in damage:
            assert done.returncode == 1
            assert not cassette.exists()
            continue
        assert done.returncode == 0, done.stderr
        assert damage in done.stderr
        assert ("up to where" in done.stderr) is bool(damage)
        kept = files.load(str(cassette))
        assert not kept.complete
        assert targets(kept) == [f"/{n}" for n in range(len(kept.interactions))]
        answered = [i for i in kept.interactions if not i.transaction.broken]
        assert len(answered) >= spooled.known(place)
    campaign.figure("lxdtap recover of a damaged spool", f"{times} times: one line, a cassette")


# -- what nobody wrote in good faith

MANY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that were these, before pieces of them were cut, repeated, moved and replaced."""
    place = st.integers(0, len(data))
    change = st.tuples(place, place, st.one_of(st.binary(max_size=9), st.tuples(place, place)))

    def apply(changes: list[tuple[int, int, bytes | tuple[int, int]]]) -> bytes:
        made = data
        for start, end, by in changes:
            piece = by if isinstance(by, bytes) else data[slice(*by)]
            made = made[:start] + piece + made[max(start, min(end, start + 40)) :]
        return made

    return st.lists(change, min_size=1, max_size=4).map(apply)


def test_a_spool_of_any_bytes(tmp_path: Path, campaign: Campaign, spooled: Spooled) -> None:
    """Events are read of it or it is refused, in one line, and nothing else."""
    path = tmp_path / "any"

    @settings(MANY, max_examples=campaign.count(60, 5000))
    @given(mutated(spooled.data) | st.binary(max_size=200))
    def law(data: bytes) -> None:
        path.write_bytes(data)
        events, damage = read(path)
        assert damage.isprintable()
        assert not events or decode(b"".join(map(encode, events))) == events

    law()


def test_a_record_of_any_bytes(campaign: Campaign, spooled: Spooled) -> None:
    """It is events, the same when they are written again, or it is told that it is none."""
    records = sorted({encode(event) for event in spooled.events}, key=len)

    @settings(MANY, max_examples=campaign.count(150, 20_000))
    @given(st.sampled_from(records).flatmap(mutated) | st.binary(max_size=60))
    def law(data: bytes) -> None:
        try:
            events = decode(data)
        except UnreadableRecordError:
            return
        assert decode(b"".join(map(encode, events))) == events

    law()


NUMBERS = st.sampled_from([0, 1, 2, 101, 200, -1, -(10**18), 10**18, (1 << 63) - 1])
TEXTS = st.sampled_from(["", "sftp", "websocket", "\udcff", "a\nb", "\x1b[2J", "0" * 64])
WIRES = st.sampled_from([b"", b"GET", b"/1.0/operations/x/wait", b"\xff\0\r\n", b"HTTP/1.1", b"7"])
FIELDS: dict[type, st.SearchStrategy[object]] = {int: NUMBERS, str: TEXTS, bytes: WIRES}
SPOKEN = [
    *(talk(">>", POST, "<<", OK, ">>", GET, "<<", OK, "||").events),
    *(talk(">>", UPGRADE, "<<", SWITCHING, b"\x81\x02hi", ">>", b"\x88\x02\x03\xe8", "||").events),
    *(talk(">>", GET, "<<", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "||").events),
]
"""Events of some conversations: in a spool that somebody made up they may come in any order."""


@st.composite
def altered(draw: st.DrawFn, event: Event) -> Event:
    """An event, maybe with other values of the same kinds: what a record may say."""
    if draw(st.booleans()):
        return event
    changed: dict[str, Any] = {
        name: draw(FIELDS[type(value)])
        for name, value in event._asdict().items()
        if type(value) in FIELDS and draw(st.booleans())
    }
    if isinstance(event, WholeMessage):
        size = len(changed.get("data", event.data))
        changed["head_size"] = draw(st.integers(0, size) | st.just(min(event.head_size, size)))
    if draw(st.integers(0, 9)) == 0:
        changed["at"] = Moment(draw(NUMBERS), draw(NUMBERS))
    (read,) = decode(encode(event._replace(**changed)))
    return read


def test_events_in_any_order(tmp_path: Path, campaign: Campaign) -> None:
    """What somebody made up is a recording or it is refused in one line, and nothing else."""
    path = tmp_path / "c.yaml"

    @settings(MANY, max_examples=campaign.count(60, 5000))
    @given(st.lists(st.sampled_from(SPOKEN).flatmap(altered), max_size=20))
    def law(events: list[Event]) -> None:
        collector = Collector()
        found = [each for event in events for each in collector.add(event)]
        found += collector.end(Moment(0, 0), "it ended")
        found.sort(key=lambda each: each.transaction.number)
        began = collector.began.wall if collector.began else 0
        server = Server("lxd", collector.base or "x", collector.version)
        files.save(Cassette(server, tuple(found), "", began), str(path), overwrite=True)
        assert len(files.load(str(path)).interactions) == len(found)

    law()
