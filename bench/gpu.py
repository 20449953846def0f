"""One large GPU: sft with NF4 and LoRA on random weights of the true shapes. Speed and memory only.

    python -m bench.gpu --shape ivygpt --tokens 1024 --json bench/results/gpu-33b-1024.json     # LLaMA-33B
    python -m bench.gpu --shape iimedgpt                                                        # Qwen-14B
    python -m bench.gpu --shape chimed-gpt --recompute                                          # Ziya-13B
    python -m bench.gpu --device cpu --shape tiny --tokens 64 --steps 2 --warmup 1              # the road, not a figure

The shape is the recipe's `full_shape`. Weights are drawn and quantised one matrix at a time, so that the bf16 model
never exists as a whole; they are random, never zero (zeros multiply faster). The step is the engine's own. The floor
is plan/roofline.py's operations over this device's measured products; peak memory is the largest of what PyTorch
allocated, reserved, and the driver reports for the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from bench import data
from xinglin.config import FullShape, Lora, Sft
from xinglin.models.adapters import with_new_adapter
from xinglin.models.attention import use_packed_attention
from xinglin.models.packing import Batch, Group, pack
from xinglin.models.tiny import SHAPES
from xinglin.models.trainable import POLICY, Trainable
from xinglin.objectives.causal import Loss, causal_lm
from xinglin.plan.roofline import device_here, operations_per_token
from xinglin.recipe import load_recipe
from xinglin.run import Stage, versions
from xinglin.train.engine import Engine

TINY = FullShape(hidden_size=64, num_layers=2, num_heads=4, intermediate_size=128, vocab_size=512)
BIASED = "iimedgpt"  # Qwen: query, key and value carry a bias


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="ivygpt", help="a recipe with a full_shape, or tiny")
    parser.add_argument("--tokens", type=int, default=1024, help="of a micro-step, one packed row")
    parser.add_argument("--micro-steps", type=int, default=1, help="packed rows of an optimiser step")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--recompute", action="store_true", help="activations of each layer computed again")
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu --shape tiny runs the code without measuring anything")
    result = measure(chosen)
    print(json.dumps(result, indent=1))
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each step, and what they mean for the device."""
    shape = shape_of(chosen.shape)
    device = torch.device(chosen.device)
    started = time.perf_counter()
    base = random_nf4_model(shape, device, biased=chosen.shape == BIASED)
    lora = Lora(rank=chosen.rank, alpha=2 * chosen.rank)
    config = Sft(general_share=0.0, method="qlora", lora=lora, max_seq_len=chosen.tokens)
    module = with_new_adapter(base, POLICY, config.lora, seed=0)
    if chosen.recompute:
        module.enable_input_require_grads()
        base.gradient_checkpointing_enable({"use_reentrant": False})
    model = Trainable(module.train(), None, None, Path(), True, POLICY)  # type: ignore[arg-type]
    built = time.perf_counter() - started
    batches = [packed_row(shape, chosen.tokens, seed) for seed in range(chosen.micro_steps)]
    with tempfile.TemporaryDirectory(prefix="xinglin-bench-gpu-") as folder:
        engine = Engine(module, config, Stage(Path(folder), "sft", quiet=True), num_steps=chosen.warmup + chosen.steps)
        seconds, losses = run_steps(engine, batches, lambda batch: causal_lm(model.logprobs(batch)), chosen)
    return summary(chosen, shape, config, seconds, losses, built)


def shape_of(name: str) -> FullShape:
    if name == "tiny":
        return TINY
    shape = load_recipe(name).base.full_shape
    if shape is None:
        raise SystemExit(f"recipe {name} has no full_shape")
    return shape


def random_nf4_model(shape: FullShape, device: torch.device, *, biased: bool) -> PreTrainedModel:
    """A LLaMA (or, with biases, a Qwen2) whose layers are NF4 and whose embedding, head and norms are bf16."""
    config_class, model_class = SHAPES["qwen2"] if biased else SHAPES["llama"]
    config = config_class(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads or shape.num_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = model_class(config)
    generator = torch.Generator(device).manual_seed(0)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, random_nf4(module, device, generator))
    fill(model, device, generator)
    model.is_loaded_in_4bit = True  # some of peft's checks go by this, not by the class of the layers
    return use_packed_attention(model.requires_grad_(False))


def random_nf4(linear: nn.Linear, device: torch.device, generator: torch.Generator) -> nn.Module:
    """A quantised layer of the same shape; its weights are drawn, quantised, and forgotten."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    made = Linear4bit(
        linear.in_features, linear.out_features, linear.bias is not None, compute_dtype=torch.bfloat16,
        compress_statistics=True, quant_type="nf4", device="meta",
    )  # fmt: skip
    weight = torch.empty(linear.out_features, linear.in_features, dtype=torch.bfloat16, device=device)
    weight.normal_(std=linear.in_features**-0.5, generator=generator)
    made.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True).to(device)  # type: ignore[misc]
    made.support_avx512bf16_for_cpu = False  # as models/load.py: no repacking on a CPU
    return made


def fill(model: PreTrainedModel, device: torch.device, generator: torch.Generator) -> None:
    """What is left on no device: embedding, head and biases random, norms 1, rotary tables computed."""
    for name, parameter in list(model.named_parameters()):
        if parameter.device.type != "meta":
            continue
        values = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
        values.fill_(1.0) if "norm" in name else values.normal_(std=0.02, generator=generator)
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(values, requires_grad=False))
    decoder = model.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(model.config).to(device)


def packed_row(shape: FullShape, tokens: int, seed: int) -> Batch:
    """One packed row of exactly `tokens`: conversations of log-normal length, about two thirds of each supervised."""
    rng = np.random.default_rng([data.SEED, seed])
    rows: list[Group] = []
    left = tokens
    for index, row in enumerate(data.sft_rows(10_000, "logn", shape.vocab_size)):
        ids = np.array((row["prompt"] + row["answer"])[:left], np.int64)
        rng.shuffle(ids)
        rows.append(Group(str(index), ids[:0], (ids,), (np.arange(len(ids)) >= min(len(row["prompt"]), len(ids) - 1),)))
        left -= len(ids)
        if left == 0:
            return pack(rows)
    raise SystemExit(f"--tokens {tokens} is more than 10,000 rows hold")


def run_steps(
    engine: Engine, batches: list[Batch], loss_fn: Callable[[Batch], Loss], chosen: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Seconds and losses of the timed steps. The device is waited for at the end of each, as the engine's log does."""
    seconds, losses = [], []
    for number in range(chosen.warmup + chosen.steps):
        if number == chosen.warmup and engine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        metrics = engine.step(batches, loss_fn)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        if number >= chosen.warmup:
            seconds.append(time.perf_counter() - start)
            losses.append(metrics["loss"])
        if not metrics["grad_norm"] > 0:
            raise SystemExit(f"step {number}: gradient norm {metrics['grad_norm']}: nothing was trained, no figure")
    return seconds, losses


def summary(
    chosen: argparse.Namespace,
    shape: FullShape,
    config: Sft,
    seconds: list[float],
    losses: list[float],
    built: float,
) -> dict[str, Any]:
    tokens = chosen.tokens * chosen.micro_steps
    speed = tokens / statistics.median(seconds)
    body = {
        "task": "gpu sft, NF4 + LoRA",
        "shape": {"name": chosen.shape, **shape.model_dump()},
        "weights": "random (speed and memory only)",
        "settings": {**vars(chosen), "json": None},
        "value": speed,
        "unit": "real tokens/s",
        "spread": [tokens / max(seconds), tokens / min(seconds)],
        "loss": [losses[0], losses[-1]],
        "seconds_to_build": built,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if chosen.device != "cuda":
        return body | {"measured": False, "note": "no GPU: the road was run, nothing was measured"}
    free, total = torch.cuda.mem_get_info()
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    device = device_here()
    # without recompute: the share is of what the arithmetic needs, so recompute counts against it
    floor = device.operations / operations_per_token(shape, config, recompute=False)
    return body | {
        "measured": True,
        "peak_memory": max(allocated, reserved, total - free),
        "allocated": allocated,
        "reserved": reserved,
        "floor": floor,
        "share_of_floor": speed / floor,
        "device": {"name": device.name, "tflops": device.operations / 1e12, "gb_s": device.bandwidth / 1e9},
    }


if __name__ == "__main__":
    main()
