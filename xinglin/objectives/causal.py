"""Causal objective: this text is right.

    token_logprobs   log p(label | what stands before it), for the supervised positions only
    causal_lm        their negative sum

Each objective returns (loss_sum, count, metrics); the engine divides by the count of all micro-batches and ranks.
Metrics stay tensors: reading them would wait for the device.
Legend: M supervised tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Loss = tuple[Tensor, int, dict[str, Tensor]]
KEPT_LOGITS = 1 << 26  # kept for the backward pass up to here (128 MB in bf16); beyond, pieces that it computes again
CACHED_LOGITS = 1 << 20  # worked on at a time on a CPU: what fits into its cache


def token_logprobs(hidden_MD: Tensor, head_VD: Tensor, labels_M: Tensor) -> Tensor:
    """(M,) log-probabilities of the labels in fp32.

    log p(y) = z_y - log sum exp z, with d/dz = onehot(y) - softmax(z). The gradient is written over the logits, so that
    one (M, V) tensor in the precision of the forward pass is all that is held, and never more than KEPT_LOGITS of it.
    """
    device = hidden_MD.device.type
    if torch.is_autocast_enabled(device):
        hidden_MD = hidden_MD.to(torch.get_autocast_dtype(device))
    return _TokenLogprobs.apply(hidden_MD, head_VD, labels_M)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_MD: Tensor, head_VD: Tensor, labels_M: Tensor) -> Tensor:
        weight_VD = head_VD.to(hidden_MD.dtype)
        logprobs_M = torch.empty(len(labels_M), dtype=torch.float32, device=hidden_MD.device)
        sums_M = torch.empty_like(logprobs_M)
        pieces = _pieces(len(labels_M), KEPT_LOGITS // len(head_VD))
        for piece in pieces:
            logits = hidden_MD[piece] @ weight_VD.T
            _log_softmax_at(logits, labels_M[piece], logprobs_M[piece], sums_M[piece])
        ctx.save_for_backward(hidden_MD, weight_VD, labels_M, sums_M)
        ctx.logits = logits if len(pieces) == 1 else None
        ctx.pieces, ctx.head_dtype = pieces, head_VD.dtype
        return logprobs_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden_MD, weight_VD, labels_M, sums_M = ctx.saved_tensors
        logits, ctx.logits = ctx.logits, None  # written over below: a second backward pass computes them again
        grad_hidden = torch.empty_like(hidden_MD) if ctx.needs_input_grad[0] else None
        grad_head: Tensor | None = None
        for piece in ctx.pieces:
            z = hidden_MD[piece] @ weight_VD.T if logits is None else logits
            _gradient_over(z, labels_M[piece], sums_M[piece], grad_M[piece])
            if grad_hidden is not None:
                torch.mm(z, weight_VD, out=grad_hidden[piece])
            if ctx.needs_input_grad[1]:
                part = z.T @ hidden_MD[piece]
                grad_head = part.to(ctx.head_dtype) if grad_head is None else grad_head.add_(part)
        return grad_hidden, grad_head, None


def _pieces(count: int, rows: int) -> list[slice]:
    return [slice(start, start + max(1, rows)) for start in range(0, max(1, count), max(1, rows))]


def _blocks(logits_MV: Tensor) -> list[slice]:
    rows = CACHED_LOGITS // logits_MV.shape[1] if logits_MV.device.type == "cpu" else len(logits_MV)
    return _pieces(len(logits_MV), rows)


def _log_softmax_at(logits_MV: Tensor, labels_M: Tensor, logprobs_M: Tensor, sums_M: Tensor) -> None:
    """Fill in the log-probability of each label and the log of each row's sum."""
    for block in _blocks(logits_MV):
        z = logits_MV[block].float()
        torch.logsumexp(z, dim=1, out=sums_M[block])
        torch.sub(z.gather(1, labels_M[block, None])[:, 0], sums_M[block], out=logprobs_M[block])


def _gradient_over(logits_MV: Tensor, labels_M: Tensor, sums_M: Tensor, grad_M: Tensor) -> None:
    """Write g (onehot(y) - softmax(z)) over the logits z."""
    for block in _blocks(logits_MV):
        g = grad_M[block, None]
        p = logits_MV[block].float()  # the logits themselves where they are fp32
        p.sub_(sums_M[block, None]).exp_().mul_(-g)
        p.scatter_add_(1, labels_M[block, None], g)
        if p.dtype != logits_MV.dtype:
            logits_MV[block].copy_(p)


def causal_lm(logprobs_M: Tensor) -> Loss:
    """Negative log-likelihood of the supervised tokens.

    >>> causal_lm(torch.log(torch.tensor([0.5, 0.25])))[0]
    tensor(2.0794)
    """
    return -logprobs_M.sum(), logprobs_M.numel(), {}
