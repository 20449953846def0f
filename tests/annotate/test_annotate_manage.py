"""The manager's numbers against counts made by hand; flags of item 59; what is undefined stays undefined (62)."""

from __future__ import annotations

import pytest
from ward_of_doctors import by_content, item, judge, judge_all, project, rater

from xinglin.annotate.manage import is_fast, rating_matrix, same_pairs, share, side_preference, summary
from xinglin.annotate.projects import add_items
from xinglin.annotate.queue import next_item
from xinglin.annotate.rubric import Verdict
from xinglin.annotate.store import Store


def by_name(found: dict, name: str) -> dict:
    return next(one for one in found["raters"] if one["name"] == name)


def test_progress_agreement_and_pace(store: Store, clock) -> None:
    made = project(store, 10, order="file")
    one, two = rater(store, "one"), rater(store, "two")

    def slowly(who, wrong: tuple[int, ...] = ()) -> None:
        for number in range(10):
            shown = next_item(store, who, made)
            assert shown is not None
            clock.now += 90_000
            verdict = by_content(shown, "中好" if number in wrong else "好中")
            judge(store, who, shown, verdict, [10_000, 36_000])

    slowly(one)
    slowly(two, (3, 7))
    found = summary(store, made)
    assert found["progress"]["rounds"]["1"] == {"disputed": 2, "settled": 8, "taken": 20, "needed": 20}
    assert found["progress"]["votes"] == {"cast": 20}
    overall = found["agreement"]["overall"]
    assert (overall["hits"], overall["n"]) == (8, 10)
    assert (round(overall["low"], 4), round(overall["high"], 4)) == (0.4902, 0.9433)  # Wilson, 8 of 10
    assert found["agreement"]["safety"] is None
    mine = by_name(found, "one")
    assert mine["votes"] == {"vote": 10} and mine["active_hours"] == pytest.approx(0.1)
    assert mine["votes_per_hour"] == pytest.approx(100) and mine["median_seconds"] == 36
    assert mine["flags"] == [] and mine["repeats"] is None and mine["gold"] is None


def test_one_rater_alone_agrees_with_nobody(store: Store) -> None:
    made = project(store, 5)
    judge_all(store, rater(store, "one"), made)
    found = summary(store, made)
    assert found["agreement"] == {name: None for name in ("safety", "professionalism", "fluency", "overall")}
    names, matrix, units = rating_matrix(store, made)
    assert len(names) == 1 and matrix == [[1]] * 5 and len(set(units)) == 5


@pytest.mark.parametrize(
    ("choose", "events", "flags"),
    [
        (lambda shown: Verdict((1, 2)), [30_000], ["one side"]),
        (lambda shown: Verdict((2, 1)), [30_000], ["one side"]),
        (lambda shown: Verdict((1, 1)), [30_000], ["ties"]),
        (by_content, [500], ["fast"]),
        (by_content, [30_000], []),
        (lambda shown: by_content(shown, "中好"), [30_000], ["gold"]),
    ],
)
def test_flags_name_the_habit_and_delete_nothing(store: Store, clock, choose, events, flags) -> None:
    made = project(store, 40, gold_share=0.2)
    add_items(store, made, [item(100 + n, gold=(1, 2)) for n in range(8)])
    who = rater(store, "one")
    while (shown := next_item(store, who, made)) is not None:
        clock.now += 60_000
        judge(store, who, shown, choose(shown), events)
    found = by_name(summary(store, made), "one")
    assert [flag for flag in found["flags"] if flag != "gold" or flags == ["gold"]] == flags
    assert sum(found["votes"].values()) == 48


def test_repeats_say_how_steady_a_rater_is(store: Store) -> None:
    made = project(store, 60, repeat_share=0.2)
    who = rater(store, "one")
    judge_all(store, who, made, lambda shown: Verdict((1, 2)))  # always left: every repeat contradicts itself
    left = by_name(summary(store, made), "one")
    assert left["repeats"]["share"] == 0.0 and left["repeats"]["n"] == left["votes"]["repeat"] >= 12
    assert left["first_side"]["share"] == 1.0
    judge_all(store, other := rater(store, "two"), made)
    steady = by_name(summary(store, made), other.name)
    assert steady["repeats"]["share"] == 1.0 and 0.3 < steady["first_side"]["share"] < 0.7


def test_small_functions_by_hand() -> None:
    assert share(0, 0) is None
    assert same_pairs([(1, 2, 3), (1, 3, 2)]) == (2, 3)
    assert same_pairs([(1, 2), (1, 1), ()]) == (0, 1)
    assert side_preference([([0, 1], (1, 1))]) is None
    found = side_preference([([0, 1], (1, 2)), ([1, 0], (1, 2)), ([2, 0, 1], (2, 2, 1))])
    assert found is not None and (found["hits"], found["n"]) == (2, 3)
    assert found["expected"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    assert is_fast(1999, 1) and not is_fast(2000, 50) and is_fast(2000, 51)


def test_the_matrix_has_a_row_for_each_pair_of_answers(store: Store) -> None:
    made = project(store, 3, ("a", "b", "c"), order="file")
    judge_all(store, rater(store, "one"), made, lambda shown: by_content(shown, "好中差"))
    judge_all(store, rater(store, "two"), made, lambda shown: Verdict((1, 1, 1)), limit=2)
    names, matrix, units = rating_matrix(store, made)
    assert len(names) == 2 and len(matrix) == 9 and len(set(units)) == 3
    assert sorted(matrix, key=str).count([1, None]) + matrix.count([None, 1]) == 3
    assert sum(sorted(map(str, row)) == ["0", "1"] for row in matrix) == 6
