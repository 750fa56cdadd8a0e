"""What a test wants of its cassettes."""

from __future__ import annotations

import pytest

from lxdtap.testing import settings
from lxdtap.testing.settings import Settings, default_name, file_name, merged


@pytest.mark.parametrize("name", settings.MODES)
def test_modes_are_known_by_name(name: str) -> None:
    """none, once and all are what they are called."""
    assert settings.mode(name) == name


def test_new_episodes_is_refused_with_the_reason() -> None:
    """A mode that people know from elsewhere and that cannot work here says why."""
    with pytest.raises(ValueError, match="does not exist on the live daemon"):
        settings.mode("new_episodes")


def test_an_unknown_mode_names_the_known_ones() -> None:
    """A typing error is told from the modes that there are."""
    with pytest.raises(ValueError, match="'al' is not known: use one of none, once, all"):
        settings.mode("al")


def test_the_last_layer_weighs_most_and_none_says_nothing() -> None:
    """Flag over marker over fixture over file; what is not given leaves the rest as it is."""
    file, fixture = {"record_mode": "once", "strict": True}, {"record_mode": "all"}
    found = merged(file, fixture, {"record_mode": "none"}, {"record_mode": None})
    assert found == Settings(record_mode="none", strict=True)


def test_nothing_given_is_to_replay_and_no_more() -> None:
    """Without settings nothing is recorded, repeats are refused, leftovers are allowed."""
    assert merged() == Settings("none", allow_repeats=False, strict=False)


def test_names_to_redact_are_one_or_many() -> None:
    """One name needs no list."""
    found = merged({"redact_keys": "pin", "redact_headers": ["X-A", "X-B"], "upstream": "/x"})
    assert (found.redact_keys, found.redact_headers) == (("pin",), ("X-A", "X-B"))
    assert found.upstream == "/x"


def test_a_hook_is_kept_as_it_is() -> None:
    """What is called before recording is whatever can be called."""
    assert merged({"before_record": repr}).before_record is repr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "all"}, "'mode' is no setting: use one of record_mode"),
        ({"strict": "yes"}, "strict is 'yes': it has to be True or False"),
        ({"redact_query": [1]}, "redact_query is 1: it has to be a list of names"),
        ({"before_record": 3}, "before_record is 3, which cannot be called"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], said: str) -> None:
    """A setting that is misspelled or of the wrong kind does not pass unsaid."""
    with pytest.raises(ValueError, match=said):
        merged(given)


def test_a_name_is_that_of_class_and_test() -> None:
    """Cassettes are found by the names that pytest shows."""
    assert default_name(["TestA", "TestB"], "test_c[lxd-1.5]") == "TestA.TestB.test_c[lxd-1.5]"


def test_names_that_are_no_file_names_stay_different() -> None:
    """Two tests never share a file because of a character that files cannot have."""
    one, other = default_name([], "test[a/b]"), default_name([], "test[a:b]")
    assert one.startswith("test[a-b]-")
    assert one != other
    assert "/" not in one


def test_long_names_are_cut_and_stay_different() -> None:
    """A name has at most 255 bytes in a file system, in any script."""
    one, other = (default_name([], f"test[{'ü' * 300}{end}]") for end in "ab")
    assert one != other
    assert len(one.encode()) < 200


def test_a_file_is_yaml() -> None:
    """The suffix may be left out."""
    assert [file_name(name) for name in ("a", "a.yaml", "a.yml", "a.b")] == [
        *("a.yaml", "a.yaml", "a.yml", "a.b.yaml")
    ]
