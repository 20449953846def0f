"""Guarantee i: before the first step DPO's margin is 0 and its loss ln 2, PPO's ratio is 1 and its KL 0."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save, shake, tokenizer, training, user

from xinglin.data.batches import encode_preferences
from xinglin.models.adapters import active
from xinglin.models.packing import Group, pack
from xinglin.models.template import TEMPLATES
from xinglin.models.trainable import Trainable, load_trainable
from xinglin.objectives.policy import kl_estimate, ppo_clip, sum_by_rollout
from xinglin.objectives.preference import dpo
from xinglin.records import Answer, Preference
from xinglin.rollout.generator import Decoding
from xinglin.rollout.local import LocalGenerator
from xinglin.rollout.weights import read_weights

STARTS = ["full", "lora", "qlora", "lora on an adapter", "qlora on an adapter"]


def start(folder: Path, how: str) -> Trainable:
    """The policy and its reference as a stage would load them."""
    parent = save(folder / "base")
    method = how.split()[0]
    if "adapter" in how:
        sft = load_trainable(parent, training(method))
        shake(sft.module, seed=3, only=".policy.")
        parent = folder / "sft"
        sft.save(parent)
    made = load_trainable(parent, training(method), reference=True)
    made.freeze_reference()
    return made


@pytest.mark.parametrize("how", STARTS)
def test_dpo(tmp_path: Path, how: str) -> None:
    made = start(tmp_path, how)
    records = [
        Preference("a", user("头痛怎么办"), (Answer("多喝水,注意休息"), Answer("不知道")), (1, 2)),
        Preference("b", user("感冒"), (Answer("请就医"), Answer("没事"), Answer("别管")), (1, 2, 2)),
    ]
    batch = pack(encode_preferences(records, tokenizer(), TEMPLATES["chatml"], 128, "error", Counter()))
    total = sum_by_rollout(made.logprobs(batch), batch.answer, 5)
    ref = sum_by_rollout(made.reference_logprobs(batch), batch.answer, 5)
    loss_sum, count, metrics = dpo(total, ref, batch.ranks, batch.groups, 0.1)
    assert count == 2
    assert math.isclose(loss_sum.item() / count, math.log(2), rel_tol=1e-6)
    assert float(metrics["margin"]) == float(metrics["chosen_reward"]) == 0.0
    loss_sum.backward()  # and there is something to learn
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in made.module.parameters())


@pytest.mark.parametrize("how", STARTS)
def test_ppo(tmp_path: Path, how: str) -> None:
    made = start(tmp_path, how)
    made.module.eval()
    if made.adapter:
        with active(made.module, made.adapter):
            weights = read_weights(made.module)
    else:
        weights = read_weights(made.module)
    generator = LocalGenerator("policy", weights, made.tokenizer, made.template)
    prompts = generator.encode([user("头痛怎么办"), user("感冒")])
    sampled = generator.generate_tokens(prompts, Decoding(max_new_tokens=15), seed=0, num_answers=3)
    rows = [
        Group(f"{i}-{j}", prompt, (np.array(ids),), (np.ones(len(ids), bool),))
        for i, (prompt, answers) in enumerate(zip(prompts, sampled, strict=True))
        for j, (ids, _) in enumerate(answers)
    ]
    batch = pack(rows)
    with torch.no_grad():
        old, ref = made.logprobs(batch), made.reference_logprobs(batch)
    sampler = torch.tensor([x for answers in sampled for _, logprobs in answers for x in logprobs])
    torch.testing.assert_close(sampler, old, atol=1e-5, rtol=0)
    made.module.train()
    _, count, metrics = ppo_clip(made.logprobs(batch), old, torch.ones_like(old), 0.2)
    assert count == sum(len(ids) for answers in sampled for ids, _ in answers)
    assert float(metrics["ratio"]) == float(metrics["ratio_max"]) == 1.0
    assert float(metrics["clipped"]) == 0.0
    assert kl_estimate(old, ref).abs().max() == 0.0
    assert torch.equal(old, ref)
