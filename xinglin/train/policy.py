"""PPO and GRPO: this answer earned a reward.

    xinglin ppo  --model SFT --reward REWARD --data questions.jsonl --out DIR
    xinglin grpo --model SFT --reward REWARD --data questions.jsonl --out DIR

An iteration samples answers, rewards them, and takes clipped steps on them:

    rollouts   answers of the policy (fast decode loop), their log-probabilities under policy and reference (trainer)
    rewards    a score for the answer, normalised over the run; PPO spreads a KL penalty over its tokens
    advantages PPO: GAE over a value model; GRPO: the score against its group, KL in the loss
    steps      the engine's, one or more passes over the rollouts

Policy, reference, value and reward model share one base and differ by adapters wherever training is by adapters.
Training stops itself on named health rules, and says which. Checkpoints stand between iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xinglin.config import Grpo, Policy, Ppo
from xinglin.models.adapters import Critic, add_adapter, load_critic, new_head
from xinglin.models.load import describe
from xinglin.models.packing import Batch, Group, in_order, micro_batches
from xinglin.models.trainable import Trainable, load_trainable
from xinglin.objectives.causal import Loss
from xinglin.objectives.policy import (
    gae,
    group_advantages,
    kl_estimate,
    ppo_clip,
    value_clip,
    whiten,
)
from xinglin.records import InputError, Question, read_records
from xinglin.rollout.decoder import read_weights
from xinglin.rollout.generator import Decoding
from xinglin.rollout.local import LocalGenerator
from xinglin.rollout.reward import score_groups
from xinglin.run import Stage, say, seed_for
from xinglin.train.engine import Engine

VALUE = "value"
RuleScore = Callable[[Question, str], float]
RewardFn = Callable[[Sequence[Question], Sequence[Group], Sequence[list[str]]], np.ndarray]


@dataclass(slots=True)
class Rollouts:
    """The answers of one iteration. One group per answer: a step may take any of them. Tensors are per token."""

    rows: list[Group]
    scores: np.ndarray
    """(R,) raw scores."""
    lengths: np.ndarray
    old_logprobs: dict[str, Tensor] = field(default_factory=dict)
    ref_logprobs: dict[str, Tensor] = field(default_factory=dict)
    advantages: dict[str, Tensor] = field(default_factory=dict)
    returns: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Health:
    """Named rules that end a policy run before it ruins the model (guarantee j)."""

    config: Policy
    first_length: float | None = None

    def check(self, metrics: dict[str, float]) -> str | None:
        """The broken rule in words, or None."""
        config = self.config
        self.first_length = self.first_length or metrics["length"]
        rules = {
            f"KL per answer {metrics['kl']:.1f} is over max_kl {config.max_kl}": metrics["kl"] > config.max_kl,
            f"entropy {metrics['entropy']:.3f} is under min_entropy {config.min_entropy}": metrics["entropy"]
            < config.min_entropy,
            f"mean ratio {metrics['ratio']:.2f} is over max_ratio {config.max_ratio}": metrics["ratio"]
            > config.max_ratio,
            f"mean length grew from {self.first_length:.0f} to {metrics['length']:.0f} tokens, over "
            f"max_length_growth {config.max_length_growth}": metrics["length"]
            > config.max_length_growth * self.first_length,
            "score is not a number": not math.isfinite(metrics["score"]),
        }
        return next((rule for rule, broken in rules.items() if broken), None)


def ppo(config: Ppo, stage: Stage, parent: Path, reward: Path | RuleScore, questions: Path) -> dict[str, Any]:
    """PPO with a value model of its own adapter, starting from the reward model's where there is one."""
    model = load_trainable(parent, config, reference=True)
    model.freeze_reference()
    score, critic = _reward_fn(reward, model)
    value = _value_model(model, config, critic)
    both = nn.ModuleDict({"policy": model.module, "value_head": value.head})
    if value.model is not model.module:
        both["value"] = value.model
    return _run(config, stage, model, both, score, questions, value)


def grpo(config: Grpo, stage: Stage, parent: Path, reward: Path | RuleScore, questions: Path) -> dict[str, Any]:
    """GRPO: no value model, the group is the baseline."""
    model = load_trainable(parent, config, reference=True)
    model.freeze_reference()
    score, _ = _reward_fn(reward, model)
    return _run(config, stage, model, model.module, score, questions, None)


def _reward_fn(reward: Path | RuleScore, model: Trainable) -> tuple[RewardFn, Critic | None]:
    """A reward for each answer: by the reward model (on the policy's own base where it is an adapter) or by rule."""
    if not isinstance(reward, Path):
        rule = reward
        return (
            lambda questions, groups, texts: np.array(
                [[rule(q, text) for text in answers] for q, answers in zip(questions, texts, strict=True)]
            )
        ), None
    found = describe(reward)
    shares_base = model.adapter is not None and found.is_adapter and found.base.resolve() == model.base.resolve()
    shared: Any = model.module if shares_base else None
    critic = load_critic(reward, device=str(model.device), model=shared, name="reward").eval()
    return (lambda questions, groups, texts: np.stack(score_groups(critic, groups))), critic


def _value_model(model: Trainable, config: Ppo, critic: Critic | None) -> Critic:
    """A critic that learns. It begins as the reward model where the two share a base: both judge the same answers."""
    head = new_head(model.module.config.hidden_size, model.module.get_output_embeddings().weight)  # type: ignore
    if model.adapter is None:
        import copy

        backbone = copy.deepcopy(model.module)
        return Critic(backbone, None, head)
    add_adapter(model.module, VALUE, config.lora, seed=seed_for(config.seed, VALUE))  # type: ignore[arg-type]
    return Critic(model.module, VALUE, head)


def _run(
    config: Ppo | Grpo,
    stage: Stage,
    model: Trainable,
    trained: nn.Module,
    score: RewardFn,
    questions: Path,
    value: Critic | None,
) -> dict[str, Any]:
    items = list(read_records(questions, Question))
    if len(items) < config.prompts:
        raise InputError(f"{questions}: {len(items)} questions, but prompts is {config.prompts}; lower it")
    answers = config.prompts * config.num_answers
    steps_per_pass = math.ceil(answers / config.batch_size)
    steps_per_iteration = steps_per_pass * config.inner_epochs
    config = config.model_copy(update={"save_every": config.save_every or steps_per_iteration})
    engine = Engine(trained, config, stage, num_steps=steps_per_iteration * config.iterations)
    engine.facts = {"kl": config.kl, "score_mean": 0.0, "score_var": 1.0, "num_scores": 0, "first_length": None}
    engine.resume()
    health = Health(config, engine.facts["first_length"])
    stopped = None
    with stage.progress("iterations", config.iterations) as advance:
        advance(engine.step_number // steps_per_iteration)
        while engine.step_number < engine.num_steps and not stopped:
            iteration = engine.step_number // steps_per_iteration
            rollouts, metrics = _collect(config, engine, model, score, items, value, iteration)
            order = np.concatenate(
                [
                    np.random.default_rng([seed_for(config.seed, iteration), i]).permutation(answers)
                    for i in range(config.inner_epochs)
                ]
            )
            frozen = value is not None and isinstance(config, Ppo) and iteration < config.value_warmup
            for part in np.array_split(order, steps_per_iteration):
                batches = micro_batches([rollouts.rows[i] for i in part], config.micro_batch_tokens)
                done = engine.step(batches, _loss(config, engine, model, value, rollouts, frozen))
                metrics.update(done)
            metrics["entropy"] = metrics.get("entropy", 1.0)
            stage.log(step=engine.step_number, iteration=iteration, **metrics)
            stopped = health.check(metrics)
            engine.facts["first_length"] = health.first_length
            _adapt_kl(config, engine.facts, metrics["kl"])
            engine.save()
            advance(1, f"score {metrics['score']:.2f} kl {metrics['kl']:.2f} length {metrics['length']:.0f}")
    if stopped:
        say(f"{stage.name}: stopped by a health rule: {stopped}; the model of this iteration is kept")
        stage.log(step=engine.step_number, stopped=stopped)
    model.save(stage.dir / "model")
    return {"stopped_by": stopped, "iterations": engine.step_number // steps_per_iteration}


def _collect(
    config: Ppo | Grpo,
    engine: Engine,
    model: Trainable,
    score: RewardFn,
    items: Sequence[Question],
    value: Critic | None,
    iteration: int,
) -> tuple[Rollouts, dict[str, float]]:
    """Sample, score, and compute everything the steps need that must not change while they are taken."""
    chosen = np.random.default_rng([seed_for(config.seed, "questions"), iteration]).permutation(len(items))
    asked = [items[i] for i in chosen[: config.prompts]]
    model.module.eval()
    from xinglin.models.adapters import active

    if model.adapter:
        with active(model.module, model.adapter):
            weights = read_weights(model.module)
    else:
        weights = read_weights(model.module)
    generator = LocalGenerator("policy", weights, model.tokenizer, model.template)
    prompts = generator.encode([q.prompt for q in asked])
    decoding = Decoding(**config.decoding.model_dump())
    seed = seed_for(config.seed, "rollouts", iteration)
    sampled = generator.generate_tokens(prompts, decoding, seed=seed, num_answers=config.num_answers)
    groups = [
        Group(
            str(i),
            prompt,
            tuple(np.array(ids) for ids, _ in answers),
            tuple(np.ones(len(ids), bool) for ids, _ in answers),
        )
        for i, (prompt, answers) in enumerate(zip(prompts, sampled, strict=True))
    ]
    texts = [[generator.text(ids) for ids, _ in answers] for answers in sampled]
    with engine.autocast:
        scores = score(asked, groups, texts).reshape(-1)
    rows = [
        Group(f"{g.id}-{j}", g.prompt, (answer,), (learned,))
        for g in groups
        for j, (answer, learned) in enumerate(zip(g.answers, g.learned, strict=True))
    ]
    rollouts = Rollouts(rows, scores, np.array([len(row.answers[0]) for row in rows]))
    with torch.no_grad(), engine.autocast:
        for batch in in_order(rows, config.micro_batch_tokens):
            batch = batch.to(engine.device)
            sizes = torch.bincount(batch.answer, minlength=len(batch.ids)).tolist()
            _store(rollouts.old_logprobs, batch, model.logprobs(batch), sizes)
            _store(rollouts.ref_logprobs, batch, model.reference_logprobs(batch), sizes)
            if value is not None:
                _store(rollouts.values, batch, value(**batch.inputs())[batch.targets], sizes)
    model.module.train()
    metrics = _reward_and_advantages(config, engine, rollouts)
    sampler = np.concatenate([logprobs for answers in sampled for _, logprobs in answers])
    trainer = torch.cat([rollouts.old_logprobs[row.id] for row in rows]).cpu().numpy()
    metrics["sampler_gap"] = float(np.abs(sampler - trainer).max()) if decoding.temperature == 1 else math.nan
    metrics["finished"] = float(np.mean([ids[-1] == generator.stop for answers in sampled for ids, _ in answers]))
    return rollouts, metrics


def _store(into: dict[str, Tensor], batch: Batch, values: Tensor, sizes: Sequence[int]) -> None:
    into.update(zip(batch.ids, values.float().split(list(sizes)), strict=True))


def _reward_and_advantages(config: Ppo | Grpo, engine: Engine, rollouts: Rollouts) -> dict[str, float]:
    """Fill advantages (and returns); returns what the log says of the iteration."""
    facts = engine.facts
    _update_moments(facts, rollouts.scores)
    normalised = (rollouts.scores - facts["score_mean"]) / math.sqrt(facts["score_var"] + 1e-8)
    kls = []
    if isinstance(config, Ppo):
        for row, reward in zip(rollouts.rows, normalised, strict=True):
            old, ref = rollouts.old_logprobs[row.id], rollouts.ref_logprobs[row.id]
            rewards_T = -facts["kl"] * (old - ref)
            rewards_T[-1] += float(reward)
            values = rollouts.values[row.id]
            rollouts.advantages[row.id], rollouts.returns[row.id] = gae(
                rewards_T, values, config.gamma, config.gae_lambda
            )
        flat = whiten(torch.cat([rollouts.advantages[row.id] for row in rollouts.rows]))
        pieces = flat.split(rollouts.lengths.tolist())
        rollouts.advantages = {row.id: piece for row, piece in zip(rollouts.rows, pieces, strict=True)}
    else:
        group = torch.arange(len(rollouts.rows)) // config.num_answers
        per_answer = group_advantages(torch.from_numpy(rollouts.scores).float(), group)
        for row, advantage in zip(rollouts.rows, per_answer, strict=True):
            rollouts.advantages[row.id] = advantage.expand_as(rollouts.old_logprobs[row.id]).to(engine.device)
    kls = [float((rollouts.old_logprobs[r.id] - rollouts.ref_logprobs[r.id]).sum()) for r in rollouts.rows]
    lengths = rollouts.lengths
    spread = np.std(lengths) > 0 and np.std(rollouts.scores) > 0
    return {
        "score": float(rollouts.scores.mean()),
        "score_std": float(rollouts.scores.std()),
        "kl": float(np.mean(kls)),
        "kl_weight": facts["kl"],
        "length": float(lengths.mean()),
        "score_length_correlation": float(np.corrcoef(lengths, rollouts.scores)[0, 1]) if spread else 0.0,
        "ratio": 1.0,
    }


def _update_moments(facts: dict[str, Any], scores: np.ndarray) -> None:
    """Running mean and variance of the raw scores over the whole run (Chan et al. 1979)."""
    count, new = facts["num_scores"], len(scores)
    delta = float(scores.mean()) - facts["score_mean"]
    total = count + new
    moment = facts["score_var"] * count + float(scores.var()) * new + delta**2 * count * new / total
    facts.update(score_mean=facts["score_mean"] + delta * new / total, score_var=moment / total, num_scores=total)


def _loss(
    config: Ppo | Grpo, engine: Engine, model: Trainable, value: Critic | None, rollouts: Rollouts, frozen: bool
) -> Callable[[Batch], Loss]:
    """The loss of one micro-batch, summed over its tokens. `frozen`: only the value model learns."""

    def gather(of: dict[str, Tensor], batch: Batch) -> Tensor:
        return torch.cat([of[row_id] for row_id in batch.ids])

    def loss_fn(batch: Batch) -> Loss:
        loss_sum: Tensor | float = 0.0
        metrics: dict[str, Tensor] = {}
        count = batch.labels.numel()
        if not frozen:
            logprobs = model.logprobs(batch)
            old = gather(rollouts.old_logprobs, batch)
            loss_sum, count, metrics = ppo_clip(logprobs, old, gather(rollouts.advantages, batch), config.clip_ratio)
            metrics["entropy"] = -logprobs.detach().mean()
            if isinstance(config, Grpo) and engine.facts["kl"]:
                kl_M = kl_estimate(logprobs, gather(rollouts.ref_logprobs, batch))
                loss_sum = loss_sum + engine.facts["kl"] * kl_M.sum()
        if value is not None and isinstance(config, Ppo):
            values = value(**batch.inputs())[batch.targets]
            old_values, returns = gather(rollouts.values, batch), gather(rollouts.returns, batch)
            value_sum, _, value_metrics = value_clip(values, old_values, returns, config.value_clip)
            loss_sum = loss_sum + config.value_weight * value_sum
            metrics.update(value_metrics)
        assert isinstance(loss_sum, Tensor)
        return loss_sum, count, metrics

    return loss_fn


def _adapt_kl(config: Policy, facts: dict[str, Any], kl: float) -> None:
    """Steer the KL weight towards `kl_target` (arXiv:1909.08593, section 2.2)."""
    if config.kl_target:
        error = min(max(kl / config.kl_target - 1, -0.2), 0.2)
        facts["kl"] *= 1 + error
