"""Parameters and memory of a LLaMA-shaped model on paper."""

from __future__ import annotations

from xinglin.config import FullShape, Training

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
