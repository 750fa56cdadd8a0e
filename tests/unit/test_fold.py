"""The fold: what transactions tell of themselves, and when."""

from __future__ import annotations

import itertools
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from lxdtap.transaction import (
    NOTHING,
    Body,
    BytesSeen,
    Count,
    Direction,
    Finished,
    Moment,
    Note,
    Opcode,
    Open,
    Tunnel,
)
from lxdtap.wire.events import (
    Digest,
    Garbled,
    MessageEnd,
    Opened,
    Refused,
    RequestHead,
    Said,
    Skipped,
    WholeMessage,
)
from lxdtap.wire.fold import VISIBLE_AFTER, Fold
from lxdtap.wire.records import decode, encode
from lxdtap.wire.whole import spelled

from .conversation import (
    BASE,
    GET,
    OK,
    PEER,
    POST,
    REFUSED,
    SECOND,
    SWITCHING,
    UPGRADE,
    WHY,
    Talk,
    bytewise,
    captured,
    request,
    resplit,
    statuses,
    talk,
)

TEXT = b"\x81\x02hi"
PING = b"\x89\x01p"
CLOSE = b"\x88\x02\x03\xe8"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nDigest: y\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")


def shown(here: Talk, now: int) -> list[int]:
    """The numbers of the transactions that are told of as going on."""
    return [u.transaction.number for u in here.fold.tick(now) if isinstance(u, Open)]


def test_a_transaction_tells_who_asked_whom() -> None:
    """The daemon's address, the client's process and the connection's number are kept."""
    told = request(b"GET /1.0?recursion=1 HTTP/1.1\r\n")
    assert (told.base, told.peer, told.connection, told.own) == (BASE, PEER, 1, False)
    assert told.url == BASE + "/1.0?recursion=1"


def test_transactions_are_numbered_across_connections() -> None:
    """Numbers count from 1 in the order in which requests begin, whatever their connection."""
    here = talk(">>", GET[:-1], GET[-1:])
    here.fold.add(Opened(2, Moment(0, 0), BASE, None))
    (head, *_) = here.events
    assert isinstance(head, RequestHead)
    here.fold.add(head._replace(connection=2))
    assert statuses(here.say("<<", OK, ">>", GET, "<<", OK).finished) == [200, 200]
    assert [t.number for t in here.finished] == [1, 3]
    assert here.fold.count == 3


def test_an_absolute_target_is_its_own_address() -> None:
    """A target in absolute-form is kept as sent; its path is what follows the host."""
    told = request(b"GET http://lxd/1.0?x=1 HTTP/1.1\r\n")
    assert (told.url, told.request.path) == ("http://lxd/1.0?x=1", "/1.0")


def test_times_are_those_of_heads_and_ends() -> None:
    """Begun with the request's head, sent with its end, answered and ended with the response's."""
    timing = talk(">>", POST[:-4], b"ping", "<<", OK[:-2], b"hi").only.timing
    assert (timing.wall, timing.begun) == (1001 * SECOND, SECOND)
    assert (timing.sent, timing.answered, timing.ended) == (2 * SECOND, 4 * SECOND, 5 * SECOND)


def test_only_the_beginning_of_a_long_body_is_kept() -> None:
    """Bodies over the limit are counted and hashed."""
    told = talk(">>", POST, "<<", OK, limit=3).only
    assert (told.request.body.captured, told.request.body.size) == (b"pin", 4)
    assert captured(told) == b"hi"


def test_trailers_are_kept() -> None:
    """Trailers of either side are theirs."""
    told = talk(">>", b"PUT / HTTP/1.1\r\n" + CHUNKED, "<<", b"HTTP/1.1 200 OK\r\n" + CHUNKED).only
    assert told.response is not None
    assert told.request.trailers == told.response.trailers == (("Digest", "y"),)
    assert told.request.body.captured == captured(told) == b"abcde"


def test_an_own_answer_is_marked() -> None:
    """What is answered after the word that it is our own is marked so."""
    here = talk(">>", GET)
    assert here.fold.add(Refused(1, Moment(1, 2), "no daemon")) == [Note("no daemon", Moment(1, 2))]
    assert here.say("<<", OK).only.own


def test_a_transaction_is_shown_after_a_second_once() -> None:
    """A transaction that goes on is told of once, with all that is known."""
    here = talk(">>", GET)
    begun = here.now - SECOND
    assert shown(here, begun + VISIBLE_AFTER - 1) == []
    assert shown(here, begun + VISIBLE_AFTER) == [1]
    assert shown(here, begun + 9 * VISIBLE_AFTER) == []


def test_a_tunnel_is_shown_a_second_after_each_change() -> None:
    """A tunnel is told of again when something passed since; its beginning is such a thing."""
    here = talk(">>", UPGRADE, "<<", SWITCHING)
    begun = here.now - SECOND
    assert shown(here, begun + VISIBLE_AFTER - 1) == []
    assert shown(here, begun + VISIBLE_AFTER) == [1]
    assert shown(here, begun + 9 * VISIBLE_AFTER) == []
    here.say(TEXT, TEXT)
    (update,) = here.fold.tick(here.now)
    assert isinstance(update, Open)
    assert update.transaction.tunnel == Tunnel("websocket", NOTHING, Count(2, 4))
    assert shown(here, here.now + 9 * VISIBLE_AFTER) == []


def test_a_tunnel_that_turns_opaque_is_shown() -> None:
    """The turn is a change, and the first change not told of counts the second."""
    here = talk(">>", UPGRADE, "<<", SWITCHING)
    assert shown(here, here.now) == [1]
    here.give_up("busy")
    assert shown(here, here.now + VISIBLE_AFTER) == [1]
    here.say(TEXT).give_up("again")
    assert shown(here, here.now) == [1]


def test_an_upgrade_is_told_when_it_is_granted() -> None:
    """The transaction until then is told, and at the end all of it."""
    here = talk(">>", UPGRADE, "<<", SWITCHING, TEXT, ">>", PING)
    assert here.upgraded.tunnel == Tunnel("websocket")
    assert here.upgraded.timing.ended is None
    told = here.say("||").only
    assert told.tunnel == Tunnel("websocket", NOTHING, Count(1, 2), ended=WHY)
    assert (told.broken, told.timing.ended) == ("", 7 * SECOND)


def test_control_frames_are_seen_and_not_counted() -> None:
    """Pings are no data; they are told of all the same."""
    here = talk(">>", UPGRADE, "<<", SWITCHING, PING, "||")
    assert [frame.opcode for _, frame in here.frames] == [Opcode.PING]
    assert here.only.tunnel == Tunnel("websocket", ended=WHY)


def test_the_first_close_code_is_the_tunnels() -> None:
    """Who answers a Close with another does not change why it was closed."""
    later = b"\x88\x02\x03\xe9"
    told = talk(">>", UPGRADE, "<<", SWITCHING, CLOSE, ">>", later, "||").only
    assert told.tunnel is not None
    assert told.tunnel.close_code == 1000


def test_an_unfinished_request_that_was_answered() -> None:
    """An answer to half a request says what is missing of the request."""
    half = POST[:-2]
    assert talk(">>", half, "<<", OK, "||").only.broken == f"{WHY} in the request's body"
    told = talk(">>", half, ">|", "<<", OK, "||").only
    assert told.broken == f"{WHY} in the request's body, 2 bytes short"


def test_an_unfinished_request_that_was_not_answered() -> None:
    """Without an answer, a request that was cut is told of as such."""
    half = POST[:-2]
    assert talk(">>", half, "||").only.broken == f"{WHY} before the answer"
    told = talk(">>", half, ">|", "||").only
    assert told.broken == f"{WHY} in the request's body, 2 bytes short"


def test_an_answer_without_its_end() -> None:
    """A body that nobody ended is broken off."""
    told = talk(">>", GET, "<<", b"HTTP/1.1 200 OK\r\n\r\nabc", "||").only
    assert (captured(told), told.broken) == (b"abc", f"{WHY} in the answer's body")


def test_a_garbled_request_that_was_answered_is_not_broken() -> None:
    """The daemon made something of it, and said what."""
    told = talk(">>", b"?\r\n\r\n", "<<", OK, "<|", "||").only
    assert (told.request.garbled != "", told.broken) == (True, "")


def test_a_garbled_answer_is_broken() -> None:
    """What could not be followed is told with the end."""
    here = talk(">>", GET, "<<", OK[:-1])
    here.fold.add(Garbled(1, 0, Moment(0, 0), Direction.RECEIVED, "odd"))
    assert here.say("||").only.broken == f"{WHY}; the answer could not be followed: odd"


def test_either_end_may_come_first() -> None:
    """A transaction ends with the later of its two messages."""
    fold = Fold(9)
    fold.add(Opened(1, Moment(0, 0), BASE, None))
    here = talk(">>", POST[:-1], POST[-1:], "<<", OK[:-1], OK[-1:])
    ends = [event for event in here.events if isinstance(event, MessageEnd)]
    for event in here.events:
        if event not in ends:
            assert fold.add(event) == []
    assert fold.add(ends[1]) == []
    assert len(fold.add(ends[0])) == 1


def test_a_closed_connection_is_forgotten() -> None:
    """What ended is not told of again."""
    assert shown(talk(">>", GET, "||"), 9 * VISIBLE_AFTER) == []


def test_a_fold_is_busy_while_something_is_under_way() -> None:
    """From a request's beginning to the end of its answer."""
    here = talk()
    told = [here.say(*words).fold.busy for words in ([], [">>", GET], ["<<", OK], ["||"])]
    assert told == [False, True, False, False]


def test_what_is_said_of_the_tap_is_passed_on() -> None:
    """A word about the tap itself is a note, whatever else goes on."""
    assert Fold(9).add(Said(Moment(1, 2), "odd")) == [Note("odd", Moment(1, 2))]


def test_the_rest_of_what_was_lost_is_passed_over() -> None:
    """Events of a connection whose beginning is not known make nothing, and no harm."""
    here = talk(">>", GET)
    here.fold.forget()
    assert here.say("<<", OK, "||").finished == []


def test_what_is_cut_short_is_broken_off() -> None:
    """Where no more is known, what is under way ends, and says so."""
    here = talk(">>", GET)
    (update,) = here.fold.cut(Moment(9, 9), "the recording ended")
    assert isinstance(update, Finished)
    assert update.transaction.broken == "the recording ended before the answer"
    assert here.fold.cut(Moment(9, 9), "again") == []


def test_bytes_that_were_skipped_are_counted() -> None:
    """A body of which not all was recorded has its size, and the hash that was taken of it."""
    here = talk(">>", GET, "<<", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    here.fold.add(Skipped(1, 0, Moment(0, 0), Direction.RECEIVED, 6))
    here.fold.add(Digest(1, 0, Moment(0, 0), Direction.RECEIVED, "f00"))
    (update,) = here.fold.add(MessageEnd(1, 0, Moment(0, 0), Direction.RECEIVED))
    assert isinstance(update, Finished)
    assert update.transaction.response is not None
    assert update.transaction.response.body == Body(9, b"abc", "f00")


def test_bytes_of_a_tunnel_are_told_of() -> None:
    """What passes without frames is told of as it is; what was skipped is counted."""
    here = talk(">>", b"STARTTLS\n", ">>", b"hi")
    seen = [update for update in here.updates if isinstance(update, BytesSeen)]
    assert [(each.number, each.direction, each.data) for each in seen] == [
        (1, Direction.SENT, b"STARTTLS\n"),
        (1, Direction.SENT, b"hi"),
    ]
    here.fold.add(Skipped(1, 0, Moment(0, 0), Direction.RECEIVED, 6))
    tunnel = here.say("||").only.tunnel
    assert tunnel is not None
    assert tunnel.received == Count(0, 6)


WHOLE = st.sampled_from(
    [
        (b"GET /1.0 HTTP/1.1\r\nHost: lxd\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"),
        (b"POST /\xff HTTP/1.0\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"),
        (b"PUT / HTTP/1.1\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"odd\r\n\r\n", b"odd\r\n\r\n"),
    ]
)


def test_what_was_read_from_a_record_may_be_overwritten() -> None:
    """Whatever a transaction, a frame or a tunnel's bytes tell, they hold it themselves."""
    here = talk(">>", POST, "<<", OK[:-1], OK[-1:], ">>", UPGRADE, "<<", SWITCHING + TEXT, "||")
    there = talk(">>", b"STARTTLS\n", "<<", b"hi", "||")
    for told in here, there:
        block = bytearray(b"".join(map(encode, told.events)))
        fold = Fold(1 << 16)
        fold.add(Opened(1, Moment(0, 0), BASE, PEER))
        again = [update for event in decode(memoryview(block)) for update in fold.add(event)]
        block[:] = bytes(len(block))
        assert again == told.updates


@settings(deadline=None)
@given(
    st.lists(st.tuples(WHOLE, st.sampled_from([b"", b"abc", b"abcdef"])), max_size=6),
    st.lists(st.booleans(), max_size=30),
    st.sets(st.integers(0, 12)),
    st.integers(0, 6),
)
def test_a_whole_message_is_what_it_stands_for(
    exchanges: list[tuple[tuple[bytes, bytes], bytes]],
    answers: list[bool],
    ticks: set[int],
    limit: int,
) -> None:
    """Told at once or one by one, its transaction is the same, at its end and on its way."""
    folds = Fold(limit), Fold(limit)
    for fold in folds:
        fold.add(Opened(1, Moment(0, 0), BASE, PEER))
    asked, due = iter(range(len(exchanges))), deque[int]()
    for step, answer in enumerate(answers):
        number = (due.popleft() if due else None) if answer else next(asked, None)
        if number is None:
            continue
        direction = Direction.RECEIVED if answer else Direction.SENT
        if not answer:
            due.append(number)
        heads, body = exchanges[number]
        at = Moment(step * SECOND, step)
        whole = WholeMessage(1, number, at, direction, len(heads[answer]), heads[answer] + body)
        told = folds[0].add(whole), [u for each in spelled(whole) for u in folds[1].add(each)]
        if step in ticks:
            for fold, updates in zip(folds, told, strict=True):
                updates.extend(fold.tick((step + 1) * SECOND))
        assert told[0] == told[1]
    at = Moment(99 * SECOND, 0)
    assert folds[0].cut(at, WHY) == folds[1].cut(at, WHY)


EXCHANGES: list[tuple[bytes, bytes]] = [
    (GET, OK),
    (POST, OK),
    (POST + b"\r\n", REFUSED),
    (HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
    (POST, b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    (b"PUT /\xff HTTP/1.1\r\n" + CHUNKED, b"HTTP/1.1 200 OK\r\n" + CHUNKED),
    (GET.replace(b"\r", b""), OK.replace(b"\r", b"")),
    (UPGRADE, REFUSED),
    (b"GET /1.0 HTTP/1.1\r\nA: b\r\n c\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
]
LAST: list[tuple[bytes, bytes]] = [
    (GET, b"HTTP/1.0 200 OK\r\n\r\nuntil close"),
    (UPGRADE, SWITCHING + TEXT + PING + b"\x01\x05hello\x80\x01!" + CLOSE),
    (UPGRADE + b"\x81\x82abcd\x00\x00" + TEXT, SWITCHING + TEXT),
    (UPGRADE + TEXT, SWITCHING + TEXT + b"\x83\x00rest"),
    (UPGRADE.replace(b"websocket", b"sftp") + b"raw", SWITCHING.replace(b"websocket", b"sftp")),
    (b"nonsense\r\n\r\nand more", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    (POST[:-1], OK[:-1]),
    (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naXXXX"),
    (GET, b"not http\r\n\r\nat all"),
    (GET, b""),
]


def pieces(data: bytes, cuts: list[int]) -> list[str | bytes]:
    """The bytes, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(EXCHANGES), max_size=4),
    st.sampled_from(LAST),
    st.booleans(),
    st.lists(st.integers(0, 1000), max_size=12),
)
def test_any_split_folds_to_the_same(
    exchanges: list[tuple[bytes, bytes]],
    last: tuple[bytes, bytes],
    pipelined: bool,
    cuts: list[int],
) -> None:
    """However the bytes are split into reads, the transactions are the same but for times."""
    rounds = [*exchanges, last]
    if pipelined:
        rounds = [(b"".join(asked for asked, _ in rounds), b"".join(said for _, said in rounds))]
    whole: list[str | bytes] = []
    split: list[str | bytes] = []
    for asked, said in rounds:
        whole += [">>", asked, "<<", said]
        split += [">>", *pieces(asked, cuts), "<<", *pieces(said, cuts)]
    ends = [">|", "<|", "||"]
    assert talk(*split, *ends).timeless == talk(*whole, *ends).timeless


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=12))
def test_starttls_splits_anywhere(cuts: list[int]) -> None:
    """STARTTLS is known in however many reads it comes."""
    data = b"STARTTLS\n\x16\x03\x01"
    split = talk(">>", *pieces(data, cuts), "||")
    assert split.timeless == talk(">>", data, "||").timeless


GARBAGE = st.lists(
    st.sampled_from(
        [GET, POST, UPGRADE, OK, SWITCHING, b"\r\n", b"\n\n", b"HTTP/1.1 ", b"5", b"\x81\x02hi"]
    )
    | st.binary(max_size=9),
    max_size=9,
).map(b"".join)


@settings(deadline=None)
@given(st.data(), st.lists(st.sampled_from([">>", "<<"]) | GARBAGE, max_size=9))
def test_pieces_of_garbage_do_not_matter(given: st.DataObject, words: list[str | bytes]) -> None:
    """Not even of garbage does it matter in which pieces it comes."""
    whole = talk(*words, "||").timeless
    assert talk(*given.draw(resplit(words)), "||").timeless == whole
    assert talk(*bytewise(*words), "||").timeless == whole


@settings(deadline=None)
@given(GARBAGE)
def test_no_byte_of_garbage_is_lost(garbage: bytes) -> None:
    """What a client sends and cannot be read is all there, as the body of what it asked."""
    told = talk(*bytewise(">>", b"\0\n" + garbage, "||")).only
    assert told.request.body.captured == b"\0\n" + garbage
    assert told.request.garbled


@settings(deadline=None)
@given(GARBAGE)
def test_no_byte_of_a_garbled_answer_is_lost(garbage: bytes) -> None:
    """What a daemon sends and cannot be read is counted, as a tunnel or as a head cut off."""
    told = talk(*bytewise(">>", GET, "<<", b"\0" + garbage, "<|", "||")).only
    if told.tunnel is None:
        assert told.broken.endswith(f"head, after {1 + len(garbage)} bytes")
    else:
        assert told.tunnel.received == Count(0, 1 + len(garbage))
