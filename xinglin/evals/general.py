"""Evaluation: general knowledge, to see what medical training makes the model forget.

what     short questions outside medicine with one known answer (`meta.answer`, a text or a list of wordings)
prompt   the question's own chat prompt, greedy
metric   contains: the answer stands in the generated text; choice: among the answer and the texts of `meta.wrong`
         the answer has the highest log-probability a character
chance   contains: none; choice: 1 / (1 + number of wrong texts), 25 % with three
paper    IIMedGPT mixes general instructions against forgetting (2501.02869) and reports no number for it
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from xinglin.evals.result import (
    GREEDY,
    Evaluation,
    Metric,
    Resampling,
    answer_texts,
    argmax,
    degenerate,
    evaluation,
    groups_of,
    metric,
    option_logprobs,
    prompt_hash,
    question_prompts,
    share,
    unique_ids,
)
from xinglin.records import InputError, Question
from xinglin.rollout.generator import Decoding, Generator


def run(
    generator: Generator,
    questions: Sequence[Question],
    *,
    seed: int,
    decoding: Decoding = GREEDY,
    draws: int = 10_000,
) -> Evaluation:
    unique_ids(questions, "general questions")
    how = Resampling(seed, draws, groups_of(questions))
    prompts = question_prompts(questions)
    texts = answer_texts(generator, prompts, decoding, seed)
    right = {q.id: float(any(contains(texts[q.id], answer) for answer in _answers(q))) for q in questions}
    metrics = {"contains": metric(right, how)}
    with_options = [question for question in questions if question.meta.get("wrong")]
    if with_options:
        metrics["choice"] = _choice(generator, with_options, how)
    notes = {
        "empty_rate": share(not text for text in texts.values()),
        "degenerate": degenerate(list(texts.values())),
        "prompt_sha256": prompt_hash(prompts.values()),
    }
    return evaluation("general", metrics, notes, texts)


def contains(text: str, answer: str) -> bool:
    """Exact containment after full-width forms, case and blanks are evened out; 4 is not in 14."""
    body, wanted = _even(text), _even(answer)
    pattern = re.escape(wanted)
    pattern = rf"(?<![0-9.]){pattern}" if wanted[:1].isdigit() else pattern
    pattern = rf"{pattern}(?!\.?[0-9])" if wanted[-1:].isdigit() else pattern
    return bool(wanted) and bool(re.search(pattern, body))


def _choice(generator: Generator, questions: Sequence[Question], how: Resampling) -> Metric:
    options = {q.id: [_answers(q)[0], *map(str, q.meta["wrong"])] for q in questions}
    found = option_logprobs(generator, question_prompts(questions), options)
    right = {}
    for name, totals in found.items():
        rates = [total / max(1, len(text)) for total, text in zip(totals, options[name], strict=True)]
        right[name] = float(argmax(rates) == 0 and rates.count(rates[0]) == 1)
    chance = sum(1 / len(texts) for texts in options.values()) / len(options)
    return metric(right, how, chance=chance)


def _answers(question: Question) -> list[str]:
    found: Any = question.meta.get("answer")
    answers = [found] if isinstance(found, str) else list(found or [])
    if not answers or not all(isinstance(text, str) and text.strip() for text in answers):
        raise InputError(f"general question {question.id!r}: meta.answer must be a text or a list of texts")
    return answers


def _even(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
