"""The tap cannot be told from no tap, and misses and invents nothing, whatever is said through it.

See ``differential`` for how, and for what is not compared; ``corpus`` for what is said.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxdtap.cassette.model import Interaction
from lxdtap.transaction import Transaction
from tests.absent import absent
from tests.campaign import Campaign
from tests.daemons.throwaway import INCUS, Daemon, throwaway

from .corpus import BITS, CASES, LONG, grammar
from .corpus.pieces import Words, beginnings, bytewise, cuts, joined, sent, size
from .differential import (
    Result,
    Tap,
    Told,
    every,
    read,
    recorded,
    short,
    tap_before,
    tapped,
    timeless,
)
from .hearing import Client, Heard, Turn, statuses, turns
from .lockstep import PATIENCE, Difference, Lockstep, directly
from .strict import Served, StrictDaemon, serve, strict_daemon

pytestmark = pytest.mark.timeout(3600)  # for the campaign; each wait has a bound of its own

PIECES: dict[str, Callable[[Words], Words]] = {
    "as written": tuple,
    "joined": joined,
    "bytewise": bytewise,
}
"""How a conversation is cut."""
FEW = 10
"""Of how many cases one is said byte by byte in a run that is no campaign."""
A_TAP = 2000
"""Conversations that one tap records, at most."""
A_FEW = 200
"""Conversations that are held of all those cut, in a run that is no campaign."""
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

OTHERWISE = {"STARTTLS", "STARTTLS without its line end"}
"""What only LXD and Incus understand."""
DEADLY = {"STARTTLS without its line end"}
"""What ends LXD 5.0.2's listening, with or without a tap: its ``Accept`` fails for good."""
EARLY = "frames before the 101"
"""What both daemons hang up on if it is there when they answer (gorilla/websocket's server.go). In
one write it is; in several it is if the daemon is slow, and whether it is slow is chance."""

Key = tuple[str, str]
"""A case, and how it is cut."""


def chosen(campaign: Campaign, one_in: int = 1) -> list[Key]:
    """Which cases are held, and how they are cut; one in so many of them, but in a campaign."""
    keys: list[Key] = []
    for number, (name, case) in enumerate(CASES.items()):
        if number % campaign.count(one_in, 1) == 0:
            keys.append((name, "as written"))
        if joined(case.words) != case.words and campaign.count(one_in, 1) == 1:
            keys.append((name, "joined"))
        if size(case.words) < LONG and number % campaign.count(FEW * one_in, 1) == 0:
            keys.append((name, "bytewise"))
    return keys


# -- named cases, in lockstep


@dataclass(frozen=True)
class Played:
    """What came of all cases."""

    results: dict[Key, Result]
    found: dict[int, tuple[Interaction, ...]]

    def interactions(self, name: str) -> Iterator[tuple[str, tuple[Interaction, ...]]]:
        """What the cassette has of a case in each way it was cut; raises what was noticed."""
        for how in PIECES:
            result = self.results.get((name, how))
            if isinstance(result, Difference):
                raise Difference(f"{how}: {result}")
            if result is not None:
                yield how, self.found.get(result, ())


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, campaign: Campaign) -> Played:
    """All cases through one tap, which has said nothing of a fault of its own."""
    keys = chosen(campaign)
    with tapped(tmp_path_factory.mktemp("corpus")) as tap:
        results = every(tap, [PIECES[how](CASES[name].words) for name, how in keys])
        found = tap.tap.finish()
    campaign.figure("differential: named cases", f"{len(CASES)}, {len(keys)} conversations")
    return Played(dict(zip(keys, results, strict=True)), found)


@pytest.mark.parametrize("name", CASES)
def test_a_case(played: Played, name: str) -> None:
    """Both ends see the same bytes and ends after each word; each request is one transaction.

    What is recorded is not only as many transactions: it is the same however the bytes came.
    """
    found = dict(played.interactions(name))
    wanted = list(map(timeless, found["as written"]))
    for how, interactions in found.items():
        assert list(map(timeless, interactions)) == wanted, how
    assert recorded(found["as written"]) == CASES[name].told


# -- cut in two, and cut off, everywhere


def compare(
    directory: Path, campaign: Campaign, what: str, every_one: Sequence[tuple[Words, Told]]
) -> None:
    """Hold them, or a few; each is as if there were no tap, and is told."""
    some = every_one[:: campaign.count(max(1, len(every_one) // A_FEW), 1)]
    parts = [some[i : i + A_TAP] for i in range(0, len(some), A_TAP)]
    for number, part in enumerate(campaign.progress(what, parts, len(parts))):
        with tapped(directory / str(number)) as tap:
            results = every(tap, [words for words, _ in part], at_once=64)
            found = tap.tap.finish()
        for (words, told), result in zip(part, results, strict=True):
            assert not isinstance(result, Difference), (words, result)
            assert recorded(found.get(result, ())) == told, words
    campaign.figure(f"differential: {what}", f"{len(some)} conversations")


def test_cut_in_two_at_every_byte(tmp_path: Path, campaign: Campaign) -> None:
    """Wherever a message is cut in two, it is the same to both ends, and in the recording."""
    every_cut = [
        (cut, case.told)
        for case in CASES.values()
        if size(case.words) < LONG
        for cut in cuts(joined(case.words))
    ]
    compare(tmp_path, campaign, "cut in two", every_cut)


def test_cut_off_at_every_byte(tmp_path: Path, campaign: Campaign) -> None:
    """Whoever leaves or half-closes, and after which byte: both ends see it as without a tap."""
    begun = [
        words
        for case in CASES.values()
        if size(case.words) < LONG // 10
        for words in beginnings(joined(case.words))
    ]
    step = campaign.count(max(1, len(begun) // A_FEW), 1)
    by_itself = [(words, tuple(map(short, told(words)))) for words in begun[::step]]
    compare(tmp_path, campaign, "cut off", by_itself)


def told(words: Words) -> list[Transaction]:
    """The transactions that the reader by itself makes of a conversation."""
    return sorted(read(words).finished, key=lambda each: each.number)


# -- made up


def test_made_up_conversations(tmp_path: Path, campaign: Campaign) -> None:
    """What the grammar allows is the same through the tap, and is told as it was made."""
    count = campaign.count(40, 5000)
    said_on: dict[int, grammar.Conversation] = {}
    with tapped(tmp_path / "grammar") as tap:

        @settings(max_examples=count, suppress_health_check=SLOW)
        @given(grammar.conversations())
        def hold(said: grammar.Conversation) -> None:
            connection = tap.compare(said.words)
            wanted = tuple(each.short for each in said.made)
            assert tap.told(connection, len(wanted)) == wanted
            said_on[connection] = said

        hold()
        found = tap.tap.finish()
    for connection, said in said_on.items():
        assert tuple(map(made, found[connection])) == said.made
    campaign.figure("differential: made up", f"{count} conversations")


def made(interaction: Interaction) -> grammar.Made:
    """A transaction as the grammar tells of it."""
    told = interaction.transaction
    received = told.response.body.captured if told.response else b""
    return grammar.Made(short(told), told.request.body.captured, received)


def test_garbage(tmp_path: Path, campaign: Campaign) -> None:
    """Whatever is said, by whomever: the tap cannot be told from none, and is at no fault."""
    count = campaign.count(30, 5000)
    told_on: dict[int, Told] = {}
    with tapped(tmp_path / "garbage") as tap:

        @settings(max_examples=count, suppress_health_check=SLOW)
        @given(grammar.garbage(BITS))
        def hold(words: Words) -> None:
            connection = tap.compare(words)
            told_on[connection] = tuple(map(short, told(words)))
            assert tap.told(connection, len(told_on[connection])) == told_on[connection]

        hold()
        found = tap.tap.finish()
    for connection, wanted in told_on.items():
        assert recorded(found.get(connection, ())) == wanted
    campaign.figure("differential: garbage", f"{count} conversations")


# -- a daemon that reads HTTP, and counts


@dataclass(frozen=True)
class Counted:
    """A case said to a daemon directly and through the tap, and the daemon's own counts."""

    direct: Heard
    tapped: Heard
    served: tuple[Served, Served]
    connection: int


def said_to_strict(tap: Tap, daemon: StrictDaemon, part: Sequence[Turn]) -> Counted:
    """Say it both ways."""
    ours, theirs = socket.socketpair()
    direct = serve(theirs)
    heard = Client(ours).say(part)
    with tap.connect() as (client, connection):
        through = daemon.latest()
    again = Client(client, heard).say(part)
    for served in (direct, through):
        assert served.over.wait(PATIENCE)
    return Counted(heard, again, (direct, through), connection)


def miscounted(result: Counted, interactions: Sequence[Interaction]) -> str:
    """What the tap changed, or the recording has otherwise than the daemon; empty: nothing."""
    direct, through = (served.statuses for served in result.served)
    if noticed := result.direct.unlike(result.tapped):
        return noticed
    if through != direct:
        return f"the daemon answered {direct}, tapped {through}"
    responses = [each.transaction.response for each in interactions]
    answered = [response.status for response in responses if response]
    if answered != direct or None in responses[: len(direct)]:
        return f"the daemon answered {direct}, recorded {recorded(interactions)}"
    return ""


def test_a_strict_daemon(tmp_path: Path, campaign: Campaign) -> None:
    """What HTTP's strictest reader answers is the same, and is what is recorded, one for one."""
    keys = [key for key in chosen(campaign) if key[1] != "joined" and key[0] not in OTHERWISE]
    parts = [turns(PIECES[how](CASES[name].words)) for name, how in keys]
    with strict_daemon(tmp_path) as daemon, tap_before(tmp_path, daemon.path) as tap:
        daemon.latest()  # the tap's knock
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda part: said_to_strict(tap, daemon, part), parts))
        found = tap.finish()
    wrong = {
        key: said
        for key, result in zip(keys, results, strict=True)
        if (said := miscounted(result, found.get(result.connection, ())))
    }
    assert not wrong
    campaign.figure("differential: a strict daemon", f"{len(keys)} conversations")


def test_made_up_requests(tmp_path: Path, campaign: Campaign) -> None:
    """Requests that come as fast as they can, in any pieces, are all answered, and all recorded."""
    count = campaign.count(10, 1000)
    methods = st.sampled_from(["GET", "POST", "HEAD", "PUT"])
    request = methods.flatmap(lambda method: grammar.requests(method, "/1.0"))
    several = st.lists(request.map(lambda each: each.raw), min_size=1, max_size=30).map(b"".join)
    with strict_daemon(tmp_path) as daemon, tap_before(tmp_path, daemon.path) as tap:
        daemon.latest()
        results: list[Counted] = []

        @settings(max_examples=count, suppress_health_check=SLOW)
        @given(several.flatmap(grammar.pieces))
        def hold(pieces: list[bytes]) -> None:
            results.append(said_to_strict(tap, daemon, [Turn(tuple(pieces), half_close=True)]))
            assert not results[-1].direct.unlike(results[-1].tapped)

        hold()
        found = tap.finish()
    for result in results:
        assert not miscounted(result, found[result.connection])
    campaign.figure("differential: made-up requests", f"{count} conversations")


# -- real daemons

TRIES = 3
"""How often a case is said where a daemon's answers differ: a busy one is not always alike."""


def harmless(words: Words) -> Words:
    """What a client says, with events that nobody else's requests make."""
    said = sent(words)
    for method in (b"POST", b"PUT", b"PATCH", b"DELETE"):
        assert said.count(method + b" ") == said.count(method + b" /1.0/nothing HTTP/1."), said
    events = (b"/1.0/events HTTP", b"/1.0/events?type=lifecycle HTTP")
    return tuple(word.replace(*events) if isinstance(word, bytes) else word for word in words)


def said_to_daemon(tap: Tap, path: str, part: Sequence[Turn]) -> tuple[Heard, Heard, int]:
    """Say it both ways; what was heard directly and tapped, and the tapped connection."""
    direct = socket.socket(socket.AF_UNIX)
    direct.connect(path)
    heard = Client(direct).say(part)
    with tap.connect() as (client, connection):
        pass
    return heard, Client(client, heard).say(part), connection


def verdicts(tap: Tap, path: str, part: Sequence[Turn]) -> tuple[str, dict[int, Heard]]:
    """How the tap could be noticed each time, and what was heard on each of its connections."""
    heard_on: dict[int, Heard] = {}
    for _ in range(TRIES):
        direct, through, connection = said_to_daemon(tap, path, part)
        heard_on[connection] = through
        if not (said := direct.unlike(through)):
            break
    return said, heard_on


@pytest.fixture(scope="module")
def incus() -> Iterator[Daemon]:
    """A throwaway Incus."""
    if why := INCUS.missing():
        absent(f"{why} (see .ci/install-daemons)")
    with throwaway(INCUS) as daemon:
        yield daemon


@pytest.mark.daemons
@pytest.mark.parametrize("kind", ["lxd", "incus"])
def test_a_real_daemon(
    tmp_path: Path, campaign: Campaign, request: pytest.FixtureRequest, kind: str
) -> None:
    """A real daemon's verdict on each case is the same, and each of its answers is recorded."""
    path = str(request.getfixturevalue(kind).socket)
    keys = [key for key in chosen(campaign, 6) if key[1] != "joined" and key[0] not in DEADLY]
    keys = [key for key in keys if not key[0].startswith(EARLY) or key == (EARLY, "as written")]
    parts = [turns(PIECES[how](harmless(CASES[name].words))) for name, how in keys]
    with tap_before(tmp_path, path) as tap, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda part: verdicts(tap, path, part), parts))
        found = tap.finish()
    assert not {key: said for key, (said, _) in zip(keys, results, strict=True) if said}
    for key, (_, heard_on) in zip(keys, results, strict=True):
        for connection, heard in heard_on.items():
            responses = [each.transaction.response for each in found.get(connection, ())]
            answered = tuple(response.status for response in responses if response)
            assert answered == statuses(heard.received), (key, heard.received)
    campaign.figure(f"differential: {kind}", f"{len(keys)} conversations")


# -- what is not compared, and what the harness itself is worth


def test_a_reset_arrives_as_an_end(tmp_path: Path) -> None:
    """Who leaves something unread resets the connection; through the tap it only ends."""
    case = CASES["a client that leaves an answer unread"]
    here = Lockstep(*socket.socketpair())
    trace = here.hold(case.words)
    assert (here.daemon.reset, trace[-1].daemon.ended) == (True, True)
    with tapped(tmp_path / "reset") as tap:
        tap.follow(case.words, trace)
        assert tap.told(1, 1) == case.told


def bad_relay(client: socket.socket, daemon: socket.socket, fault: str) -> None:
    """A tap that can be noticed, in one of several ways."""
    while data := client.recv(1 << 16):
        daemon.sendall(data[:-1] if fault == "a byte is lost" else data)
        if fault == "a byte is made up":
            daemon.sendall(b"!")
    if fault != "a half-close is lost":
        daemon.shutdown(socket.SHUT_WR)
    while data := daemon.recv(1 << 16):
        client.sendall(data.replace(b"OK", b"KO") if fault == "a word is changed" else data)
    if fault == "an end is lost":
        threading.Event().wait(1)
    client.close()
    daemon.close()


FAULTS = {
    "none": "",
    "a byte is lost": "the daemon, tapped: 31 bytes",
    "a byte is made up": "the daemon, tapped: 33 bytes",
    "a half-close is lost": "the daemon directly: 32 bytes ended",
    "a word is changed": "HTTP/1.1 200 KO",
    "an end is lost": "the client directly: 40 bytes ended",
}
"""What a bad relay does, and how it is found out."""


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault: str) -> None:
    """A relay that is not one is found out, and it is said where."""
    words = CASES["half-closed before the answer"].words
    client, here = socket.socketpair()
    there, daemon = socket.socketpair()
    threading.Thread(target=bad_relay, args=(here, there, fault), daemon=True).start()
    lockstep = Lockstep(client, daemon)
    found = ""
    try:
        lockstep.follow(words, directly(words), patience=0.3)
    except Difference as difference:
        found = str(difference)
    finally:
        lockstep.close()
    assert FAULTS[fault] in found
    assert bool(found) == bool(FAULTS[fault])
