"""Pre-training and supervised fine-tuning: this text is right.

    xinglin pretrain --model BASE --data documents.jsonl --out DIR
    xinglin sft      --model BASE --data conversations.jsonl --out DIR

Both are the same objective over packed rows; they differ in what is learned of a row (all of it, or the assistant's
turns) and in the mixture (fine-tuning takes a written share of general conversations against forgetting).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xinglin.config import Pretrain, Sft, Training
from xinglin.data.batches import encode_conversations, encode_documents, plan_steps
from xinglin.models.packing import Batch, Group, in_order
from xinglin.models.trainable import Trainable, load_trainable
from xinglin.objectives.causal import Loss, causal_lm
from xinglin.records import Conversation, Document, InputError, read_records
from xinglin.run import Stage, check_disjoint
from xinglin.train.engine import Engine
from xinglin.train.ranks import micro_batches

MOST_VALIDATION_ROWS = 200
MOST_EMPTY_ROWS = 0.01  # of a file's conversations, with no answer left under max_seq_len


def pretrain(config: Pretrain, stage: Stage, parent: Path, train: Path, valid: Path | None) -> dict[str, int]:
    """Continued pre-training. Returns the counts of what was read, cut and dropped."""
    check_disjoint(train, valid)
    model = load_trainable(parent, config)
    counts: Counter[str] = Counter()
    options = (model.tokenizer, config.max_seq_len)
    rows = encode_documents(_documents(train, config, counts), *options, counts)
    held = encode_documents(_documents(valid, config, Counter()), *options, Counter()) if valid else []
    fit_causal(model, config, stage, rows, held)
    model.save(stage.dir / "model")
    return dict(counts)


def sft(
    config: Sft, stage: Stage, parent: Path, train: Path, valid: Path | None, general: Path | None
) -> dict[str, int]:
    """Supervised fine-tuning on conversations with a share of general ones. Returns the counts."""
    check_disjoint(train, valid)
    model = load_trainable(parent, config)
    counts: Counter[str] = Counter()
    rows = _conversations(train, model, config, counts)
    if config.general_share > 0:
        if general is None:
            raise InputError(
                f"stage {stage.name!r}: general_share is {config.general_share}, but there is no general data"
            )
        others: Counter[str] = Counter()
        extra = _conversations(general, model, config, others)
        counts.update({f"general {name}": count for name, count in others.items()})
        rows = mix(rows, extra, config.general_share, config.seed, counts)
    held = _conversations(valid, model, config, Counter()) if valid else []
    fit_causal(model, config, stage, rows, held)
    model.save(stage.dir / "model")
    return dict(counts)


def mix(rows: list[Group], general: list[Group], share: float, seed: int, counts: Counter[str]) -> list[Group]:
    """`rows` and as many general rows as make up `share` of the whole; what is repeated or left out is counted."""
    wanted = round(len(rows) * share / (1 - share)) if share < 1 else len(general)
    if wanted and not general:
        raise InputError(f"general_share is {share}, but 0 general rows are left to train on; set it to 0 or add some")
    chosen: list[int] = []
    while len(chosen) < wanted:
        shuffle = np.random.default_rng([seed, len(chosen) // len(general)]).permutation(len(general))
        chosen += shuffle[: wanted - len(chosen)].tolist()
    counts["general rows in the mixture"] = wanted
    counts["general rows repeated"] = max(0, wanted - len(general))
    counts["general rows not drawn"] = max(0, len(general) - wanted)
    counts["rows left out for general ones (general_share 1)"] = len(rows) if share == 1 else 0
    return [*(rows if share < 1 else []), *(general[i] for i in chosen)]


def fit_causal(model: Trainable, config: Training, stage: Stage, rows: list[Group], held: list[Group]) -> None:
    """Train on `rows`, validate on `held`."""
    plan = plan_steps(len(rows), config.batch_size, config.epochs, config.seed, config.max_steps)
    engine = Engine(model.module, config, stage, num_steps=len(plan))

    def loss_fn(batch: Batch) -> Loss:
        return causal_lm(model.logprobs(batch))

    def validate() -> dict[str, float]:
        total = tokens = 0.0
        for batch in in_order(held[:MOST_VALIDATION_ROWS], config.micro_batch_tokens):
            loss_sum, count, _ = loss_fn(batch.to(engine.device))
            total, tokens = total + float(loss_sum), tokens + count
        return {"valid_loss": total / tokens}

    engine.fit(
        lambda step: micro_batches([rows[i] for i in plan[step]], config.micro_batch_tokens),
        loss_fn,
        validate if held else None,
    )


def _documents(path: Path, config: Pretrain, counts: Counter[str]) -> Iterator[Document]:
    for document in read_records(path, Document):
        if config.domain in ("all", document.meta.get("domain", "medical")):
            yield document
        else:
            counts["documents of another domain"] += 1


def _conversations(path: Path, model: Trainable, config: Training, counts: Counter[str]) -> list[Group]:
    """The conversations of a file as rows. Raises `InputError` where too many of them have nothing left to learn."""
    records = read_records(path, Conversation)
    rows = encode_conversations(records, model.tokenizer, model.template, config.max_seq_len, config.on_long, counts)
    empty, total = counts["rows with nothing left to learn"], counts["conversations"]
    if rows and empty > MOST_EMPTY_ROWS * total:
        raise InputError(
            f"{path}: {empty} of {total} conversations have no token of an answer within max_seq_len "
            f"{config.max_seq_len}; over {MOST_EMPTY_ROWS:.0%} is refused: raise max_seq_len, or set on_long to drop"
        )
    return rows
