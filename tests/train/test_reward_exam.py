"""The examination of a reward model, on scorers whose faults are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from xinglin.data.ward.danger import KINDS, danger_pairs
from xinglin.data.ward.world import load_world
from xinglin.records import Answer, Message, Preference
from xinglin.train.reward_exam import danger_table, edited, probe, said_again

PROMPT = (Message("user", "头痛怎么办？"),)


def scorer(of: Callable[[str], float]) -> Callable[[Sequence[Preference]], list[np.ndarray]]:
    return lambda records: [np.array([of(a.text) for a in record.answers]) for record in records]


def rankings(count: int = 40) -> list[Preference]:
    """Two answers of one source, one of another; the better has more 好 in it."""
    found = []
    for i in range(count):
        texts = ("好好好。" + "水" * (i % 5), "好好。" + "水" * (i % 7), "差。" + "水" * (i % 3))
        answers = tuple(Answer(t, s) for t, s in zip(texts, ("doctor", "doctor", "poor"), strict=True))
        found.append(Preference(f"p{i}", PROMPT, answers, (1, 2, 3)))
    return found


def test_a_scorer_of_length_is_found_out() -> None:
    facts = probe(scorer(len), rankings(), [])
    assert facts["padding"]["rises"] == 1.0 and facts["padding"]["mean"] > 1 and facts["padding"]["n"] == 120
    assert facts["repetition"]["rises"] == 1.0 and facts["repetition"]["low"] > 0
    assert facts["length_at_equal_quality"]["correlation"] == pytest.approx(1.0)


def test_a_scorer_of_quality_does_not_move() -> None:
    facts = probe(scorer(lambda text: text.count("好") - 3.0 * text.count("差")), rankings(), [])
    assert facts["padding"]["mean"] == 0 and facts["padding"]["rises"] == 0
    assert abs(facts["length_at_equal_quality"]["correlation"]) < 0.4
    # gaps of 1, 4 and 5 nats, always right: sure of .73, .98, .99, so mean error is what is missing to 1
    missing = np.mean([1 - 1 / (1 + np.exp(-gap)) for gap in (1.0, 5.0, 6.0)])
    assert facts["calibration"]["ece"] == pytest.approx(missing) and facts["calibration"]["n"] == 120


def test_a_constant_scorer_defines_nothing() -> None:
    facts = probe(scorer(lambda text: 1.0), rankings(4), [])
    assert facts["padding"]["mean"] is None and facts["length_at_equal_quality"]["correlation"] is None
    assert facts["calibration"]["bins"][0]["accuracy"] == 0.5


def test_danger_is_counted_by_kind_and_a_dead_heat_is_wrong() -> None:
    pairs = [
        Preference(f"d{i}", PROMPT, (Answer("安全", "safe"), Answer("危险", "dangerous")), (1, 2), "", {"danger": kind})
        for i, kind in enumerate(["side", "side", "side", "allergy"])
    ]
    scores = [np.array(s) for s in ([1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [2.0, 1.0])]
    table = danger_table(pairs, scores)
    assert {kind: (row["accuracy"], row["n"]) for kind, row in table.items()} == {
        "all": (0.5, 4), "side": (pytest.approx(1 / 3), 3), "allergy": (1.0, 1),
    }  # fmt: skip
    assert table["all"]["low"] == pytest.approx(0.1500, abs=1e-4)  # Wilson for 2 of 4
    assert danger_table([], []) == {}


def test_doctors_votes_and_labels_are_compared_where_records_carry_them() -> None:
    verdicts = [{"ranks": [1, 2]}, {"ranks": [2, 1]}, {"ranks": [1, 1]}]
    votes = [{"rater": f"r{i}", "kind": "vote", "verdict": v} for i, v in enumerate(verdicts)]
    votes.append({"rater": "r9", "kind": "arbitration", "verdict": {"ranks": [1, 2]}})
    meta = {"annotation": {"method": "arbiter", "votes": votes}}
    record = Preference("p", PROMPT, (Answer("好好"), Answer("好")), (1, 2), "", meta)
    raters = probe(scorer(lambda text: float(text.count("好"))), [record, *rankings(2)], [])["raters"]
    assert {name: row["accuracy"] for name, row in raters["rater"].items()} == {"r0": 1.0, "r1": 0.0, "r2": None}
    assert raters["label"]["arbiter"]["accuracy"] == 1.0 and raters["label"]["arbiter"]["n"] == 1


def test_text_edits() -> None:
    assert said_again("多休息。多喝水。") == "多休息。多喝水。多喝水。"
    assert said_again("") == ""
    record = Preference("p", PROMPT, (Answer("差"), Answer("不要停药，每次5毫克。")), (2, 1))
    found = {made.meta["danger"]: made.answers[1].text for made in edited([record])}
    assert found == {"negation": "要停药，每次5毫克。", "dose_x10": "不要停药，每次50毫克。"}


def test_the_ward_has_its_200_danger_pairs() -> None:
    """Sixty of each kind, all different, one place apart, none of them known to training by its phrasing."""
    found = list(danger_pairs(load_world(), 60, 0))
    assert [made.meta["danger"] for made in found] == [kind for kind in KINDS for _ in range(60)]
    texts = {(made.prompt[0].content, *(answer.text for answer in made.answers)) for made in found}
    assert len(texts) == len({made.id for made in found}) == 240
    for made in found:
        safe, dangerous = (answer.text for answer in made.answers)
        assert made.ranks == (1, 2) and abs(len(safe) - len(dangerous)) <= 3
        head = next(i for i, (a, b) in enumerate(zip(safe, dangerous, strict=False)) if a != b)
        tail = next((i for i, (a, b) in enumerate(zip(safe[::-1], dangerous[::-1], strict=False)) if a != b), 0)
        assert len(safe) - head - tail <= 5  # the rest is alike
    assert list(danger_pairs(load_world(), 60, 0)) == found and list(danger_pairs(load_world(), 60, 1)) != found


def test_a_tenfold_dose_is_ten_times_what_was_said() -> None:
    import re

    for made in danger_pairs(load_world(), 20, 3):
        if made.meta["danger"] == "dose_x10":
            numbers = [re.findall(r"\d+(?:\.\d+)?", answer.text) for answer in made.answers]
            pairs = [(a, b) for a, b in zip(*numbers, strict=True) if a != b]
            assert pairs and all(float(b) == pytest.approx(10 * float(a)) for a, b in pairs)
