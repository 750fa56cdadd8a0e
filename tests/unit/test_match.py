"""What decides which recorded request is asked, and what a miss says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.content import Json
from lxdtap.replay.match import Key, alike, answers, explained, generic, key, nearest, ties
from lxdtap.transaction import Headers, Request, Response
from tests.unit.builders import cut_body, response
from tests.unit.recordings import SFTP, asked, seen

UUIDS = "70eb42bf-5e79-42de-8230-2162e9e8b612", "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/1.0/x?a=1&b=2", "/1.0/x?b=2&a=1"),
        ("/1.0/x?project=default", "/1.0/x"),
        ("/1.0/instances/%C3%A9", "/1.0/instances/é"),
        ("/1.0/instances/c1/files?path=tmp%2Fx", "/1.0/instances/c1/files?path=/tmp/x"),
        ("/1.0/operations/o/wait?timeout=-1", "/1.0/operations/o/wait?timeout=30"),
        ("/1.0/operations/o/websocket?secret=a", "/1.0/operations/o/websocket?secret=b"),
        ("http://unix.socket/1.0/x", "/1.0/x"),
        ("/1.0/instances?recursion=0", "/1.0/instances"),
        ("/1.0/instances?filter=&recursion=1", "/1.0/instances?recursion=1"),
    ],
)
def test_the_same_question(one: str, other: str) -> None:
    """Spelling, order, a wait's timeout and a stream's secret do not count."""
    assert key(asked("GET", one)) == key(asked("GET", other))


@pytest.mark.parametrize(
    "other",
    [
        asked("HEAD", "/1.0/x?a=1"),
        asked("GET", "/1.0/y?a=1"),
        asked("GET", "/1.0/x?a=2"),
        asked("GET", "/1.0/x"),
        asked("GET", "/1.0/x?a=1", headers=SFTP),
        asked("GET", "/1.0/x?a=1&project=p"),
    ],
)
def test_another_question(other: Request) -> None:
    """Method, path, query and upgrade decide."""
    assert key(asked("GET", "/1.0/x?a=1")) != key(other)


def test_generated_names_are_alike() -> None:
    """UUIDs and times are taken for one another in a generic key."""
    one, other = (Key("GET", f"/1.0/instances/move-{uuid}", (("a", uuid),)) for uuid in UUIDS)
    assert one != other
    assert generic(one) == generic(other)


@pytest.mark.parametrize(
    ("recorded", "given_", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (UUIDS[0], UUIDS[1], True),
        ("2026-01-01T00:00:00Z", "2025-12-31T23:59:59.123+01:00", True),
        ("REDACTED-1", "anything", True),
        ("user:REDACTED-1", "user:secret", True),
        ("user:REDACTED-1", "other:secret", False),
        ("REDACTED-1@host", "secret@other", False),
        ("x REDACTED-1 y REDACTED-2 z", "x 1 y 2 z", True),
        ("x REDACTED-1 y REDACTED-2 z", "x 1 2 z", False),
        ("abREDACTED-1bc", "abc", False),
        ("aREDACTED-1bREDACTED-2b", "ab", False),
    ],
)
def test_alike(recorded: str, given_: str, same: bool) -> None:
    """What was generated, or put in a secret's place, stands for anything of its kind."""
    assert alike(recorded, given_) is same


@given(st.text(), st.text(), st.text())
def test_a_placeholder_stands_for_anything(before: str, secret: str, after: str) -> None:
    """Whatever the secret was."""
    assert alike(f"{before}REDACTED-7{after}", before + secret + after)


RANGE: Headers = (("Range", "bytes=0-1"),)


@pytest.mark.parametrize(
    ("status", "recorded", "given_", "reason"),
    [
        (200, (), RANGE, ""),
        (206, RANGE, RANGE, ""),
        (206, RANGE, (), "header Range"),
        (304, (("If-None-Match", "x"),), (), "header If-None-Match"),
        (412, (("If-Match", "x"),), (("if-match", "x"),), ""),
        (412, (("If-Match", "x"),), (("If-Match", "y"),), "header If-Match"),
        (416, RANGE, (), "header Range"),
    ],
)
def test_conditions(status: int, recorded: Headers, given_: Headers, reason: str) -> None:
    """A part, or a condition's refusal, answers none but the same question."""
    transaction = seen(1, asked("GET", "/x", headers=recorded), response(status)).transaction
    assert answers(transaction, asked("GET", "/x", headers=given_)) == reason


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"),
    [
        ({"a": 1, "b": [1, {"c": "x"}]}, '{"b": [1, {"c": "x"}],   "a": 1}', ()),
        ({"a": 1, "b": None}, {"a": 1}, ()),
        ({"expires_at": "2026-01-01T00:00:00Z"}, {"expires_at": "x"}, ()),
        ({"name": UUIDS[0]}, {"name": UUIDS[1]}, ()),
        ({"password": "REDACTED-1"}, {"password": "secret"}, ()),
        ({"a": {"b": "x"}, "c": 1}, {"a": {"b": "y"}, "c": 2}, ("body.a.b", "body.c")),
        ({"a": [1]}, {"a": [1, 2]}, ("body.a[1]",)),
        ({"a": [1]}, {"a": "1"}, ("body.a",)),
        (b"null", b"", ()),
        (b'""\n', b"", ()),
        (b"text", b"text", ()),
        (b"text", b"other", ("body",)),
    ],
)
def test_bodies(ours: bytes | Json, theirs: bytes | str | Json, differs: tuple[str, ...]) -> None:
    """JSON is compared as JSON, without what differs from run to run; else bytes are."""
    assert ties(asked("POST", "/x", ours), asked("POST", "/x", theirs)) == differs


def test_bodies_of_reading_requests_do_not_count() -> None:
    """Some clients send one with GET."""
    assert ties(asked("GET", "/x", {"a": 1}), asked("GET", "/x")) == ()


def test_bodies_that_were_not_kept() -> None:
    """Their sizes and hashes are compared."""
    one, same = asked("POST", "/x"), asked("POST", "/x", b"abcdef")
    cut = Request("POST", "/x", body=cut_body(b"abcdef", 2))
    assert ties(cut, same) == ()
    assert ties(Request("POST", "/x", body=cut_body(b"abcdeX", 2)), same) == ("body",)
    assert ties(cut, one) == ("body",)


def test_boundaries_do_not_count() -> None:
    """A client makes one up each time; where not all was kept, as many bytes are the same."""
    one, other, longer = (
        asked(
            "POST",
            "/x",
            f"--{name}\r\n\r\ndata\r\n--{name}--".encode(),
            (("Content-Type", f'multipart/form-data; boundary="{name}"'),),
        )
        for name in ("abc", "xyz", "wxyz")
    )
    assert ties(one, other) == ()
    assert ties(one, longer) == ("body",)
    cut = other._replace(body=cut_body(other.body.captured, 3))
    assert ties(cut, one) == ()


def test_headers_that_tell() -> None:
    """A file's owner and mode, and the version that is changed, break ties too."""
    one = asked("POST", "/x", headers=(("X-LXD-uid", "0"), ("X-LXD-gid", "0"), ("If-Match", "x")))
    other = asked("POST", "/x", headers=(("x-lxd-gid", "0"), ("X-Lxd-Uid", "1"), ("If-Match", "y")))
    assert ties(one, other) == ("header If-Match", "header X-Lxd-Uid")


def test_a_miss_names_the_nearest() -> None:
    """The nearest is what is most like it, and each thing in which it differs is named."""
    recorded = [
        seen(1, asked("GET", "/1.0"), response()).transaction,
        seen(2, asked("GET", "/1.0/instances/c1?recursion=1&y=2"), response()).transaction,
        seen(3, asked("POST", "/1.0/instances"), response()).transaction,
    ]
    missed = nearest(recorded, asked("PUT", "/1.0/instances/c2?x=1&y=2", headers=SFTP))
    assert str(missed) == (
        "no recorded interaction answers PUT /1.0/instances/c2; nearest recorded:"
        " #2 GET /1.0/instances/c1, differs in method, path, query recursion ('1' recorded, none"
        " asked), query x (none recorded, '1' asked), upgrade (none recorded, sftp asked)"
    )


def test_a_miss_tells_no_secret() -> None:
    """A parameter that is a credential is named, and what it says is not."""
    recorded = [seen(1, asked("GET", "/1.0/images/x?secret=REDACTED-1"), response()).transaction]
    missed = str(nearest(recorded, asked("GET", "/1.0/images/y?secret=s3cr3t")))
    assert missed.endswith("#1 GET /1.0/images/x, differs in path, query secret")
    missed = str(nearest(recorded, asked("GET", "/1.0/images/x?token=s3cr3t")))
    assert missed.endswith("differs in query secret, query token")


def test_a_miss_of_nothing() -> None:
    """Where nothing is recorded it says so."""
    missed = nearest([], asked("GET", "/1.0"))
    assert str(missed) == "no recorded interaction answers GET /1.0; nothing is recorded"


def test_why_the_same_question_is_not_answered() -> None:
    """The answer may be missing, cut, or to another condition."""
    question = asked("POST", "/x", {"a": 1}, RANGE)
    lost = seen(1, question).transaction
    assert explained(lost, question).differs == ("its answer, which was not recorded",)
    cut = seen(1, question, match_response(cut=True)).transaction
    assert explained(cut, asked("POST", "/x", {"a": 2})).differs == (
        "its answer, of which not all 6 bytes were recorded",
        "header Range",
        "body.a",
    )
    whole = seen(1, question, match_response(cut=False)).transaction
    assert explained(whole, question).differs == ("nothing that counts",)


def match_response(*, cut: bool) -> Response:
    kept = cut_body(b"abcdef", 2 if cut else 6)
    return Response(206, body=kept)
