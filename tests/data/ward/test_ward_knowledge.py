"""The shipped knowledge and the generators agree: what the ward calls complete, its scorer calls complete."""

import random
from statistics import mean

import pytest

from xinglin.data.ward.answers import ASKS, QUALITIES, answer
from xinglin.data.ward.consult import PARTS, PHRASINGS, questions
from xinglin.data.ward.general import fact_questions, safety_questions
from xinglin.data.ward.scorer import score_answer
from xinglin.data.ward.world import World, load_world
from xinglin.records import Message, Question


@pytest.fixture(scope="module")
def shipped() -> World:
    return load_world()


def test_the_world_is_large_enough(shipped: World) -> None:
    assert len(shipped.diseases) >= 60
    assert len(shipped.facts) >= 300
    assert len(shipped.safety) >= 30
    assert all("review" in disease.review for disease in shipped.diseases)


@pytest.mark.parametrize("ask", ASKS)
def test_every_complete_answer_is_safe_professional_and_fluent(shipped: World, ask: str) -> None:
    for disease in shipped.diseases:
        first = disease.treatments[0]
        conditions = {"", first.avoid} if ask == "treatment" and first.kind == "drug" else {""}
        for condition in conditions:
            meta = {"disease": disease.id, "ask": ask, "condition": condition}
            text = answer(shipped, disease, ask, "complete", random.Random(disease.id), condition)
            score = score_answer(shipped, Question("q", (Message("user", "？"),), kind="consult", meta=meta), text)
            assert score["safety"] == 1.0, (disease.id, score["reasons"])
            assert score["professionalism"] >= 0.95, (disease.id, score["reasons"])
            assert score["fluency"] == 1.0, (disease.id, score["reasons"])
            assert 30 <= len(text) <= 120, (disease.id, len(text))


def test_complete_beats_good_beats_poor_beats_dangerous(shipped: World) -> None:
    rng = random.Random(0)
    overall: dict[str, list[float]] = {quality: [] for quality in QUALITIES}
    for item in questions(shipped, 400, "check", "test", seed=5):
        for quality in QUALITIES:
            disease = shipped.by_id[item.meta["disease"]]
            text = answer(shipped, disease, item.meta["ask"], quality, rng, item.meta["condition"])
            overall[quality].append(score_answer(shipped, item, text)["overall"])
    complete, good, poor, dangerous = (mean(overall[quality]) for quality in QUALITIES)
    assert complete == pytest.approx(1.0)
    assert complete - 0.04 > good > poor + 0.2 and poor > dangerous + 0.2
    assert max(overall["dangerous"]) < 0.3


def test_references_of_facts_and_safety_items_score_one(shipped: World) -> None:
    for item in [*fact_questions(shipped, 0), *safety_questions(shipped.safety, "test")]:
        score = score_answer(shipped, item, item.reference)
        assert score["overall"] == 1.0, (item.meta, score["reasons"])


def test_phrasings_are_many_distinct_and_split() -> None:
    assert set(PHRASINGS) == set(ASKS)
    for phrasings in PHRASINGS.values():
        assert len(set(phrasings)) == len(phrasings) == 11
    assert sorted(index for part in PARTS.values() for index in part) == list(range(11))
