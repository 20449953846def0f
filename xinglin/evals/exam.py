"""Evaluation: multiple-choice exams.

what     the right letter, or the exact set of letters where several are right
prompt   logprob: lm-eval's cmmlu form, subject line, dev shots, question, options, `答案：`; chat: the same text as a
         chat turn, the letter scored as the reply; generate: the same turn, the reply read by `parse_choice`
metric   accuracy; with `circular` also accuracy_all_rotations (right in every rotation of the options)
chance   mean of 1/n options, or 1/(2^n - 1) for several right answers
paper    ChiMed-GPT: C-Eval, CMMLU, MedQA by arg-max letter (2311.06025)

The delimiter between `答案：` and the letter moves scores by points: lm-eval scores " A", under a chat template "A".
`delimiter="both"` scores the two; the first is the headline and the second stands in the notes.
Several right answers are scored as whole sets ending in a line break: without the end "A" would always beat "AC".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

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
    share,
    unique_ids,
    user,
)
from xinglin.metrics import chance_level, parse_choice
from xinglin.metrics.choices import is_multiple
from xinglin.records import ExamQuestion, InputError
from xinglin.rollout.generator import Decoding, Generator, Prompt

Mode = Literal["logprob", "chat", "generate"]
SINGLE_TASK = "以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n"
MULTIPLE_TASK = "以下是关于{subject}的多项选择题，请直接给出全部正确答案的选项。\n\n"
ROTATIONS = 4


@dataclass(frozen=True, slots=True)
class _View:
    """A question as asked: texts under new letters, the key in those letters."""

    id: str
    item: ExamQuestion
    options: dict[str, str]
    key: str


def run(
    generator: Generator,
    questions: Sequence[ExamQuestion],
    *,
    seed: int,
    name: str = "exam",
    shots: Sequence[ExamQuestion] = (),
    num_shots: int = 5,
    mode: Mode = "logprob",
    delimiter: str = " ",
    circular: bool = False,
    decoding: Decoding = GREEDY,
    draws: int = 10_000,
) -> Evaluation:
    unique_ids(questions, name)
    if mode not in get_args(Mode) or delimiter not in ("", " ", "both"):
        allowed = f'{", ".join(get_args(Mode))} and "", " ", "both"'
        raise InputError(f"{name}: mode {mode!r}, delimiter {delimiter!r}; allowed: {allowed}")
    views = [_rotated(q, turn) for q in questions for turn in range(ROTATIONS if circular else 1)]
    notes: dict[str, Any] = {"mode": mode, "num_shots": num_shots if shots else 0}
    texts: dict[str, str] = {}
    if mode == "generate":
        prompts = {view.id: user(prompt_text(view.item, view.options, shots, num_shots, "")) for view in views}
        texts = answer_texts(generator, prompts, decoding, seed)
        chosen = {v.id: parse_choice(texts[v.id], "".join(v.options), v.options) for v in views}
        notes["parse_failure_rate"] = share(not letters for letters in chosen.values())
        notes["prompt_sha256"] = prompt_hash(prompts.values())
    else:
        first = "" if mode == "chat" else " " if delimiter == "both" else delimiter
        chosen, notes["prompt_sha256"] = _by_logprob(generator, views, shots, num_shots, first, mode)
        notes["delimiter"] = first
        if delimiter == "both" and mode == "logprob":
            other, _ = _by_logprob(generator, views, shots, num_shots, "", mode)
            notes.update(_delimiter_notes(views, chosen, other))
    metrics = _metrics(questions, views, chosen, Resampling(seed, draws, groups_of(questions)), circular)
    answered = list(chosen.values())
    notes["degenerate"] = degenerate(answered)
    used = sorted({letter for view in views for letter in view.options})
    notes["letters"] = {letter: share(letter in letters for letters in answered) for letter in used}
    return evaluation(f"{name}_{mode}", metrics, notes, texts)


def _metrics(
    questions: Sequence[ExamQuestion],
    views: Sequence[_View],
    chosen: Mapping[str, str],
    how: Resampling,
    circular: bool,
) -> dict[str, Metric]:
    right: dict[str, list[bool]] = {question.id: [] for question in questions}
    for view in views:
        right[view.item.id].append(chosen[view.id] == view.key)
    chance = chance_level(questions)
    metrics = {"accuracy": metric({name: float(row[0]) for name, row in right.items()}, how, chance=chance)}
    if circular:
        metrics["accuracy_all_rotations"] = metric({name: float(all(row)) for name, row in right.items()}, how)
    return metrics


def question_text(question: ExamQuestion, options: Mapping[str, str] | None = None) -> str:
    """`{Question}\\nA. ..\\nB. ..\\n答案：` as in lm-eval's cmmlu task."""
    lines = [f"{letter}. {text}" for letter, text in (options or question.options).items()]
    return "\n".join([question.question.strip(), *lines, "答案："])


def prompt_text(
    question: ExamQuestion,
    options: Mapping[str, str],
    shots: Sequence[ExamQuestion],
    num_shots: int,
    delimiter: str,
) -> str:
    """Task line, the first shots of the same subject and kind, the question."""
    multiple = is_multiple(question)
    task = MULTIPLE_TASK if multiple else SINGLE_TASK
    alike = [s for s in shots if s.subject == question.subject and is_multiple(s) == multiple and s.id != question.id]
    shown = [f"{question_text(shot)}{delimiter}{shot.answer}\n\n" for shot in alike[:num_shots]]
    return task.format(subject=question.subject or "医学") + "".join(shown) + question_text(question, options)


def answer_sets(view_options: Sequence[str], multiple: bool) -> list[str]:
    """What may be answered: single letters, or every set of letters closed by a line break."""
    if not multiple:
        return list(view_options)
    sizes = range(1, len(view_options) + 1)
    return ["".join(letters) + "\n" for size in sizes for letters in combinations(view_options, size)]


def _by_logprob(
    generator: Generator,
    views: Sequence[_View],
    shots: Sequence[ExamQuestion],
    num_shots: int,
    delimiter: str,
    mode: Mode,
) -> tuple[dict[str, str], str]:
    written = {view.id: prompt_text(view.item, view.options, shots, num_shots, delimiter) for view in views}
    contexts: dict[str, str | Prompt] = {id: user(text) if mode == "chat" else text for id, text in written.items()}
    answers = {view.id: answer_sets(list(view.options), is_multiple(view.item)) for view in views}
    continuations = {name: [delimiter + answer for answer in found] for name, found in answers.items()}
    totals = option_logprobs(generator, contexts, continuations)
    chosen = {name: answers[name][argmax(values)].strip() for name, values in totals.items()}
    return chosen, prompt_hash([*contexts.values(), *(text for found in continuations.values() for text in found)])


def _delimiter_notes(views: Sequence[_View], spaced: Mapping[str, str], bare: Mapping[str, str]) -> dict[str, Any]:
    with_space = share(spaced[view.id] == view.key for view in views)
    without = share(bare[view.id] == view.key for view in views)
    notes: dict[str, Any] = {"accuracy_without_delimiter": without}
    if abs(with_space - without) > 0.01:
        notes["warnings"] = [f"the delimiter moves accuracy by {100 * abs(with_space - without):.1f} points"]
    return notes


def _rotated(question: ExamQuestion, turn: int) -> _View:
    """The option texts moved on by `turn` places; turn 0 is the question as written, its own letters kept."""
    letters, count = list(question.options), len(question.options)
    sources = [letters[(place + turn) % count] for place in range(count)]
    options = {letter: question.options[source] for letter, source in zip(letters, sources, strict=True)}
    key = "".join(sorted(letter for letter, source in zip(letters, sources, strict=True) if source in question.answer))
    return _View(f"{question.id}#{turn}", question, options, key)
