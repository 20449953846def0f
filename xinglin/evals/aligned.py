"""Evaluation: ways of alignment from the same preferences, side by side.

what     one sampled answer (temperature 1) of each checkpoint to each test question
metric   rule (the ward's scorer) and held_out_reward (a reward model that shaped none of them), with paired gains over
         the reference; kl in nats per answer: mean of log p - log p_ref of the text sampled, its end mark left out;
         length in characters; distinct1, distinct2 (Li et al. 2016, arXiv:1510.03055, over characters)
cost     tokens sampled, tokens trained on, seconds, as the stages counted them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.evals.dialogue import Scorer
from xinglin.evals.result import Metric, Resampling, groups_of, metric, question_prompts, unique_ids
from xinglin.metrics import answer_length, paired_difference
from xinglin.records import Question
from xinglin.rollout.generator import Decoding, Generator

GAINS = ("rule", "held_out_reward")
RewardScore = Callable[[Question, str], float]


@dataclass(frozen=True, slots=True)
class Measures:
    """What every checkpoint is measured with; either scorer may be missing."""

    scorer: Scorer | None
    reward: RewardScore | None
    max_new_tokens: int
    seed: int = 0
    draws: int = 10_000


def run(
    models: Mapping[str, Callable[[], Generator]],
    reference: str,
    questions: Sequence[Question],
    how: Measures,
    costs: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """A row for the reference and for each checkpoint; `gain_*` are paired with the reference."""
    unique_ids(questions, "aligned")
    first = models[reference]()
    rows: list[dict[str, Any]] = []
    base: dict[str, Metric] = {}
    for name in (reference, *(name for name in models if name != reference)):
        generator = first if name == reference else models[name]()
        measured = _measure(generator, first, questions, how)
        base = base or measured
        rows.append({"checkpoint": name, **_row(measured), **_gains(measured, base, how), **costs.get(name, {})})
    return rows


def _measure(
    generator: Generator, reference: Generator, questions: Sequence[Question], how: Measures
) -> dict[str, Metric]:
    prompts = question_prompts(questions)
    decoding = Decoding(how.max_new_tokens, 1.0)
    sampled = generator.generate(list(prompts.values()), decoding, seed=how.seed)
    texts = {name: group[0].text for name, group in zip(prompts, sampled, strict=True)}
    values = {"length": {name: float(answer_length(text)) for name, text in texts.items()}}
    if generator is not reference:
        values["kl"] = _kl(generator, reference, prompts, texts)
    if how.scorer is not None:
        values["rule"] = {q.id: float(how.scorer(q, texts[q.id])["overall"]) for q in questions}
    if how.reward is not None:
        values["held_out_reward"] = {q.id: how.reward(q, texts[q.id]) for q in questions}
    draw = Resampling(how.seed, how.draws, groups_of(questions))
    found = {name: metric(rows, draw, higher_is_better=None) for name, rows in values.items()}
    if generator is reference:  # 0 by definition, and no estimate
        found["kl"] = Metric(0.0, len(texts), None, None)
    for n in (1, 2):
        found[f"distinct{n}"] = Metric(distinct(list(texts.values()), n), len(texts), None, None)
    return found


def _kl(
    generator: Generator, reference: Generator, prompts: Mapping[str, Any], texts: Mapping[str, str]
) -> dict[str, float]:
    pairs = [(prompts[name], text) for name, text in texts.items()]
    ours, theirs = generator.logprobs(pairs), reference.logprobs(pairs)
    return {name: a.total - b.total for name, a, b in zip(texts, ours, theirs, strict=True)}


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Share of different n-grams of characters among all; None where the texts hold none."""
    grams = [text[i : i + n] for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def _row(measured: Mapping[str, Metric]) -> dict[str, Any]:
    return {name: {"value": m.value, "low": m.low, "high": m.high, "n": m.n} for name, m in measured.items()}


def _gains(measured: Mapping[str, Metric], base: Mapping[str, Metric], how: Measures) -> dict[str, Any]:
    """Paired differences to the reference; `better` only where the interval excludes 0."""
    found: dict[str, Any] = {}
    for name in GAINS if measured is not base else ():
        if name in measured:
            old, new = base[name], measured[name]
            draw: dict[str, Any] = {"draws": how.draws, "seed": how.seed, "groups": new.groups or None}
            gap = paired_difference(old.per_item, new.per_item, **draw)
            sure = gap.low > 0 or gap.high < 0
            found[f"gain_{name}"] = {"value": gap.diff, "low": gap.low, "high": gap.high, "n": gap.n}
            found[f"gain_{name}"]["better"] = gap.diff > 0 if sure else None
    return found


def cost_of(folder: Path) -> dict[str, Any]:
    """Seconds, tokens sampled and trained on of a finished stage, from its manifest and logs."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    config = manifest.get("config", {})
    lines = _lines(folder / "metrics.jsonl")
    sampled = sum(line["length"] for line in lines if "iteration" in line)
    sampled *= config.get("prompts", 0) * config.get("num_answers", 0)
    trained = manifest.get("tokens", sampled * config.get("inner_epochs", 1))
    for number, part in enumerate(manifest.get("rounds", ())):
        sampled += part["counts"].get("tokens sampled", 0)
        trained += sum(line.get("count", 0) for line in _lines(folder / f"round-{number + 1}" / "metrics.jsonl"))
    facts = {"seconds": manifest.get("seconds"), "tokens_sampled": round(sampled), "tokens_trained": round(trained)}
    return {**facts, "stopped": manifest.get("stopped_by")}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
