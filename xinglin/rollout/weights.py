"""A transformers model's weights as the decode loop reads them: fused, turned, adapters folded in, NF4 dequantised.

weights = read_weights(model)            # again after each training step
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from xinglin.records import InputError

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")


@dataclass(frozen=True, slots=True)
class Layer:
    """One block's weights: query, key and value in one matrix, gate and up in another. Matrices are stored (in, out):
    a row times such a matrix reads it once from end to end, twice as fast as `linear` where it is not in the cache."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    window: int | None


@dataclass(frozen=True, slots=True)
class Weights:
    embed: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Tensor
    cos: Tensor  # (max_len, D)
    sin: Tensor  # (max_len, D), the first half negated: what `_rotate` multiplies the turned halves by
    num_heads: int
    num_kv_heads: int
    eps: float

    @property
    def head_dim(self) -> int:
        return self.cos.shape[-1]


def read_weights(model: Any, dtype: torch.dtype = torch.float32) -> Weights:
    """The weights of a LLaMA, Qwen2, Qwen3 or Mistral model, under the adapter that is active now."""
    decoder = model.get_decoder()
    config = decoder.config
    block = decoder.layers[0]
    if config.model_type not in FAMILIES:
        raise InputError(f"decoding supports {', '.join(FAMILIES)}; this model is {config.model_type}")
    if _plain(block.self_attn.o_proj).bias is not None or _plain(block.mlp.down_proj).bias is not None:
        raise InputError(f"decoding supports no bias after attention or MLP; this {config.model_type} has one")
    if getattr(config, "hidden_act", "silu") != "silu":
        raise InputError(f"decoding supports SiLU models; this one has {config.hidden_act}")
    with torch.no_grad():
        positions = torch.arange(config.max_position_embeddings, device=decoder.norm.weight.device)[None]
        cos, sin = decoder.rotary_emb(torch.zeros(1, device=positions.device, dtype=torch.float32), positions)
        half = sin.shape[-1] // 2
        sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        return Weights(
            embed=decoder.embed_tokens.weight.to(dtype),
            layers=tuple(_read_layer(block, dtype) for block in decoder.layers),
            norm=decoder.norm.weight.to(dtype),
            head=_turned(model.get_output_embeddings().weight, dtype),
            cos=cos[0].to(dtype),
            sin=sin[0].to(dtype),
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            eps=config.rms_norm_eps,
        )


def _read_layer(block: Any, dtype: torch.dtype) -> Layer:
    attention, mlp = block.self_attn, block.mlp
    qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
    biases = [_plain(part).bias for part in qkv]
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    return Layer(
        norm=block.input_layernorm.weight.to(dtype),
        qkv=_turned(torch.cat([_matrix(part) for part in qkv]), dtype),
        qkv_bias=None if biases[0] is None else torch.cat(biases).to(dtype),
        q_norm=None if norms[0] is None else norms[0].weight.to(dtype),
        k_norm=None if norms[1] is None else norms[1].weight.to(dtype),
        out=_turned(_matrix(attention.o_proj), dtype),
        mlp_norm=block.post_attention_layernorm.weight.to(dtype),
        gate_up=_turned(torch.cat([_matrix(mlp.gate_proj), _matrix(mlp.up_proj)]), dtype),
        down=_turned(_matrix(mlp.down_proj), dtype),
        window=getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)),
    )


def _turned(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    return matrix.to(dtype).T.contiguous()


def _plain(module: Any) -> Any:
    return module.get_base_layer() if isinstance(module, LoraLayer) else module


def _matrix(module: Any) -> Tensor:
    """The matrix a linear layer multiplies by: NF4 dequantised, the active adapters' products added."""
    plain = _plain(module)
    weight: Tensor = plain.weight
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight.data, weight.quant_state)
    weight = weight.float()
    if isinstance(module, LoraLayer) and not module._disable_adapters:
        for name in module._active_adapter:
            if name in module.lora_A:
                weight = weight + module.get_delta_weight(name).float()  # type: ignore[attr-defined]
    return weight
