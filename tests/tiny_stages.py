"""Records of a few words, and training stages of a few steps over them, for tests at any depth.

`run_stage` does what the run does with a stage: its function, then the manifest. `in_another_process` does so in a
process that can be killed.
"""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import tiny_models

from xinglin.config import Decoding, Dpo, Grpo, Lora, Ppo, Pretrain, Reward, Sft, StageConfig
from xinglin.records import Answer, Conversation, Document, Message, Preference, Question, write_records
from xinglin.run import Stage, file_hash

COMMON: dict[str, Any] = {"lr": 3e-3, "batch_size": 4, "max_seq_len": 128, "micro_batch_tokens": 256}
COMMON |= {"precision": "fp32", "save_every": 2, "eval_every": 3}
LORA = Lora(rank=4, alpha=8, dropout=0.1)
POLICY: dict[str, Any] = {"iterations": 3, "prompts": 4, "num_answers": 2, "inner_epochs": 2, "min_entropy": 0.0}
POLICY |= {"decoding": Decoding(max_new_tokens=6), "max_kl": 1e6, "max_length_growth": 1e6, "max_length_correlation": 1}
CONFIGS: dict[str, StageConfig] = {
    "pretrain": Pretrain(epochs=2, **COMMON),
    "sft": Sft(epochs=1.5, general_share=0.25, method="lora", lora=LORA, **COMMON),
    "reward": Reward(epochs=2, **COMMON),
    "dpo": Dpo(epochs=2, method="lora", lora=LORA, sft_weight=0.5, **COMMON),
    "ppo": Ppo(method="lora", lora=LORA, **POLICY, **COMMON),
    "grpo": Grpo(method="full", **POLICY, **COMMON),
}
NUM_STEPS = 12  # 24 rows twice, or (24 + 8) rows once and a half, or 8 answers twice in each of three iterations; by 4
THINGS = ["头痛", "感冒", "体温", "血压", "发热", "休息"]


def documents(count: int, start: int = 0, mark: str = "") -> list[Document]:
    return [Document(f"d{i}", f"患者{_thing(i)}{i},建议{_thing(i + 1)}。{mark}") for i in range(start, start + count)]


def conversations(count: int, start: int = 0, mark: str = "", name: str = "c") -> list[Conversation]:
    return [
        Conversation(f"{name}{i}", (Message("user", f"{_thing(i)}{i}?{mark}"), Message("assistant", _answer(i) + mark)))
        for i in range(start, start + count)
    ]


def preferences(count: int, start: int = 0, mark: str = "") -> list[Preference]:
    """The better answer asks to rest; the worst speaks of a doctor. Every third ranking has three places."""
    found = []
    for i in range(start, start + count):
        texts = ["多喝水,注意休息。", "请就医。", "头痛头痛"][: 3 if i % 3 == 0 else 2]
        sources = ["doctor", "model", "poor"]
        order = random.Random(i).sample(range(len(texts)), len(texts))
        answers = tuple(Answer(texts[k] + mark, sources[k]) for k in order)
        ranks = tuple(k + 1 for k in order)
        found.append(Preference(f"p{i}", (Message("user", f"{_thing(i)}{i}?{mark}"),), answers, ranks))
    return found


def questions(count: int, mark: str = "") -> list[Question]:
    return [Question(f"q{i}", (Message("user", f"{_thing(i)}{i}?{mark}"),), _answer(i)) for i in range(count)]


def write_data(folder: Path, mark: str = "") -> Path:
    """A data folder: 24 rows to train on, 6 others to validate with, of each family."""
    made: dict[str, Callable[..., Sequence[Any]]] = {
        "documents": documents,
        "conversations": conversations,
        "general": lambda *args: conversations(*args, name="g"),
        "preferences": preferences,
    }
    for name, build in made.items():
        write_records(folder / name / "train.jsonl", build(24, 0, mark))
        write_records(folder / name / "valid.jsonl", build(6, 24, mark))
    write_records(folder / "questions/train.jsonl", questions(6, mark))
    return folder


def run_stage(
    kind: str, out: Path, data: Path, model: Path, config: StageConfig | None = None, *, rule: str = "commas"
) -> Stage:
    """One stage from data and model folders to its manifest."""
    from xinglin.train.causal import pretrain, sft
    from xinglin.train.policy import grpo, ppo
    from xinglin.train.preference import dpo, reward

    config = config or CONFIGS[kind]
    stage = Stage(out, kind, quiet=True)
    families = {"pretrain": "documents", "sft": "conversations", "ppo": "questions", "grpo": "questions"}
    family = families.get(kind, "preferences")
    train, valid = data / family / "train.jsonl", data / family / "valid.jsonl"
    if kind == "sft":
        facts: dict[str, Any] = {"counts": sft(config, stage, model, train, valid, data / "general/train.jsonl")}  # type: ignore[arg-type]
    elif kind == "pretrain":
        facts = {"counts": pretrain(config, stage, model, train, valid)}  # type: ignore[arg-type]
    elif kind in ("ppo", "grpo"):
        facts = (ppo if kind == "ppo" else grpo)(config, stage, model, RULES[rule], train)  # type: ignore[operator]
    else:
        facts = (dpo if kind == "dpo" else reward)(config, stage, model, train, valid)  # type: ignore[operator]
    stage.finish(config=config.model_dump(mode="json"), inputs={"data": file_hash(train)}, key=kind, **facts)
    stage.clear_resume()
    return stage


RULES: dict[str, Callable[[Question, str], float]] = {
    "commas": lambda question, text: float(text.count(",")),
    "length": lambda question, text: float(len(text)),
}


def in_another_process(kind: str, out: Path, data: Path, model: Path) -> BaseProcess:
    """A started process that runs the stage."""
    return start(_job, (kind, out, data, model))


def start(job: Callable[..., None], args: tuple[Any, ...]) -> BaseProcess:
    """A started process. All are forked from one that has torch loaded and has run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xinglin.train.causal", "xinglin.train.preference", "xinglin.train.policy", "peft"])
    process = context.Process(target=job, args=args)
    process.start()
    return process


def _job(kind: str, out: Path, data: Path, model: Path) -> None:
    import torch

    torch.set_num_threads(1)
    run_stage(kind, out, data, model)


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a log."""
    path = folder / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def training_steps(folder: Path) -> list[int]:
    return [line["step"] for line in log_of(folder) if "loss" in line]


def weights(folder: Path) -> dict[str, str]:
    """Hash of every weight file of a finished stage."""
    return {path.name: file_hash(path) for path in sorted((folder / "model").glob("*.safetensors"))}


def save_model(folder: Path) -> Path:
    return tiny_models.save(folder)


def _thing(number: int) -> str:
    return THINGS[number % len(THINGS)]


def _answer(number: int) -> str:
    return "多喝水,注意休息。"[: 4 + number % 6]
