"""Causal objective: this text is right.

    token_logprobs   log p(label | what stands before it), for the supervised positions only
    causal_lm        their negative sum

Each objective returns (loss_sum, count, metrics); the engine divides by the count of all micro-batches and ranks.
Metrics stay tensors: reading them would wait for the device.
Legend: M supervised tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Loss = tuple[Tensor, int, dict[str, Tensor]]
CHUNK_LOGITS = 1 << 26  # logits held at a time: 64 M elements, 256 MB in fp32


def token_logprobs(hidden_MD: Tensor, head_VD: Tensor, labels_M: Tensor) -> Tensor:
    """(M,) log-probabilities of the labels in fp32. Never holds more than CHUNK_LOGITS logits: longer inputs go through
    the head in pieces, which the backward pass computes again."""
    rows = max(1, CHUNK_LOGITS // head_VD.shape[0])
    if len(labels_M) <= rows:
        return _logprobs(hidden_MD, head_VD, labels_M)
    pieces = [
        checkpoint(_logprobs, hidden, head_VD, labels, use_reentrant=False)
        for hidden, labels in zip(hidden_MD.split(rows), labels_M.split(rows), strict=True)
    ]
    return torch.cat(pieces)


def _logprobs(hidden_MD: Tensor, head_VD: Tensor, labels_M: Tensor) -> Tensor:
    logits_MV = torch.nn.functional.linear(hidden_MD, head_VD).float()
    return -torch.nn.functional.cross_entropy(logits_MV, labels_M, reduction="none")


def causal_lm(logprobs_M: Tensor) -> Loss:
    """Negative log-likelihood of the supervised tokens.

    >>> causal_lm(torch.log(torch.tensor([0.5, 0.25])))[0]
    tensor(2.0794)
    """
    return -logprobs_M.sum(), logprobs_M.numel(), {}
