"""The wire: whose bytes they are, and when they stop being HTTP."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lxdtap.transaction import NOTHING, Count, Direction, Opcode
from lxdtap.wire.connection import HELD_LIMIT
from lxdtap.wire.http1 import HEAD_LIMIT

from .conversation import (
    GET,
    OK,
    POST,
    REFUSED,
    SWITCHING,
    UPGRADE,
    WHY,
    captured,
    reply,
    statuses,
    talk,
)

TEXT = b"\x81\x02hi"
SFTP = UPGRADE.replace(b"websocket", b"sftp")
LONG_POST = b"POST /1.0 HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
LONG_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"


def test_an_answer_belongs_to_its_request() -> None:
    """One request and one answer are one transaction."""
    told = talk(">>", POST, "<<", OK).only
    assert (told.request.method, told.request.body.captured) == ("POST", b"ping")
    assert (statuses([told]), captured(told), told.broken) == ([200], b"hi", "")


def test_answers_come_in_the_order_of_requests() -> None:
    """Pipelined requests are answered first come, first served."""
    told = talk(">>", GET + POST + GET, "<<", OK, REFUSED + OK).finished
    assert [(t.number, t.request.method) for t in told] == [(1, "GET"), (2, "POST"), (3, "GET")]
    assert statuses(told) == [200, 403, 200]


def test_an_answer_to_head_has_no_body() -> None:
    """The answer to HEAD ends with its head, whatever its Content-Length; the next one follows."""
    head = GET.replace(b"GET", b"HEAD")
    told = talk(">>", head + GET, "<<", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + OK)
    assert [captured(t) for t in told.finished] == [b"", b"hi"]


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_end_with_their_head(status: int) -> None:
    """After 204 and 304 the next answer follows at once."""
    told = talk(">>", GET + GET, "<<", b"HTTP/1.1 %d X\r\n\r\n" % status + OK).finished
    assert statuses(told) == [status, 200]


def test_interim_answers_come_before_the_real_one() -> None:
    """1xx are kept as statuses; the transaction is answered by what follows."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    told = talk(">>", POST, "<<", early + OK).only
    assert told.response is not None
    assert (told.response.interim, told.response.status) == ((100, 103), 200)


def test_an_answer_may_come_before_the_body_ends() -> None:
    """An early answer ends the transaction only when the request's body did."""
    early = talk(">>", LONG_POST, "<<", REFUSED)
    assert early.finished == []
    assert not early.wire.idle
    told = early.say(">>", b"longer" + GET, "<<", OK).finished
    assert statuses(told) == [403, 200]
    assert told[0].request.body.captured == b"halflonger"


def test_the_wire_knows_what_is_due() -> None:
    """Until its answer begins, the first unanswered request's method is the one asked."""
    here = talk()
    told = [
        (wire.asked, wire.idle)
        for words in ([], [">>", GET + POST], ["<<", LONG_OK], [b"longer"], [OK])
        for wire in [here.say(*words).wire]
    ]
    assert told == [(None, True), (b"GET", False), (None, False), (b"POST", False), (None, True)]
    assert not here.wire.tunnelled


def test_a_body_until_close_ends_with_the_daemon() -> None:
    """Where the daemon's end is the body's end, nothing is broken."""
    told = reply(b"HTTP/1.0 200 OK\r\n", b"all")
    assert (captured(told), told.broken) == (b"all", "")


# -- cut off


def test_a_body_until_close_does_not_end_with_a_cut() -> None:
    """A daemon that was cut off has not said all."""
    told = talk(">>", GET, "<<", b"HTTP/1.0 200 OK\r\n\r\nhalf", "<x", "||").only
    assert (captured(told), told.broken) == (b"half", f"{WHY} in the answer's body")


def test_cut_before_the_answer() -> None:
    """A daemon that hangs up without a word leaves the request unanswered."""
    told = talk(">>", GET, "<|", "||").only
    assert (told.response, told.broken) == (None, f"{WHY} before the answer")


def test_cut_in_the_answers_head() -> None:
    """How much of the head came is told."""
    told = talk(">>", GET, "<<", b"HTTP/1.1 200", "<|", "||").only
    assert told.broken == f"{WHY} in the answer's head, after 12 bytes"


def test_cut_in_the_answers_body() -> None:
    """How much of the body is missing is told, and what came is kept."""
    told = talk(">>", GET, "<<", LONG_OK, "<|", "||").only
    assert (captured(told), told.broken) == (b"half", f"{WHY} in the answer's body, 6 bytes short")


def test_cut_in_the_answers_chunks() -> None:
    """Half a chunk-size line is no end of a body."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1"
    told = talk(">>", GET, "<<", chunked, "||").only
    assert (captured(told), told.broken) == (b"hi", f"{WHY} in the answer's body")


def test_cut_in_the_requests_head() -> None:
    """Half a head makes a transaction too: its bytes are the body."""
    told = talk(">>", b"GET / HTTP/1.1\r\nHo", ">|", "||").only
    assert (told.request.method, told.request.target) == ("GET", "/")
    assert told.request.body.captured == b"GET / HTTP/1.1\r\nHo"
    assert told.request.garbled == "the client stopped inside its head"


def test_closed_in_the_requests_head() -> None:
    """A connection that is closed at once leaves the same trace."""
    told = talk(">>", b"GE", "||").only
    assert (told.request.method, told.request.body.captured) == ("?", b"GE")
    assert told.request.garbled == "the connection ended inside its head"


def test_cut_in_the_requests_body() -> None:
    """How much of the body the client still owed is told."""
    told = talk(">>", LONG_POST, ">|", "<|", "||").only
    assert told.broken == f"{WHY} in the request's body, 6 bytes short"


def test_a_client_may_stop_between_requests() -> None:
    """A client that has no more to say still gets its answer."""
    told = talk(">>", GET, ">|", "<<", OK, "<|", "||").only
    assert (statuses([told]), told.broken) == ([200], "")


# -- what cannot be read


def test_what_is_no_request_is_shown_as_it_came() -> None:
    """Bytes that are not HTTP make a transaction whose body they are."""
    told = talk(">>", b"hello\r\n\r\nworld", "<<", b"HTTP/1.1 400 Bad\r\n\r\n", "<|", "||").only
    assert (told.request.method, told.request.body.captured) == ("?", b"hello\r\n\r\nworld")
    assert told.request.garbled == "its first line is no request line"
    assert (statuses([told]), told.broken) == ([400], "")


def test_a_head_that_is_too_long_is_shown_as_it_came() -> None:
    """A head over the limit still tells its method, and gets its answer."""
    head = b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_LIMIT
    told = talk(">>", head, "<<", b"HTTP/1.1 431 Too Large\r\n\r\n", "<|", "||").only
    assert (told.request.method, told.request.body.size) == ("GET", len(head))
    assert (told.request.garbled, statuses([told])) == ("a head that is too long", [431])


def test_a_head_over_a_mebibyte_is_read() -> None:
    """What Go's server still reads is read."""
    told = talk(">>", b"GET / HTTP/1.1\r\nA: " + b"a" * (1 << 20) + b"\r\n\r\n", "<<", OK).only
    assert (len(told.request.headers[0][1]), statuses([told])) == (1 << 20, [200])


def test_a_body_of_unequal_lengths_is_all_that_follows() -> None:
    """Where a request's end cannot be told, all that is sent is its body."""
    head = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
    told = talk(">>", head + b"abc", b"def", "<<", OK, "<|", "||").only
    assert told.request.body.captured == b"abcdef"
    assert (told.request.garbled, told.broken) == ("a malformed Content-Length", "")


def test_a_body_that_stops_being_chunks_is_all_that_follows() -> None:
    """A garbled body is kept from where it went wrong."""
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    told = talk(">>", head + b"zz\r\n", "<<", OK, "<|", "||").only
    assert told.request.body.captured == b"azz\r\n"
    assert told.request.garbled == "a malformed chunk size"


def test_an_answer_of_unknown_coding_is_all_that_follows() -> None:
    """An answer whose end cannot be told goes on to the end."""
    told = reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n", b"abc")
    why = "the answer could not be followed: a transfer encoding other than chunked"
    assert (captured(told), told.broken) == (b"abc", f"{WHY}; {why}")


def test_an_answer_that_stops_being_chunks_is_kept() -> None:
    """A garbled answer keeps what was read, and what could not be."""
    told = reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"2\r\nhi\r\nzz\r\n")
    why = "the answer could not be followed: a malformed chunk size"
    assert (captured(told), told.broken) == (b"hizz\r\n", f"{WHY}; {why}")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0\r\n\r\nkey", "the answer is not HTTP"),
        (b"a" * HEAD_LIMIT, "the answer has a head that is too long"),
    ],
)
def test_an_answer_that_is_not_http_is_a_tunnel(answer: bytes, why: str) -> None:
    """Where answers cannot be read, bytes are counted."""
    told = talk(">>", GET, "<<", answer, ">>", b"more", "||").only
    assert told.tunnel is not None
    assert (told.tunnel.protocol, told.tunnel.reason) == ("opaque", why)
    assert (told.tunnel.sent, told.tunnel.received) == (Count(0, 4), Count(0, len(answer)))


def test_an_answer_that_nobody_asked_for() -> None:
    """It answers what there is of a head."""
    told = talk(">>", b"GET /1", "<<", b"HTTP/1.1 408 Timeout\r\n\r\n", "<|", "||").only
    assert (told.request.body.captured, statuses([told])) == (b"GET /1", [408])
    assert told.request.garbled == "it was answered before its head was complete"


def test_half_an_answer_that_nobody_asked_for() -> None:
    """A daemon that speaks first, and not HTTP, is a tunnel."""
    told = talk("<<", b"220 ready", "<|", "||").only
    assert told.tunnel is not None
    assert told.tunnel.reason == "the daemon spoke without being asked"
    assert told.tunnel.received == Count(0, 9)


def test_a_silent_connection_is_no_transaction() -> None:
    """Where nothing is said, nothing is told."""
    assert talk(">|", "<|", "||").updates == []


# -- leaving HTTP


@pytest.mark.parametrize(
    "reads", [[b"START", b"TLS\n\x16\x03"], [b"STARTTLS / HTTP/1.1\r\n\r\n"]], ids=["two", "one"]
)
def test_starttls_is_a_tunnel_from_the_start(reads: list[bytes]) -> None:
    """The first bytes decide, in however many reads they come, and whatever they look like."""
    here = talk(">>", *reads, "<<", b"\x16\x03\x03", "||")
    told = here.only
    assert told.tunnel is not None
    assert (told.request.method, told.tunnel.protocol, told.response) == ("STARTTLS", "tls", None)
    sent = sum(map(len, reads))
    assert (told.tunnel.sent, told.tunnel.received) == (Count(0, sent), Count(0, 3))


def test_starttls_later_is_no_request() -> None:
    """LXD looks for it only in the first bytes."""
    told = talk(">>", GET, "<<", OK, ">>", b"STARTTLS\n\n", "||").finished
    assert [t.request.method for t in told] == ["GET", "?"]


def test_sftp_is_a_tunnel_of_bytes() -> None:
    """Another protocol than websocket has no frames; its bytes are counted."""
    switch = SWITCHING.replace(b"websocket", b"sftp")
    here = talk(">>", SFTP, "<<", switch + b"abc", ">>", b"de", "<|", "||")
    told = here.only
    assert told.tunnel is not None
    assert told.tunnel.protocol == "sftp"
    assert (told.tunnel.sent, told.tunnel.received) == (Count(0, 2), Count(0, 3))
    assert (here.wire.tunnelled, here.wire.idle, here.wire.asked) == (True, False, None)


def test_an_upgrade_without_a_name() -> None:
    """101 leaves HTTP, whatever it says of the protocol."""
    told = talk(">>", SFTP, "<<", b"HTTP/1.1 101 Switching\r\n\r\n").upgraded
    assert told.tunnel is not None
    assert told.tunnel.protocol == "unnamed"


def test_frames_may_follow_101_in_the_same_read() -> None:
    """What comes with the 101, and what the client sent before it, is the tunnel's."""
    here = talk(">>", UPGRADE + TEXT, "<<", SWITCHING + TEXT)
    assert here.finished == []
    sides = [side for side, frame in here.frames if frame.payload.captured == b"hi"]
    assert sides == [Direction.SENT, Direction.RECEIVED]


def test_a_refused_upgrade_lets_held_requests_be_read() -> None:
    """After a refusal, bytes held are requests, even if their answers come in the same read."""
    here = talk(">>", UPGRADE + GET, "<<", REFUSED + OK)
    assert [t.request.path for t in here.finished] == ["/ws", "/1.0"]
    assert statuses(here.finished) == [403, 200]
    assert here.wire.idle


def test_a_second_upgrade_is_held_too() -> None:
    """Each request for an upgrade has its own verdict."""
    here = talk(">>", UPGRADE + SFTP + TEXT, "<<", REFUSED, SWITCHING)
    assert statuses([*here.finished, here.upgraded]) == [403, 101]
    assert [side for side, _ in here.frames] == [Direction.SENT]


def test_a_refusal_may_come_before_the_body_ends() -> None:
    """An upgrade refused while its body comes holds nothing."""
    head = UPGRADE[:-2] + b"Content-Length: 4\r\n\r\n"
    told = talk(">>", head + b"ab", "<<", REFUSED, ">>", b"cd" + GET, "<<", OK).finished
    assert statuses(told) == [403, 200]
    assert told[0].request.body.captured == b"abcd"


def test_a_body_that_ends_during_the_refusal_holds_nothing() -> None:
    """A refusal that has begun is a verdict, though neither message has come to its end."""
    head = UPGRADE[:-2] + b"Content-Length: 4\r\n\r\n"
    here = talk(">>", head + b"ab", "<<", LONG_OK, ">>", b"cd" + GET, "<<", b"longer" + OK)
    assert statuses(here.finished) == [200, 200]
    assert here.wire.idle


def test_an_upgrade_may_have_a_body() -> None:
    """The body is the request's, what follows it the tunnel's."""
    head = UPGRADE[:-2] + b"Content-Length: 4\r\n\r\n"
    here = talk(">>", head + b"abcd" + TEXT, "<<", SWITCHING, "||")
    assert here.only.request.body.captured == b"abcd"
    assert len(here.frames) == 1


def test_what_is_held_has_a_limit() -> None:
    """Whoever sends too much before the verdict is no longer followed."""
    told = talk(">>", UPGRADE + b"a" * HELD_LIMIT, b"a", "<<", SWITCHING, "||").only
    assert told.tunnel is not None
    assert told.tunnel.reason == "too much was sent before the upgrade was granted"
    assert told.tunnel.sent == Count(0, HELD_LIMIT + 1)


def test_what_was_held_to_the_end_is_shown() -> None:
    """A connection that ends before the verdict shows what was held."""
    told = talk(">>", UPGRADE + b"abc", ">|", "||").finished
    assert [t.request.method for t in told] == ["GET", "?"]
    assert told[1].request.garbled == "the connection ended before an upgrade was answered"
    assert told[1].request.body.captured == b"abc"


def test_frames_that_cannot_be_read_are_counted() -> None:
    """From an unknown opcode on, both directions are bytes."""
    here = talk(">>", UPGRADE, "<<", SWITCHING + TEXT + TEXT[:3], ">>", b"\x83\x00", "<<", b"xy")
    told = here.say("||").only
    assert told.tunnel is not None
    assert (told.tunnel.protocol, told.tunnel.reason) == ("opaque", "a frame of unknown kind 3")
    assert (told.tunnel.sent, told.tunnel.received) == (Count(0, 2), Count(2, 5))
    assert [frame.final for _, frame in here.frames] == [True, False]


def test_a_frame_cut_off_is_told_at_the_close() -> None:
    """What came of a frame, or of its head, is not lost."""
    here = talk(">>", UPGRADE, "<<", SWITCHING + b"\x81", ">>", TEXT[:3], "||")
    ((side, frame),) = here.frames
    assert (side, frame.opcode, frame.final) == (Direction.SENT, Opcode.TEXT, False)
    assert here.only.tunnel is not None
    assert here.only.tunnel.received == Count(0, 1)


def test_compression_is_undone_where_it_was_agreed() -> None:
    """The answer's extensions, not the request's, decide."""
    agreed = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    here = talk(">>", UPGRADE, "<<", SWITCHING[:-2] + agreed + b"\xc1\x04\xcb\xc8\x04\x00")
    assert [frame.payload.captured for _, frame in here.frames] == [b"hi"]


# -- giving up


def test_giving_up_makes_a_tunnel_of_what_was_not_read() -> None:
    """Bytes not yet read are the tunnel's first, and no byte is read after."""
    here = talk(">>", GET + b"GE", "<<", b"HT").give_up("busy")
    told = here.say("<<", OK, "||").only
    assert told.tunnel is not None
    assert (told.tunnel.protocol, told.tunnel.reason) == ("opaque", "busy")
    assert (told.tunnel.sent, told.tunnel.received) == (Count(0, 2), Count(0, 2 + len(OK)))


def test_giving_up_before_a_request_makes_one() -> None:
    """There is always a transaction to count on."""
    told = talk().give_up("busy").say("||").only
    assert told.tunnel is not None
    assert (told.request.method, told.request.garbled) == ("?", "busy")
    assert (told.tunnel.sent, told.tunnel.received) == (NOTHING, NOTHING)


def test_giving_up_in_an_answered_body_keeps_its_transaction() -> None:
    """A request answered early and still coming is the one given up."""
    told = talk(">>", LONG_POST, "<<", REFUSED).give_up("busy").say(">>", b"lon", "||").only
    assert told.tunnel is not None
    assert (told.request.method, told.tunnel.sent) == ("POST", Count(0, 3))


def test_giving_up_a_tunnel() -> None:
    """Frames under way are told, and bytes counted from there."""
    here = talk(">>", UPGRADE, "<<", SWITCHING + TEXT[:3]).give_up("busy").say("<<", b"i", "||")
    told = here.only
    assert told.tunnel is not None
    assert (told.tunnel.protocol, told.tunnel.received) == ("opaque", Count(1, 2))


WORDS = [
    GET,
    POST,
    UPGRADE,
    OK,
    REFUSED,
    SWITCHING,
    TEXT,
    LONG_POST,
    LONG_OK,
    b"STARTTLS",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"0\r\n\r\n",
    b"\r\n",
]


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([">>", "<<", *WORDS]) | st.binary(min_size=1, max_size=20), max_size=14
    ),
    st.permutations([">|", "<|"]),
    st.none() | st.integers(0, 14),
)
def test_garbage_never_raises(
    words: list[str | bytes], ends: list[str], patience: int | None
) -> None:
    """Whatever is said, in whatever order, each transaction ends once."""
    here = talk(*words[:patience])
    if patience is not None:
        here.give_up("busy")
    here.say(*words[patience:] if patience is not None else [], *ends, "||")
    assert sorted(t.number for t in here.finished) == list(range(1, here.fold.count + 1))


def test_nothing_is_whole_behind_http() -> None:
    """What looks like a request in a tunnel is the tunnel's."""
    here = talk(">>", UPGRADE, "<<", SWITCHING)
    assert here.wire.whole(Direction.SENT, GET, here.at) is None


def test_what_is_whole_may_follow_what_was_not() -> None:
    """A connection may go from pieces to whole messages and back."""
    words = (">>", GET[:-1], GET[-1:], "<<", OK, ">>", GET, "<<", OK[:-1], OK[-1:], ">>", GET)
    told = talk(*words, b"", "<<", OK).finished
    assert statuses(told) == [200, 200, 200]


HEAD = GET.replace(b"GET", b"HEAD")
MORE = OK.replace(b": 2", b": 4") + b"hi"
EXCHANGES = [
    (GET, OK),
    (GET, OK[:-2] + b"ho"),
    (GET, MORE),
    (GET, b"HTTP/1.1 204 No\r\n\r\n"),
    (HEAD, OK[:-2]),
    (POST, REFUSED),
    (POST[:-4] + b"pong", OK),
    (GET.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n"), CHUNKED),
    (GET, CHUNKED.replace(b"hi", b"ho")),
]
"""Some that begin alike and are not, and some that are."""


@given(st.lists(st.tuples(st.sampled_from(EXCHANGES), st.sampled_from([0, 2]))))
@example([((HEAD, OK[:-2]), 0), ((GET, OK), 2)])
def test_what_came_before_is_no_difference(
    exchanges: list[tuple[tuple[bytes, bytes], int]],
) -> None:
    """However alike messages on one connection are, each says what it would say alone."""
    together, alone = talk(), []
    for (asked, answer), later in exchanges:
        end = len(answer) - later
        words = (">>", asked, "<<", answer[:end], answer[end:])
        together.say(*words)
        alone.append(talk(*words).only)
    said = [(told.request, told.response) for told in together.finished]
    assert said == [(told.request, told.response) for told in alone]


@pytest.mark.parametrize("rest", [b"", b"p", b"ping!"])
def test_a_head_as_before_with_another_body(rest: bytes) -> None:
    """A body that is not all there, or has more behind it, is not taken for the last one."""
    here = talk(">>", POST, "<<", OK)
    assert here.wire.whole(Direction.SENT, POST, here.at) is not None
    assert here.wire.whole(Direction.SENT, POST[:-4] + rest, here.at) is None
