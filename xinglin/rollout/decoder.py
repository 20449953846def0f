"""The decode loop: a transformers model's weights, fused and read by a forward pass of our own.

transformers' `generate` spends most of a small model's token on bookkeeping; here a step is some thirty operations a
layer, key and value lie in place, and a finished row's slot is taken by the next one at once. What it computes is what
the model computes: a test holds the log-probabilities to the trainer's.

    weights = read_weights(model)            # adapters folded in, NF4 dequantised; again after each training step
    for index, tokens, logprobs in decode(weights, requests, decoding, stop_id): ...

Legend: S slots, R new prompts, T tokens of a packed row, H query heads, K key heads, D head size, C cache length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from xinglin.models.attention import Paths, packed_attention, plan_paths
from xinglin.records import InputError
from xinglin.rollout.generator import Decoding
from xinglin.rollout.weights import Weights


@dataclass(frozen=True, slots=True)
class Request:
    """`uniforms[t]` decides token t: the same request gives the same answer in whatever company it is decoded."""

    prompt: np.ndarray
    uniforms: np.ndarray
    group: int
    """Requests of one group share the prompt, which is computed once."""


# --- forward passes --------------------------------------------------------------------------------------------------

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def forward(weights: Weights, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    """(N, d) last hidden states of N tokens. `attend(layer, q_NHD, k_NKD, v_NKD)` says what each of them sees."""
    heads, kv_heads, size = weights.num_heads, weights.num_kv_heads, weights.head_dim
    x = weights.embed[ids]
    cos, sin = weights.cos[positions][:, None], weights.sin[positions][:, None]
    for index, layer in enumerate(weights.layers):
        qkv = _times(_norm(x, layer.norm, weights.eps), layer.qkv, layer.qkv_bias).unflatten(-1, (-1, size))
        qk, v = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = _norm(qk[:, :heads], layer.q_norm, weights.eps), _norm(qk[:, heads:], layer.k_norm, weights.eps)
            qk = torch.cat((q, k), dim=1)
        qk = _rotate(qk, cos, sin)
        mixed = attend(index, qk[:, :heads], qk[:, heads:], v)
        x = x + mixed.flatten(1) @ layer.out
        gate, up = (_norm(x, layer.mlp_norm, weights.eps) @ layer.gate_up).chunk(2, -1)
        x = x + (silu(gate) * up) @ layer.down
    return _norm(x, weights.norm, weights.eps)


def _times(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return x @ matrix if bias is None else torch.addmm(bias, x, matrix)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding: x cos + (second half, first half) sin."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class Cache:
    """Keys and values of the slots in place, (layers, S, C, K, D)."""

    def __init__(self, weights: Weights, num_slots: int, length: int) -> None:
        shape = (len(weights.layers), num_slots, length, weights.num_kv_heads, weights.head_dim)
        self.keys = torch.zeros(shape, dtype=weights.embed.dtype, device=weights.embed.device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = np.zeros(num_slots, dtype=np.int64)

    def attend_step(self, weights: Weights, slots: Tensor, positions: Tensor) -> Attend:
        """One new token in each of `slots`: written to the cache, then it sees its slot's past.

        Slots are the first rows of the cache, so that no key or value is copied to be read.
        """
        count, longest = len(slots), int(positions.max()) + 1
        size = self.keys.shape[2]
        places = slots * size + positions
        ages = positions[:, None] - torch.arange(longest, device=positions.device)[None]
        gqa = weights.num_heads != weights.num_kv_heads
        masks = {window: _mask(ages, window, self.keys.dtype) for window in {layer.window for layer in weights.layers}}

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer], self.values[layer]
            keys.flatten(0, 1).index_copy_(0, places, k)
            values.flatten(0, 1).index_copy_(0, places, v)
            keys, values = (cached[:count, :longest].transpose(1, 2) for cached in (keys, values))
            mask = masks[weights.layers[layer].window]
            return scaled_dot_product_attention(q[:, :, None], keys, values, mask, enable_gqa=gqa)[:, :, 0]

        return attend


def _mask(ages_SL: Tensor, window: int | None, dtype: torch.dtype) -> Tensor | None:
    """(S, 1, 1, L) added to the scores: -inf on what a slot must not see; None where it sees all."""
    unseen = ages_SL < 0 if window is None else (ages_SL < 0) | (ages_SL >= window)
    return (
        torch.zeros_like(ages_SL, dtype=dtype).masked_fill(unseen, -torch.inf)[:, None, None] if unseen.any() else None
    )


def prefill(weights: Weights, prompts: Sequence[np.ndarray]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Packed pass over several prompts: (R, d) hidden state of each last token, and each prompt's keys and values
    (layers, length, K, D)."""
    ends = np.cumsum([len(p) for p in prompts])
    starts = np.concatenate([[0], ends[:-1]])
    device = weights.embed.device
    ids = torch.from_numpy(np.concatenate(prompts)).to(device)
    positions = torch.from_numpy(np.concatenate([np.arange(len(p)) for p in prompts])).to(device)
    paths = plan_paths([np.arange(a, b) for a, b in zip(starts, ends, strict=True)], int(ends[-1])).to(device)
    keys: list[Tensor] = []
    values: list[Tensor] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys.append(k)
        values.append(v)
        return attend_packed(weights, paths, layer, q, k, v)

    hidden = forward(weights, ids, positions, attend)
    all_keys, all_values = torch.stack(keys), torch.stack(values)
    pairs = [(all_keys[:, a:b], all_values[:, a:b]) for a, b in zip(starts, ends, strict=True)]
    return hidden[torch.from_numpy(ends - 1).to(device)], pairs


def attend_packed(weights: Weights, paths: Paths, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Packed attention in this module's form: (T, H, D) in and out."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    out, _ = packed_attention(None, q, k, v, None, paths=paths, sliding_window=weights.layers[layer].window)
    return out[0]


# --- decoding --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Slot:
    """One answer under way."""

    index: int
    uniforms: np.ndarray
    tokens: list[int]
    logprobs: list[float]


def choose(logits_SV: Tensor, uniforms_S: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor]:
    """(S,) tokens and their log-probabilities under the model at this temperature, before top-k and top-p.

    Sampling is by inverse distribution function: the first token whose cumulated probability passes the uniform.
    """
    if decoding.temperature == 0:
        tokens = logits_SV.argmax(-1)
        return tokens, logits_SV.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    logprobs = (logits_SV.float() / decoding.temperature).log_softmax(-1)
    if decoding.top_k == 0 and decoding.top_p == 1:
        tokens = _draw(logprobs.exp(), uniforms_S)
    else:
        kept, order = logprobs.exp().sort(-1, descending=True)
        if decoding.top_k:
            kept[:, decoding.top_k :] = 0
            kept /= kept.sum(-1, keepdim=True)  # top-p is a share of what top-k left, as in transformers and vLLM
        kept[kept.cumsum(-1) - kept >= decoding.top_p] = 0
        tokens = order.gather(-1, _draw(kept, uniforms_S)[:, None])[:, 0]
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def _draw(mass_SV: Tensor, uniforms_S: Tensor) -> Tensor:
    """(S,) the first place whose cumulated mass passes the uniform; never one without mass, though a uniform just
    under 1 rounds to 1 in fp32."""
    cumulated = mass_SV.cumsum(-1)
    total = cumulated[:, -1]
    sought = torch.minimum(uniforms_S * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulated, sought[:, None], right=True)[:, 0]


@torch.inference_mode()
def decode(
    weights: Weights, requests: Sequence[Request], decoding: Decoding, stop: int, *, num_slots: int = 64
) -> Iterator[tuple[int, list[int], list[float]]]:
    """Yield (request number, token ids with the stop token if it came, their log-probabilities) as answers finish."""
    longest = _cache_length(weights, requests, decoding)
    num_slots = min(num_slots, len(requests))
    cache = Cache(weights, num_slots, longest)
    waiting = deque(enumerate(requests))
    slots: list[_Slot] = []  # slot i of the cache belongs to slots[i]: the busy ones are always the first
    while waiting or slots:
        if waiting and len(slots) < num_slots:
            finished = _admit(weights, cache, slots, waiting, num_slots, decoding, stop)
        else:
            finished = _advance(weights, cache, slots, decoding, stop)
        yield from ((slot.index, slot.tokens, slot.logprobs) for slot in finished)


@torch.inference_mode()
def decode_stream(weights: Weights, request: Request, decoding: Decoding, stop: int) -> Iterator[int]:
    """The tokens of one answer as they come, the stop token left out."""
    cache = Cache(weights, 1, _cache_length(weights, [request], decoding))
    slots: list[_Slot] = []
    finished = _admit(weights, cache, slots, deque([(0, request)]), 1, decoding, stop)
    while True:
        token = (finished or slots)[0].tokens[-1]
        if token != stop:
            yield token
        if finished:
            return
        finished = _advance(weights, cache, slots, decoding, stop)


def _cache_length(weights: Weights, requests: Sequence[Request], decoding: Decoding) -> int:
    """Tokens of the longest prompt and its answer. Raises `InputError` where the model cannot hold them."""
    prompt = max((len(r.prompt) for r in requests), default=0)
    if prompt + decoding.max_new_tokens > len(weights.cos):
        raise InputError(
            f"a prompt of {prompt} tokens and {decoding.max_new_tokens} new ones exceed the model's "
            f"{len(weights.cos)}; shorten the prompt or lower max_new_tokens"
        )
    return prompt + decoding.max_new_tokens


def _admit(
    weights: Weights,
    cache: Cache,
    slots: list[_Slot],
    waiting: deque[tuple[int, Request]],
    num_slots: int,
    decoding: Decoding,
    stop: int,
) -> list[_Slot]:
    """Fill the free slots: one pass over the new prompts, a group's only once, and a first token each."""
    new = [waiting.popleft() for _ in range(min(num_slots - len(slots), len(waiting)))]
    rows: dict[int, int] = {}
    prompts: list[np.ndarray] = []
    for _, request in new:
        if request.group not in rows:
            rows[request.group] = len(prompts)
            prompts.append(request.prompt)
    hidden, pairs = prefill(weights, prompts)
    row_of = [rows[request.group] for _, request in new]
    for place, row in enumerate(row_of, len(slots)):
        keys, values = pairs[row]
        length = cache.lengths[place] = keys.shape[1]
        cache.keys[:, place, :length] = keys
        cache.values[:, place, :length] = values
    first = len(slots)
    slots.extend(_Slot(index, request.uniforms, [], []) for index, request in new)
    return _append(weights, cache, slots, first, hidden[row_of], decoding, stop)


def _advance(weights: Weights, cache: Cache, slots: list[_Slot], decoding: Decoding, stop: int) -> list[_Slot]:
    """One token for every busy slot."""
    device = weights.embed.device
    ids = torch.tensor([slot.tokens[-1] for slot in slots], device=device)
    positions = torch.from_numpy(cache.lengths[: len(slots)].copy()).to(device)
    attend = cache.attend_step(weights, torch.arange(len(slots), device=device), positions)
    hidden = forward(weights, ids, positions, attend)
    cache.lengths[: len(slots)] += 1
    return _append(weights, cache, slots, 0, hidden, decoding, stop)


def _append(
    weights: Weights, cache: Cache, slots: list[_Slot], first: int, hidden: Tensor, decoding: Decoding, stop: int
) -> list[_Slot]:
    """Choose a token for slots `first`... and take out the answers that are finished."""
    uniforms = torch.tensor([slot.uniforms[len(slot.tokens)] for slot in slots[first:]], device=hidden.device)
    tokens, logprobs = choose(hidden @ weights.head, uniforms, decoding)
    finished = []
    for slot, token, logprob in zip(slots[first:], tokens.tolist(), logprobs.tolist(), strict=True):
        slot.tokens.append(token)
        slot.logprobs.append(logprob)
    for place in reversed(range(first, len(slots))):
        slot = slots[place]
        if slot.tokens[-1] == stop or len(slot.tokens) == decoding.max_new_tokens:
            finished.append(slot)
            _free(cache, slots, place)
    return finished


def _free(cache: Cache, slots: list[_Slot], place: int) -> None:
    """Take a slot out; the last one moves into its place, so that the busy slots stay the first."""
    last = slots.pop()
    if place < len(slots):
        length = cache.lengths[len(slots)]
        slots[place] = last
        cache.keys[:, place, :length] = cache.keys[:, len(slots), :length]
        cache.values[:, place, :length] = cache.values[:, len(slots), :length]
        cache.lengths[place] = length
