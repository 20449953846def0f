"""PPO and GRPO: this answer earned a reward.

    xinglin ppo  --model SFT --reward REWARD --data questions.jsonl --out DIR
    xinglin grpo --model SFT --reward REWARD --data questions.jsonl --out DIR

An iteration samples answers, scores them (rollouts.py), and takes clipped steps on them. Policy, reference, value and
reward model share one base and differ by adapters wherever training is by adapters. Training stops itself on named
health rules, says which, and goes back to the weights from before the iteration that broke one. Checkpoints stand
between iterations, so that a stopped run samples the same answers again.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from xinglin.config import Grpo, Policy, Ppo
from xinglin.models.adapters import Critic, add_adapter, load_critic, new_head
from xinglin.models.load import describe
from xinglin.models.packing import Batch, micro_batches
from xinglin.models.trainable import Trainable, load_trainable
from xinglin.objectives.causal import Loss
from xinglin.objectives.policy import kl_estimate, ppo_clip, value_clip
from xinglin.records import InputError, Question, read_records
from xinglin.rollout.reward import score_groups
from xinglin.run import Stage, say, seed_for, write_text
from xinglin.train.engine import BAD_STEPS, Engine
from xinglin.train.rollouts import RewardFn, Rollouts, Sampler, State

VALUE = "value"
REWARD = "reward"
RuleScore = Callable[[Question, str], float]


def ppo(config: Ppo, stage: Stage, parent: Path, reward: Path | RuleScore, questions: Path) -> dict[str, Any]:
    """PPO with a value model of its own: an adapter on the shared base, or a copy of the model in full training."""
    model = load_trainable(parent, config, reference=True)
    model.freeze_reference()
    score = _reward_fn(reward, model)
    head = new_head(model.module.config.hidden_size, model.module.get_output_embeddings().weight)  # type: ignore
    if model.adapter is None:
        value = Critic(copy.deepcopy(model.module), None, head)
        trained = nn.ModuleDict({"policy": model.module, "value": value})
    else:
        add_adapter(model.module, VALUE, config.lora, seed=seed_for(config.seed, VALUE))  # type: ignore[arg-type]
        value = Critic(model.module, VALUE, head)
        trained = nn.ModuleDict({"policy": model.module, "value_head": head})
    return _run(config, stage, model, trained, Sampler(config, model, score, value), questions)


def grpo(config: Grpo, stage: Stage, parent: Path, reward: Path | RuleScore, questions: Path) -> dict[str, Any]:
    """GRPO: no value model, the group is the baseline."""
    model = load_trainable(parent, config, reference=True)
    model.freeze_reference()
    score = _reward_fn(reward, model)
    return _run(config, stage, model, model.module, Sampler(config, model, score, None), questions)


def _reward_fn(reward: Path | RuleScore, model: Trainable) -> RewardFn:
    """A score for each answer: by the reward model (on the policy's own base where it is its adapter) or by rule."""
    if not isinstance(reward, Path):
        return lambda questions, groups, texts: np.array(
            [[reward(question, text) for text in answers] for question, answers in zip(questions, texts, strict=True)]
        )
    found = describe(reward)
    same_base = (found.base.resolve(), found.nf4) == (model.base.resolve(), model.nf4)
    shares_base = model.adapter is not None and found.is_adapter and same_base
    shared: Any = model.module if shares_base else None
    critic = load_critic(reward, device=str(model.device), model=shared, name=REWARD).eval()
    return lambda questions, groups, texts: np.stack(score_groups(critic, groups))


def _run(
    config: Ppo | Grpo, stage: Stage, model: Trainable, trained: nn.Module, sampler: Sampler, questions: Path
) -> dict[str, Any]:
    items = list(read_records(questions, Question))
    if len(items) < config.prompts:
        raise InputError(f"{questions}: {len(items)} questions, but prompts is {config.prompts}; lower it")
    trained.eval()  # without dropout: the ratio of two passes that drop different units is not 1
    steps_each = math.ceil(config.prompts * config.num_answers / config.batch_size) * config.inner_epochs
    engine = Engine(trained, config, stage, num_steps=steps_each * config.iterations)
    engine.facts = asdict(State(config.kl))
    engine.resume()
    if engine.step_number == 0:
        engine.save()  # what a health rule broken in the first iteration goes back to
    stopped = None
    with stage.progress("iterations", config.iterations) as advance:
        advance(engine.step_number // steps_each)
        while engine.step_number < engine.num_steps and not stopped:
            state = State(**engine.facts)
            iteration = engine.step_number // steps_each
            rollouts, metrics = sampler.collect(items, iteration, state)
            state.first_length = state.first_length or metrics["length"]
            stopped = broken_rule(config, metrics, state.first_length)
            good = max(0, iteration - 1) if stopped else iteration  # the answers speak of the iteration before
            if not stopped:
                learned = _steps(config, engine, model, sampler.value, rollouts, state, iteration, steps_each)
                if learned is None:
                    engine.save()
                    advance(1, "skipped")
                    continue
                metrics |= learned
                stopped = broken_rule(config, metrics, state.first_length)
            if stopped:
                _go_back(engine, good * steps_each)
                stage.log(step=(iteration + 1) * steps_each, iteration=iteration, stopped=stopped, **metrics)
                say(f"{stage.name}: stopped by a health rule: {stopped}; the weights from before it are kept")
                break
            stage.log(step=engine.step_number, iteration=iteration, **metrics)
            state.kl_weight = adapted_kl(config, state.kl_weight, metrics["kl"])
            engine.facts = asdict(state)
            engine.save()
            advance(1, f"score {metrics['score']:.2f} kl {metrics['kl']:.2f} length {metrics['length']:.0f}")
    model.save(stage.dir / "model")
    return {"stopped_by": stopped, "iterations": engine.step_number // steps_each}


def _go_back(engine: Engine, step: int) -> None:
    """Forget what was learned after `step`; the log of it stays."""
    log = engine.stage.dir / "metrics.jsonl"
    said = log.read_text("utf-8") if log.is_file() else ""
    for path in (engine.stage.dir / "checkpoints").glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    engine.resume()
    write_text(log, said)


def _steps(
    config: Ppo | Grpo,
    engine: Engine,
    model: Trainable,
    value: Critic | None,
    rollouts: Rollouts,
    state: State,
    iteration: int,
    num_steps: int,
) -> dict[str, float] | None:
    """All optimiser steps of an iteration; their metrics, averaged. None where bad ones in a row sent the stage back to
    its last checkpoint: the iteration is skipped."""
    rng = np.random.default_rng([seed_for(config.seed, "steps"), iteration])
    each, epochs = num_steps // config.inner_epochs, range(config.inner_epochs)
    parts = [part for _ in epochs for part in np.array_split(rng.permutation(len(rollouts.rows)), each)]
    value_alone = isinstance(config, Ppo) and iteration < config.value_warmup
    loss_fn = policy_loss(config, model, value, rollouts, state.kl_weight, value_alone)
    sums: Counter[str] = Counter()
    worst = 1.0
    for part in parts:
        metrics = engine.step(micro_batches([rollouts.rows[i] for i in part], config.micro_batch_tokens), loss_fn)
        if engine.bad_steps >= BAD_STEPS:
            engine.roll_back((iteration + 1) * num_steps)
            return None
        worst = max(worst, metrics.pop("ratio_max", 1.0))
        sums.update(metrics)
    return {**{name: total / num_steps for name, total in sums.items()}, "ratio_max": worst}


def policy_loss(
    config: Ppo | Grpo, model: Trainable, value: Critic | None, rollouts: Rollouts, kl_weight: float, value_alone: bool
) -> Callable[[Batch], Loss]:
    """The loss of a micro-batch, summed over its answer tokens. `value_alone`: the policy rests."""

    def loss_fn(batch: Batch) -> Loss:
        total, count = None, batch.labels.numel()
        metrics: dict[str, Tensor] = {}
        if not value_alone:
            logprobs = model.logprobs(batch)
            old, advantages = rollouts.gather("old_logprobs", batch), rollouts.gather("advantages", batch)
            total, count, metrics = ppo_clip(logprobs, old, advantages, config.clip_ratio)
            if isinstance(config, Grpo) and kl_weight:
                total = total + kl_weight * kl_estimate(logprobs, rollouts.gather("ref_logprobs", batch)).sum()
        if value is not None and isinstance(config, Ppo):
            values = value(**batch.inputs())[batch.targets]
            old_values, returns = rollouts.gather("values", batch), rollouts.gather("returns", batch)
            value_sum, _, value_metrics = value_clip(values, old_values, returns, config.value_clip)
            total = config.value_weight * value_sum + (0 if total is None else total)
            metrics |= value_metrics
        assert total is not None
        return total, count, metrics

    return loss_fn


@dataclass(frozen=True, slots=True)
class Rule:
    """A health rule: what it watches, its limit, whether it is broken."""

    says: str
    broken: bool


def broken_rule(config: Policy, metrics: dict[str, float], first_length: float) -> str | None:
    """The first health rule that this iteration broke, in words, or None (guarantee j)."""
    kl, length, score = metrics["kl"], metrics["length"], metrics["score"]
    entropy, ratio = metrics["entropy"], metrics.get("ratio", 1.0)
    rules = [
        Rule("score is not a number", not math.isfinite(score)),
        Rule(f"KL per answer {kl:.1f} is over max_kl {config.max_kl}", kl > config.max_kl),
        Rule(f"entropy {entropy:.3f} is under min_entropy {config.min_entropy}", entropy < config.min_entropy),
        Rule(f"typical ratio {ratio:.2f} is over max_ratio {config.max_ratio}", ratio > config.max_ratio),
        Rule(
            f"mean length {length:.0f} is over max_length_growth {config.max_length_growth} x {first_length:.0f}",
            length > config.max_length_growth * first_length,
        ),
        Rule(
            f"score and length correlate at {metrics['score_length_correlation']:.2f} while answers grow, over "
            f"max_length_correlation {config.max_length_correlation}",
            metrics["score_length_correlation"] > config.max_length_correlation and length > 1.3 * first_length,
        ),
    ]
    return next((rule.says for rule in rules if rule.broken), None)


def adapted_kl(config: Policy, weight: float, kl: float) -> float:
    """Steer the KL weight towards `kl_target` (arXiv:1909.08593, section 2.2)."""
    if config.kl_target is None:
        return weight
    return weight * (1 + 0.1 * min(max(kl / config.kl_target - 1, -0.2), 0.2))
