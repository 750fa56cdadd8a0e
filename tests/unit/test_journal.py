"""What the log shows of what happened: chosen, explained, and without secrets."""

from __future__ import annotations

import pytest

from lxdtap.content import Document, Json
from lxdtap.log.entries import Entry, FrameEntry, NoteEntry, OperationEntry, TransactionEntry
from lxdtap.log.journal import Journal, Selection, pattern
from lxdtap.redact import Redactor
from lxdtap.transaction import (
    Body,
    BytesSeen,
    Count,
    Direction,
    Finished,
    Frame,
    FrameSeen,
    Moment,
    Note,
    Opcode,
    Open,
    Request,
    Transaction,
    Tunnel,
    Upgraded,
)

from . import builders
from .builders import AT, UUID, envelope, event, frame_seen, operation_document

SECRET = "5ec4e7" * 10 + "abcd"


def asked(target: str, number: int, answer: Json = None, status: int = 200) -> Transaction:
    """A transaction whose answer is a document."""
    response = builders.response(status, b"" if answer is None else answer)
    return builders.transaction(builders.request("GET", target), response, number)


def created(number: int = 3) -> Finished:
    """An exec was made."""
    fds: Json = {"0": SECRET, "1": SECRET[::-1], "2": "2" * 64, "control": "c" * 64}
    made = operation_document(kind="websocket", metadata={"fds": fds})
    return Finished(asked("/1.0/instances/c1/exec", number, envelope(made, "async"), 202))


def websocket(target: str, number: int) -> Upgraded:
    """A connection left HTTP."""
    return Upgraded(asked(target, number, status=101)._replace(tunnel=Tunnel("websocket")))


def events(number: int = 5) -> Upgraded:
    """A client listens to events."""
    return websocket("/1.0/events", number)


def stdout(number: int = 6) -> Upgraded:
    """A client listens to what its exec says."""
    return websocket(f"/1.0/operations/{UUID}/websocket?secret={SECRET[::-1]}", number)


def hear(journal: Journal, *updates: object) -> list[Entry]:
    """What all of these are worth to the log."""
    return [entry for update in updates for entry in journal.hear(update)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "method", "target", "matches"),
    [
        ("/1.0/events", "GET", "/1.0/events?type=x", True),
        ("/1.0/events", "GET", "/1.0/eventsx", False),
        ("get /1.0*", "GET", "/1.0/x/y", True),
        ("POST /1.0*", "GET", "/1.0/x", False),
        ("*", "PUT", "/anything", True),
        ("/x?a=*", "GET", "/x?a=1", True),
        ("/x?a=2", "GET", "/x?a=1", False),
    ],
)
def test_patterns(text: str, method: str, target: str, matches: bool) -> None:
    """A method, if named, and a path with wildcards; the query only where the pattern has one."""
    assert pattern(text)(Request(method, target)) is matches


def test_only_and_ignore() -> None:
    """One of --only must match, none of --ignore may; what is hidden is followed all the same."""
    journal = Journal(Selection(only=["/1.0*"], ignore=["*/events", "*/exec"]))
    assert hear(journal, Finished(asked("/2.0", 1))) == []
    assert hear(journal, created()) == []
    assert hear(journal, events(), frame_seen(event({}), 5)) == []
    [entry] = hear(journal, stdout())
    assert isinstance(entry, TransactionEntry)
    assert entry.stream == "stdout"
    assert SECRET[::-1] not in entry.transaction.url


def test_a_transaction_is_explained() -> None:
    """Its error is lifted out, its operation is named with its maker."""
    journal = Journal(Selection())
    failed = envelope(operation_document(400, "exit status 1"))
    first, last = hear(journal, created(), Finished(asked(f"/1.0/operations/{UUID}", 4, failed)))
    assert isinstance(first, TransactionEntry)
    assert isinstance(last, TransactionEntry)
    assert first.operation is not None
    assert last.operation is not None
    assert (first.operation.maker, last.operation.maker, last.error) == (3, 3, "exit status 1")


def test_secrets_are_replaced_everywhere() -> None:
    """A secret that an answer told is a placeholder there and in the URL that holds it later."""
    for secrets in (False, True):
        shown = repr(hear(Journal(Selection(secrets=secrets)), created(), stdout()))
        # bodies are not for showing: their documents are
        shown = shown.replace(repr(created().transaction.response), "")
        assert (SECRET[::-1] in shown.split("TransactionEntry")[-1]) is secrets


@pytest.mark.parametrize("place", ["headers", "trailers"])
@pytest.mark.parametrize("side", ["request", "response"])
def test_secrets_in_headers_are_replaced(side: str, place: str) -> None:
    """On either side, and behind a body too; the rest stays as it was."""
    of = asked("/1.0", 1)
    said = (("Authorization", "Bearer open-sesame"), ("Host", "lxd"))
    message = getattr(of, side)._replace(**{place: said})
    (shown,) = hear(Journal(Selection()), Finished(of._replace(**{side: message})))
    assert isinstance(shown, TransactionEntry)
    clean = (("Authorization", "Bearer REDACTED-1"), ("Host", "lxd"))
    assert shown.transaction == of._replace(**{side: message._replace(**{place: clean})})


def test_events_are_shown_as_they_come() -> None:
    """An event is an entry; an operation's end is news, once."""
    journal = Journal(Selection())
    done = event(operation_document(200))
    entries = hear(journal, created(), events(), frame_seen(done, 5), frame_seen(done, 5))
    kinds = [type(entry) for entry in entries]
    assert kinds == [TransactionEntry, TransactionEntry, FrameEntry, OperationEntry, FrameEntry]
    assert isinstance(entries[2], FrameEntry)
    assert entries[2].content == Document(done)


def test_a_failure_in_an_event() -> None:
    """The error is lifted out of an event too."""
    failed = event(operation_document(400, "no such file"))
    frame, end = hear(Journal(Selection()), events(), frame_seen(failed, 5))[1:]
    assert isinstance(frame, FrameEntry)
    assert isinstance(end, OperationEntry)
    assert (frame.error, end.seen.operation.err) == ("no such file", "no such file")


PING = Frame(Opcode.PING, Body(9, b"keepalive"))


@pytest.mark.parametrize("verbose", [False, True])
def test_what_is_only_for_verbose(verbose: bool) -> None:
    """Exec's data, logging events and control frames are counted, and shown with -v."""
    journal = Journal(Selection(verbose=verbose))
    hear(journal, created(), events(), stdout())
    said = hear(
        journal,
        FrameSeen(5, Direction.RECEIVED, PING, AT),
        frame_seen(event({"message": "x"}, "logging"), 5),
        frame_seen(b"output", 6, Opcode.BINARY),
    )
    assert len(said) == (3 if verbose else 0)


def test_control_commands_are_shown() -> None:
    """What a client says on exec's control stream is no data: a resize, a signal."""
    control = websocket(f"/1.0/operations/{UUID}/websocket?secret={'c' * 64}", 7)
    command = frame_seen({"command": "window-resize"}, 7)
    [entry] = hear(Journal(Selection()), created(), control, command)[2:]
    assert isinstance(entry, FrameEntry)
    assert entry.stream == "control"


def carrying(upgraded: Upgraded, sent: Count, received: Count) -> Open:
    """A connection that goes on, and what it has carried."""
    tunnel = Tunnel(upgraded.transaction.tunnel.protocol, sent, received)  # type: ignore[union-attr]
    return Open(upgraded.transaction._replace(tunnel=tunnel), 9_000_000_000)


def test_what_was_not_shown_is_counted_within_a_second() -> None:
    """A connection whose data is hidden says how much; once, until there is more."""
    journal = Journal(Selection())
    hear(journal, created(), stdout(), events())
    going_on = carrying(stdout(), Count(), Count(1, 6))
    assert hear(journal, carrying(stdout(), Count(), Count())) == []
    assert len(hear(journal, frame_seen(b"output", 6, Opcode.BINARY), going_on)) == 1
    assert hear(journal, going_on) == []
    assert (
        hear(journal, frame_seen(event({}), 5), carrying(events(), Count(), Count(1, 9)))[1:] == []
    )


def test_raw_bytes_are_counted() -> None:
    """An upgrade without frames has no other word of what passes."""
    journal = Journal(Selection())
    sftp = Upgraded(asked("/sftp", 8, status=101)._replace(tunnel=Tunnel("sftp")))
    hear(journal, sftp)
    assert len(hear(journal, carrying(sftp, Count(0, 5), Count()))) == 1


def test_a_format_without_frames_tells_of_connections() -> None:
    """Where single frames have no place, the connection itself is told of when it goes on."""
    journal = Journal(Selection(), frames=False)
    hear(journal, events())
    assert len(hear(journal, carrying(events(), Count(), Count()))) == 1
    end = event(operation_document(200))
    assert [type(entry) for entry in hear(journal, frame_seen(end, 5))] == [OperationEntry]


def test_a_request_that_goes_on() -> None:
    """A plain transaction that hangs is an open entry, whose duration counts up to now."""
    transaction = builders.transaction()
    waiting = transaction._replace(timing=transaction.timing._replace(ended=None))
    [entry] = hear(Journal(Selection()), Open(waiting, 4_000_000_000))
    assert isinstance(entry, TransactionEntry)
    assert (entry.state, entry.seconds) == ("open", 3.0)


def test_the_end_of_a_connection() -> None:
    """Its last entry still knows its stream, and frames after it are nobody's."""
    journal = Journal(Selection())
    _, opened, closed = hear(journal, created(), stdout(), Finished(stdout().transaction))
    assert isinstance(opened, TransactionEntry)
    assert isinstance(closed, TransactionEntry)
    assert (opened.state, closed.state, closed.stream) == ("upgraded", "finished", "stdout")
    assert hear(journal, frame_seen(b"late", 6)) == []


def test_notes_pass() -> None:
    """A word about the tap itself is for the log as it is."""
    assert hear(Journal(Selection()), Note("x", AT)) == [NoteEntry("x", AT)]


def test_show_secrets_leaves_all_as_it_was() -> None:
    """With --show-secrets nothing is replaced."""
    update = created()
    [entry] = hear(Journal(Selection(secrets=True)), update)
    assert isinstance(entry, TransactionEntry)
    assert entry.transaction == update.transaction
    assert hear(Journal(Selection(secrets=True)), events(), frame_seen(event({}), 5))


@pytest.mark.parametrize("verbose", [False, True])
def test_a_message_in_fragments_is_told_whole(*, verbose: bool) -> None:
    """A message's content comes with its last fragment; control frames may stand between."""
    journal = Journal(Selection(verbose=verbose))
    journal.hear(events(5))
    data = builders.json_body(event({"action": "x", "secret": SECRET}, "lifecycle")).captured
    frames = [
        Frame(Opcode.TEXT, builders.body(data[:60]), final=False),
        Frame(Opcode.PING, builders.body(b"")),
        Frame(Opcode.CONTINUATION, builders.body(data[60:])),
    ]
    told = [journal.hear(FrameSeen(5, Direction.RECEIVED, each, AT)) for each in frames]
    contents = [each.content for one in told for each in one if isinstance(each, FrameEntry)]
    clean = Document(event({"action": "x", "secret": "REDACTED-1"}, "lifecycle"))
    assert contents == ([None, None, clean] if verbose else [clean])


def test_a_continuation_of_what_was_not_seen() -> None:
    """A last fragment alone is told as it is."""
    journal = Journal(Selection())
    journal.hear(events(5))
    (told,) = journal.hear(frame_seen(b"rest", 5, Opcode.CONTINUATION))
    assert isinstance(told, FrameEntry)
    assert told.frame.opcode is Opcode.CONTINUATION


def test_an_answer_that_echoes_what_was_asked() -> None:
    """A password is hidden in the answer too, under whatever name it comes back."""
    request = builders.request("POST", "/1.0/x", {"password": "correct-horse-battery"})
    response = builders.response(400, {"error": "bad: correct-horse-battery"})
    said = hear(Journal(Selection()), Finished(builders.transaction(request, response)))
    [entry] = said
    assert isinstance(entry, TransactionEntry)
    assert entry.response == Document({"error": "bad: REDACTED-1"})
    assert entry.error == "bad: REDACTED-1"


def test_a_commands_output_is_no_word_of_the_daemons() -> None:
    """Who prints an operation in a container makes none, and ends none."""
    journal = Journal(Selection(verbose=True))
    forged = frame_seen(event(operation_document(400, "forged")), 6)
    [shown] = hear(journal, created(), stdout(), forged)[2:]
    assert isinstance(shown, FrameEntry)
    done = frame_seen(event(operation_document(200)), 5)
    *_, end = hear(journal, events(), done)
    assert isinstance(end, OperationEntry)
    assert end.seen.operation.err == ""


def test_data_of_an_unknown_stream_is_data() -> None:
    """JSON that a command prints is hidden, also where no answer named its stream before."""
    journal = Journal(Selection())
    assert hear(journal, stdout(), frame_seen({"private": "output"}, 6))[1:] == []


def test_an_absolute_target_names_the_same_operation() -> None:
    """A target with scheme and host does not make exec's data the daemon's word."""
    journal = Journal(Selection())
    target = f"http://unix.socket/1.0/operations/{UUID}/websocket?secret={SECRET[::-1]}"
    assert hear(journal, created(), websocket(target, 6), frame_seen(b"{}", 6))[2:] == []


def test_bodies_on_their_way_are_not_read() -> None:
    """Of a transaction that goes on only a body that is complete is told."""
    of = builders.transaction(builders.request(data=b"{}"), builders.response(data=b"{"))
    [sent] = hear(Journal(Selection()), Open(of, 9))
    [sending] = hear(
        Journal(Selection()), Open(of._replace(timing=of.timing._replace(sent=None)), 9)
    )
    assert isinstance(sent, TransactionEntry)
    assert isinstance(sending, TransactionEntry)
    assert (sent.request, sent.response) == (Document({}), None)
    assert sending.request is None


def test_a_description_is_redacted() -> None:
    """What an operation says of itself may hold a secret that was told before."""
    done = operation_document(200) | {"description": f"Using {SECRET}"}
    *_, end = hear(Journal(Selection()), created(), events(), frame_seen(event(done), 5))
    assert isinstance(end, OperationEntry)
    assert end.seen.operation.description == "Using REDACTED-1"


def test_bytes_of_a_tunnel_are_no_entry() -> None:
    """Its counts tell of them, with the next entry of the tunnel."""
    passed = BytesSeen(1, Direction.SENT, b"hi", Moment(0, 0))
    assert Journal(Selection(verbose=True)).hear(passed) == []


def test_a_redactor_may_be_shared() -> None:
    """Whoever else has it gives the same secrets the same names."""
    redactor = Redactor()
    journal = Journal(Selection(), redactor=redactor)
    journal.hear(Note("x", Moment(0, 0)))
    assert redactor.text("password=abcdefghijkl") == "password=REDACTED-1"
