"""Packed attention: many rows in one, and none sees another.

A packed row of T tokens holds *paths*. A path is the list of positions one answer may look back on; in plain packing
each path is one document, and in a preference or a group of rollouts the paths of one prompt share the prompt's
positions, which are then computed once:

    positions   0 1 2 | 3 4 5 | 6 7          prompt, answer a, answer b
    paths       0 1 2 3 4 5                  a sees the prompt and itself
                0 1 2 6 7                    b sees the prompt and itself, never a

`plan_paths` sorts the paths by length into a few padded buckets, so that 160 rows of 20 tokens cost a handful of calls
and not 160. Padding stands at the end of a path, where causal attention cannot see it: no mask is built at all.
`use_packed_attention(model)` makes a transformers model attend this way; hand it `paths=plan` in its forward call.

Legend: T tokens of the packed row, N paths, L longest path of a bucket, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

NAME = "xinglin_packed"
LONGEST_WRITTEN_OUT = {torch.bfloat16: 640, torch.float32: 48}
CACHED_SCORES = 1 << 20
SHORTEST_SHARE = 0.8  # a path shorter than this share of its bucket's longest starts a new bucket: at most 20 % padding


@dataclass(frozen=True, slots=True)
class Paths:
    """`gathers[i]` is (N, L) positions of bucket i, or None where the row itself is the bucket (nothing to gather).
    `shapes[i]` is its (N, L). `order` (T,) says where in the concatenated buckets each position's own output lies."""

    gathers: tuple[Tensor | None, ...]
    shapes: tuple[tuple[int, int], ...]
    order: Tensor

    def to(self, device: torch.device) -> Paths:
        gathers = tuple(None if g is None else g.to(device, non_blocking=True) for g in self.gathers)
        return Paths(gathers, self.shapes, self.order.to(device, non_blocking=True))


def plan_paths(paths: Sequence[np.ndarray], num_tokens: int) -> Paths:
    """The plan for these paths; each of the `num_tokens` positions must lie in at least one.

    A position that lies in several (a shared prompt) takes its output from the first: the outputs are equal.
    """
    by_length = sorted(range(len(paths)), key=lambda index: -len(paths[index]))
    order = np.full(num_tokens, -1, dtype=np.int64)
    gathers: list[Tensor | None] = []
    shapes: list[tuple[int, int]] = []
    offset = start = 0
    while start < len(by_length):
        longest = len(paths[by_length[start]])
        stop = start
        while stop < len(by_length) and len(paths[by_length[stop]]) >= SHORTEST_SHARE * longest:
            stop += 1
        bucket = np.zeros((stop - start, longest), dtype=np.int64)
        for row, index in enumerate(by_length[start:stop]):
            path = paths[index]
            bucket[row, : len(path)] = path
            fresh = order[path] < 0
            order[path[fresh]] = offset + row * longest + np.flatnonzero(fresh)
        is_row = bucket.size == num_tokens and np.array_equal(bucket.ravel(), np.arange(num_tokens))
        gathers.append(None if is_row else torch.from_numpy(bucket))
        shapes.append(bucket.shape)
        offset += bucket.size
        start = stop
    assert (order >= 0).all(), "a position of the packed row lies in no path"
    return Paths(tuple(gathers), tuple(shapes), torch.from_numpy(order))


def packed_attention(
    module: nn.Module | None,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    paths: Paths | None = None,
    sliding_window: int | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention in transformers' own calling form: (1, H, T, D) in, (1, T, H, D) out. Without `paths`: plain causal."""
    if paths is None:
        mask = _window_mask(query_1HTD.shape[2], sliding_window, query_1HTD.device)
        out = scaled_dot_product_attention(
            query_1HTD, key_1HTD, value_1HTD, mask, dropout, mask is None, scale=scaling,
            enable_gqa=query_1HTD.shape[1] != key_1HTD.shape[1],
        )  # fmt: skip
        return out.transpose(1, 2), None
    dtype = autocast_dtype(value_1HTD)  # rotary embedding leaves queries and keys in fp32
    rows_THD = [x[0].transpose(0, 1).to(dtype) for x in (query_1HTD, key_1HTD, value_1HTD)]
    outputs = []
    for gather, (num_paths, length) in zip(paths.gathers, paths.shapes, strict=True):
        q, k, v = (_bucket(row, gather, num_paths, length) for row in rows_THD)
        mask = _window_mask(length, sliding_window, q.device)
        if mask is None and not dropout and _written_out(q):
            out_NHLD = _causal_attention(q, k, v, scaling)
        else:
            out_NHLD = scaled_dot_product_attention(
                q, k, v, mask, dropout, mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
            )
        outputs.append(out_NHLD.transpose(1, 2).flatten(0, 1))
    if len(outputs) == 1 and paths.gathers[0] is None:
        return outputs[0][None], None
    return torch.cat(outputs).index_select(0, paths.order)[None], None


def _written_out(query_NHLD: Tensor) -> bool:
    """Where matrix products beat PyTorch's fused kernel: on a CPU its backward pass in bf16 costs three times its
    forward pass, and fifteen times on short rows; in fp32 only short rows are slower. The same with and without
    gradients, so that a reference equals the policy it was copied from to the last bit."""
    longest = LONGEST_WRITTEN_OUT.get(query_NHLD.dtype, 0)
    return query_NHLD.device.type == "cpu" and query_NHLD.shape[2] <= longest


def _causal_attention(query_NHLD: Tensor, key_NHLD: Tensor, value_NHLD: Tensor, scaling: float | None) -> Tensor:
    """softmax(Q K' s + mask) V, a few paths at a time so that their scores stay in the cache. The same as fused but for
    rounding: in bf16 the scores are rounded once more."""
    num_paths, num_heads, length, size = query_NHLD.shape
    repeats = num_heads // key_NHLD.shape[1]
    if repeats > 1:
        key_NHLD, value_NHLD = (x.repeat_interleave(repeats, dim=1) for x in (key_NHLD, value_NHLD))
    future_LL = torch.full((length, length), -torch.inf, dtype=query_NHLD.dtype).triu(1)
    step = max(1, CACHED_SCORES // (num_heads * length * length))
    outputs = []
    for start in range(0, num_paths, step):
        q, k, v = (x[start : start + step].reshape(-1, length, size) for x in (query_NHLD, key_NHLD, value_NHLD))
        scores = torch.baddbmm(future_LL, q, k.transpose(1, 2), alpha=scaling or size**-0.5)
        outputs.append(torch.bmm(scores.softmax(dim=-1), v).unflatten(0, (-1, num_heads)))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What matrix products of `x` are done in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def use_packed_attention(model: PreTrainedModel) -> PreTrainedModel:
    """Make `model` attend through `packed_attention`."""
    model.set_attn_implementation(NAME)
    return model


def _bucket(row_THD: Tensor, gather: Tensor | None, num_paths: int, length: int) -> Tensor:
    if gather is not None:
        row_THD = row_THD.index_select(0, gather.flatten())
    return row_THD.unflatten(0, (num_paths, length)).transpose(1, 2)


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """None (plain causal) unless a sliding window is shorter than the longest path; then (L, L), True = visible."""
    if window is None or length <= window:
        return None
    age = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
    return (age >= 0) & (age < window)


AttentionInterface.register(NAME, packed_attention)
