"""Time and memory of a large base, from its shape and what the device can do: a floor, and the share of it reached.

Operations of a token, N weights in linear layers and head (arXiv:2001.08361, section 2.1): forward 2 N; backward 2 N
for the inputs, and 2 N more where the weights train; a second forward where activations are recomputed. Attention adds
2 s d a layer forward and 2.5 times that backward, for texts of s tokens. Decoding is bound by memory: each step reads
the weights once and every row's keys and values.

The share of the floor that is reached is SHARE: the aim of this project, near the best published figure (NeMo
AutoModel, 51 %, 2026); it was not measured here for any large base.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from xinglin.config import Dpo, FullShape, Policy, Recipe, Training
from xinglin.plan.measure import Forecast
from xinglin.plan.paper import GB, memory, parameters

SHARE = 0.45
ROWS_AT_ONCE = 64
RECOMPUTED_SHARE = 0.12  # of the activations, where each layer keeps its input alone and one layer is live


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: bf16 operations and bytes a second, gigabytes of memory; `measured` here or a published figure."""

    name: str
    operations: float
    bandwidth: float
    gigabytes: float
    measured: bool


H200 = Device("one H200 (published figures: there is no GPU here)", 790e12, 4.3e12, 149.0, False)


def device_here() -> Device:
    """The GPU of this machine with its measured matrix multiplication and copy, else H200."""
    import torch

    if not torch.cuda.is_available():
        return H200
    info = torch.cuda.get_device_properties(0)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    operations = 2 * 8192**3 / _seconds(lambda: a @ a)
    bandwidth = 2 * a.nbytes * 8 / _seconds(lambda: [a.clone() for _ in range(8)])
    return Device(f"{info.name} (measured)", operations, bandwidth, info.total_memory / GB, True)


def _seconds(work: Any) -> float:
    """Median of ten, after three to warm up."""
    import torch

    times = []
    for _ in range(13):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[3:])[5]


def operations_per_token(shape: FullShape, config: Training, *, recompute: bool) -> float:
    """Operations of a token trained on, in texts of `max_seq_len` (an upper bound: most are shorter)."""
    linear, rest = parameters(shape)
    weights = linear + rest / 2  # the embedding is looked up, the head multiplied
    forward = 2 * weights
    attention = 2 * config.max_seq_len * shape.hidden_size * shape.num_layers
    trained = 2 * weights if config.method == "full" else 0.0
    passes = 2 if recompute else 1
    return passes * (forward + attention) + 2 * weights + 2.5 * attention + trained


def decode_rate(shape: FullShape, config: Training, device: Device, length: int) -> float:
    """Tokens a second that ROWS_AT_ONCE rows of `length` tokens are decoded with, at the memory bound."""
    weights = memory(shape, config)["weights"] * GB or 2 * sum(parameters(shape))
    heads = (shape.num_kv_heads or shape.num_heads) / shape.num_heads
    cache = ROWS_AT_ONCE * length * 2 * 2 * shape.num_layers * shape.hidden_size * heads
    return ROWS_AT_ONCE * device.bandwidth / (weights + cache)


def forecast_paper(recipe: Recipe, device: Device) -> list[Forecast]:
    """One forecast for each stage that trains; tokens from the recipe's `tokens:` or its settings."""
    shape = recipe.base.full_shape
    assert shape is not None
    found = []
    for name, config in recipe.stages.items():
        if isinstance(config, Training):
            found.append(_training(recipe, shape, name, config, device))
        elif name != "data":
            found.append(Forecast(name, config.stage, None, None, None, "not estimated: bound by the answers' length"))
    return found


def _training(recipe: Recipe, shape: FullShape, name: str, config: Training, device: Device) -> Forecast:
    size = memory(shape, config)
    recompute = size["total"] > device.gigabytes
    gigabytes = _recomputed(size) if recompute else size["total"]
    notes = [_advice(shape, config, device, gigabytes) or ("activations recomputed" if recompute else "")]
    tokens, passes, seconds = recipe.tokens.get(name), config.epochs, 0.0
    if isinstance(config, Policy):
        tokens = float(config.iterations * config.prompts * config.num_answers * config.decoding.max_new_tokens)
        length = config.max_seq_len // 2 + config.decoding.max_new_tokens // 2
        seconds, passes = tokens / decode_rate(shape, config, device, length), config.inner_epochs
        notes.append("every answer at its longest")
    if isinstance(config, Dpo | Policy):
        passes += 1 / 3  # the reference's forward pass
    if tokens is None:
        notes.append("tokens unknown: name those of an epoch under tokens: in the recipe")
        return Forecast(name, config.stage, None, None, gigabytes, "; ".join(filter(None, notes)))
    work = tokens * passes * operations_per_token(shape, config, recompute=recompute)
    seconds += work / (SHARE * device.operations)
    trained = tokens if isinstance(config, Policy) else tokens * config.epochs
    return Forecast(name, config.stage, trained, seconds, gigabytes, "; ".join(filter(None, notes)))


def _recomputed(size: dict[str, float]) -> float:
    """Gigabytes when each layer keeps its input alone."""
    return size["total"] - (1 - RECOMPUTED_SHARE) * size["activations"]


def _advice(shape: FullShape, config: Training, device: Device, gigabytes: float) -> str:
    """The first setting that makes it fit, or how many such GPUs share it; empty where it fits."""
    if gigabytes <= device.gigabytes:
        return ""
    tried = [("method: lora", {"method": "lora"}), ("method: qlora", {"method": "qlora"})]
    for says, change in tried[["full", "lora", "qlora"].index(config.method) :]:
        if _recomputed(memory(shape, config.model_copy(update=change))) <= device.gigabytes:
            return f"does not fit; {says} would"
    count = int(gigabytes // device.gigabytes) + 1
    return f"does not fit; {count} such GPUs would share it (torchrun), or lower max_seq_len and micro_batch_tokens"
