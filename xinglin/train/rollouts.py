"""What one iteration of policy training stands on: answers, their scores, and numbers that must not change meanwhile.

    sampler = Sampler(config, model, reward, value)
    rollouts, metrics = sampler.collect(questions, iteration, state)

Answers come from the fast decode loop; log-probabilities that enter a loss come from the trainer's own forward pass, so
that the ratio is exactly 1 at the first step. The largest gap between the two is logged with every iteration.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from xinglin.config import Policy, Ppo
from xinglin.models.adapters import Critic, active
from xinglin.models.load import frozen_dtype
from xinglin.models.packing import Batch, Group, in_order
from xinglin.models.trainable import Trainable
from xinglin.objectives.policy import gae, group_advantages, whiten
from xinglin.records import Question
from xinglin.rollout.generator import Decoding
from xinglin.rollout.local import LocalGenerator
from xinglin.rollout.weights import read_weights
from xinglin.run import seed_for
from xinglin.train.engine import autocast

RewardFn = Callable[[Sequence[Question], Sequence[Group], Sequence[list[str]]], np.ndarray]


@dataclass(slots=True)
class State:
    """What an iteration hands to the next, beside the weights: in the checkpoint's facts."""

    kl_weight: float
    score_mean: float = 0.0
    score_var: float = 1.0
    num_scores: int = 0
    first_length: float | None = None

    def normalise(self, scores: np.ndarray) -> np.ndarray:
        """Scores less their running mean, over their running deviation, this iteration included (Chan et al. 1979)."""
        count, new = self.num_scores, len(scores)
        delta = float(scores.mean()) - self.score_mean
        moment = self.score_var * count + float(scores.var()) * new + delta**2 * count * new / (count + new)
        self.score_mean += delta * new / (count + new)
        self.score_var = moment / (count + new)
        self.num_scores = count + new
        return (scores - self.score_mean) / math.sqrt(self.score_var + 1e-8)


@dataclass(slots=True)
class Rollouts:
    """The answers of one iteration, one row each so that a step may take any of them. The tensors are per token of an
    answer, by the row's id."""

    rows: list[Group]
    scores: np.ndarray  # (R,)
    old_logprobs: dict[str, Tensor] = field(default_factory=dict)
    ref_logprobs: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    advantages: dict[str, Tensor] = field(default_factory=dict)
    returns: dict[str, Tensor] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        return [len(row.answers[0]) for row in self.rows]

    def gather(self, name: str, batch: Batch) -> Tensor:
        """(M,) one of the tensors for the tokens of a batch."""
        of = getattr(self, name)
        return torch.cat([of[row_id] for row_id in batch.ids])


@dataclass(slots=True)
class Sampler:
    """Samples and scores with the models of a policy stage."""

    config: Policy
    model: Trainable
    reward: RewardFn
    value: Critic | None

    def collect(self, items: Sequence[Question], iteration: int, state: State) -> tuple[Rollouts, dict[str, float]]:
        """Answers to this iteration's questions with everything a loss needs, and what the log says of them."""
        config = self.config
        order = np.random.default_rng([seed_for(config.seed, "questions"), iteration]).permutation(len(items))
        asked = [items[i] for i in order[: config.prompts]]
        groups, texts, sampler_logprobs, finished = self._sample(asked, iteration)
        with autocast(config.precision, self.model.device):
            scores = self.reward(asked, groups, texts).reshape(-1)
        rows = [
            Group(f"{group.id}-{j}", group.prompt, (answer,), (learned,))
            for group in groups
            for j, (answer, learned) in enumerate(zip(group.answers, group.learned, strict=True))
        ]
        rollouts = Rollouts(rows, scores)
        self._logprobs(rollouts)
        self._advantages(rollouts, state)
        metrics = describe_rollouts(rollouts)
        trainer = torch.cat([rollouts.old_logprobs[row.id] for row in rows]).cpu().numpy()
        if config.decoding.temperature == 1:
            metrics["sampler_gap"] = float(np.abs(sampler_logprobs - trainer).max())
        return rollouts, {**metrics, "finished": finished, "kl_weight": state.kl_weight}

    def _sample(
        self, asked: Sequence[Question], iteration: int
    ) -> tuple[list[Group], list[list[str]], np.ndarray, float]:
        """Groups of answers, their texts, the sampler's log-probabilities, the share that ended by themselves."""
        model, config = self.model, self.config
        with active(model.module, model.adapter) if model.adapter else contextlib.nullcontext():
            weights = read_weights(model.module, frozen_dtype(model.device))
        generator = LocalGenerator("policy", weights, model.tokenizer, model.template)
        prompts = generator.encode([question.prompt for question in asked])
        decoding = Decoding(**config.decoding.model_dump())
        seed = seed_for(config.seed, "rollouts", iteration)
        sampled = generator.generate_tokens(prompts, decoding, seed=seed, num_answers=config.num_answers)
        groups = [
            Group(
                str(index),
                prompt,
                tuple(np.array(ids, np.int64) for ids, _ in answers),
                tuple(np.ones(len(ids), bool) for ids, _ in answers),
            )
            for index, (prompt, answers) in enumerate(zip(prompts, sampled, strict=True))
        ]
        texts = [[generator.text(ids) for ids, _ in answers] for answers in sampled]
        logprobs = np.concatenate([logprobs for answers in sampled for _, logprobs in answers])
        finished = float(np.mean([ids[-1] == generator.stop for answers in sampled for ids, _ in answers]))
        return groups, texts, logprobs, finished

    @torch.no_grad()
    def _logprobs(self, rollouts: Rollouts) -> None:
        """Fill the log-probabilities under policy and reference, and the values."""
        with autocast(self.config.precision, self.model.device):
            for batch in in_order(rollouts.rows, self.config.micro_batch_tokens):
                batch = batch.to(self.model.device)
                sizes = torch.bincount(batch.answer, minlength=len(batch.ids)).tolist()
                found = {
                    "old_logprobs": self.model.logprobs(batch),
                    "ref_logprobs": self.model.reference_logprobs(batch),
                }
                if self.value is not None:
                    found["values"] = self.value(**batch.inputs())[batch.targets]
                for name, tensor in found.items():
                    getattr(rollouts, name).update(zip(batch.ids, tensor.float().split(sizes), strict=True))

    def _advantages(self, rollouts: Rollouts, state: State) -> None:
        """PPO: normalised score at the last token less the KL of each, then GAE, then whitened over the iteration.
        GRPO: the score against its group, the same for every token."""
        rewards = state.normalise(rollouts.scores)
        if isinstance(self.config, Ppo):
            for row, reward in zip(rollouts.rows, rewards, strict=True):
                rewards_T = -state.kl_weight * (rollouts.old_logprobs[row.id] - rollouts.ref_logprobs[row.id])
                rewards_T[-1] += float(reward)
                rollouts.advantages[row.id], rollouts.returns[row.id] = gae(
                    rewards_T, rollouts.values[row.id], self.config.gamma, self.config.gae_lambda
                )
            flat = whiten(torch.cat([rollouts.advantages[row.id] for row in rollouts.rows]))
            for row, piece in zip(rollouts.rows, flat.split(rollouts.lengths), strict=True):
                rollouts.advantages[row.id] = piece
        else:
            group_R = torch.arange(len(rollouts.rows)) // self.config.num_answers
            advantage_R = group_advantages(torch.from_numpy(rollouts.scores).float(), group_R)
            for row, advantage in zip(rollouts.rows, advantage_R.to(self.model.device), strict=True):
                rollouts.advantages[row.id] = advantage.expand_as(rollouts.old_logprobs[row.id])


def describe_rollouts(rollouts: Rollouts) -> dict[str, float]:
    """Score, KL per answer in nats (mean of log p - log p_ref of what was sampled), entropy per token (mean of -log p),
    length and what ties it to the score."""
    lengths = np.array(rollouts.lengths)
    kls = [float((rollouts.old_logprobs[r.id] - rollouts.ref_logprobs[r.id]).sum()) for r in rollouts.rows]
    spread = np.std(lengths) > 0 and np.std(rollouts.scores) > 0
    return {
        "score": float(rollouts.scores.mean()),
        "score_std": float(rollouts.scores.std()),
        "kl": float(np.mean(kls)),
        "entropy": -float(torch.cat([rollouts.old_logprobs[r.id] for r in rollouts.rows]).mean()),
        "length": float(lengths.mean()),
        "score_length_correlation": float(np.corrcoef(lengths, rollouts.scores)[0, 1]) if spread else 0.0,
    }
