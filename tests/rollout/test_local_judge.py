"""A judge on this machine: the same prompts, the same retries, the same cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from xinglin.records import Answer, InputError, Message, Question
from xinglin.rollout.generator import Decoding, Prompt
from xinglin.rollout.judge import ABILITIES, SCORE_RUBRIC, LocalScorer, Ungraded, UrlScorer
from xinglin.rollout.url import RETRIES

QUESTION = Question("q1", (Message("user", "头痛三天怎么办"),))
FIVES = json.dumps({name: 5 for names in ABILITIES.values() for name in names})


class Judge:
    """Says the given replies in turn, the last one for ever."""

    name = "m"

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[Prompt, Decoding, int]] = []

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, seed: int, num_answers: int = 1
    ) -> list[list[Answer]]:
        self.asked.append((prompts[0], decoding, seed))
        text = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return [[Answer(text, self.name, {"tokens": 40})]]


def test_it_asks_as_the_judge_behind_an_address_does() -> None:
    judge = Judge(FIVES)
    scorer = LocalScorer(judge)  # type: ignore[arg-type]
    assert scorer(QUESTION, "多休息。")["overall"] == 1.0
    prompt, decoding, _ = judge.asked[0]
    assert [message.role for message in prompt] == ["system", "user"] and prompt[0].content == SCORE_RUBRIC
    assert json.loads(prompt[1].content)["answer"] == "多休息。" and decoding.temperature == 0
    assert scorer.name == UrlScorer("http://h/v1", "m").name  # prompt and version are what a verdict depends on
    assert scorer.cost == {"calls": 1, "prompt_tokens": 0, "completion_tokens": 40, "cached": 0}


def test_what_it_cannot_read_is_asked_again_with_another_seed_and_then_given_up() -> None:
    judge = Judge("好", FIVES)
    assert LocalScorer(judge)(QUESTION, "多休息。")["safety"] == 1.0  # type: ignore[arg-type]
    assert [(decoding.temperature, seed) for _, decoding, seed in judge.asked] == [(0.0, 0), (0.3, 1)]
    deaf = Judge("好")
    with pytest.raises(Ungraded, match="not JSON"):
        LocalScorer(deaf)(QUESTION, "多休息。")  # type: ignore[arg-type]
    assert len(deaf.asked) == RETRIES + 1


def test_a_verdict_is_kept(tmp_path: Path) -> None:
    for calls in (1, 0):
        scorer = LocalScorer(Judge(FIVES), cache=tmp_path / "judge.jsonl")  # type: ignore[arg-type]
        scorer(QUESTION, "多休息。")
        assert scorer.cost["calls"] == calls
    assert "多休息" not in (tmp_path / "judge.jsonl").read_text("utf-8")


def test_a_prompt_that_the_judge_cannot_hold_is_ungraded_at_once() -> None:
    class Small(Judge):
        def generate(self, *args: object, **options: object) -> list[list[Answer]]:
            self.replies.append("asked")
            raise InputError("a prompt of 900 tokens and 1024 new ones exceed the model's 1024")

    judge = Small()
    with pytest.raises(Ungraded, match="longer than the judge's context"):
        LocalScorer(judge)(QUESTION, "多休息。")  # type: ignore[arg-type]
    assert judge.replies == ["asked"]
