"""Models of a few thousand weights, with attention as peaked and norms as uneven as in a trained one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from xinglin.config import Dpo, Lora, Training
from xinglin.models.load import save_model
from xinglin.models.template import template_named
from xinglin.models.tiny import build_model, train_tokenizer
from xinglin.records import Message

TEXTS = [
    "患者头痛三天,血压 150/90 mmHg。\n建议休息,多喝水。\n",
    "感冒怎么办?多喝水,注意休息。体温 38.5 度以上请就医。\n",
    "医生:请问哪里不舒服?\n患者:头痛 两天,没有发热。\n",
] * 20

SHAPES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {}),
    "llama-gqa": ("llama", {"num_kv_heads": 2}),
    "qwen2-gqa": ("qwen2", {"num_kv_heads": 2}),
    "qwen2-window": (
        "qwen2",
        {"num_kv_heads": 2, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3-gqa": ("qwen3", {"num_kv_heads": 1}),
    "mistral-window": ("mistral", {"num_kv_heads": 2, "sliding_window": 7}),
}


@cache
def tokenizer(template: str = "chatml") -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 330, template)


def model(name: str = "llama-gqa", *, vocab_size: int | None = None, seed: int = 0) -> PreTrainedModel:
    """A model of one of SHAPES, with weights far from their timid initialisation, so that a mistake shows."""
    shape, extra = SHAPES[name]
    built = build_model(
        shape, vocab_size or len(tokenizer()), hidden_size=64, num_layers=2, num_heads=4, max_seq_len=128, seed=seed,
        **extra,
    )  # fmt: skip
    shake(built, seed=seed)
    return built.eval()


def shake(module: torch.nn.Module, *, seed: int, only: str = "") -> None:
    """Random weights for the parameters whose name holds `only`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if only in name and parameter.dtype == torch.float32:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.11 * noise)


def save(folder: Path, name: str = "llama-gqa", template: str = "chatml") -> Path:
    save_model(folder, model(name), tokenizer(template), template_named(template))
    return folder


def training(method: str, **values: object) -> Training:
    return Dpo(method=method, lora=Lora(rank=4, alpha=8), **values)


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)
