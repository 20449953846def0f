"""Guarantee j: a reward that pays for the wrong thing makes policy training stop itself, with the rule by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
from tiny_stages import COMMON, LORA, RULES, log_of, run_stage

from xinglin.config import Decoding, Grpo, Policy, Ppo, Sft
from xinglin.rollout import generator
from xinglin.rollout.local import LocalGenerator

FIELDS: dict[str, Any] = {**COMMON, "method": "lora", "schedule": "constant", "lr": 2e-2, "kl": 0.0}
FIELDS |= {"lora": LORA.model_copy(update={"rank": 8, "alpha": 32}), "micro_batch_tokens": 2048}
FIELDS |= {"iterations": 12, "prompts": 4, "num_answers": 16, "batch_size": 64, "decoding": Decoding(max_new_tokens=40)}
LOOSE: dict[str, Any] = {"max_kl": 1e9, "min_entropy": 0, "max_ratio": 1e9, "max_length_growth": 1e9}
LOOSE |= {"max_length_correlation": 1}
BY_LENGTH = ("is over max_length_growth", "while answers grow, over max_length_correlation")


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory, data: Path, model: Path) -> Path:
    """A model that has learned to end its answers, after 16 tokens or so."""
    values = {**COMMON, "eval_every": 100, "save_every": 100}
    config = Sft(general_share=0, max_steps=10, epochs=10, **values)
    return run_stage("sft", tmp_path_factory.mktemp("sft"), data, model, config).dir / "model"


def stopped_by(out: Path, data: Path, model: Path, config: Policy, rule: str = "length") -> str:
    """The rule that stopped the stage; it says so in its log and leaves a model that answers."""
    kind = "ppo" if isinstance(config, Ppo) else "grpo"
    manifest = run_stage(kind, out, data, model, config, rule=rule).manifest()
    log = log_of(out)
    assert manifest["stopped_by"] and log[-1]["stopped"] == manifest["stopped_by"]
    assert [line["iteration"] for line in log] == list(range(len(log)))
    assert manifest["iterations"] < log[-1]["iteration"] < config.iterations
    assert log[-1]["score"] > log[0]["score"]  # by the reward's own word all went well
    served, four = LocalGenerator.load(out / "model"), generator.Decoding(max_new_tokens=4)
    assert served.generate([tiny_models.user("头痛?")], four, seed=0)[0][0].decoding["tokens"] > 0
    return str(manifest["stopped_by"])


@pytest.mark.parametrize("kind", [Ppo, Grpo])
def test_a_reward_for_length_is_stopped_by_its_length(
    tmp_path: Path, data: Path, sft: Path, kind: type[Policy]
) -> None:
    """Twice as long is enough, at the default limits of length; KL is left out."""
    said = stopped_by(tmp_path, data, sft, kind(**FIELDS, max_kl=1e9))
    assert any(name in said for name in BY_LENGTH), said
    log = log_of(tmp_path)
    assert log[-1]["length"] > 1.3 * log[0]["length"]


def test_a_reward_that_goes_with_length(tmp_path: Path, data: Path, sft: Path) -> None:
    """Growth allowed, the reward is seen to be the length."""
    config = Grpo(**{**FIELDS, **LOOSE, "lr": 3e-3, "max_length_correlation": 0.8})
    said = stopped_by(tmp_path, data, sft, config)
    assert said.startswith("score and length correlate at 0.") and BY_LENGTH[1] in said


def test_a_policy_far_from_its_reference(tmp_path: Path, data: Path, sft: Path) -> None:
    said = stopped_by(tmp_path, data, sft, Grpo(**{**FIELDS, **LOOSE, "max_kl": 50}))
    assert said.startswith("KL per answer ") and said.endswith("is over max_kl 50.0")


def test_a_policy_that_says_one_thing(tmp_path: Path, data: Path, sft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark pays, so that soon nothing else is said."""
    monkeypatch.setitem(RULES, "mark", lambda question, text: float(text.count(",")))
    config = Ppo(**{**FIELDS, **LOOSE, "min_entropy": 2.0, "decoding": Decoding(max_new_tokens=12)})
    said = stopped_by(tmp_path, data, sft, config, "mark")
    assert said.startswith("entropy 1.") and said.endswith("is under min_entropy 2.0")


def test_steps_too_large(tmp_path: Path, data: Path, sft: Path) -> None:
    """Many passes over the same answers leave the policy that gave them."""
    values = {**FIELDS, **LOOSE, "lr": 1e-2, "inner_epochs": 4, "max_ratio": 1.02}
    said = run_stage("grpo", tmp_path, data, sft, Grpo(**values), rule="length").manifest()["stopped_by"]
    assert said.startswith("typical ratio 1.") and said.endswith("is over max_ratio 1.02")


def test_a_healthy_run_is_left_alone(tmp_path: Path, data: Path, sft: Path) -> None:
    """Default limits, a modest rate, a reward that length does not buy."""
    values = {**FIELDS, "lr": 1e-3, "iterations": 4}
    stage = run_stage("grpo", tmp_path, data, sft, Grpo(**values), rule="brevity")
    assert stage.manifest()["stopped_by"] is None and stage.manifest()["iterations"] == 4


@pytest.fixture(autouse=True)
def _brevity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "brevity", lambda question, text: -abs(len(text) - 8.0))
