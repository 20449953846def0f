"""k answers to each question, with the decoding settings beside every one.

xinglin sample --model SFT --data questions.jsonl --set num_answers=4 --out DIR
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from xinglin.config import Sample
from xinglin.records import Question, Rollout, read_records, record_id, write_records
from xinglin.rollout.generator import Decoding, Generator
from xinglin.rollout.local import LocalGenerator
from xinglin.run import Stage

QUESTIONS_AT_ONCE = 64


def sample(config: Sample, stage: Stage, model: Path, questions: Path) -> dict[str, Any]:
    """Write rollouts.jsonl: `num_answers` for each question."""
    items = list(islice(read_records(questions, Question), config.limit))
    generator = LocalGenerator.load(model, name=config.from_)
    decoding = Decoding(**config.decoding.model_dump())
    with stage.progress("answers", len(items)) as advance:
        rollouts = sample_rollouts(generator, items, decoding, config.num_answers, config.seed, advance)
        count = write_records(stage.dir / "rollouts.jsonl", rollouts)
    return {"counts": {"questions": len(items), "rollouts": count}, "decoding": asdict(decoding)}


def sample_rollouts(
    generator: Generator, items: Sequence[Question], decoding: Decoding, num_answers: int, seed: int, advance: Any
) -> Iterator[Rollout]:
    """The answers of one question follow one another."""
    for start in range(0, len(items), QUESTIONS_AT_ONCE):
        part = items[start : start + QUESTIONS_AT_ONCE]
        prompts = [item.prompt for item in part]
        answers = generator.generate(prompts, decoding, seed=seed + start, num_answers=num_answers)
        for item, group in zip(part, answers, strict=True):
            for number, answer in enumerate(group):
                name = record_id("rollout", item.id, generator.name, seed, number)
                yield Rollout(name, item.id, item.prompt, answer, source=item.source, meta=item.meta)
        advance(len(part))
