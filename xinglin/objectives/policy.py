"""Policy objectives: this answer earned a reward.

    gae               advantages and returns of one answer's tokens                       (arXiv:1506.02438, eq. 16)
    group_advantages  a reward against the mean and deviation of its group                (arXiv:2402.03300, eq. 3)
    ppo_clip          clipped ratio                                                       (arXiv:1707.06347, eq. 7)
    value_clip        clipped value loss                                                  (arXiv:2005.12729, eq. 1)
    kl_estimate       unbiased, never negative estimate of KL(policy || reference)        (Schulman 2020, "k3")

Legend: M answer tokens of all rollouts, one after the other; R rollouts; `rollout_M` the rollout of each token.
Losses return (loss_sum, count, metrics), summed over tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xinglin.objectives.causal import Loss


def gae(rewards_T: Tensor, values_T: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns of one finished answer of T tokens.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = sum_l (gamma lam)^l delta_{t+l};  return = A + V; V after the end is 0.

    >>> gae(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]), 1.0, 1.0)[0]
    tensor([0.5000, 0.5000])
    """
    advantages_T = torch.zeros_like(rewards_T)
    running = next_value = torch.zeros(())
    for t in range(len(rewards_T) - 1, -1, -1):
        delta = rewards_T[t] + gamma * next_value - values_T[t]
        running = delta + gamma * lam * running
        advantages_T[t] = running
        next_value = values_T[t]
    return advantages_T, advantages_T + values_T


def group_advantages(rewards_R: Tensor, group_R: Tensor) -> Tensor:
    """(R,) rewards less their group's mean, over their group's deviation; 0 where all of a group are equal.

    >>> group_advantages(torch.tensor([1.0, 3.0, 5.0, 5.0]), torch.tensor([0, 0, 1, 1]))
    tensor([-1.,  1.,  0.,  0.])
    """
    num_groups = int(group_R.max()) + 1
    size = torch.bincount(group_R, minlength=num_groups).clamp(min=1).to(rewards_R)
    mean = torch.zeros(num_groups).to(rewards_R).index_add(0, group_R, rewards_R) / size
    centred = rewards_R - mean[group_R]
    variance = torch.zeros(num_groups).to(rewards_R).index_add(0, group_R, centred**2) / size
    return centred / variance.sqrt()[group_R].clamp(min=1e-6)


def whiten(values: Tensor) -> Tensor:
    """Zero mean, unit deviation; centred only where all are equal."""
    return (values - values.mean()) / values.std(correction=0).clamp(min=1e-6)


def ppo_clip(logprobs_M: Tensor, old_logprobs_M: Tensor, advantages_M: Tensor, clip_ratio: float) -> Loss:
    """-min(ratio A, clip(ratio, 1 - eps, 1 + eps) A), ratio = exp(logp - old_logp); 1 at step 0.

    The metric `ratio` is the typical one, exp(mean |log ratio|): a single token that had been improbable can have a
    ratio of thousands, and would decide the plain mean alone.
    """
    log_ratio = logprobs_M - old_logprobs_M
    ratio = torch.exp(log_ratio)
    clipped = ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
    loss_M = -torch.minimum(ratio * advantages_M, clipped * advantages_M)
    metrics = {
        "ratio": log_ratio.detach().abs().mean().exp(),
        "ratio_max": ratio.detach().max(),
        "clipped": ((ratio.detach() - 1).abs() > clip_ratio).float().mean(),
    }
    return loss_M.sum(), loss_M.numel(), metrics


def value_clip(values_M: Tensor, old_values_M: Tensor, returns_M: Tensor, clip: float) -> Loss:
    """0.5 max((V - R)^2, (clip(V, V_old +- clip) - R)^2)."""
    clipped = old_values_M + (values_M - old_values_M).clamp(-clip, clip)
    loss_M = 0.5 * torch.maximum((values_M - returns_M) ** 2, (clipped - returns_M) ** 2)
    residual = (returns_M - values_M).var(correction=0)
    explained = 1 - residual / returns_M.var(correction=0).clamp(min=1e-8)
    return loss_M.sum(), loss_M.numel(), {"explained_variance": explained.detach()}


def kl_estimate(logprobs_M: Tensor, ref_logprobs_M: Tensor) -> Tensor:
    """(M,) exp(ref - logp) - (ref - logp) - 1."""
    difference = ref_logprobs_M - logprobs_M
    return torch.exp(difference) - difference - 1


def sum_by_rollout(values_M: Tensor, rollout_M: Tensor, num_rollouts: int) -> Tensor:
    """(R,) sums of each rollout's tokens."""
    return torch.zeros(num_rollouts).to(values_M).index_add(0, rollout_M, values_M)
