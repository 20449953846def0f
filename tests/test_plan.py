"""The dry run's numbers: by hand, against transformers on the meta device, and against peft."""

from __future__ import annotations

import peft
import pytest
import tiny_models
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from xinglin.config import FullShape, Lora, Sft
from xinglin.plan import print_plan
from xinglin.plan.paper import lora_parameters, memory, parameters
from xinglin.recipe import load_recipe, recipe_names

LLAMA_7B = FullShape(hidden_size=4096, num_layers=32, num_heads=32, intermediate_size=11008, vocab_size=32000)
GROUPED = FullShape(
    hidden_size=1024, num_layers=3, num_heads=16, num_kv_heads=4, intermediate_size=2816, vocab_size=5000
)


def test_llama_7b_by_hand() -> None:
    linear, rest = parameters(LLAMA_7B)
    assert linear == 32 * (4 * 4096**2 + 3 * 4096 * 11008) == 6_476_005_376
    assert rest == 2 * 4096 * 32000 == 262_144_000
    # arXiv:2302.13971 says 6.7 B
    assert round((linear + rest) / 1e9, 1) == 6.7


@pytest.mark.parametrize(
    ("shape", "config_class", "model_class"),
    [(LLAMA_7B, LlamaConfig, LlamaForCausalLM), (GROUPED, Qwen2Config, Qwen2ForCausalLM)],
)
def test_as_transformers_counts(shape: FullShape, config_class: type, model_class: type) -> None:
    config = config_class(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads or shape.num_heads,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = model_class(config)
    whole = sum(p.numel() for p in model.parameters())
    vectors = sum(p.numel() for p in model.parameters() if p.ndim == 1)  # norms and biases: left out, under 0.1 %
    assert sum(parameters(shape)) == whole - vectors and vectors < 1e-3 * whole


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), Lora().targets, ("gate_proj", "down_proj", "o_proj")])
def test_lora_as_peft_counts(targets: tuple[str, ...]) -> None:
    model = tiny_models.model("llama-gqa")
    config = model.config
    shape = FullShape(
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
    )
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=6, target_modules=list(targets), task_type="CAUSAL_LM"))
    assert lora_parameters(shape, 6, targets) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_memory_by_hand() -> None:
    lora = Lora(rank=8, targets=("q_proj", "v_proj"))
    config = Sft(general_share=0, method="qlora", lora=lora, max_seq_len=512, micro_batch_tokens=1024)
    found = memory(LLAMA_7B, config)
    # NF4: 4 bits, 8-bit scales of 64 weights, fp32 scales of 256 of those = 4.127 bits; embedding and head in bf16
    bits = 4 + 8 / 64 + 32 / (64 * 256)
    assert found["weights"] == pytest.approx((6_476_005_376 * bits / 8 + 262_144_000 * 2) / 1e9, rel=1e-3)
    assert found["training"] == pytest.approx(32 * 8 * 4 * 4096 * 16 / 1e9)
    assert found["activations"] == pytest.approx(1024 * 32 * (6 * 4096 + 2 * 11008) * 2 / 1e9)
    assert found["total"] == pytest.approx(found["weights"] + found["training"] + found["activations"])
    full = memory(LLAMA_7B, config.model_copy(update={"method": "full"}))
    assert full["weights"] == 0 and full["training"] == pytest.approx(6_738_149_376 * 16 / 1e9)


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("scale", ["full", "tiny"])
def test_every_recipe_has_a_plan(name: str, scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "quickstart" and scale == "tiny":
        pytest.skip("quickstart is tiny as it stands")
    recipe = load_recipe(name, scale=scale)
    print_plan(recipe, "ward")
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in recipe.stages) and recipe.base.name in shown
    for size in ("33B", "13B", "14B"):  # what the name says, the shape gives
        if scale == "full" and size in recipe.base.name and recipe.base.full_shape:
            assert float(size[:2]) == pytest.approx(sum(parameters(recipe.base.full_shape)) / 1e9, rel=0.1)
