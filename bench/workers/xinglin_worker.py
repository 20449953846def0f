"""Ours: the stage functions of xinglin.train and the local generator, as users run them.

Token ids come from the bench's file in place of the text encoder, rows are taken in the file's order in place of the
shuffle, and the run ends with the last timed step, before the model is examined and saved. Everything else is the
stage's own: engine, packing, objectives, checkpoints, sampling.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import protocol
import torch

from xinglin.config import Dpo, Grpo, Ppo, Reward, Sft
from xinglin.models.load import load_base, load_tokenizer
from xinglin.models.packing import Group
from xinglin.models.trainable import load_trainable
from xinglin.records import Message, Question
from xinglin.rollout.generator import Decoding
from xinglin.rollout.local import LocalGenerator
from xinglin.rollout.weights import read_weights
from xinglin.run import Stage
from xinglin.train import causal, engine, policy, preference, rollouts

NEVER = 10**6


class Enough(Exception):
    """All steps of the measurement are done."""


class TimedStage(Stage):
    """A stage whose named work outside of the steps is timed."""

    clock: protocol.Clock

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Any]:
        start = time.perf_counter()
        yield lambda count=1, note="": None
        self.clock.apart[what] = time.perf_counter() - start


def training_values(job: dict[str, Any]) -> dict[str, Any]:
    """What all peers train with, and the settings of this mode."""
    return {
        "lr": job["lr"],
        "schedule": "constant",
        "warmup": 0.0,
        "batch_size": job["batch"],
        "max_seq_len": 2048,
        "eval_every": NEVER,
        "save_every": 500,  # as the peers
        "keep_best": False,
        "max_steps": job["warmup"] + job["steps"],
        "epochs": 1000,
        **job["settings"],
    }


def watch_engine(job: dict[str, Any], clock: protocol.Clock) -> None:
    """Note the end of each step, and stop after the last."""
    step = engine.Engine.step
    name = "grad_norm" if job["task"] in ("grpo", "ppo") else "loss"

    def timed(self: engine.Engine, batches: Any, loss_fn: Any) -> dict[str, float]:
        metrics = step(self, batches, loss_fn)
        clock.tick(curve=metrics[name])
        clock.resident.append(protocol.resident())
        if len(clock.ends) == job["warmup"] + job["steps"]:
            raise Enough
        return metrics

    engine.Engine.step = timed  # type: ignore[method-assign]


def in_file_order(rows: int, batch: int, epochs: float, seed: int, max_steps: int | None = None) -> list[np.ndarray]:
    """The bench's order in place of `plan_steps`: rows as they stand, from the first again after the last."""
    assert max_steps is not None
    return [np.arange(step * batch, (step + 1) * batch) % rows for step in range(max_steps)]


def conversation(index: int, row: dict[str, Any]) -> Group:
    """A row as `encode_conversations` makes it: no shared prompt, the answer alone is learned."""
    ids = np.array(row["prompt"] + row["answer"], np.int64)
    return Group(f"row-{index}", ids[:0], (ids,), (np.arange(len(ids)) >= len(row["prompt"]),))


def pair(index: int, row: dict[str, Any]) -> Group:
    answers = tuple(np.array(row[name], np.int64) for name in ("chosen", "rejected"))
    learned = tuple(np.ones(len(answer), bool) for answer in answers)
    return Group(f"pair-{index}", np.array(row["prompt"], np.int64), answers, learned, (1, 2))


def sft(job: dict[str, Any], stage: TimedStage) -> None:
    config = Sft(general_share=0.0, **training_values(job))
    model = load_trainable(Path(job["model"]), config)
    causal.plan_steps = in_file_order
    causal.fit_causal(model, config, stage, [conversation(*item) for item in enumerate(rows_of(job))], [])


def dpo(job: dict[str, Any], stage: TimedStage) -> None:
    use_pairs(job)
    preference.dpo(Dpo(beta=0.1, **training_values(job)), stage, Path(job["model"]), Path("pairs"), None)


def reward(job: dict[str, Any], stage: TimedStage) -> None:
    use_pairs(job)
    config = Reward(**training_values(job))
    preference.reward(config, stage, Path(job["model"]), Path("pairs"), Path("held"))


def use_pairs(job: dict[str, Any]) -> None:
    """The first call gives the rows, the second (the reward stage's validation) one row of another name."""
    rows = [pair(*item) for item in enumerate(rows_of(job))]
    held = Group("held", rows[0].prompt, rows[0].answers, rows[0].learned, rows[0].ranks)
    calls = iter([rows, [held]])
    preference.read_records = lambda *given: iter(())  # type: ignore[assignment]
    preference.encode_preferences = lambda *given, **named: next(calls)
    preference.plan_steps = in_file_order


def rows_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    return protocol.read_rows(job, job["rows"])


def policy_stage(job: dict[str, Any], stage: TimedStage) -> None:
    """grpo and ppo: prompts by number, rewards of token ids, no end of text before the last token."""
    prompts = rows_of(job)
    groups, answers, new = job["groups"], job["answers"], job["new_tokens"]
    values = training_values(job)
    del values["max_steps"], values["epochs"]
    values |= {
        "iterations": job["warmup"] + job["steps"],
        "prompts": groups,
        "num_answers": answers,
        "decoding": {"max_new_tokens": new, "temperature": 1.0},
        "kl": 0.0,
        "max_kl": 1e9,  # health rules watch a training that is to be kept
        "min_entropy": 0.0,
        "max_ratio": 1e9,
    }
    items = [Question(str(i), (Message("user", str(i)),)) for i in range(groups)]
    policy.read_records = lambda *given: iter(items)  # type: ignore[assignment]
    policy._reward_fn = lambda *given: reward_of(job)  # type: ignore[assignment]
    LocalGenerator.encode = lambda self, asked: [  # type: ignore[method-assign]
        np.array(prompts[int(messages[-1].content)]["prompt"], np.int64) for messages in asked
    ]
    never_stop()
    if job["equality"]:
        use_fixed_answers(prompts, answers)
    if job["task"] == "ppo":
        policy.ppo(Ppo(value_warmup=0, **values), stage, Path(job["model"]), Path("rule"), Path("questions"))
    else:
        policy.grpo(Grpo(**values), stage, Path(job["model"]), Path("rule"), Path("questions"))


def reward_of(job: dict[str, Any]) -> rollouts.RewardFn:
    def score(questions: Any, groups: Any, texts: Any) -> np.ndarray:
        ids = [[answer.tolist() for answer in group.answers] for group in groups]
        if job["equality"]:
            return np.array(protocol.unit_rewards(ids))
        return np.array([[protocol.even_share(answer) for answer in answers] for answers in ids])

    return score


def never_stop() -> None:
    """No token ends an answer: all are `new_tokens` long."""
    made = LocalGenerator.__init__

    def endless(self: LocalGenerator, *given: Any, **named: Any) -> None:
        made(self, *given, **named)
        self.stop = -1

    LocalGenerator.__init__ = endless  # type: ignore[method-assign]


def use_fixed_answers(prompts: list[dict[str, Any]], answers: int) -> None:
    """The check of equal results: the file's answers in place of sampled ones."""
    known = {tuple(row["prompt"]): row["answers"][:answers] for row in prompts}

    def fixed(self: LocalGenerator, asked: Any, *given: Any, **named: Any) -> list[Any]:
        return [[(ids, [0.0] * len(ids)) for ids in known[tuple(prompt.tolist())]] for prompt in asked]

    LocalGenerator.generate_tokens = fixed  # type: ignore[method-assign]


def rollout(job: dict[str, Any]) -> dict[str, Any]:
    """Sampling at each number of rows; in the check of equal results, greedy ids."""
    model = load_base(Path(job["model"]), nf4=False)
    dtype = torch.bfloat16 if job["settings"].get("dtype") == "bfloat16" else torch.float32
    never_stop()
    generator = LocalGenerator("xinglin", read_weights(model, dtype), *load_tokenizer(Path(job["model"])))
    prompts = [np.array(row["prompt"], np.int64) for row in rows_of(job)]

    def generate(count: int, new_tokens: int) -> list[list[int]]:
        decoding = Decoding(max_new_tokens=new_tokens, temperature=0.0 if job["equality"] else 1.0)
        groups = generator.generate_tokens(prompts[:count], decoding, seed=0)
        return [ids for group in groups for ids, _ in group]

    return protocol.measure_rollout(job, generate)


def train(job: dict[str, Any]) -> dict[str, Any]:
    clock = protocol.Clock()
    stage = TimedStage(Path(job["scratch"]) / "stage", job["task"], quiet=True)
    stage.clock = clock
    watch_engine(job, clock)
    with contextlib.suppress(Enough):
        {"sft": sft, "dpo": dpo, "reward": reward, "grpo": policy_stage, "ppo": policy_stage}[job["task"]](job, stage)
    found = {"ends": clock.ends, "curve": clock.curve, "resident": clock.resident}
    return found | {"apart": clock.apart.get("reference", 0.0)}


def work(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    return rollout(job) if job["task"] == "rollout" else train(job)


if __name__ == "__main__":
    protocol.main(work, "xinglin", "torch", "transformers", "peft", "numpy")
