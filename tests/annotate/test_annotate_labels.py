"""A5 and the rubric: what verdicts come to, worked out by hand; the expert's queue, blind to names."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from ward_of_doctors import by_content, client_id, judge, judge_all, project, rater

from xinglin.annotate import schema
from xinglin.annotate.labels import Settlement, labels, next_dispute, settle
from xinglin.annotate.queue import next_item
from xinglin.annotate.rubric import IVYGPT, SPF, Verdict, complete, dense, from_shown, lexicographic, to_shown
from xinglin.annotate.store import Refused, Store
from xinglin.annotate.votes import submit, undo

DIMENSIONS = SPF.names


def said(*ranks: int, danger: tuple[int, ...] = (), **dimensions: tuple[int, ...]) -> Verdict:
    return Verdict(ranks, dimensions, danger=tuple((answer, 0, 1) for answer in danger))


@pytest.mark.parametrize(
    ("verdicts", "mode", "expected"),
    [
        ([said(1, 2), said(1, 2)], "any", Settlement("unanimous", (1, 2))),
        ([said(1, 1), said(1, 1)], "any", Settlement("unanimous", (1, 1))),
        ([said(1, 2), said(2, 1)], "any", Settlement("conflict", None, "overall")),
        ([said(1, 2), said(1, 1)], "any", Settlement("conflict", None, "overall")),
        ([said(1, 2), said(1, 1)], "reversal", Settlement("majority", (1, 2))),
        ([said(1, 2), said(2, 1)], "reversal", Settlement("conflict", None, "overall")),
        ([said(1, 2), said(2, 1), said(1, 2)], "any", Settlement("majority", (1, 2))),
        ([said(1, 2, 2), said(1, 1, 2)], "reversal", Settlement("majority", (1, 2, 3))),
        ([said(1, 2, 3), said(2, 3, 1), said(3, 1, 2)], "reversal", Settlement("conflict", None, "overall")),  # circle
        ([said(1, 2, 3), said(1, 3, 2), said(2, 1, 3)], "reversal", Settlement("majority", (1, 2, 3))),
        ([said(1, 2, danger=(1,)), said(1, 2)], "any", Settlement("conflict", None, "danger")),
        ([said(1, 2, danger=(1,)), said(1, 2, danger=(1,))], "any", Settlement("unanimous", (1, 2))),
        (
            [said(1, 2, safety=(1, 2), fluency=(1, 2)), said(2, 1, safety=(2, 1), fluency=(1, 2))],
            "any",
            Settlement("conflict", None, "safety"),
        ),
        (
            [
                said(1, 2, safety=(1, 1), professionalism=(1, 2), fluency=(1, 2)),
                said(2, 1, safety=(1, 1), professionalism=(2, 1), fluency=(2, 1)),
            ],
            "any",
            Settlement("conflict", None, "professionalism"),
        ),
        # Fluency differs, but safety has decided alike: no conflict.
        ([said(1, 2, fluency=(1, 2)), said(1, 2, fluency=(2, 1))], "any", Settlement("unanimous", (1, 2))),
        # Three answers: professionalism differs only where the overall orders agree, fluency where they do not.
        (
            [
                said(1, 2, 3, professionalism=(1, 2, 2), fluency=(1, 2, 3)),
                said(1, 3, 2, professionalism=(2, 1, 1), fluency=(1, 3, 2)),
            ],
            "any",
            Settlement("conflict", None, "fluency"),
        ),
    ],
)
def test_settle(verdicts: list[Verdict], mode: str, expected: Settlement) -> None:
    assert settle(verdicts, DIMENSIONS, mode) == expected
    assert settle(verdicts[::-1], DIMENSIONS, mode) == expected


@pytest.mark.parametrize(
    ("columns", "margin", "ranks"),
    [
        ([[3, 1], [1, 3]], 0.0, (1, 2)),
        ([[3, 3], [1, 3]], 0.0, (2, 1)),
        ([[3.5, 3], [1, 3]], 0.5, (2, 1)),  # within the margin: the next dimension decides
        ([[3.6, 3], [1, 3]], 0.5, (1, 2)),
        ([[3, 3], [2, 2], [5, 5]], 0.0, (1, 1)),
        ([[5, 4.6, 4.2]], 0.5, (1, 1, 2)),  # the third lies 0.8 from the best of the first place
        ([[5, 5, 1, 1], [1, 2, 2, 1]], 0.0, (2, 1, 3, 4)),
    ],
)
def test_lexicographic_order(columns: list[list[float]], margin: float, ranks: tuple[int, ...]) -> None:
    assert lexicographic(columns, margin) == ranks


def test_ivygpt_orders_by_the_mean_of_its_criteria() -> None:
    scores = {"informativeness": (5, 3), "coherence": (1, 3), "adherence": (3, 4), "factuality": (3, 4)}
    full = complete(Verdict(scores=scores), IVYGPT, "scores", 0.0, ["甲", "乙"])
    assert full.ranks == (2, 1)  # 3.0 against 3.5
    assert full.dimensions["informativeness"] == (1, 2) and full.dimensions["factuality"] == (2, 1)
    assert complete(Verdict(scores=scores), IVYGPT, "scores", 0.5, ["甲", "乙"]).ranks == (1, 1)


def test_positions_and_answers_are_each_other_turned_round() -> None:
    shown = Verdict((2, 1, 3), {"safety": (1, 2, 2)}, {"accuracy": (3, 4, 5)}, ((0, 1, 2),), {2: "改"}, "言")
    sides = (2, 0, 1)  # the page shows answer 2 first
    own = from_shown(shown, sides)
    assert own.ranks == (1, 3, 2) and own.scores == {"accuracy": (4, 5, 3)}
    assert own.danger == ((2, 1, 2),) and own.rewrites == {1: "改"}
    assert to_shown(own, sides) == shown
    assert dense((3, 7, 3)) == (1, 2, 1)


def test_the_expert_decides_blind_and_with_a_reason(store: Store) -> None:
    made = project(store, 6, order="file")
    one, two = rater(store, "doctor-wang"), rater(store, "doctor-li")
    chief, other = rater(store, "chief", "expert"), rater(store, "second", "expert")
    judge_all(store, one, made)
    judge_all(store, two, made, lambda shown: by_content(shown, "好中" if "问题0" in str(shown.prompt) else "中好"))
    assert [label.method for label in labels(store, made)] == ["unanimous"]
    dispute = next_dispute(store, chief, made)
    elsewhere = next_dispute(store, other, made)
    assert dispute is not None and elsewhere is not None and dispute.prompt != elsewhere.prompt
    assert dispute == next_dispute(store, chief, made)
    assert sorted(vote.ranks for vote in dispute.votes) == [(1, 2), (2, 1)] and dispute.conflict == "overall"
    assert not any(word in repr(dispute) for word in ("wang", "doctor-li", "rater-", "secret-model"))
    with pytest.raises(Refused, match="reason"):
        submit(store, chief, dispute.lease, client_id(), by_content(dispute))
    verdict = by_content(dispute)
    judge(store, chief, dispute, Verdict(verdict.ranks, comment="乙遗漏了红旗征"))
    found = list(labels(store, made))
    assert [label.method for label in found] == ["unanimous", "arbiter"]
    assert (found[1].ranks, found[1].reason, len(found[1].votes)) == ((1, 2), "乙遗漏了红旗征", 3)
    again = undo(store, chief, made, "undo-00001")
    assert again.votes == dispute.votes and len(list(labels(store, made))) == 1
    judge(store, chief, again, Verdict((1, 1), comment="相当"))
    assert list(labels(store, made))[1].ranks == (1, 1)


def test_an_expert_does_not_arbitrate_a_vote_of_his_own(store: Store) -> None:
    made = project(store, 1)
    chief, other = rater(store, "chief", "expert"), rater(store, "other", "expert")
    judge_all(store, chief, made)
    judge_all(store, rater(store, "one"), made, lambda shown: Verdict((1, 1)))
    assert next_dispute(store, chief, made) is None
    assert next_dispute(store, other, made) is not None


def test_a_danger_only_one_rater_saw_goes_to_the_expert(store: Store) -> None:
    made = project(store, 1)
    judge_all(store, rater(store, "one"), made)
    shown = next_item(store, two := rater(store, "two"), made)
    assert shown is not None
    judge(store, two, shown, Verdict(by_content(shown).ranks, danger=((0, 0, 2),)))
    with store.read() as connection:
        assert connection.scalar(select(schema.items.c.state)) == "disputed"
    dispute = next_dispute(store, rater(store, "chief", "expert"), made)
    assert dispute is not None and dispute.conflict == "danger"
