"""Exams by log-probability and by generation, on generators that choose in known ways."""

from __future__ import annotations

import random

import pytest
from fakes import FakeGenerator

from xinglin.evals import exam
from xinglin.records import ExamQuestion, InputError

OPTIONS = {"A": "心", "B": "肝", "C": "肺", "D": "肾"}


def questions(count: int = 40) -> list[ExamQuestion]:
    return [ExamQuestion(f"q{i}", f"第{i}题", OPTIONS, "ABCD"[i % 4], subject="解剖学") for i in range(count)]


def knows(right: str):  # type: ignore[no-untyped-def]
    """Log-probability that prefers the letter whose option text is `right`."""

    def logprob(context: str, text: str) -> float:
        return 0.0 if f"{text.strip()}. {right}" in context.split("\n\n")[-1] else -5.0

    return logprob


def test_prompt_is_lm_evals_cmmlu_form() -> None:
    dev = [
        ExamQuestion("d", " 例题 ", OPTIONS, "C", subject="解剖学"),
        ExamQuestion("e", "他科", OPTIONS, "A", subject="儿科"),
    ]
    text = exam.prompt_text(questions(1)[0], OPTIONS, dev, 5, " ")
    assert text == (
        "以下是关于解剖学的单项选择题，请直接给出正确答案的选项。\n\n"
        "例题\nA. 心\nB. 肝\nC. 肺\nD. 肾\n答案： C\n\n"
        "第0题\nA. 心\nB. 肝\nC. 肺\nD. 肾\n答案："
    )


def test_both_delimiters() -> None:
    for delimiter, first in ((" ", " A"), ("", "A"), ("both", " A")):
        generator = FakeGenerator(logprob=lambda context, text: 0.0 if text in (" A", "B") else -1.0)
        found = exam.run(generator, questions(), seed=0, delimiter=delimiter, draws=200)
        assert generator.pairs[0][1] == first
        assert found.metrics["accuracy"].value == 0.25 and found.metrics["accuracy"].chance == 0.25
        assert found.notes["degenerate"] is True
    assert found.notes["accuracy_without_delimiter"] == 0.25


def test_the_delimiters_difference_is_said() -> None:
    generator = FakeGenerator(logprob=lambda context, text: 0.0 if text in (" A", "B") else -1.0)
    only_b = [ExamQuestion(f"q{i}", "?", OPTIONS, "B") for i in range(10)]
    found = exam.run(generator, only_b, seed=0, delimiter="both")
    assert "moves accuracy by 100.0 points" in found.notes["warnings"][0]


def test_circular_evaluation_tells_knowledge_from_habit() -> None:
    """E7: a model that knows is right in all rotations, one that always says A never is."""
    asked = [ExamQuestion(f"q{i}", "?", OPTIONS, "C") for i in range(8)]
    knowing = exam.run(FakeGenerator(logprob=knows("肺")), asked, seed=0, circular=True)
    assert knowing.metrics["accuracy"].value == knowing.metrics["accuracy_all_rotations"].value == 1.0
    habit = FakeGenerator(logprob=lambda context, text: 0.0 if text == " A" else -1.0)
    found = exam.run(habit, questions(), seed=0, circular=True)
    assert found.metrics["accuracy"].value == 0.25 and found.metrics["accuracy_all_rotations"].value == 0.0


def test_generation_and_parse_failures() -> None:
    """Keys run ABCD; the reply is right for A, wrong for B, hedged for C and D's very text for D."""
    replies = iter(["答案：A", "选C", "A或C", "肾"])
    found = exam.run(FakeGenerator(lambda prompt: next(replies)), questions(4), seed=0, mode="generate")
    assert found.name == "exam_generate" and found.metrics["accuracy"].value == 0.5
    assert found.notes["parse_failure_rate"] == 0.25
    assert found.metrics["accuracy"].per_item == {"q0": 1.0, "q1": 0.0, "q2": 0.0, "q3": 1.0}


def test_several_answers_need_the_exact_set() -> None:
    items = [ExamQuestion("1", "?", OPTIONS, "AC"), ExamQuestion("2", "?", OPTIONS, "A", meta={"multiple": True})]
    replies = iter(["A和C", "AC"])
    found = exam.run(FakeGenerator(lambda prompt: next(replies)), items, seed=0, mode="generate")
    assert found.metrics["accuracy"].value == 0.5 and found.metrics["accuracy"].chance == pytest.approx(1 / 15)
    generator = FakeGenerator(logprob=lambda context, text: 0.0 if text == " AC\n" else -1.0)
    assert exam.run(generator, items, seed=0).metrics["accuracy"].value == 0.5
    assert len(generator.pairs) == 30


def test_chat_mode_asks_as_a_chat_turn() -> None:
    generator = FakeGenerator(logprob=lambda context, text: 0.0 if text == "B" else -1.0)
    found = exam.run(generator, questions(4), seed=0, mode="chat")
    assert found.name == "exam_chat" and found.metrics["accuracy"].value == 0.25
    assert generator.pairs[0][0][0].role == "user" and found.notes["delimiter"] == ""


def test_every_option_survives() -> None:
    """E6: one-character options, 2-6 options, several answers, repeated option texts."""
    rng = random.Random(0)
    items = []
    for i in range(1_000):
        letters = "ABCDEF"[: rng.randint(2, 6)]
        key = "".join(sorted(rng.sample(letters, rng.randint(1, len(letters)))))
        items.append(ExamQuestion(f"q{i}", "?", {letter: rng.choice("心肝脾肺肾") for letter in letters}, key))
    for item in items:
        text = exam.prompt_text(item, item.options, (), 0, " ")
        assert all(f"\n{letter}. {option}\n" in text for letter, option in item.options.items())
    by_prompt = {exam.prompt_text(item, item.options, (), 0, ""): item.answer for item in items}
    same = [item for item in items if by_prompt[exam.prompt_text(item, item.options, (), 0, "")] == item.answer]
    found = exam.run(
        FakeGenerator(lambda prompt: f"答案：{by_prompt[prompt]}"), same, seed=0, mode="generate", draws=200
    )
    assert found.metrics["accuracy"].value == 1.0 and len(same) > 500


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="allowed: logprob, chat, generate"):
        exam.run(FakeGenerator(), questions(1), seed=0, mode="guess")  # type: ignore[arg-type]
