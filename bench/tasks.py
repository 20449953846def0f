"""What is measured: one `Task` each, with the settings of every peer.

`default` settings are a peer's own: nothing is said that its documentation does not. `best` settings are tried in the
run itself, a few steps each, and the fastest goes into the measurement; the row lists what was tried. `fp32` settings
are those of the check of equal results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]
OURS = "xinglin"


@dataclass(frozen=True, slots=True)
class Peer:
    """`best`: candidates. `task`: what the peer runs where it has no stage of that name."""

    fp32: Settings
    best: tuple[Settings, ...]
    default: Settings = field(default_factory=dict)
    task: str = ""
    cases: tuple[int, ...] = ()
    """Numbers of rows it can decode; empty: all of the task's."""


@dataclass(frozen=True, slots=True)
class Task:
    """`batch` rows an optimiser step; `steps` timed after `warmup`; `baseline` is what `ratio.default` divides by."""

    unit: str
    peers: Mapping[str, Peer]
    baseline: str
    batch: int = 1
    warmup: int = 5
    steps: int = 20
    lr: float = 1e-4
    cases: tuple[int, ...] = ()
    groups: int = 0
    answers: int = 0
    new_tokens: int = 0
    check_steps: int = 20
    note: str = ""


GROUPED = {"train_sampling_strategy": "group_by_length"}
CACHED = {"precompute_ref_log_probs": True}


def _trl(*more: Settings, task: str = "") -> Peer:
    """A TRL trainer: as documented it computes in bf16 and recomputes activations (gradient checkpointing)."""
    kept: Settings = {"gradient_checkpointing": False}
    candidates = (kept, {**kept, "attention": "eager"}, *({**kept, **one} for one in more))
    return Peer(fp32={"bf16": False, "gradient_checkpointing": False}, best=candidates, task=task)


def _unsloth() -> Peer:
    """Its CPU path. As documented it holds bf16 weights in full training and recomputes activations."""
    kept = {"gradient_checkpointing": False, **GROUPED}
    wide = {**kept, "dtype": "float32", "bf16": True}
    candidates = (kept, wide, {**kept, "attention": "eager"}, {**wide, "attention": "eager"}, {**kept, "compile": True})
    return Peer(fp32={"bf16": False, "gradient_checkpointing": False, "dtype": "float32"}, best=candidates)


OURS_TRAINING = Peer(
    fp32={"precision": "fp32"}, best=tuple({"micro_batch_tokens": tokens} for tokens in (1024, 2048, 4096, 8192))
)
OURS_POLICY = Peer(fp32={"precision": "fp32"}, best=tuple({"micro_batch_tokens": n} for n in (2048, 4096, 8192)))

TASKS = {
    "sft": Task(
        unit="real tokens/s",
        baseline="trl",
        batch=16,
        steps=50,
        lr=1e-3,
        peers={
            OURS: OURS_TRAINING,
            "trl": _trl(GROUPED, {**GROUPED, "attention": "eager"}, {"pack": 1024, "attention": "eager"}),
            "unsloth": _unsloth(),
        },
    ),
    "dpo": Task(
        unit="pairs/s",
        baseline="trl",
        batch=8,
        steps=16,
        peers={OURS: OURS_TRAINING, "trl": _trl(CACHED, {**CACHED, "attention": "eager"})},
        note="one epoch; the reference pass counts, each peer's own; steps_only leaves it out",
    ),
    "reward": Task(unit="pairs/s", baseline="trl", batch=8, steps=16, peers={OURS: OURS_TRAINING, "trl": _trl()}),
    "rollout": Task(
        unit="new tokens/s",
        baseline="generate",
        steps=3,
        cases=(1, 16, 64),
        new_tokens=128,
        peers={
            OURS: Peer(fp32={}, best=({}, {"dtype": "bfloat16"})),
            "generate": Peer(
                fp32={}, best=({}, {"dtype": "bfloat16"}, {"cache_implementation": "static", "disable_compile": True})
            ),
            "llama.cpp": Peer(fp32={}, best=({}, {"dtype": "float16"}, {"dtype": "q8_0"}), cases=(1,)),
        },
        note="prompts of 64 tokens; sampling at temperature 1; prompt pass and sampling inside the clock",
    ),
    "grpo": Task(
        unit="answers/s",
        baseline="trl",
        batch=32,
        warmup=1,
        steps=3,
        groups=4,
        answers=8,
        new_tokens=128,
        check_steps=8,
        peers={OURS: OURS_POLICY, "trl": _trl()},
        note="a step: 4 prompts x 8 answers x 128 tokens, sampled, scored, one update; ours saves a checkpoint each",
    ),
    "ppo": Task(
        unit="answers/s",
        baseline="trl",
        batch=32,
        warmup=1,
        steps=3,
        groups=4,
        answers=8,
        new_tokens=128,
        peers={OURS: OURS_POLICY, "trl": _trl(task="grpo")},
        note="TRL 1.16 has no PPO trainer: its GRPO step stands beside ours, which trains a value model too",
    ),
}
