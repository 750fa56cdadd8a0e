"""What the bench says of its figures: reached, missed, or nothing that could be concluded."""

from __future__ import annotations

import json

import pytest

from .figures import (
    Findings,
    Growth,
    Point,
    Series,
    Target,
    doubted,
    growth_factor,
    judge,
    number,
    percentile,
    spread,
    steps,
)
from .report import BEGIN, END, markdown, published, terminal
from .results import Report, Row, as_json, from_json

FAST = Target("relay", "relay + recording", 0.8, True, "x haproxy")
LIGHT = Target("memory", "memory", 64, False, "MiB", timed=False)


def test_a_ratio_is_of_the_same_round() -> None:
    """A machine that was half as fast in one round changes no ratio."""
    series = Series("relay", "rate", "req/s")
    for speed in (100.0, 50.0, 100.0):
        series.add("haproxy", speed)
        series.add("lxdtap", speed * 0.9)
    assert series.ratios("lxdtap", "haproxy") == pytest.approx([0.9, 0.9, 0.9])


def test_what_is_added_is_by_what_the_other_adds() -> None:
    """To a baseline of its round; a round in which the other added nothing tells nothing."""
    series = Series("latency", "time", "µs")
    series.values = {"direct": [70.0, 70.0], "haproxy": [100.0, 60.0], "lxdtap": [130.0, 130.0]}
    assert series.added("lxdtap", "haproxy") == [2.0]


def test_a_target_is_held_to_the_median() -> None:
    """One bad round of three does not miss it, two do."""
    assert judge(FAST, [0.9, 0.9, 0.1]).outcome == "reached"
    assert judge(FAST, [0.9, 0.7, 0.1]).outcome == "missed"
    assert judge(LIGHT, [64]).outcome == "reached"
    assert judge(LIGHT, [65]).outcome == "missed"


def test_a_noisy_machine_concludes_nothing() -> None:
    """Neither where the baseline varied, nor where others were at work before."""
    noise = spread([100, 60, 140, 100, 30])
    assert judge(FAST, [0.9], noise=noise).outcome == "too noisy"
    reached = judge(FAST, [0.9], noise=spread([100, 101, 99, 102, 100]))
    assert reached.outcome == "reached"
    assert doubted(reached, 0.5).outcome == "too noisy"
    assert doubted(reached, 0.05) == reached


def test_memory_is_not_a_matter_of_noise() -> None:
    """A busy machine holds no more of it."""
    assert doubted(judge(LIGHT, [1]), 0.9).outcome == "reached"


def test_a_tap_that_loses_its_work_reaches_nothing() -> None:
    """It is said what was lost."""
    verdict = judge(FAST, [0.9], lost="the recording stops here")
    assert (verdict.outcome, "stops here" in verdict.measured) == ("incomplete", True)


def test_whoever_is_absent_is_told_of() -> None:
    """With what to do about it."""
    verdict = judge(FAST, [], why="not installed: apt-get install haproxy")
    assert (verdict.outcome, verdict.measured) == (
        "absent",
        "not installed: apt-get install haproxy",
    )
    assert doubted(verdict, 1.0).outcome == "absent"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123456, "0.0123"), (0.9234, "0.923"), (52.26, "52.3"), (47600.4, "47,600")],
)
def test_numbers_have_three_digits_that_matter(value: float, text: str) -> None:
    """And no powers of ten."""
    assert number(value) == text


def test_steps_end_where_they_are_to() -> None:
    """The bound is always measured itself."""
    assert list(steps(1000)) == [1, 10, 100, 1000]
    assert list(steps(2000, 1, 8)) == [1, 8, 64, 512, 2000]
    assert list(steps(1)) == [1]


def test_growth_is_judged_from_where_costs_are_settled() -> None:
    """The first interactions of a cassette bear its head."""
    points = [Point(1, 9.0), Point(1000, 1.0), Point(100_000, 1.2)]
    assert growth_factor(points, lambda point: point.wall, 1000) == 1.2
    assert growth_factor(points[:1], lambda point: point.wall, 1000) == 1.0


def test_a_percentile_of_few() -> None:
    """The last of them, and not one behind it."""
    assert percentile([3, 1, 2], 0.99) == 3


def found() -> Report:
    """A run in which one row was measured and one could not be."""
    series = Series("relay", "rate", "req/s")
    series.values = {"direct": [10.0, 30.0, 50.0], "lxdtap": [9.0, 27.0, 45.0]}
    series.absent = {"haproxy": "not installed"}
    curve = {"recording": [Point(1, 1e-6, None, 2e-6, 1 << 20)]}
    relay = Findings(
        [series],
        [judge(FAST, [0.9], noise=series.spread)],
        ["a note"],
        [Growth("connections", "open connections", "transaction", curve)],
    )
    return Report(
        {"machine": "2 cores", "nginx": "1.22"},
        {
            "relay": Row("2022-01-01", 5, 0.0, relay),
            "memory": Row("2022-01-02", 5, 0.0, Findings(verdicts=[judge(LIGHT, [70])])),
        },
    )


@pytest.mark.parametrize("text", [terminal(found()), markdown(found(), [])])
def test_a_report_tells_it_all(text: str) -> None:
    """Targets and verdicts, all who were measured, who was not, how costs grow, the machine."""
    for told in ("≥ 0.8 x haproxy", "too noisy", "missed", "not installed", "open connections"):
        assert told in text
    assert "2 cores" in text
    assert "1.22" in text
    assert "a note" in text


def test_few_rounds_are_said_to_be() -> None:
    """So that nobody quotes what was to try the bench."""
    report = found()
    assert "tell nothing" not in terminal(report)
    report.rows["memory"].rounds = 1
    assert "tell nothing" in terminal(report)


def test_publishing_replaces_what_is_between_the_marks() -> None:
    """And nothing else; again and again."""
    page = f"# Speed\n\n{BEGIN}\nold\n{END}\n\n## More\n"
    once = published(page, "new")
    assert once == f"# Speed\n\n{BEGIN}\n\nnew\n{END}\n\n## More\n"
    assert published(once, "new") == once
    with pytest.raises(ValueError, match="lacks"):
        published("# Speed\n", "new")


def test_values_are_kept_whole() -> None:
    """What was written is read again as it was."""
    report = found()
    assert from_json(json.loads(json.dumps(as_json(report)))) == report


def test_a_row_can_be_measured_again() -> None:
    """The others are kept, in their order; of another machine none can be."""
    again = Report(found().machine, {"memory": Row("2022-01-03", 5, 0.0, Findings())})
    whole = again.with_others(found())
    assert list(whole.rows) == ["relay", "memory"]
    assert (whole.rows["relay"].when, whole.rows["memory"].when) == ("2022-01-01", "2022-01-03")
    with pytest.raises(ValueError, match="another machine"):
        Report({"machine": "4 cores"}).with_others(found())
