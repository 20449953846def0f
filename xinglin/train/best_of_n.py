"""Rejection sampling: sample, score, keep the best, then the causal stage on what was kept (arXiv:2311.06025).

    xinglin best-of-n --model SFT --reward REWARD --data questions.jsonl --out DIR

n, K, temperature and rounds are recorded. Each round samples from the model of the round before; the training data of a
round are its own best answers.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from xinglin.config import BestOfN
from xinglin.data.batches import encode_conversations
from xinglin.models.trainable import load_trainable
from xinglin.records import Conversation, InputError, Message, Question, Rollout, read_records, write_records
from xinglin.rollout.generator import Decoding
from xinglin.rollout.local import LocalGenerator
from xinglin.rollout.reward import load_reward
from xinglin.rollout.sample import sample_rollouts
from xinglin.run import Stage, seed_for, write_text
from xinglin.train.causal import fit_causal

HELD_SHARE = 0.05


def best_of_n(config: BestOfN, stage: Stage, parent: Path, reward: Path, questions: Path) -> dict[str, Any]:
    """All rounds; returns what was sampled, kept and gained in reward."""
    items = list(islice(read_records(questions, Question), config.limit))
    decoding = Decoding(**config.decoding.model_dump())
    rounds = []
    for number in range(config.rounds):
        part = Stage(stage.dir / f"round-{number + 1}", f"{stage.name} round {number + 1}", quiet=stage.quiet)
        kept, selection = part.dir / "kept.jsonl", part.dir / "selection.json"
        if not selection.is_file():
            found = _select(config, stage, parent, reward, items, decoding, number, kept)
            write_text(selection, json.dumps(found, ensure_ascii=False))
        if not (part.dir / "model").is_dir():
            _train(config, part, parent, kept)
        for name in ("checkpoints", "best"):
            shutil.rmtree(part.dir / name, ignore_errors=True)
        facts, trained = (
            json.loads((part.dir / name).read_text("utf-8")) for name in ("selection.json", "training.json")
        )
        rounds.append({**facts, "training": trained})
        parent = part.dir / "model"
    if not (stage.dir / "model").exists():
        (stage.dir / "model").symlink_to(f"round-{config.rounds}/model")
    return {"rounds": rounds, "decoding": asdict(decoding), "n": config.num_answers, "keep": config.keep}


def _select(
    config: BestOfN,
    stage: Stage,
    parent: Path,
    reward: Path,
    items: list[Question],
    decoding: Decoding,
    number: int,
    path: Path,
) -> dict[str, Any]:
    """Sample n answers a question, keep the K that the reward model likes best; equal texts count once."""
    generator = LocalGenerator.load(parent, name=config.from_)
    judge = load_reward(reward)
    kept: list[Conversation] = []
    means: list[float] = []
    bests: list[float] = []
    counts: Counter[str] = Counter()
    with stage.progress(f"round {number + 1}: answers", len(items)) as advance:
        seed = seed_for(config.seed, "best_of_n", number) % (1 << 31)
        rollouts = sample_rollouts(generator, items, decoding, config.num_answers, seed, advance)
        for question_id, group in groupby(rollouts, key=lambda rollout: rollout.question_id):
            answers: dict[str, Rollout] = {}
            for rollout in group:
                counts["answers"] += 1
                counts["tokens sampled"] += rollout.answer.decoding["tokens"]
                counts["answers said twice"] += rollout.answer.text in answers
                answers.setdefault(rollout.answer.text, rollout)
            texts = [text for text in answers if text.strip()]
            counts["answers without text"] += len(answers) - len(texts)
            counts["questions without an answer"] += not texts
            if not texts:
                continue
            first = answers[texts[0]]
            scores = judge.score_texts(first.prompt, texts)
            order = scores.argsort()[::-1]
            means.append(float(scores.mean()))
            bests.append(float(scores[order[0]]))
            for rank in order[: config.keep]:
                messages = (*first.prompt, Message("assistant", texts[rank]))
                meta = {**first.meta, "reward": float(scores[rank]), "round": number + 1}
                kept.append(Conversation(f"{question_id}-best{len(kept)}", messages, first.source, meta))
            counts["answers not kept"] += len(texts) - len(order[: config.keep])
    if not kept:
        raise InputError(
            f"stage {stage.name!r}: 0 answers to keep from {len(items)} questions; give questions, or raise "
            "decoding.max_new_tokens"
        )
    counts["kept"] = write_records(path, kept)
    return {
        "round": number + 1,
        "counts": dict(counts),
        "reward_mean": sum(means) / len(means),
        "reward_of_best": sum(bests) / len(bests),
    }


def _train(config: BestOfN, stage: Stage, parent: Path, kept: Path) -> None:
    """The causal stage on what was kept. The model gets its name when it is whole, which ends the round."""
    model = load_trainable(parent, config)
    counts: Counter[str] = Counter()
    options = (model.tokenizer, model.template, config.max_seq_len, config.on_long)
    rows = encode_conversations(read_records(kept, Conversation), *options, counts)
    num_held = max(1, round(HELD_SHARE * len(rows)))
    counts["rows held for validation"] = num_held
    fit_causal(model, config, stage, rows[num_held:], rows[:num_held])
    partial = stage.dir / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save(partial)
    write_text(stage.dir / "training.json", json.dumps(counts, ensure_ascii=False))
    partial.rename(stage.dir / "model")
