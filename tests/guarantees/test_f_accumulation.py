"""Guarantee f: one batch of eight is eight batches of one, and four of one on each of two ranks. Losses are summed,
targets counted over all ranks, divided once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from rank_runs import on_ranks
from safetensors.torch import load_file, save_file
from tiny_stages import run_stage

from xinglin.config import Dpo, Reward, Sft, Training
from xinglin.data.batches import encode_conversations
from xinglin.models.packing import Batch, Group, pack
from xinglin.models.template import template_named
from xinglin.models.trainable import Trainable, load_trainable
from xinglin.objectives.causal import Loss, causal_lm
from xinglin.records import Conversation, Message
from xinglin.run import Stage, write_text
from xinglin.train import ranks
from xinglin.train.engine import Engine

LENGTHS = (1, 60, 2, 40, 3, 30, 1, 20)  # characters of eight answers
PLAIN = {"lr": 1e-4, "warmup": 0.0, "schedule": "constant", "precision": "fp32", "clip": 1e9}


def rows() -> list[Group]:
    texts = ["头痛三天,没有发热,血压150/90,建议休息,多喝水。感冒怎么办?" * 3] * 8
    records = [
        Conversation(str(n), (Message("user", f"{n}?"), Message("assistant", text[n : n + length])))
        for n, (text, length) in enumerate(zip(texts, LENGTHS, strict=True))
    ]
    options: tuple[Any, ...] = (tiny_models.tokenizer(), template_named("chatml"), 128, "error", Counter())
    return encode_conversations(records, *options)


def one_step(folder: Path, parent: Path, batches: list[Batch]) -> tuple[Trainable, dict[str, float]]:
    model = load_trainable(parent, Training(**PLAIN))
    engine = Engine(model.module, Training(**PLAIN), Stage(folder, "f", quiet=True), num_steps=1)

    def loss_fn(batch: Batch) -> Loss:
        return causal_lm(model.logprobs(batch))

    return model, engine.step(batches, loss_fn)


def gradient(model: Trainable) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.module.parameters() if p.grad is not None])


def test_one_by_eight_is_eight_by_one(tmp_path: Path, model: Path) -> None:
    whole, first = one_step(tmp_path, model, [pack(rows())])
    parts, second = one_step(tmp_path, model, [pack([row]) for row in rows()])
    assert first["count"] == second["count"] == sum(int(row.learned[0].sum()) for row in rows())
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-6)
    assert torch.allclose(gradient(whole), gradient(parts), atol=1e-6)
    for (name, a), b in zip(whole.module.named_parameters(), parts.module.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def _one_step_on_a_rank(folder: Path, parent: Path) -> None:
    with ranks.joined():
        model, metrics = one_step(ranks.own(folder), parent, [pack([row]) for row in rows()])
        grads = ranks.gather({name: p.grad for name, p in model.module.named_parameters() if p.grad is not None})
        if ranks.is_main():
            save_file(grads, folder / "gradient.safetensors")
            write_text(folder / "metrics.json", json.dumps(metrics))


def test_one_by_eight_is_two_ranks_by_four(tmp_path: Path, model: Path) -> None:
    """The rank with the long answers has many times the other's targets."""
    whole, first = one_step(tmp_path, model, [pack(rows())])
    assert on_ranks(2, _one_step_on_a_rank, tmp_path, model) == [0, 0]
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8")) == pytest.approx(first, rel=1e-5)
    found = load_file(tmp_path / "gradient.safetensors")
    expected = {name: p.grad for name, p in whole.module.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-6), name


def test_a_mean_of_means_would_have_been_another_gradient(tmp_path: Path, model: Path) -> None:
    """What the engine must not do: the mean over micro-batches of each one's mean."""
    ours, _ = one_step(tmp_path, model, [pack([row]) for row in rows()])
    wrong = load_trainable(model, Training(**PLAIN))
    for row in rows():
        loss_sum, count, _ = causal_lm(wrong.logprobs(pack([row])))
        (loss_sum / count / len(LENGTHS)).backward()
    cosine = torch.nn.functional.cosine_similarity(gradient(ours), gradient(wrong), dim=0)
    relative = (gradient(ours) - gradient(wrong)).norm() / gradient(ours).norm()
    assert cosine < 0.9 and relative > 0.5


@pytest.mark.parametrize(
    "kind, config",
    [
        ("sft", Sft(general_share=0, max_steps=2, batch_size=8, **PLAIN)),
        ("reward", Reward(max_steps=2, batch_size=8, **PLAIN)),
        ("reward", Reward(max_steps=2, batch_size=8, loss="listwise", **PLAIN)),
        ("dpo", Dpo(max_steps=2, batch_size=8, pairs="all", sft_weight=1.0, **PLAIN)),
    ],
    ids=["sft", "reward-pairwise", "reward-listwise", "dpo-with-likelihood"],
)
def test_a_stage_does_not_depend_on_its_micro_batches(
    tmp_path: Path, data: Path, model: Path, kind: str, config: Training
) -> None:
    """`micro_batch_tokens` of 1 packs every row alone, 100 000 all of them together."""
    found = {}
    for tokens in (1, 100_000):
        small = config.model_copy(update={"micro_batch_tokens": tokens, "max_seq_len": 128, "keep_best": False})
        stage = run_stage(kind, tmp_path / str(tokens), data, model, small)
        found[tokens] = stage.dir / "model/model.safetensors"
    a, b = (tensors_of(path) for path in found.values())
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.allclose(value, b[name], atol=2e-6), (name, float((value - b[name]).abs().max()))


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
