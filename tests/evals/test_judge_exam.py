"""Judges whose habits are known, beside doctors whose agreement was planted."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from xinglin.config import Evaluate
from xinglin.evals.checkpoints import evaluate
from xinglin.evals.judge_exam import run
from xinglin.records import Answer, InputError, Message, Preference, Question, write_records
from xinglin.run import Stage


def rankings(count: int, errors: float = 0.1, seed: int = 0) -> list[Preference]:
    """Two answers, 好 and 差 in either place; two doctors who are wrong with `errors`."""
    rng = random.Random(seed)
    found = []
    for i in range(count):
        ranks = rng.choice([(1, 2), (2, 1)])
        votes = []
        for code in ("r1", "r2"):
            said = ranks[::-1] if rng.random() < errors else ranks
            votes.append({"rater": code, "kind": "vote", "verdict": {"ranks": list(said)}})
        votes.append({"rater": "r3", "kind": "arbitration", "verdict": {"ranks": list(ranks)}})
        meta = {"annotation": {"method": "unanimous", "votes": votes}}
        answers = tuple(Answer("好" if rank == 1 else "差") for rank in ranks)
        found.append(Preference(f"p{i}", (Message("user", "?"),), answers, ranks, "", meta))
    return found


def right(question: Question, a: str, b: str) -> Any:
    return "a" if a == "好" else "b"


def first(question: Question, a: str, b: str) -> Any:
    return "a"


def test_a_judge_as_good_as_the_doctors_may_be_a_headline() -> None:
    found = run(right, rankings(250), draws=100)
    assert found["headline"] is True and found["against"] == []
    # he is right always: with each doctor .9; two doctors agree on .9^2 + .1^2 = .82
    assert found["judge_doctor"]["value"] == pytest.approx(0.9, abs=0.04)
    assert found["doctor_doctor"]["value"] == pytest.approx(0.82, abs=0.06)
    gap = found["gap"]
    assert gap["value"] == pytest.approx(found["judge_doctor"]["value"] - found["doctor_doctor"]["value"])
    assert gap["low"] < gap["value"] < gap["high"] and found["doctors"] == 2 and found["items"] == 250
    assert found["position_consistency"] == 1.0 and found["kappa_with_label"]["value"] == 1.0


def test_a_judge_who_always_says_the_first_is_none() -> None:
    """E8's planted judge: consistency 0, every pair a tie, no kappa from a judge who says one thing."""
    found = run(first, rankings(220, 0.0), draws=50)
    assert found["headline"] is False and found["position_consistency"] == 0.0 and found["tie_rate"] == 1.0
    assert found["judge_doctor"]["value"] == 0.0 and found["kappa_with_label"]["value"] is None
    assert any("position consistency 0%" in reason for reason in found["against"])
    assert any("100.0 points under theirs" in reason for reason in found["against"])


def test_few_items_and_ungraded_pairs_stand_against_him() -> None:
    rng = random.Random(1)

    def often_silent(question: Question, a: str, b: str) -> Any:
        return None if rng.random() < 0.2 else right(question, a, b)

    found = run(often_silent, rankings(60), draws=50)
    assert found["ungraded_rate"] == pytest.approx(0.36, abs=0.15)
    assert [reason.split()[0] for reason in found["against"][:1]] == ["60"]
    assert any("ungraded" in reason for reason in found["against"])


def test_rankings_without_votes_are_refused() -> None:
    plain = Preference("p", (Message("user", "?"),), (Answer("a"), Answer("b")), (1, 2))
    with pytest.raises(InputError, match="none with two doctors' votes"):
        run(right, [plain])


def test_the_evaluate_stage_examines_its_judge(tmp_path: Path) -> None:
    """The result stands in the stage's folder and its manifest; without a judge nothing is begun."""
    write_records(tmp_path / "votes.jsonl", rankings(40))
    write_records(tmp_path / "data/conversations/train.jsonl", [])
    labels = str(tmp_path / "votes.jsonl")
    config = Evaluate(checkpoints=("fake",), doctor_labels=labels, evaluations=("general",))
    stage = Stage(tmp_path / "evaluate", "evaluate", quiet=True)
    arguments = (config, stage, {}, tmp_path / "data", None, tmp_path / "bias.yaml", tmp_path)
    with pytest.raises(InputError, match="there is no judge to examine"):
        evaluate(*arguments)
    found = evaluate(*arguments, judge=right)["judge_exam"]
    assert found == json.loads((stage.dir / "judge_exam.json").read_text("utf-8"))
    assert found["items"] == 40 and found["headline"] is False and found["cost"] == {}
