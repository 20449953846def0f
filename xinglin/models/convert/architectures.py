"""What a published config and each of its tensors become.

Qwen, first generation (arXiv:2309.16609): RMSNorm, rotary positions over the whole head, query, key and value in one
matrix with a bias, no other bias, MLP `c_proj(w1(x) * silu(w2(x)))` whose width is half of `intermediate_size`: it is
Qwen2 with other names. Beyond `seq_length` tokens (2,048 for Qwen-14B) the published code stretches its rotary base
with the length (`use_dynamic_ntk`) and scales queries by log_seq_length(position) (`use_logn_attn`), outside training
only; Qwen2 has neither, so the converted model says `seq_length` is the longest text it was made for. Up to there the
two are equal.

Baichuan 7B (arXiv:2309.10305): LLaMA with query, key and value in one matrix. Baichuan2 divides each row of its head by
its length at every pass; the converted head is stored so divided. The 13B models have ALiBi in place of rotary
positions, which no native shape with our attention has: refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from xinglin.records import InputError

Tensors = Callable[[str, Tensor], dict[str, Tensor] | None]
BAICHUAN2_VOCABULARY = 125_696
UNTIED = {"tie_word_embeddings": False}
BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")  # computed, not learned: left out


@dataclass(frozen=True, slots=True)
class Architecture:
    """`tensors(name, tensor)` gives the native tensors of a published one: {} for a buffer, None for a stranger."""

    config: dict[str, Any]
    tensors: Tensors
    vocabulary: str
    template: str | None


def architecture_of(config: dict[str, Any], path: Path) -> Architecture:
    """How a published model is mapped. Raises `InputError` for what has no exact native form."""
    kind = config.get("model_type")
    if kind not in ("qwen", "baichuan"):
        raise InputError(
            f"{path}: model_type {kind!r} is not one that convert maps (qwen of the first generation, baichuan 7B)"
        )
    if "quantization_config" in config:
        raise InputError(f"{path}: the weights are quantised; convert the unquantised model, quantise in the recipe")
    try:
        return _qwen(config, path) if kind == "qwen" else _baichuan(config, path)
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]} is missing; the folder is not a published {kind} model") from None


def _qwen(config: dict[str, Any], path: Path) -> Architecture:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    _need(config, path, {"rotary_pct": 1.0, "no_bias": True, "scale_attn_weights": True, **UNTIED})
    if config.get("kv_channels", hidden // heads) * heads != hidden:
        raise InputError(f"{path}: kv_channels {config['kv_channels']} x {heads} heads is not hidden_size {hidden}")
    stretched = config.get("use_dynamic_ntk", False) or config.get("use_logn_attn", False)
    native = {
        **_shared("Qwen2ForCausalLM", "qwen2", config),
        "intermediate_size": config["intermediate_size"] // 2,
        "rms_norm_eps": config["layer_norm_epsilon"],
        "max_position_embeddings": config["seq_length"] if stretched else config["max_position_embeddings"],
        "rope_theta": float(config.get("rotary_emb_base", 10_000)),
        "use_sliding_window": False,
    }
    return Architecture(native, _qwen_tensors, "qwen.tiktoken", "chatml")


def _qwen_tensors(name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    whole = {
        "transformer.wte.weight": "model.embed_tokens.weight",
        "transformer.ln_f.weight": "model.norm.weight",
        "lm_head.weight": "lm_head.weight",
    }
    if name in whole:
        return {whole[name]: tensor}
    layer, part = _layer(name, "transformer.h.")
    renamed = {
        "ln_1.weight": "input_layernorm.weight",
        "ln_2.weight": "post_attention_layernorm.weight",
        "attn.c_proj.weight": "self_attn.o_proj.weight",
        "mlp.w1.weight": "mlp.up_proj.weight",
        "mlp.w2.weight": "mlp.gate_proj.weight",
        "mlp.c_proj.weight": "mlp.down_proj.weight",
    }
    if part in renamed:
        return {f"model.layers.{layer}.{renamed[part]}": tensor}
    if part in ("attn.c_attn.weight", "attn.c_attn.bias"):
        return _split_qkv(layer, part.rsplit(".")[-1], tensor)
    return {} if name.endswith(BUFFERS) else None


def _baichuan(config: dict[str, Any], path: Path) -> Architecture:
    if "max_position_embeddings" not in config or config["hidden_size"] == 5120:
        raise InputError(f"{path}: Baichuan 13B has ALiBi positions, which no native shape has; take a 7B model")
    _need(config, path, {"hidden_act": "silu", **UNTIED})
    native = {
        **_shared("LlamaForCausalLM", "llama", config),
        "intermediate_size": config["intermediate_size"],
        "rms_norm_eps": config["rms_norm_eps"],
        "max_position_embeddings": config["max_position_embeddings"],
        "rope_theta": 10_000.0,
        "attention_bias": False,
        "mlp_bias": False,
    }
    normed_head = "z_loss_weight" in config or config["vocab_size"] == BAICHUAN2_VOCABULARY

    def tensors(name: str, tensor: Tensor) -> dict[str, Tensor] | None:
        if name == "lm_head.weight" and normed_head:
            return {name: normalize(tensor.float()).to(tensor.dtype)}
        return _baichuan_tensors(name, tensor)

    return Architecture(native, tensors, "tokenizer.model", None)


def _baichuan_tensors(name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    if name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        return {name: tensor}
    layer, part = _layer(name, "model.layers.")
    if part == "self_attn.W_pack.weight":
        return _split_qkv(layer, "weight", tensor)
    kept = {f"mlp.{one}_proj.weight" for one in ("gate", "up", "down")}
    kept |= {"self_attn.o_proj.weight", "input_layernorm.weight", "post_attention_layernorm.weight"}
    if part in kept:
        return {name: tensor}
    return {} if name.endswith(BUFFERS) else None


def _split_qkv(layer: str, kind: str, tensor: Tensor) -> dict[str, Tensor]:
    """Query, key and value out of one matrix or bias, in this order."""
    parts = zip("qkv", tensor.chunk(3), strict=True)
    return {f"model.layers.{layer}.self_attn.{one}_proj.{kind}": part.contiguous() for one, part in parts}


def _layer(name: str, prefix: str) -> tuple[str, str]:
    """(layer number, rest of the name), or empty strings."""
    if not name.startswith(prefix):
        return "", ""
    number, _, rest = name.removeprefix(prefix).partition(".")
    return number, rest


def _shared(architecture: str, model_type: str, config: dict[str, Any]) -> dict[str, Any]:
    """What every mapped config says in the same words."""
    kept = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    return {
        "architectures": [architecture],
        "model_type": model_type,
        **{name: config[name] for name in kept},
        "num_key_value_heads": config["num_attention_heads"],
        "hidden_act": "silu",
        "initializer_range": config.get("initializer_range", 0.02),
        "attention_dropout": 0.0,
        **UNTIED,
    }


def _need(config: dict[str, Any], path: Path, wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise InputError(f"{path}: {name} is {config[name]!r}; only {value!r} has an exact native form")
