"""The paper estimate: operations and rates worked out by hand from the published shapes."""

from __future__ import annotations

import dataclasses

import pytest
from typer.testing import CliRunner

from xinglin.cli import app
from xinglin.config import Base, Dpo, FullShape, Lora, Ppo, Pretrain, Recipe, Sft, StageConfig
from xinglin.plan import duration
from xinglin.plan.paper import memory
from xinglin.plan.roofline import H200, SHARE, decode_rate, forecast_paper, operations_per_token

LLAMA_33B = FullShape(hidden_size=6656, num_layers=60, num_heads=52, intermediate_size=17920, vocab_size=32000)
QWEN_14B = FullShape(hidden_size=5120, num_layers=40, num_heads=40, intermediate_size=13696, vocab_size=152064)


def sft(**values: object) -> Sft:
    return Sft(general_share=0, **{"method": "qlora", "max_seq_len": 1024, "micro_batch_tokens": 1024, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "method", "recompute", "giga"),
    [  # linear 32.099 G, head 0.213 G: 4 N = 129.25; attention 0.818 x 3.5 = 2.86; once more forward: 64.62 + 0.82
        (LLAMA_33B, "qlora", False, 132.1),
        (LLAMA_33B, "qlora", True, 197.6),
        (LLAMA_33B, "full", True, 262.2),
        (QWEN_14B, "lora", False, 55.0),  # linear 12.61 G, head 0.78 G: 53.55 + 0.419 x 3.5
    ],
)
def test_operations_by_hand(shape: FullShape, method: str, recompute: bool, giga: float) -> None:
    found = operations_per_token(shape, sft(method=method), recompute=recompute)
    assert found / 1e9 == pytest.approx(giga, rel=2e-3)


def test_decode_rate_by_hand() -> None:
    """64 rows of 1,024 tokens, 33B in NF4: 17.4 GB of weights and 64 x 1024 x 1.60 MB of keys and values a step."""
    found = decode_rate(LLAMA_33B, sft(), H200, 1024)
    assert found == pytest.approx(64 * 4.3e12 / (17.4e9 + 64 * 1024 * 2 * 2 * 60 * 6656), rel=5e-3)


def plan(shape: FullShape, tokens: dict[str, float], **stages: StageConfig) -> Recipe:
    return Recipe(name="demo", base=Base(full_shape=shape), tokens=tokens, stages=stages)


def test_time_by_hand() -> None:
    config = sft(epochs=3)
    (found,) = forecast_paper(plan(LLAMA_33B, {"sft": 1e8}, sft=config), H200)
    assert found.tokens == 3e8
    assert found.seconds == pytest.approx(3e8 * 132.1e9 / (SHARE * 790e12), rel=2e-3)
    assert found.gigabytes == pytest.approx(memory(LLAMA_33B, config)["total"]) and not found.note


def test_dpo_pays_for_its_reference_and_ppo_for_its_answers() -> None:
    dpo = Dpo(method="qlora", max_seq_len=1024, micro_batch_tokens=1024)
    ppo = Ppo(method="qlora", max_seq_len=1024, micro_batch_tokens=1024, iterations=10, prompts=8, num_answers=4)
    tokens = {"dpo": 10 * 8 * 4 * 128.0}
    one, other = forecast_paper(plan(LLAMA_33B, tokens, dpo=dpo, ppo=ppo), H200)
    assert one.tokens == other.tokens == 40_960
    training = 40_960 * 132.1e9 / (SHARE * 790e12) * 4 / 3
    assert one.seconds == pytest.approx(training, rel=2e-3)
    assert other.seconds == pytest.approx(training + 40_960 / decode_rate(LLAMA_33B, ppo, H200, 576), rel=2e-3)


def test_what_would_make_it_fit() -> None:
    recipe = plan(LLAMA_33B, {}, pretrain=Pretrain(method="full", max_seq_len=1024, micro_batch_tokens=1024))
    small = dataclasses.replace(H200, gigabytes=24.0)
    tiny = dataclasses.replace(H200, gigabytes=12.0)
    says = [forecast_paper(recipe, device)[0].note for device in (H200, small, tiny)]
    assert "does not fit; method: lora would" in says[0]  # 65 GB of bf16 weights
    assert "does not fit; method: qlora would" in says[1]  # 17.4 GB of NF4, 2 of adapters, 1.1 of layer inputs
    assert "such GPUs would share it" in says[2]
    assert "tokens unknown" in says[0]


def test_activations_are_recomputed_where_they_do_not_fit() -> None:
    config = sft(max_seq_len=4096, micro_batch_tokens=4096, lora=Lora())
    (whole,) = forecast_paper(plan(LLAMA_33B, {"sft": 1e6}, sft=config), H200)
    (cut,) = forecast_paper(plan(LLAMA_33B, {"sft": 1e6}, sft=config), dataclasses.replace(H200, gigabytes=40.0))
    assert whole.gigabytes == pytest.approx(57, abs=2) and not whole.note  # performance.md: 57 GB without, 24 GB with
    assert cut.gigabytes == pytest.approx(24, abs=1) and cut.note == "activations recomputed"
    assert whole.seconds is not None and cut.seconds is not None and 1.4 < cut.seconds / whole.seconds < 1.6


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(None, "-"), (1.25, "1.2 s"), (119.0, "119.0 s"), (150.0, "2.5 min"), (9000.0, "2.5 h"), (216_000.0, "2.5 days")],
)
def test_durations(seconds: float | None, says: str) -> None:
    assert duration(seconds) == says


def test_the_command_says_that_it_is_paper() -> None:
    found = CliRunner().invoke(app, ["doctor", "--plan", "chimed-gpt"])
    assert found.exit_code == 0, found.output
    assert "a paper estimate, not measured" in found.stdout and "NO   does not fit; method: lora would" in found.stdout


def test_a_recipe_without_a_shape_is_one_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bare.yaml"
    path.write_text("name: bare\nstages:\n  sft: {general_share: 0}\n", "utf-8")
    found = CliRunner().invoke(app, ["doctor", "--plan", str(path)])
    assert "no base.path, base.tiny or base.full_shape to plan with" in str(found.exception)
