"""Guarantee h: reward heads, adapters and merges are reloaded and say what they said before they were saved."""

from collections import Counter
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from tiny_models import save, shake, tokenizer, training, user
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from xinglin.data.batches import encode_preferences
from xinglin.models.adapters import Critic, new_head, save_critic
from xinglin.models.load import save_tokenizer
from xinglin.models.packing import Batch, pack
from xinglin.models.template import TEMPLATES
from xinglin.models.trainable import Trainable, load_trainable
from xinglin.records import Answer, Preference
from xinglin.rollout.reward import load_reward, score_groups

ROWS = encode_preferences(
    [
        Preference("a", user("头痛怎么办"), (Answer("多喝水,休息"), Answer("不知道"), Answer("吃药")), (1, 2, 3)),
        Preference("b", user("感冒"), (Answer("请就医"), Answer("没事")), (1, 2)),
    ],
    tokenizer(), TEMPLATES["chatml"], 128, "error", Counter(),
)  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tmp_path / "base")


@pytest.fixture
def batch() -> Batch:
    return pack(ROWS)


def trained(parent: Path, method: str, seed: int = 3) -> Trainable:
    made = load_trainable(parent, training(method))
    shake(made.module, seed=seed, only="" if method == "full" else ".policy.")
    made.module.eval()
    return made


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_reward_head(base: Path, tmp_path: Path, method: str) -> None:
    made = trained(base, method)
    head = new_head(64, torch.zeros(1))
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    critic = Critic(made.module, made.adapter, head)
    expected = score_groups(critic, ROWS)
    folder = tmp_path / "reward"
    save_critic(folder, critic, made.base, made.nf4)
    save_tokenizer(folder, made.tokenizer, made.template)
    for found, scores in zip(load_reward(folder).score(ROWS), expected, strict=True):
        np.testing.assert_allclose(found, scores, atol=1e-5)
    if method == "qlora":
        return  # transformers would need the quantisation spelled out; ours reads it from xinglin.json
    plain = AutoModelForSequenceClassification.from_pretrained(
        folder if method == "full" else base, num_labels=1, local_files_only=True
    )
    if method == "lora":
        plain = peft.PeftModel.from_pretrained(plain, str(folder))
    for row, scores in zip(ROWS, expected, strict=True):
        for answer, value in zip(row.answers, scores, strict=True):
            ids = torch.from_numpy(np.concatenate([row.prompt, answer]))[None]
            assert abs(plain.eval()(ids).logits.item() - value) < 1e-5


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapter(base: Path, tmp_path: Path, batch: Batch, method: str) -> None:
    made = trained(base, method)
    made.save(tmp_path / "adapter")
    again = load_trainable(tmp_path / "adapter", training(method))
    assert torch.equal(again.logprobs(batch), made.logprobs(batch))
    for (name, a), (_, b) in zip(made.module.named_parameters(), again.module.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_merge(base: Path, tmp_path: Path, batch: Batch) -> None:
    """An adapter merged into its base, saved whole, read by transformers alone."""
    made = trained(base, "lora")
    made.save(tmp_path / "adapter")
    merged = load_trainable(tmp_path / "adapter", training("full"))
    merged.save(tmp_path / "merged")
    expected = made.logprobs(batch)
    torch.testing.assert_close(merged.logprobs(batch), expected, atol=1e-5, rtol=0)
    again = load_trainable(tmp_path / "merged", training("full"))
    assert torch.equal(again.logprobs(batch), merged.logprobs(batch))
    assert not (tmp_path / "merged/adapter_config.json").exists()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    ids = torch.from_numpy(np.concatenate([ROWS[1].prompt, ROWS[1].answers[0]]))[None]
    torch.testing.assert_close(plain(ids).logits, made.module(ids).logits, atol=1e-5, rtol=0)


def test_an_adapter_on_an_adapter_stays_one_adapter_over_the_first_base(base: Path, tmp_path: Path, batch) -> None:
    trained(base, "lora").save(tmp_path / "sft")
    second = trained(tmp_path / "sft", "lora", seed=8)
    second.save(tmp_path / "dpo")
    plain = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    plain = peft.PeftModel.from_pretrained(plain, str(tmp_path / "dpo"))
    ids = torch.from_numpy(np.concatenate([ROWS[0].prompt, ROWS[0].answers[0]]))[None]
    torch.testing.assert_close(plain(ids).logits, second.module(ids).logits, atol=1e-5, rtol=0)
