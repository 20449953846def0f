"""Model folders that do not hold what they should: everything is named, nothing is loaded in part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import model, save
from torch import Tensor

from xinglin.config import Lora
from xinglin.models.adapters import (
    Critic,
    load_critic,
    new_head,
    read_adapter,
    save_adapter,
    save_critic,
    with_new_adapter,
)
from xinglin.models.load import describe, load_base
from xinglin.records import InputError

Change = Callable[[dict[str, Tensor]], object]
QUERY = "model.layers.0.self_attn.q_proj.weight"


def change(path: Path, how: Change) -> None:
    tensors = load_file(path)
    how(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def put_nan(name: str) -> Change:
    return lambda tensors: tensors[name].view(-1)[5:6].fill_(float("nan"))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda t: t.pop(QUERY), f"1 missing ({QUERY})"),
        (lambda t: t.update({"model.extra": torch.ones(2)}), "1 not known (model.extra)"),
        (lambda t: t.update({QUERY: torch.ones(3, 5)}), f"1 of another shape ({QUERY} is (3, 5), not (64, 64))"),
        (put_nan(QUERY), f"1 weights hold NaN or infinity ({QUERY})"),
        (lambda t: [put_nan(name)(t) for name in t], "..."),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, how: Change, told: str) -> None:
    folder = save(tmp_path / "base")
    change(folder / "model.safetensors", how)
    with pytest.raises(InputError) as refused:
        load_base(folder, nf4=False)
    assert told in str(refused.value) and "\n" not in str(refused.value)
    assert str(refused.value).count("model.layers") <= 10


def test_another_vocabulary_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] += 7
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="of another shape .*embed_tokens.weight is .*, not .*"):
        load_base(folder, nf4=False)


def test_a_rotary_table_of_older_files_is_no_damage(tmp_path: Path) -> None:
    folder = save(tmp_path / "base")
    change(
        folder / "model.safetensors",
        lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}),
    )
    load_base(folder, nf4=False)


def test_a_reward_model_is_no_language_model(tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    save_critic(tmp_path / "critic", Critic(model(), None, new_head(64, torch.zeros(1))), base, False)
    load_critic(tmp_path / "critic")
    with pytest.raises(InputError, match="missing .*lm_head|not known .*score"):
        load_base(tmp_path / "critic", nf4=False)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    base = save(tmp_path / "base")
    save_adapter(
        tmp_path / "adapter", with_new_adapter(model(), "policy", Lora(rank=4), seed=0), "policy", base, False, None
    )
    return tmp_path / "adapter"


LORA_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda t: t.pop(LORA_A), f"1 missing ({LORA_A})"),
        (
            lambda t: t.update({LORA_A.replace("0", "9"): torch.ones(4, 64)}),
            "1 not known (base_model.model.model.layers.9",
        ),
        (put_nan(LORA_A), "1 weights hold NaN or infinity"),
    ],
)
def test_an_adapter_that_does_not_fit_is_named(adapter: Path, how: Change, told: str) -> None:
    change(adapter / "adapter_model.safetensors", how)
    with pytest.raises(InputError) as refused:
        read_adapter(load_base(describe(adapter).base, nf4=False), adapter, "policy")
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_an_adapter_of_another_base_is_refused(adapter: Path) -> None:
    """The same shapes and names, other weights."""
    describe(adapter)
    change(adapter.parent / "base/model.safetensors", lambda t: t[QUERY].add_(0.01))
    with pytest.raises(InputError, match="was trained on another base than .*hash differs"):
        describe(adapter)
