"""Preference objectives: one answer is better than another.

    plackett_luce   answers ranked best first, ties allowed          (Plackett 1975; ties as in Breslow 1974)
    pairwise        mean of -log sigmoid(s_i - s_j) over the ordered pairs of a ranking      (arXiv:2203.02155, eq. 1)
    dpo             the same on the implicit reward  beta * (logp_policy - logp_reference)   (arXiv:2305.18290, eq. 7)

With two answers and no tie all three are the Bradley-Terry loss -log sigmoid(s_better - s_worse).
Each returns (loss_sum, count, metrics), the count being the number of rankings.
Legend: A answers of all rankings, one after the other; `group_A` which ranking each is of; `rank_A` 1 = best.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xinglin.objectives.causal import Loss


def ordered_pairs(rank_A: Tensor, group_A: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (better, worse) of every pair of one ranking whose ranks differ; ties give no pair.

    >>> [x.tolist() for x in ordered_pairs(torch.tensor([1, 2, 2]), torch.zeros(3))]
    [[0, 0], [1, 2]]
    """
    above = (group_A[:, None] == group_A[None, :]) & (rank_A[:, None] < rank_A[None, :])
    better, worse = above.nonzero(as_tuple=True)
    return better, worse


def pairwise(score_A: Tensor, rank_A: Tensor, group_A: Tensor) -> Loss:
    """Each ranking's mean over its ordered pairs, summed over the rankings that have one.

    >>> pairwise(torch.zeros(2), torch.tensor([1, 2]), torch.zeros(2, dtype=torch.long))[0]  # ln 2
    tensor(0.6931)
    """
    better, worse = ordered_pairs(rank_A, group_A)
    margin = score_A[better] - score_A[worse]
    num_pairs = torch.bincount(group_A[better], minlength=int(group_A.max()) + 1)
    loss_sum = (-logsigmoid(margin) / num_pairs[group_A[better]]).sum()
    return loss_sum, int((num_pairs > 0).sum()), _order_metrics(margin)


def plackett_luce(score_A: Tensor, rank_A: Tensor, group_A: Tensor) -> Loss:
    """Negative log-likelihood of the rankings: each place in turn is won against all that stand at it or below.

    Answers that share a rank compete with the same field and with one another only through it (Breslow's form), so a
    tie prefers neither. A ranking of ties alone counts nothing.

    >>> plackett_luce(torch.zeros(3), torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.long))[0]  # ln 3! = 1.7918
    tensor(1.7918)
    """
    same = group_A[:, None] == group_A[None, :]
    field_AA = same & (rank_A[None, :] >= rank_A[:, None])
    wins_A = (same & (rank_A[None, :] > rank_A[:, None])).any(-1)  # someone stands below: a place to win
    logsum_A = score_A[None, :].expand(len(score_A), -1).masked_fill(~field_AA, -torch.inf).logsumexp(-1)
    loss_sum = ((logsum_A - score_A) * wins_A).sum()
    better, worse = ordered_pairs(rank_A, group_A)
    return loss_sum, int(group_A[wins_A].unique().numel()), _order_metrics(score_A[better] - score_A[worse])


def dpo(logprob_A: Tensor, ref_logprob_A: Tensor, rank_A: Tensor, group_A: Tensor, beta: float) -> Loss:
    """DPO on summed log-probabilities of whole answers; at step 0 the margin is 0 and the loss ln 2."""
    reward_A = beta * (logprob_A - ref_logprob_A)
    loss_sum, count, metrics = pairwise(reward_A, rank_A, group_A)
    best_A = rank_A == 1
    metrics["chosen_reward"] = reward_A[best_A].mean().detach()
    metrics["rejected_reward"] = reward_A[~best_A].mean().detach()
    return loss_sum, count, metrics


def _order_metrics(margin: Tensor) -> dict[str, Tensor]:
    """Share of pairs in the right order (a dead heat counts half) and their mean margin."""
    margin = margin.detach()
    right = (margin > 0).float() + 0.5 * (margin == 0).float()
    return {"accuracy": right.mean(), "margin": margin.mean()}
