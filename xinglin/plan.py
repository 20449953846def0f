"""What a run would take, and what this machine can give: the dry run and the doctor.

xinglin run iimedgpt --dry-run        stages, tokens, memory for the real base
xinglin doctor                        versions, cores, memory, GPUs
"""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from typing import Any

from xinglin.config import FullShape, Recipe, Training
from xinglin.run import versions

NF4_BITS = 4.127  # 4-bit codes, 8-bit scales of 64, fp32 scales of 256 of those (arXiv:2305.14314)
GB = 1e9


def parameters(shape: FullShape) -> tuple[float, float]:
    """(weights of the linear layers, weights of embedding and head) of a LLaMA-shaped model."""
    d, f = shape.hidden_size, shape.intermediate_size
    kv = (shape.num_kv_heads or shape.num_heads) * d // shape.num_heads
    per_layer = 2 * d * d + 2 * d * kv + 3 * d * f
    return float(shape.num_layers * per_layer), float(2 * d * shape.vocab_size)


def lora_parameters(shape: FullShape, rank: int, targets: tuple[str, ...]) -> float:
    d, f = shape.hidden_size, shape.intermediate_size
    kv = (shape.num_kv_heads or shape.num_heads) * d // shape.num_heads
    sizes = {"q_proj": 2 * d, "o_proj": 2 * d, "k_proj": d + kv, "v_proj": d + kv}
    sizes |= {"gate_proj": d + f, "up_proj": d + f, "down_proj": d + f}
    return float(shape.num_layers * rank * sum(sizes.get(target, 0) for target in targets))


def memory(shape: FullShape, config: Training) -> dict[str, float]:
    """Gigabytes of one training process without recompute: weights, what trains, activations of a micro-batch.

    Activations: 6 hidden and 2 intermediate vectors a token and layer in bf16 (x, q, k, v, attention out, residual;
    gate, up). What trains: bf16 weight and gradient, fp32 master and two moments, 16 bytes a parameter.
    """
    linear, rest = parameters(shape)
    per_weight = NF4_BITS / 8 if config.method == "qlora" else 2.0
    trained = (
        linear + rest if config.method == "full" else lora_parameters(shape, config.lora.rank, config.lora.targets)
    )
    per_token = shape.num_layers * (6 * shape.hidden_size + 2 * shape.intermediate_size) * 2
    tokens = max(config.micro_batch_tokens, config.max_seq_len)
    found = {
        "weights": (linear * per_weight + rest * 2) / GB,
        "training": trained * 16 / GB,
        "activations": per_token * tokens / GB,
    }
    if config.method == "full":
        found["weights"] = 0.0  # counted with what trains
    return {**found, "total": sum(found.values())}


def print_plan(recipe: Recipe, data: str) -> None:
    """The stages in order, with what each trains on and the memory it needs at the recipe's base."""
    shape = recipe.base.full_shape
    print(f"{recipe.name}: {recipe.title}\nbase: {recipe.base.name}\ndata: {data}\n")
    print(f"{'stage':<20} {'kind':<10} {'from':<12} {'method':<7} {'lr':>8} {'batch':>6} {'epochs':>6} {'GB':>7}")
    for name, config in recipe.stages.items():
        if isinstance(config, Training):
            size = f"{memory(shape, config)['total']:.1f}" if shape else "-"
            numbers = f"{config.method:<7} {config.lr:>8.1e} {config.batch_size:>6} {config.epochs:>6g} {size:>7}"
            print(f"{name:<20} {config.stage:<10} {config.from_:<12} {numbers}")
        else:
            print(f"{name:<20} {config.stage:<10} {getattr(config, 'from_', ''):<12}")
    if shape:
        linear, rest = parameters(shape)
        print(f"\n{(linear + rest) / GB:.1f} G parameters, {rest / GB:.1f} G of them embedding and head.")
        _print_tokens(recipe)
        print(
            "Memory is a paper estimate for one process, activations kept (no recompute); not measured on this machine."
        )
    assumed = sum(value.startswith("assumed") for value in recipe.provenance.values())
    published = sum(value.startswith("published") for value in recipe.provenance.values())
    if recipe.provenance:
        print(f"{published} values are published, {assumed} assumed; `xinglin recipe show {recipe.name}` lists each.")


def _print_tokens(recipe: Recipe) -> None:
    """Tokens each training stage reads, from the sizes the paper publishes."""
    for name, tokens in recipe.tokens.items():
        config = recipe.stages.get(name)
        epochs = config.epochs if isinstance(config, Training) else 1
        print(f"{name}: {tokens / 1e6:,.0f} M tokens x {epochs:g} epochs = {tokens * epochs / 1e6:,.0f} M")


def print_doctor() -> None:
    """Versions and limits of this machine, one a line."""
    import torch

    facts: dict[str, Any] = dict(versions())
    facts["cores"] = os.cpu_count()
    facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GB:.0f} GB"
    facts["disk free here"] = f"{shutil.disk_usage('.').free / GB:.0f} GB"
    facts["bf16 on the CPU"] = "native" if torch.cpu._is_avx512_bf16_supported() else "emulated: fp32 is used"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            info = torch.cuda.get_device_properties(index)
            facts[f"gpu {index}"] = f"{info.name}, {info.total_memory / GB:.0f} GB"
    else:
        facts["gpu"] = "none: every stage runs on the CPU"
    for name in ("vllm", "trl"):
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed (optional)"
    for name, value in facts.items():
        print(f"{name:<16} {value}")
