"""Pre-training and fine-tuning on a few rows: what is learned, what is mixed, what is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_stages
import torch
from tiny_stages import COMMON, CONFIGS, documents, log_of, run_stage

from xinglin.config import Pretrain, Sft
from xinglin.models.packing import Group
from xinglin.records import Document, InputError, write_records
from xinglin.run import Stage
from xinglin.train.causal import mix, pretrain, sft


def rows(count: int, name: str) -> list[Group]:
    return [Group(f"{name}{i}", np.zeros(0, np.int64), (np.arange(2),), (np.ones(2, bool),)) for i in range(count)]


@pytest.mark.parametrize("kind", ["pretrain", "sft"])
def test_the_loss_falls_on_rows_not_trained_on(tmp_path: Path, data: Path, model: Path, kind: str) -> None:
    stage = run_stage(kind, tmp_path, data, model)
    valid = [line["valid_loss"] for line in log_of(tmp_path) if "valid_loss" in line]
    assert min(valid) < 0.8 * valid[0]
    assert [line["step"] for line in log_of(tmp_path) if "valid_loss" in line] == [0, 3, 6, 9, 12]
    assert stage.complete


def test_the_first_validation_is_the_mean_over_tokens_of_transformers_own_loss(
    tmp_path: Path, data: Path, model: Path
) -> None:
    """The library's forward pass, row by row and unpacked, over prompt and answer written out here."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    run_stage("sft", tmp_path, data, model)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    total = count = 0
    for record in tiny_stages.conversations(6, 24):
        user, answer = (message.content for message in record.messages)
        start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
        ask = [start, *_ids(tokenizer, f"user\n{user}"), end, *_ids(tokenizer, "\n")]
        ask += [start, *_ids(tokenizer, "assistant\n")]
        reply = [*_ids(tokenizer, answer), end]
        labels = torch.tensor([[-100] * len(ask) + reply])
        with torch.no_grad():
            total += float(plain(torch.tensor([ask + reply]), labels=labels).loss) * len(reply)
        count += len(reply)
    assert log_of(tmp_path)[0]["valid_loss"] == pytest.approx(total / count, rel=1e-4)


def _ids(tokenizer: object, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)  # type: ignore[attr-defined]


def test_the_first_loss_of_an_adapter_is_the_parents(tmp_path: Path, data: Path, model: Path) -> None:
    lora = run_stage("sft", tmp_path / "lora", data, model)
    full = run_stage("sft", tmp_path / "full", data, model, Sft(general_share=0.25, **COMMON))
    assert log_of(lora.dir)[0]["valid_loss"] == pytest.approx(log_of(full.dir)[0]["valid_loss"], rel=1e-6)


def test_pretrain_reads_only_the_domain_it_is_told(tmp_path: Path, model: Path) -> None:
    mixed = [
        Document(d.id, d.text, meta={"domain": "general" if i % 3 else "medical"}) for i, d in enumerate(documents(9))
    ]
    write_records(tmp_path / "train.jsonl", mixed)
    for domain, used in (("all", 9), ("medical", 3), ("general", 6)):
        config = Pretrain(domain=domain, max_steps=1, **COMMON)
        counts = pretrain(config, Stage(tmp_path / domain, "p", quiet=True), model, tmp_path / "train.jsonl", None)
        assert counts["documents"] == used and counts.get("documents of another domain", 0) == 9 - used


# --- the mixture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_rows", "num_general", "share", "mixed", "counted"),
    [
        (30, 40, 0.25, (30, 10), {"in the mixture": 10, "repeated": 0, "not drawn": 30}),  # 10 of 40 rows
        (30, 4, 0.25, (30, 10), {"in the mixture": 10, "repeated": 6, "not drawn": 0}),
        (30, 10, 0.5, (30, 30), {"in the mixture": 30, "repeated": 20, "not drawn": 0}),
        (1, 5, 0.25, (1, 0), {"in the mixture": 0, "repeated": 0, "not drawn": 5}),  # a third of a row rounds to none
        (30, 7, 1.0, (0, 7), {"in the mixture": 7, "repeated": 0, "not drawn": 0}),
    ],
)
def test_the_share_is_of_the_whole(
    num_rows: int, num_general: int, share: float, mixed: tuple[int, int], counted: dict[str, int]
) -> None:
    counts: Counter[str] = Counter()
    found = mix(rows(num_rows, "m"), rows(num_general, "g"), share, 0, counts)
    assert (sum(r.id[0] == "m" for r in found), sum(r.id[0] == "g" for r in found)) == mixed
    assert {name: counts[f"general rows {name}"] for name in counted} == counted
    assert counts["rows left out for general ones (general_share 1)"] == (num_rows if share == 1 else 0)


def test_every_general_row_comes_before_one_comes_twice() -> None:
    found = Counter(row.id for row in mix([], rows(4, "g"), 1.0, 0, Counter()))
    assert set(found.values()) == {1}
    found = Counter(row.id for row in mix(rows(30, "m"), rows(4, "g"), 0.25, 0, Counter()) if row.id[0] == "g")
    assert sorted(found.values()) == [2, 2, 3, 3]


def test_a_share_without_general_rows_is_an_error() -> None:
    with pytest.raises(InputError, match="general_share is 0.25, but 0 general rows"):
        mix(rows(30, "m"), [], 0.25, 0, Counter())


def test_a_share_without_general_data_is_an_error(tmp_path: Path, data: Path, model: Path) -> None:
    config = CONFIGS["sft"]
    assert isinstance(config, Sft)
    with pytest.raises(InputError, match="there is no general data"):
        sft(config, Stage(tmp_path, "sft", quiet=True), model, data / "conversations/train.jsonl", None, None)


def test_zero_rows_is_an_error(tmp_path: Path, model: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="0 rows to train on"):
        pretrain(Pretrain(**COMMON), Stage(tmp_path / "s", "p", quiet=True), model, tmp_path / "empty.jsonl", None)
