"""Win rates between two checkpoints, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import user

from xinglin.evals.checkpoints import head_to_head, rule_judge
from xinglin.evals.result import Evaluation
from xinglin.records import Question, write_records


def answers(*texts: str) -> list[Evaluation]:
    return [Evaluation("dialogue", answers={f"q{i}": text for i, text in enumerate(texts)}), Evaluation("general")]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    write_records(tmp_path / "test.jsonl", [Question(f"q{i}", user(f"问{i}")) for i in range(20)])
    return tmp_path / "test.jsonl"


def longer(question: Any, text: str) -> dict[str, float]:
    return {"overall": len(text) / 10}


def test_the_longer_answer_wins_by_rule(questions: Path) -> None:
    """12 of 20 won, 3 lost, 5 level: 0.60 - 0.15 = 0.45."""
    new = answers(*["长一些"] * 12, *["短"] * 3, *["一样"] * 5)
    (line,) = head_to_head(rule_judge(longer), questions, answers(*["一样"] * 20), new, 0)
    assert (line["evaluation"], line["metric"], line["n"], line["num_differ"]) == ("dialogue_duel", "wins", 20, 15)
    assert (line["a"], line["b"], line["tie"]) == (0.15, 0.6, 0.25)
    assert line["diff"] == pytest.approx(0.45) and 0 < line["low"] < 0.45 < line["high"]
    assert line["better"] is True and line["position_consistency"] == 1


def test_a_judge_that_always_takes_the_first_sees_no_winner(questions: Path) -> None:
    (line,) = head_to_head(lambda question, a, b: "a", questions, answers(*["甲"] * 20), answers(*["乙"] * 20), 0)
    assert (line["a"], line["b"], line["tie"], line["position_consistency"]) == (0, 0, 1, 0)
    assert line["better"] is None


def test_without_a_judge_or_questions_there_is_no_duel(questions: Path, tmp_path: Path) -> None:
    ours = answers(*["甲"] * 20)
    assert head_to_head(None, questions, ours, ours, 0) == []
    assert head_to_head(rule_judge(longer), tmp_path / "none.jsonl", ours, [Evaluation("general")], 0) == []
