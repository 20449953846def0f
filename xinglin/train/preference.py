"""Reward models and DPO: this answer beats that one.

    xinglin reward --model SFT --data preferences.jsonl --out DIR
    xinglin dpo    --model SFT --data preferences.jsonl --out DIR

Chosen and rejected answers share one pass over their prompt. DPO's reference log-probabilities are computed once,
before the first step. The reward stage ends with diagnostics that tell a useful reward model from one that fools
itself: accuracy by pair of sources and by length, and an alarm where it learned its training pairs by heart.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xinglin.config import Dpo, Reward
from xinglin.data.batches import encode_preferences, plan_steps
from xinglin.data.preference_sets import half_of, noisy_pairs
from xinglin.models.adapters import Critic, load_critic, new_head, save_critic
from xinglin.models.load import save_tokenizer
from xinglin.models.packing import Batch, Group, in_order
from xinglin.models.trainable import load_trainable
from xinglin.objectives.causal import Loss
from xinglin.objectives.policy import sum_by_rollout
from xinglin.objectives.preference import dpo as dpo_loss
from xinglin.objectives.preference import pairwise, plackett_luce
from xinglin.records import InputError, Preference, read_records
from xinglin.rollout.reward import score_groups
from xinglin.run import Stage, check_disjoint, write_text
from xinglin.train.engine import Engine
from xinglin.train.ranks import micro_batches
from xinglin.train.reward_exam import probe

ALARM_ACCURACY = 0.95
RELOAD_TOLERANCE = 1e-4
Encode = Callable[[Sequence[Preference]], list[Group]]


def reward(
    config: Reward, stage: Stage, parent: Path, train: Path, valid: Path, danger: Path | None = None
) -> dict[str, Any]:
    """Train a reward model, examine it, save it, and prove that the saved one scores as the trained one."""
    check_disjoint(train, valid)
    model = load_trainable(parent, config)
    head = new_head(model.module.config.hidden_size, model.module.get_output_embeddings().weight)  # type: ignore
    critic = Critic(model.module, model.adapter, head)
    counts: Counter[str] = Counter()
    extremes = config.ranks == "extremes"
    options = (model.tokenizer, model.template, config.max_seq_len, config.on_long)
    given = half_of(read_records(train, Preference), config.half, counts)
    if config.noise:
        given = noisy_pairs(given, config.noise, config.seed, counts)
    rows = encode_preferences(given, *options, counts, extremes=extremes)
    held = encode_preferences(read_records(valid, Preference), *options, Counter(), extremes=extremes)
    if not held:
        raise InputError(f"{valid}: 0 rankings left to examine the reward model with; give some that are not all ties")
    _check_ids(rows, held, valid)
    plan = plan_steps(len(rows), config.batch_size, config.epochs, config.seed, config.max_steps)
    engine = Engine(critic, config, stage, num_steps=len(plan))
    objective = pairwise if config.loss == "pairwise" else plackett_luce

    def loss_fn(batch: Batch) -> Loss:
        return objective(critic(**batch.inputs())[batch.last], batch.ranks, batch.groups)

    engine.fit(
        lambda step: micro_batches([rows[i] for i in plan[step]], config.micro_batch_tokens),
        loss_fn,
        lambda: _validate(loss_fn, held, config.micro_batch_tokens, engine.device),
    )
    critic.eval()
    folder = stage.dir / "model"
    save_critic(folder, critic, model.base, model.nf4)
    save_tokenizer(folder, model.tokenizer, model.template)
    _prove_reload(folder, critic, held)

    def encode(asked: Sequence[Preference]) -> list[Group]:  # an examination leaves nothing out
        sizes = (model.tokenizer, model.template, config.max_seq_len)
        return encode_preferences(asked, *sizes, "truncate", Counter())

    facts = _diagnose(critic, encode, valid, danger, stage.dir / "metrics.jsonl")
    write_text(stage.dir / "diagnostics.json", json.dumps(facts, ensure_ascii=False, indent=1))
    summary = {name: value for name, value in facts.items() if name != "pairs"}
    return {"counts": dict(counts), "diagnostics": summary}


def _diagnose(critic: Critic, encode: Encode, valid: Path, danger: Path | None, log: Path) -> dict[str, Any]:
    """All that diagnostics.json holds."""
    records = list(read_records(valid, Preference))
    dangerous = list(read_records(danger, Preference)) if danger and danger.is_file() else []
    facts = {**examine(critic, records, encode), "overfit_alarm": overfit_alarm(log), "margins": margins(log)}
    return facts | probe(partial(_score_in_order, critic, encode), records, dangerous)


def _validate(loss_fn: Any, held: Sequence[Group], max_tokens: int, device: torch.device) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    total = 0
    for batch in in_order(held, max_tokens):
        loss_sum, count, metrics = loss_fn(batch.to(device))
        total += count
        sums["valid_loss"] += float(loss_sum)
        for name, value in metrics.items():
            sums[f"valid_{name}"] += float(value) * count
    return {name: value / max(total, 1) for name, value in sums.items()}


def _prove_reload(folder: Path, critic: Critic, held: Sequence[Group]) -> None:
    """Score a few validation answers with the saved model; a lost head or adapter is an error, not a surprise later."""
    few = held[:8]
    saved = load_critic(folder, device=str(critic.head.weight.device)).eval()
    worst = max(
        float(np.abs(a - b).max()) for a, b in zip(score_groups(critic, few), score_groups(saved, few), strict=True)
    )
    if worst > RELOAD_TOLERANCE:
        raise RuntimeError(f"{folder}: the saved reward model scores differently by {worst:.2g}; nothing is reported")


def examine(critic: Critic, preferences: Sequence[Preference], encode: Encode) -> dict[str, Any]:
    """Diagnostics on held-out rankings, all ranks: accuracy by pair of sources and by which answer is longer."""
    groups = encode(preferences)
    by_id = {p.id: p for p in preferences}
    pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
    by_length: dict[str, list[float]] = defaultdict(list)
    lengths: list[int] = []
    scores: list[float] = []
    listed: list[dict[str, Any]] = []
    for group, values in zip(groups, score_groups(critic, groups), strict=True):
        record = by_id[group.id]
        order = sorted(range(len(record.answers)), key=lambda i: record.ranks[i])
        answers = [record.answers[i] for i in order]
        lengths += [len(answer.text) for answer in answers]
        scores += values.tolist()
        for i in range(len(order)):
            for j in range(len(order)):
                if group.ranks[i] < group.ranks[j]:
                    right = float(values[i] > values[j]) + 0.5 * float(values[i] == values[j])
                    pairs[answers[i].source, answers[j].source].append(right)
                    listed.append(
                        {
                            "preference": group.id,
                            "pair": f"{i}-{j}",
                            "better": answers[i].source,
                            "worse": answers[j].source,
                            "right": right,
                        }
                    )
                    longer = len(answers[i].text) > len(answers[j].text)
                    by_length["better is longer" if longer else "better is not longer"].append(right)
    everything = [right for rights in pairs.values() for right in rights]
    correlation = float(np.corrcoef(lengths, scores)[0, 1]) if np.std(scores) > 0 and np.std(lengths) > 0 else 0.0
    return {
        "accuracy": float(np.mean(everything)) if everything else None,
        "num_pairs": len(everything),
        "by_source": [
            {"better": a, "worse": b, "accuracy": float(np.mean(rights)), "n": len(rights)}
            for (a, b), rights in sorted(pairs.items())
        ],
        "by_length": {name: {"accuracy": float(np.mean(v)), "n": len(v)} for name, v in sorted(by_length.items())},
        "score_length_correlation": correlation,
        "score_mean": float(np.mean(scores)),
        "score_std": float(np.std(scores)),
        "pairs": listed,
    }


def _score_in_order(critic: Critic, encode: Encode, records: Sequence[Preference]) -> list[np.ndarray]:
    """The scores of each record's answers in the record's own order, ties and all."""
    plain = [
        replace(record, id=str(i), ranks=tuple(range(1, len(record.answers) + 1))) for i, record in enumerate(records)
    ]
    return score_groups(critic, encode(plain))


def margins(log: Path) -> list[dict[str, float]]:
    """The validation margin over training: step and margin of every validation."""
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return [{"step": line["step"], "margin": line["valid_margin"]} for line in lines if "valid_margin" in line]


def overfit_alarm(log: Path) -> dict[str, Any]:
    """ChiMed-GPT's sign (arXiv:2311.06025): training accuracy past 95 % while the validation margin stands still.

    The margin stands still when, from the validation before that step to the last, it grew by less than a tenth.
    """
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    window: list[float] = []
    crossed = None
    for line in lines:
        if "accuracy" in line:
            window = [*window[-4:], line["accuracy"]]
            if crossed is None and len(window) == 5 and np.mean(window) > ALARM_ACCURACY:
                crossed = line["step"]
    margins = [(line["step"], line["valid_margin"]) for line in lines if "valid_margin" in line]
    before = [margin for step, margin in margins if crossed is not None and step <= crossed]
    after = [margin for step, margin in margins if crossed is not None and step > crossed]
    still = bool(before and after) and after[-1] < 1.1 * max(before[-1], 1e-9)
    return {"raised": still, "training_accuracy_passed_95_at_step": crossed}


def dpo(config: Dpo, stage: Stage, parent: Path, train: Path, valid: Path | None) -> dict[str, Any]:
    """Direct preference optimisation against the parent as reference."""
    check_disjoint(train, valid)
    model = load_trainable(parent, config)
    counts: Counter[str] = Counter()
    extremes = config.pairs == "extremes"
    options = (model.tokenizer, model.template, config.max_seq_len, config.on_long)
    given = half_of(read_records(train, Preference), config.half, counts)
    rows = encode_preferences(given, *options, counts, extremes=extremes)
    held = encode_preferences(read_records(valid, Preference), *options, Counter(), extremes=extremes) if valid else []
    _check_ids(rows, held, valid or train)
    plan = plan_steps(len(rows), config.batch_size, config.epochs, config.seed, config.max_steps)
    engine = Engine(model.module, config, stage, num_steps=len(plan))
    model.module.eval()  # before the first step the model is its own reference, whatever it is made of
    reference: dict[str, Tensor] = {}

    def refer(advance: Callable[[int], None]) -> None:
        for batch in in_order([*rows, *held], config.micro_batch_tokens):
            batch = batch.to(engine.device)
            sums = sum_by_rollout(model.logprobs(batch), batch.answer, len(batch.last))
            for index, row_id in enumerate(batch.ids):
                reference[row_id] = sums[batch.groups == index]
            advance(len(batch.ids))

    with torch.no_grad(), engine.autocast, stage.progress("reference", len(rows) + len(held)) as advance:
        engine.call(refer, advance)
    model.module.train()

    def loss_fn(batch: Batch) -> Loss:
        logprobs = model.logprobs(batch)
        total = sum_by_rollout(logprobs, batch.answer, len(batch.last))
        ref = torch.cat([reference[row_id] for row_id in batch.ids])
        loss_sum, count, metrics = dpo_loss(total, ref, batch.ranks, batch.groups, config.beta)
        if config.sft_weight:  # each chosen answer's mean, so that no packing weighs one against another
            lengths = sum_by_rollout(torch.ones_like(logprobs), batch.answer, len(batch.last))
            loss_sum = loss_sum - config.sft_weight * (total / lengths)[batch.ranks == 1].sum()
        return loss_sum, count, metrics

    engine.fit(
        lambda step: micro_batches([rows[i] for i in plan[step]], config.micro_batch_tokens),
        loss_fn,
        (lambda: _validate(loss_fn, held, config.micro_batch_tokens, engine.device)) if held else None,
    )
    model.save(stage.dir / "model")
    sizes = [sum(map(len, row.answers)) for row in rows]
    return {"counts": dict(counts), "tokens": sum(sizes[i] for part in plan for i in part)}


def _check_ids(rows: Sequence[Group], held: Sequence[Group], path: Path) -> None:
    """Reference log-probabilities and diagnostics are kept by id: a second row of an id would take the first's."""
    twice = [name for name, count in Counter(row.id for row in [*rows, *held]).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}: preference id {twice[0]!r} occurs more than once in training and validation "
            f"({len(twice)} such ids); give each row its own"
        )
