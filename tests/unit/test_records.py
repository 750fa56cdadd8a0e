"""Events as bytes: the same event comes back, and nothing else passes for one."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lxdtap.transaction import Body, Direction, Frame, Moment, Opcode, Peer
from lxdtap.wire import events
from lxdtap.wire.records import KINDS, UnreadableRecordError, decode, encode, parts

numbers = st.integers(0, 1 << 62)
moments = st.builds(Moment, numbers, numbers)
texts = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
raws = st.binary(max_size=40)
headers = st.lists(st.tuples(raws, raws), max_size=3).map(tuple)
directions = st.sampled_from(Direction)
bodies = st.builds(Body, numbers, raws, texts)
frames = st.builds(Frame, st.sampled_from(Opcode), bodies, st.booleans())
peers = st.builds(Peer, numbers, numbers, numbers, st.lists(numbers, max_size=3).map(tuple))

every = st.one_of(
    st.builds(events.Opened, numbers, moments, texts, st.none() | peers),
    st.builds(events.Refused, numbers, moments, texts),
    st.builds(events.RequestHead, numbers, numbers, moments, raws, raws, raws, headers),
    st.builds(events.ResponseHead, numbers, numbers, moments, numbers, raws, raws, headers),
    st.builds(events.Data, numbers, numbers, moments, directions, raws),
    st.builds(events.Skipped, numbers, numbers, moments, directions, numbers),
    st.builds(events.Digest, numbers, numbers, moments, directions, texts),
    st.builds(events.MessageEnd, numbers, numbers, moments, directions, headers),
    st.builds(events.WholeMessage, numbers, numbers, moments, directions, st.just(0), raws),
    raws.flatmap(
        lambda raw: st.builds(
            events.WholeMessage,
            *(numbers, numbers, moments, directions, st.integers(0, len(raw)), st.just(raw)),
        )
    ),
    st.builds(events.Garbled, numbers, numbers, moments, directions, texts),
    st.builds(events.Switched, numbers, numbers, moments, texts, texts),
    st.builds(events.FrameData, numbers, numbers, moments, directions, frames),
    st.builds(events.Cut, numbers, numbers, moments, directions, texts),
    st.builds(events.Closed, numbers, moments, texts),
    st.builds(events.Said, moments, texts),
)


@given(every)
@example(events.Opened(1, Moment(1, 2), "http+unix://lxd", Peer(1, 2, 3, (4, 5))))
def test_an_event_comes_back(event: events.Event) -> None:
    """Whatever an event holds, its bytes are that event, of the same type throughout."""
    block = encode(event)
    (again,) = decode(block)
    assert again == event
    assert type(again) is type(event)
    if isinstance(again, events.Data):  # read without a copy too
        assert isinstance(again.data, memoryview)
        assert again.data.obj is block
        again = again._replace(data=bytes(again.data))
    assert repr(again) == repr(event)


@given(st.lists(every, min_size=1, max_size=5))
def test_a_block_is_its_events(block: list[events.Event]) -> None:
    """Events that follow each other come back in order."""
    assert decode(b"".join(map(encode, block))) == block


@given(every)
def test_what_passed_is_not_copied(event: events.Event) -> None:
    """An event's two parts are its bytes; the second is the very data that it holds."""
    head, passed = parts(event)
    assert head + passed == encode(event)
    if isinstance(event, events.Data | events.WholeMessage):
        assert passed is event.data


def test_every_kind_of_event_has_a_number() -> None:
    """The numbers are in files: they stay as they are, and none is missing."""
    names = [kind.__name__ for kind in KINDS]
    assert names == [
        *("Opened", "Refused", "RequestHead", "ResponseHead", "Data", "MessageEnd", "Garbled"),
        *("Switched", "FrameData", "Cut", "Closed", "Said", "Skipped", "Digest"),
        "WholeMessage",
    ]
    assert len(KINDS) == len(events.Event.__args__)


@given(every, st.data())
def test_cut_bytes_are_no_event(event: events.Event, data: st.DataObject) -> None:
    """Half an event is none."""
    whole = encode(event)
    with pytest.raises(UnreadableRecordError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary())
def test_any_bytes_are_an_event_or_none(raw: bytes) -> None:
    """Bytes from anywhere do no harm."""
    try:
        found = decode(raw)
    except UnreadableRecordError:
        return
    assert all(isinstance(event, KINDS) for event in found)


def record(kind: int, fields: object) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return bytes([kind]) + len(packed).to_bytes(4, "little") + packed


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (11, ((1, 2), "text", 1)),
        (11, ((1, 2),)),
        (11, 7),
        (99, ((1, 2), "text")),
        (11, ((1, 2), b"text")),
        (11, ((1, True), "text")),
        (11, ((1,), "text")),
        (10, ("1", (1, 2), "why")),
        (5, (1, 1, (1, 2), 1, ())),
        (8, (1, 1, (1, 2), True, (77, (0, b"", ""), True))),
        (0, (1, (1, 2), "base", (1, 2))),
        (5, (1, 1, (1, 2), True, ((b"a", "b"),))),
    ],
)
def test_what_has_the_wrong_fields_is_no_event(kind: int, fields: object) -> None:
    """Each field is of its type, and none is missing."""
    with pytest.raises(UnreadableRecordError):
        decode(record(kind, fields))


def test_a_message_has_a_head_that_is_not_longer() -> None:
    """Who makes a transaction of it relies on that."""
    message = events.WholeMessage(1, 1, Moment(1, 2), Direction.SENT, 5, b"head")
    with pytest.raises(UnreadableRecordError, match="shorter than its head"):
        decode(encode(message))


def test_a_record_that_is_too_short_for_its_kind() -> None:
    """What follows it is not taken for a part of it."""
    after = encode(events.Said(Moment(1, 2), "text"))
    for kind in (events.Data, events.WholeMessage):
        with pytest.raises(UnreadableRecordError):
            decode(bytes([KINDS.index(kind), 3, 0, 0, 0]) + b"abc" + after)


def test_only_events_are_encoded() -> None:
    """A fault of ours in what an event holds is found where it is made."""
    with pytest.raises(TypeError, match="set is no part of an event"):
        encode(events.Said(Moment(0, 0), {1}))  # type: ignore[arg-type]
