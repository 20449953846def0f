"""PPO and GRPO on a toy reward, their health rules by hand, what they hold in memory and what they give back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from tiny_stages import COMMON, CONFIGS, LORA, POLICY, RULES, log_of, run_stage, weights

from xinglin.config import Decoding, Grpo, Policy, Ppo, Reward
from xinglin.models import adapters, trainable
from xinglin.models.load import describe
from xinglin.models.packing import Batch
from xinglin.records import InputError, Question
from xinglin.run import Stage
from xinglin.train import policy
from xinglin.train.policy import adapted_kl, broken_rule, ppo
from xinglin.train.rollouts import Sampler, State

WIDE = LORA.model_copy(update={"rank": 8, "alpha": 32})
TOY: dict[str, Any] = {**COMMON, **POLICY, "lr": 2e-2, "schedule": "constant", "lora": WIDE, "kl": 0.0}
TOY |= {"iterations": 7, "num_answers": 16, "batch_size": 64, "inner_epochs": 1}


@pytest.fixture(autouse=True)
def _a_mark_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "mark", lambda question, text: float(any(mark in text for mark in ",。?")))


def changed(kind: str, **values: object) -> Any:
    return CONFIGS[kind].model_copy(update=values)


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_the_score_rises(tmp_path: Path, data: Path, model: Path, kind: str, method: str) -> None:
    values = {**TOY, "method": method, **({"lr": 5e-3} if method == "full" else {})}
    config = Ppo(value_warmup=0, **values) if kind == "ppo" else Grpo(**values)
    stage = run_stage(kind, tmp_path, data, model, config, rule="mark")
    log = log_of(tmp_path)
    assert [line["iteration"] for line in log] == list(range(7))
    assert log[0]["score"] < 0.3 and max(line["score"] for line in log) > 0.7
    assert stage.manifest()["stopped_by"] is None and stage.manifest()["iterations"] == 7
    # one step an iteration: the policy that steps is the one that answered, dropout or not
    assert all(line["ratio"] == line["ratio_max"] == 1 and line["clipped"] == 0 for line in log)
    assert log[0]["kl"] == 0 and log[-1]["kl"] > 1
    assert all(line["sampler_gap"] <= 1e-5 for line in log)


def test_value_alone_leaves_the_policy_untouched(tmp_path: Path, data: Path, model: Path) -> None:
    config = changed("ppo", value_warmup=3, weight_decay=0.1)
    run_stage("ppo", tmp_path / "rests", data, model, config)
    log = log_of(tmp_path / "rests")
    assert all(line["kl"] == 0 and "ratio" not in line and line["loss"] > 0 for line in log if line["score"])
    tensors = adapters.load_file(tmp_path / "rests/model/adapter_model.safetensors")
    assert all(not value.any() for name, value in tensors.items() if "lora_B" in name)
    run_stage("ppo", tmp_path / "learns", data, model, changed("ppo", value_warmup=2))
    assert weights(tmp_path / "learns") != weights(tmp_path / "rests")


def test_every_answer_is_taken_once_an_epoch(
    tmp_path: Path, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 prompts x 3 answers by 4, twice: parts of 3 + 3 + 3, no answer twice in one step."""
    taken: list[list[str]] = []

    def packed(rows: Any, size: int) -> list[Batch]:
        taken.append([row.id for row in rows])
        return micro_batches(rows, size)

    micro_batches = policy.micro_batches
    monkeypatch.setattr(policy, "micro_batches", packed)
    run_stage("grpo", tmp_path, data, model, changed("grpo", prompts=3, num_answers=3, iterations=1))
    everything = [f"{i}-{j}" for i in range(3) for j in range(3)]
    assert [len(part) for part in taken] == [3] * 6
    assert sorted(sum(taken[:3], [])) == sorted(sum(taken[3:], [])) == everything


def test_too_few_questions(tmp_path: Path, data: Path, model: Path) -> None:
    with pytest.raises(InputError, match="train.jsonl: 6 questions, but prompts is 32; lower it"):
        run_stage("ppo", tmp_path, data, model, changed("ppo", prompts=32))


# --- what is held in memory ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, data: Path, model: Path) -> tuple[Path, Path]:
    """An SFT adapter and a reward model on its backbone, as in IvyGPT."""
    folder = tmp_path_factory.mktemp("start")
    run_stage("sft", folder / "sft", data, model)
    config = Reward(method="lora", lora=LORA, epochs=0.25, **COMMON)
    run_stage("reward", folder / "reward", data, folder / "sft/model", config)
    return folder / "sft/model", folder / "reward/model"


def loaded(config: Ppo, parent: Path, reward: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Sampler]:
    """The models of a PPO stage before its first iteration: (what trains, the sampler)."""
    seen: list[Any] = []
    monkeypatch.setattr(policy, "_run", lambda *args: seen.append(args) or {})
    ppo(config, Stage(data / "unused", "ppo"), parent, reward, data / "questions/train.jsonl")
    return seen[0][3], seen[0][4]


def critic_of(sampler: Sampler) -> adapters.Critic:
    """The reward model inside the reward function."""
    cells = [cell.cell_contents for cell in sampler.reward.__closure__ or ()]  # type: ignore[attr-defined]
    return next(cell for cell in cells if isinstance(cell, adapters.Critic))


def num_weights(*modules: torch.nn.Module) -> int:
    """Weights in memory: each tensor once, however many modules hold it."""
    found = {parameter.data_ptr(): parameter.numel() for module in modules for parameter in module.parameters()}
    return sum(found.values())


def adapter_size(folder: Path) -> int:
    tensors = adapters.load_file(folder / "adapter_model.safetensors")
    return sum(tensor.numel() for name, tensor in tensors.items() if "lora_" in name)


def test_four_models_share_one_base(
    start: tuple[Path, Path], data: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    sft, reward = start
    loads: list[Path] = []

    def counted(folder: Path, **options: Any) -> Any:
        loads.append(folder)
        return load_base(folder, **options)

    load_base = trainable.load_base
    monkeypatch.setattr(trainable, "load_base", counted)
    monkeypatch.setattr(adapters, "load_base", counted)
    trained, sampler = loaded(changed("ppo", lora=WIDE), sft, reward, data, monkeypatch)
    assert loads == [describe(sft).base]
    critic, value = critic_of(sampler), sampler.value
    assert value is not None and critic.model is value.model is sampler.model.module
    base = num_weights(tiny_models.model())
    # policy and reference are the SFT adapter twice, the value model an adapter of rank 8 where the others have 4
    expected = base + 2 * adapter_size(sft) + adapter_size(reward) + 2 * adapter_size(sft) + 2 * 64
    assert num_weights(sampler.model.module, critic, value, trained) == expected
    training = {name for name, parameter in trained.named_parameters() if parameter.requires_grad}
    assert all(".policy." in name or ".value." in name or name == "value_head.weight" for name in training)
    size = sum(dict(trained.named_parameters())[name].numel() for name in training)
    assert size == adapter_size(sft) + 2 * adapter_size(sft) + 64


def test_a_reward_model_over_nf4_keeps_its_own_base(
    start: tuple[Path, Path], data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a float base it would score what it never saw in training."""
    config = Reward(method="qlora", lora=LORA, epochs=0.25, **COMMON)
    run_stage("reward", tmp_path, data, model, config)
    _, sampler = loaded(changed("ppo"), start[0], tmp_path / "model", data, monkeypatch)
    assert critic_of(sampler).model is not sampler.model.module


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_the_shared_reward_model_scores_as_it_does_alone(
    start: tuple[Path, Path], data: Path, tmp_path: Path, kind: str
) -> None:
    sft, reward = start
    stage = Stage(tmp_path, kind, quiet=True)
    function: Any = ppo if kind == "ppo" else policy.grpo
    facts = function(changed(kind, method="lora"), stage, sft, reward, data / "questions/train.jsonl")
    assert facts == {"stopped_by": None, "iterations": 3} and len(log_of(tmp_path)) == 3
    assert describe(tmp_path / "model").is_adapter and adapter_size(tmp_path / "model") == adapter_size(sft)


def test_the_shared_and_the_single_reward_model_agree(
    start: tuple[Path, Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xinglin.rollout.reward import load_reward
    from xinglin.rollout.sample import read_records

    sft, reward = start
    _, sampler = loaded(changed("ppo"), sft, reward, data, monkeypatch)
    items = list(read_records(data / "questions/train.jsonl", Question))[:3]
    groups, texts, _, _ = sampler._sample(items, 0)
    alone = np.stack(load_reward(reward).score(groups))
    np.testing.assert_allclose(sampler.reward(items, groups, texts), alone, atol=1e-5)
    assert alone.shape == (3, 2) and alone.std() > 0


def test_full_training_has_a_frozen_copy_and_a_value_model_of_its_own(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        trained, sampler = loaded(changed("ppo", method="full"), model, RULES["commas"], data, patch)
    assert sampler.model.frozen is not None and sampler.value is not None
    base = num_weights(tiny_models.model())
    assert num_weights(sampler.model.module, sampler.model.frozen, sampler.value) == 3 * base + 64
    assert not any(parameter.requires_grad for parameter in sampler.model.frozen.parameters())
    stage = run_stage("ppo", tmp_path, data, model, changed("ppo", method="full", max_ratio=10.0))
    kl = [line["kl"] for line in log_of(tmp_path)]
    assert kl[:2] == [0, 0] and kl[2] != 0  # the first iteration is the value model's alone
    assert stage.manifest()["stopped_by"] is None and not describe(tmp_path / "model").is_adapter


# --- health rules ----------------------------------------------------------------------------------------------------

HEALTHY = {"score": 0.5, "kl": 3.0, "entropy": 1.0, "ratio": 1.1, "length": 50.0, "score_length_correlation": 0.1}
LIMITS = Policy(max_kl=10, min_entropy=0.1, max_ratio=2, max_length_growth=2, max_length_correlation=0.8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"score": math.nan}, "score is not a number"),
        ({"score": -math.inf}, "score is not a number"),
        ({"kl": 10.0}, None),
        ({"kl": 10.1}, "KL per answer 10.1 is over max_kl 10.0"),
        ({"entropy": 0.1}, None),
        ({"entropy": 0.09}, "entropy 0.090 is under min_entropy 0.1"),
        ({"ratio": 2.0}, None),
        ({"ratio": 2.01}, "typical ratio 2.01 is over max_ratio 2.0"),
        ({"length": 80.0}, None),
        ({"length": 81.0}, "mean length 81 is over max_length_growth 2.0 x 40"),
        ({"score_length_correlation": 0.9, "length": 52.0}, None),  # 1.3 x 40 is not yet growth
        ({"score_length_correlation": 0.8, "length": 53.0}, None),
        (
            {"score_length_correlation": 0.81, "length": 53.0},
            "score and length correlate at 0.81 while answers grow, over max_length_correlation 0.8",
        ),
    ],
)
def test_each_rule(changes: dict[str, float], says: str | None) -> None:
    assert broken_rule(LIMITS, {**HEALTHY, **changes}, 40.0) == says


def test_the_rules_need_no_ratio() -> None:
    """While the value model learns alone there is none."""
    assert broken_rule(LIMITS, {name: value for name, value in HEALTHY.items() if name != "ratio"}, 40.0) is None


def test_a_rule_broken_by_the_answers_gives_back_the_weights_from_before(
    tmp_path: Path, data: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """KL is measured on answers: those of iteration 3 condemn the weights that iteration 2 made."""
    config = changed("grpo", iterations=6, lr=5e-3, schedule="constant")
    run_stage("grpo", tmp_path / "whole", data, model, config)
    kl = [line["kl"] for line in log_of(tmp_path / "whole")]
    assert kl[3] > max(kl[:3])
    short = config.model_copy(update={"iterations": 2})  # a constant rate: the first two iterations are the same
    run_stage("grpo", tmp_path / "short", data, model, short)
    stopping = config.model_copy(update={"max_kl": (kl[3] + max(kl[:3])) / 2})
    stage = run_stage("grpo", tmp_path / "stopped", data, model, stopping)
    manifest = stage.manifest()
    assert manifest["stopped_by"] == f"KL per answer {kl[3]:.1f} is over max_kl {stopping.max_kl}"
    assert manifest["iterations"] == 2 and weights(tmp_path / "stopped") == weights(tmp_path / "short")
    log = log_of(tmp_path / "stopped")
    assert [line["iteration"] for line in log] == [0, 1, 2, 3] and log[-1]["stopped"] == manifest["stopped_by"]
    assert log[:3] == log_of(tmp_path / "whole")[:3]
    assert "grpo: stopped by a health rule: KL per answer" in capfd.readouterr().err


def test_a_rule_broken_by_the_steps_gives_back_the_weights_from_before(
    tmp_path: Path, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ratio of iteration 1 condemns what its own steps made."""
    config = changed("grpo", iterations=3, schedule="constant")
    run_stage("grpo", tmp_path / "short", data, model, config.model_copy(update={"iterations": 1}))
    take = policy._steps

    def wild(*args: Any) -> dict[str, float]:
        metrics = take(*args)
        return {**metrics, "ratio": 9.0} if args[6] == 1 else metrics

    monkeypatch.setattr(policy, "_steps", wild)
    stage = run_stage("grpo", tmp_path / "stopped", data, model, config)
    assert [line["iteration"] for line in log_of(tmp_path / "stopped")] == [0, 1]
    assert stage.manifest()["stopped_by"] == "typical ratio 9.00 is over max_ratio 2.0"
    assert stage.manifest()["iterations"] == 1
    assert weights(tmp_path / "stopped") == weights(tmp_path / "short")


def test_a_rule_broken_at_once_gives_back_the_model_it_started_from(tmp_path: Path, data: Path, model: Path) -> None:
    stage = run_stage("grpo", tmp_path, data, model, changed("grpo", min_entropy=100.0))
    assert stage.manifest()["stopped_by"].startswith("entropy ") and stage.manifest()["iterations"] == 0
    before = adapters.load_file(model / "model.safetensors")
    after = adapters.load_file(tmp_path / "model/model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


# --- numbers between iterations --------------------------------------------------------------------------------------


def test_scores_are_normalised_over_all_iterations() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, 5), rng.normal(-1, 0.5, 17), rng.normal(10, 7, 1), np.full(4, 2.5)]
    state = State(kl_weight=0.1)
    for number, scores in enumerate(batches, 1):
        seen = np.concatenate(batches[:number])
        np.testing.assert_allclose(state.normalise(scores), (scores - seen.mean()) / seen.std(), rtol=1e-6)
        assert state.score_mean == pytest.approx(seen.mean()) and state.score_var == pytest.approx(seen.var())
        assert state.num_scores == len(seen)
    assert (State(kl_weight=0.1).normalise(np.full(4, 2.5)) == 0).all()


def test_state_survives_json() -> None:
    state = State(kl_weight=0.1, first_length=7.0)
    state.normalise(np.array([0.1, 0.7], np.float32))
    facts = {name: getattr(state, name) for name in State.__slots__}
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(6.0, 0.2), (6.6, 0.2 * 1.01), (5.7, 0.2 * 0.995), (60.0, 0.2 * 1.02), (0.0, 0.2 * 0.98), (-5.0, 0.2 * 0.98)],
)
def test_the_kl_weight_steers_to_its_target(kl: float, expected: float) -> None:
    """arXiv:1909.08593: weight x (1 + 0.1 clip(kl / target - 1, -0.2, 0.2)), target 6."""
    assert adapted_kl(Policy(kl_target=6.0), 0.2, kl) == pytest.approx(expected)
    assert adapted_kl(Policy(), 0.2, kl) == 0.2


def test_the_steered_weight_is_used_and_logged(tmp_path: Path, data: Path, model: Path) -> None:
    run_stage("grpo", tmp_path, data, model, changed("grpo", kl=0.2, kl_target=1e6))
    assert [line["kl_weight"] for line in log_of(tmp_path)] == pytest.approx([0.2, 0.2 * 0.98, 0.2 * 0.98**2])


def test_the_reward_of_a_token() -> None:
    """PPO by hand: one answer of two tokens, gamma = lambda = 1, values 0; the score at the end, the KL of each."""
    config = Ppo(kl=0.5, gamma=1.0, gae_lambda=1.0, decoding=Decoding(max_new_tokens=2))
    rollouts = policy.Rollouts(
        [_row("a"), _row("b")],
        np.array([1.0, -1.0]),
        old_logprobs={"a": torch.tensor([-1.0, -2.0]), "b": torch.tensor([-1.0, -1.0])},
        ref_logprobs={"a": torch.tensor([-1.5, -1.0]), "b": torch.tensor([-1.0, -1.0])},
        values={"a": torch.zeros(2), "b": torch.zeros(2)},
    )
    Sampler(config, None, lambda *args: np.zeros(0), None)._advantages(rollouts, State(kl_weight=0.5))  # type: ignore[arg-type]
    # scores are +1 and -1 after normalisation; KL of a: 0.5 and -1; so rewards -0.25, 1 + 0.5 and 0, -1
    torch.testing.assert_close(rollouts.returns["a"], torch.tensor([1.25, 1.5]), atol=1e-6, rtol=0)
    torch.testing.assert_close(rollouts.returns["b"], torch.tensor([-1.0, -1.0]), atol=1e-6, rtol=0)
    flat = np.array([1.25, 1.5, -1, -1])
    expected = torch.from_numpy((flat - flat.mean()) / flat.std()).float()
    torch.testing.assert_close(
        torch.cat([rollouts.advantages["a"], rollouts.advantages["b"]]), expected, atol=1e-6, rtol=0
    )


def _row(name: str) -> Any:
    from xinglin.models.packing import Group

    return Group(name, np.array([1]), (np.array([2, 3]),), (np.ones(2, bool),))
