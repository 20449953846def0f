"""What the stages of a recipe will do, counted: rows, steps, validations, answers, items. Pure; no torch.

Counts come from the data folder (`--data ward` is generated in a second, so its counts are exact) and from the stage's
settings. What only the run itself can know (how many rankings a `score` stage makes) is assumed and said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from xinglin.config import BestOfN, Dpo, Evaluate, Policy, Pretrain, Recipe, Reward, Sample, Sft, StageConfig, Training
from xinglin.records import Document, read_records

MOST_VALIDATED = 200  # rows of a causal validation (train/causal.py)
EVALUATED = {  # items of each evaluation: the file that holds them (evals/battery.py)
    "documents": "documents/valid",
    "dialogue": "questions/test",
    "dialogue_sampled": "questions/test",
    "dialogue_heldout": "questions/heldout_diseases",
    "general": "general_questions/test",
    "exam": "exam/test",
    "general_exam": "general_exam/test",
    "entities": "entities/test",
    "safety": "safety/test",
}


@dataclass(frozen=True, slots=True)
class Work:
    """`rows` read per epoch, `steps` and `validations` of training (rows each), `questions` answered, `note`: what was
    assumed."""

    rows: int = 0
    steps: int = 0
    validations: int = 0
    validated: int = 0
    questions: int = 0
    items: int = 0
    note: str = ""


def count(folder: Path, name: str) -> int:
    """Rows of a file of records; 0 where it is not there."""
    path = folder / f"{name}.jsonl"
    return sum(1 for line in path.open("rb") if line.strip()) if path.is_file() else 0


def work_of(recipe: Recipe, name: str, config: StageConfig, data: Path) -> Work:
    """What stage `name` will do with the records of `data`."""
    if isinstance(config, Policy):
        return Work(steps=config.iterations, questions=config.iterations * config.prompts)
    if isinstance(config, BestOfN):
        questions = _limited(count(data, config.questions), config.limit)
        kept = round(0.95 * questions * config.keep)
        steps = num_steps(config, kept)
        note = "one answer kept of every question" if config.keep == 1 else f"{config.keep} kept of every question"
        return Work(kept, steps, num_validations(config, steps), questions - kept, questions, note=note)
    if isinstance(config, Sample):
        return Work(questions=_limited(count(data, config.questions), config.limit))
    if isinstance(config, Evaluate):
        return Work(items=num_items(config, data, config.limit or 0))
    if isinstance(config, Training):
        rows, validated, note = _rows(recipe, config, data)
        steps = num_steps(config, rows)
        return Work(rows, steps, num_validations(config, steps), validated, note=note)
    return Work()


def num_steps(config: Training, rows: int) -> int:
    """Optimiser steps: rows run on over the end of an epoch."""
    steps = math.ceil(max(1, round(rows * config.epochs)) / config.batch_size)
    return min(steps, config.max_steps or steps)


def num_validations(config: Training, steps: int) -> int:
    """One before the first step, one each `eval_every`, one at the end."""
    every = config.eval_every or max(1, steps // 10)
    return 1 + math.ceil(steps / every)


def num_items(config: Evaluate, data: Path, limit: int) -> int:
    """Items of all evaluations of one checkpoint, at most `limit` of each (0: no limit)."""
    wanted = config.evaluations or tuple(EVALUATED)
    counts = [count(data, EVALUATED[name]) for name in wanted if name in EVALUATED]
    return sum(min(found, limit) if limit else found for found in counts)


def _limited(found: int, limit: int | None) -> int:
    return min(found, limit) if limit else found


def _rows(recipe: Recipe, config: Training, data: Path) -> tuple[int, int, str]:
    """(rows of an epoch, rows of a validation, what was assumed)."""
    if isinstance(config, Pretrain):
        return _documents(config, data, "train"), min(MOST_VALIDATED, count(data, f"{config.data}/valid")), ""
    if isinstance(config, Sft):
        medical, share = count(data, f"{config.data}/train"), config.general_share
        general = count(data, "general/train")
        rows = general if share == 1 else medical + round(medical * share / (1 - share))
        return rows, min(MOST_VALIDATED, count(data, f"{config.data}/valid")), ""
    assert isinstance(config, Reward | Dpo)
    scored = recipe.stages.get(config.data)
    if scored is None:
        return count(data, f"{config.data}/train"), count(data, f"{config.data}/valid"), ""
    sampled = recipe.stages.get(getattr(scored, "from_", ""))
    questions = count(data, "questions/train")
    if isinstance(sampled, Sample):
        questions = _limited(count(data, sampled.questions), sampled.limit)
    return round(0.9 * questions), round(0.1 * questions), "a ranking of every question: known once it is scored"


def _documents(config: Pretrain, data: Path, part: str) -> int:
    path = data / config.data / f"{part}.jsonl"
    if config.domain == "all" or not path.is_file():
        return count(data, f"{config.data}/{part}")
    return sum(record.meta.get("domain", "medical") == config.domain for record in read_records(path, Document))
