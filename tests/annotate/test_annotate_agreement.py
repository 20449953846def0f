"""Agreement of a project's doctors, worked out by hand from what they were made to vote."""

from __future__ import annotations

import json

import pytest
from ward_of_doctors import by_content, judge_all, project, rater

from xinglin.annotate.agreement import agreement
from xinglin.annotate.rubric import Verdict
from xinglin.annotate.store import Store
from xinglin.records import InputError

FEW = {"draws": 100}


def test_two_doctors_by_hand(store: Store) -> None:
    """Three items, two answers. One votes the better answer first throughout, two ties the items he is shown.

    A rater who says one value alone defines no kappa, however often the two agree.
    """
    made = project(store, 3, order="file")
    judge_all(store, rater(store, "one"), made)
    judge_all(store, rater(store, "two"), made, lambda shown: Verdict((1, 1)), limit=2)
    found = agreement(store, made, **FEW)
    overall = found["dimensions"]["overall"]
    assert len(found["raters"]) == 2 and found["limits"] == {"red_below": 0.667, "amber_below": 0.8}
    assert overall["all"]["raw"]["value"] == 0.0 and overall["all"]["raw"]["n"] == 2
    assert overall["all"]["raw"]["colour"] == "red"
    (pair,) = overall["pairs"]
    assert pair["cohen"]["value"] is None and "one value alone" in pair["cohen"]["reason"]
    assert [one["alpha_without"]["value"] for one in overall["raters"]] == [None, None]
    assert overall["raters"][0]["repeats_raw"]["value"] is None  # no hidden repeats yet
    json.dumps(found, allow_nan=False)


def test_dimensions_are_apart_and_pairs_of_an_item_hang_together(store: Store) -> None:
    """Both order safety alike and fluency the other way round: 1 and 0 of six pairs (two items, three answers)."""
    made = project(store, 2, ("a", "b", "c"))

    def judged(fluency: str):  # type: ignore[no-untyped-def]
        def choose(shown):  # type: ignore[no-untyped-def]
            safe, fluent = by_content(shown, "好中差").ranks, by_content(shown, fluency).ranks
            return Verdict(safe, {"safety": safe, "professionalism": safe, "fluency": fluent})

        return choose

    judge_all(store, rater(store, "one"), made, judged("好中差"))
    judge_all(store, rater(store, "two"), made, judged("差中好"))
    found = agreement(store, made, **FEW)["dimensions"]
    assert {name: found[name]["all"]["raw"]["value"] for name in ("overall", "safety", "fluency")} == {
        "overall": 1.0, "safety": 1.0, "fluency": 0.0,
    }  # fmt: skip
    assert found["safety"]["all"]["raw"]["n"] == 6
    assert found["fluency"]["all"]["raw"]["low"] == found["fluency"]["all"]["raw"]["high"] == 0.0


def test_over_time_and_repeats(store: Store) -> None:
    made = project(store, 40, repeat_share=0.2)
    judge_all(store, rater(store, "one"), made)
    judge_all(store, rater(store, "two"), made, lambda shown: Verdict((1, 2)))  # always left: repeats turn round
    found = agreement(store, made, run=25, **FEW)["dimensions"]["overall"]
    assert list(found["by_votes"]) == ["1-25", "26-50"] and list(found["by_month"]) == ["2023-11"]
    assert found["by_month"]["2023-11"]["raw"]["n"] == 40
    assert sorted(one["repeats_raw"]["value"] for one in found["raters"]) == [0.0, 1.0]


def test_a_project_that_is_not_there(store: Store) -> None:
    with pytest.raises(InputError, match="no project 77"):
        agreement(store, 77)
