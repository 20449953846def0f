"""What an evaluation hands back: metrics with n, interval, chance and every item's value, so that two can be paired.

`Metric.per_item` holds a float for each item, or a row of sufficient statistics for corpus scores (`statistic` names
how their sums become the score, see metrics/intervals.py). Shares of right answers get Wilson intervals, all else a
bootstrap. A missing answer is an error and never a smaller n.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xinglin.metrics import STATISTICS, Interval, bootstrap_interval, wilson_interval
from xinglin.metrics.intervals import Value
from xinglin.records import InputError, Message, Question
from xinglin.rollout.generator import Decoding, Generator, Prompt

SMALL_N = 200  # below this an accuracy's 95 % interval is wider than +-6 points
DEGENERATE_SHARE = 0.9
NUM_SAMPLES = 8
GREEDY = Decoding(max_new_tokens=128, temperature=0.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """`higher_is_better` is None where neither direction is (length). `chance` is None where guessing has no level."""

    value: float | None
    n: int
    low: float | None
    high: float | None
    chance: float | None = None
    per_item: dict[str, Value] = field(default_factory=dict)
    statistic: str = "mean"
    higher_is_better: bool | None = True
    groups: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`notes` holds what a reader must know beside the numbers; `not_run` in it says why there are none. `samples` are
    the first few answers, `answers` all of them where checkpoints are compared on them."""

    name: str
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are drawn. `groups` maps item ids to what they must be resampled with."""

    seed: int = 0
    draws: int = 10_000
    groups: Mapping[str, str] = field(default_factory=dict)


def metric(
    per_item: Mapping[str, Value],
    how: Resampling,
    *,
    statistic: str = "mean",
    chance: float | None = None,
    higher_is_better: bool | None = True,
) -> Metric:
    """Value and interval from the items. No items: value None and n 0, to be printed as such."""
    ids = sorted(per_item)
    if not ids:
        return Metric(None, 0, None, None, chance, {}, statistic, higher_is_better)
    groups = {i: how.groups.get(i, i) for i in ids}
    clustered = len(set(groups.values())) < len(ids)
    values = [per_item[i] for i in ids]
    interval = _interval(values, statistic, [groups[i] for i in ids] if clustered else None, how)
    rows = np.asarray(
        [[value, 1.0] if isinstance(value, (int, float)) else value for value in values], dtype=np.float64
    )
    score = float(STATISTICS[statistic](rows.sum(0)))
    return Metric(
        score, len(ids), interval.low, interval.high, chance, dict(per_item), statistic, higher_is_better,
        groups if clustered else {},
    )  # fmt: skip


def _interval(values: Sequence[Value], statistic: str, groups: list[str] | None, how: Resampling) -> Interval:
    if statistic == "mean" and groups is None and all(value in (0, 1) for value in values):
        return wilson_interval(float(np.sum(values)), len(values))
    return bootstrap_interval(values, how.draws, how.seed, groups=groups, statistic=statistic)


def evaluation(
    name: str, metrics: Mapping[str, Metric], notes: Mapping[str, Any], texts: Mapping[str, str] | None = None
) -> Evaluation:
    """Adds the warning for small n and keeps the first few texts as samples."""
    warnings = list(notes.get("warnings", ()))
    small = sorted({m.n for m in metrics.values() if m.n < SMALL_N})
    if small:
        warnings.append(f"n = {', '.join(map(str, small))} < {SMALL_N}: the interval is wide")
    kept = dict(list((texts or {}).items())[:NUM_SAMPLES])
    return Evaluation(name, dict(metrics), {**notes, "warnings": warnings}, kept)


def not_run(name: str, reason: str) -> Evaluation:
    return Evaluation(name, notes={"not_run": reason})


def unique_ids(items: Iterable[Any], what: str) -> list[str]:
    ids = [item.id for item in items]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if not ids or twice:
        found = f"id {twice[0]!r} occurs twice" if twice else "0 items"
        raise InputError(f"{what}: {found}; give at least one item and every item its own id")
    return ids


def groups_of(items: Iterable[Any]) -> dict[str, str]:
    """Items that share `meta.group` (a conversation, a patient, a fact in several wordings) are resampled together."""
    return {item.id: str(item.meta["group"]) for item in items if "group" in item.meta}


def answer_texts(generator: Generator, prompts: Mapping[str, Prompt], decoding: Decoding, seed: int) -> dict[str, str]:
    """One answer for each prompt, by id."""
    answers = generator.generate(list(prompts.values()), decoding, seed=seed)
    return {name: group[0].text.strip() for name, group in zip(prompts, answers, strict=True)}


def question_prompts(questions: Sequence[Question]) -> dict[str, Prompt]:
    return {question.id: question.prompt for question in questions}


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def option_logprobs(
    generator: Generator, contexts: Mapping[str, str | Prompt], continuations: Mapping[str, Sequence[str]]
) -> dict[str, list[float]]:
    """Log-probability of every continuation of every item, in one call."""
    pairs = [(contexts[name], text) for name in contexts for text in continuations[name]]
    found = iter(generator.logprobs(pairs))
    return {name: [next(found).total for _ in continuations[name]] for name in contexts}


def prompt_hash(prompts: Iterable[Any]) -> str:
    """SHA-256 of all prompts as sent: two scores with different hashes measured different things."""
    body = json.dumps([_plain(prompt) for prompt in prompts], ensure_ascii=False)
    return hashlib.sha256(body.encode()).hexdigest()


def _plain(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else [[message.role, message.content] for message in prompt]


def degenerate(choices: Sequence[str]) -> bool:
    """One choice for more than 90 % of the items: the score says nothing about the items."""
    return bool(choices) and Counter(choices).most_common(1)[0][1] > DEGENERATE_SHARE * len(choices)


def share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])
