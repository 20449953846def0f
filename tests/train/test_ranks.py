"""Two processes train as one does: the same curve and the same weights, from the same files and back again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rank_runs import hit_before, on_ranks, stage
from safetensors.numpy import load_file
from tiny_stages import log_of, training_steps

from xinglin.config import Dpo, Lora, Pretrain, Reward, Sft, Training
from xinglin.models.packing import Group
from xinglin.records import InputError
from xinglin.train import ranks

COMMON: dict[str, Any] = {"lr": 3e-4, "batch_size": 4, "max_seq_len": 128, "micro_batch_tokens": 64, "max_steps": 6}
COMMON |= {"precision": "fp32", "save_every": 2, "lora": Lora(rank=4, alpha=8)}
TWO = [0, 0]
CASES = {
    "sft-full": Sft(general_share=0, **COMMON),
    "sft-lora": Sft(general_share=0, method="lora", **COMMON),
    "sft-qlora": Sft(general_share=0, method="qlora", **COMMON),
    "pretrain-full": Pretrain(**COMMON),
    "reward-full": Reward(**COMMON),
    "reward-qlora": Reward(method="qlora", **COMMON),
    "dpo-lora": Dpo(method="lora", **COMMON),
}
AT_ONCE = "sft-full"


def assert_same(one: Path, two: Path) -> None:
    """Every line of the log to 1e-5, every weight to 1e-5."""
    a, b = log_of(one), log_of(two)
    assert [line.keys() for line in a] == [line.keys() for line in b] and len(a) > 6
    for left, right in zip(a, b, strict=True):
        assert right == pytest.approx(left, rel=1e-5, abs=1e-6), left["step"]
    for path in (one / "model").glob("*.safetensors"):
        left, right = load_file(path), load_file(two / "model" / path.name)
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert np.allclose(value, right[name], rtol=0, atol=1e-5), name


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == AT_ONCE else pytest.mark.slow) for case in CASES]
)
def test_two_processes_follow_the_curve_of_one(tmp_path: Path, data: Path, model: Path, case: str) -> None:
    kind = case.split("-")[0]
    assert on_ranks(1, stage, kind, tmp_path / "one", data, model, CASES[case]) == [0]
    assert on_ranks(2, stage, kind, tmp_path / "two", data, model, CASES[case]) == TWO
    assert_same(tmp_path / "one", tmp_path / "two")
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(p.name for p in (tmp_path / "one").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sft-full", "sft-qlora"])
def test_killed_on_two_goes_on_on_one_and_back(tmp_path: Path, data: Path, model: Path, case: str) -> None:
    """Killed before steps 4 and 6, so that each process count goes on from what the other one wrote."""
    args = ("sft", tmp_path / "broken", data, model, CASES[case])
    assert on_ranks(1, stage, "sft", tmp_path / "whole", data, model, CASES[case]) == [0]
    codes = on_ranks(2, hit_before, 3, signal.SIGKILL, *args)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None)
    assert training_steps(tmp_path / "broken")[-1] == 3
    assert on_ranks(1, hit_before, 5, signal.SIGKILL, *args) == [-signal.SIGKILL]
    assert on_ranks(2, stage, *args) == TWO
    assert_same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path: Path, data: Path, model: Path) -> None:
    args = ("sft", tmp_path, data, model, CASES["sft-lora"])
    assert on_ranks(2, hit_before, 2, signal.SIGTERM, *args) == [143, 143]
    assert training_steps(tmp_path) == [1, 2, 3]
    assert [path.name for path in (tmp_path / "checkpoints").glob("*-000003")] == ["step-000003"]


def _one_fails(folder: Path) -> None:
    """The command line on a rank whose own file is bad, while the other waits for it in a sum."""
    import torch

    from xinglin import cli

    number = os.environ["RANK"]
    sys.stderr = (folder / f"{number}.err").open("w", buffering=1, encoding="utf-8")

    def app() -> None:
        if number == "1":
            raise InputError("notes.jsonl:3: not JSON; mend that line")
        torch.distributed.all_reduce(torch.zeros(1))

    cli.app = app  # type: ignore[assignment]
    cli.main()


def test_an_error_on_one_rank_is_said_once_and_ends_all(tmp_path: Path) -> None:
    assert on_ranks(2, _one_fails, tmp_path, seconds=120) == [2, 2]
    assert (tmp_path / "1.err").read_text("utf-8") == "xinglin: notes.jsonl:3: not JSON; mend that line\n"
    assert "notes.jsonl" not in (tmp_path / "0.err").read_text("utf-8")
    assert "Traceback" not in (tmp_path / "0.err").read_text("utf-8")


def _one_writes(folder: Path) -> None:
    with ranks.joined():
        mine = ranks.own(folder / "out.txt")
        mine.parent.mkdir(parents=True, exist_ok=True)
        for kind, together in (("evaluate", False), ("sft", True)):

            def work(kind: str = kind) -> None:
                with mine.open("a", encoding="utf-8") as file:
                    file.write(f"{kind} among {ranks.world_size()}\n")

            ranks.each(kind, together, work)
        heard = ranks.tell({"step": 7} if ranks.is_main() else None)
        (folder / f"heard-{os.environ['RANK']}").write_text(f"{heard} {mine.read_text('utf-8')}", "utf-8")


def test_one_rank_writes_and_decides(tmp_path: Path) -> None:
    assert on_ranks(2, _one_writes, tmp_path, seconds=120) == TWO
    assert (tmp_path / "out.txt").read_text("utf-8") == "evaluate among 1\nsft among 2\n"
    assert (tmp_path / "heard-1").read_text("utf-8") == "{'step': 7} sft among 2\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heard-0", "heard-1", "out.txt"]


@pytest.mark.parametrize("num", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_micro_batch_counts_once_and_all_take_equally_many(
    monkeypatch: pytest.MonkeyPatch, num: int, world_size: int
) -> None:
    monkeypatch.setattr(ranks, "world_size", lambda: world_size)
    hands = []
    for number in range(world_size):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        hands.append(ranks.deal(list(range(num))))
    assert len({len(hand) for hand in hands}) == 1
    assert sorted(batch for hand in hands for batch, counts in hand if counts) == list(range(num))


def test_rows_are_packed_for_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen short rows fit into one pack of 512: four ranks get four of them, each row once."""
    answer = np.ones(10, np.int64)
    rows = [Group(str(i), answer[:0], (answer,), (answer > 0,)) for i in range(16)]
    assert len(ranks.micro_batches(rows, 512)) == 1
    monkeypatch.setattr(ranks, "world_size", lambda: 4)
    batches = ranks.micro_batches(rows, 512)
    assert [batch.input_ids.numel() for batch in batches] == [40] * 4
    assert Counter(row for batch in batches for row in batch.ids) == Counter(map(str, range(16)))


@pytest.mark.slow
def test_torchrun(tmp_path: Path, data: Path, model: Path) -> None:
    """The command as it is written in docs/scale.md; then the same command says once that nothing is left to do."""
    config: Training = CASES[AT_ONCE]
    assert on_ranks(1, stage, "sft", tmp_path / "one", data, model, config) == [0]
    rows = data / "conversations"
    values = ("lr", "batch_size", "max_seq_len", "micro_batch_tokens", "max_steps", "precision", "save_every")
    words = ["--model", model, "--data", rows / "train.jsonl", "--valid", rows / "valid.jsonl"]
    words += [word for name in values for word in ("--set", f"{name}={getattr(config, name)}")]
    assert torchrun("sft", *words, "--out", tmp_path / "two").returncode == 0
    assert_same(tmp_path / "one", tmp_path / "two")
    again = torchrun("sft", *words, "--out", tmp_path / "two")
    assert again.returncode == 0 and again.stderr.count("is complete already") == 1
    wrong = torchrun("sft", *words[2:], "--model", tmp_path / "nowhere", "--out", tmp_path / "three")
    assert wrong.stderr.count("xinglin: ") == 1 and "nowhere" in wrong.stderr and "exitcode  : 2" in wrong.stderr


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "xinglin"]
    return subprocess.run([*start, *map(str, words)], capture_output=True, text=True, check=False, timeout=900)
