"""From records to packed batches: a pure function of (rows, seed, step), so that nothing need be saved to go on.

rows = encode_conversations(records, tokenizer, template, max_seq_len, on_long, counts)
plan = plan_steps(len(rows), batch_size, epochs, seed)        # row numbers of each optimiser step
batches = micro_batches([rows[i] for i in plan[step]], micro_batch_tokens)   # models/packing.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerFast

from xinglin.models.packing import Group
from xinglin.models.template import Template, encode_answer, encode_text, render
from xinglin.records import Conversation, Document, InputError, Message, Preference, read_records

OnLong = Literal["truncate", "drop", "error"]


def training_texts(folder: Path) -> Iterator[str]:
    """Every text of a data folder that is trained on: what an embedded tokenizer is made from."""
    for document in read_records(folder / "documents/train.jsonl", Document):
        yield document.text
    for name in ("conversations", "general"):
        for conversation in read_records(folder / name / "train.jsonl", Conversation):
            yield from (message.content for message in conversation.messages)
    if (folder / "preferences/train.jsonl").is_file():
        for preference in read_records(folder / "preferences/train.jsonl", Preference):
            yield from (answer.text for answer in preference.answers)


def encode_documents(
    records: Iterable[Document], tokenizer: PreTrainedTokenizerFast, max_seq_len: int, counts: Counter[str]
) -> list[Group]:
    """Documents as rows of at most `max_seq_len` tokens; a longer one is cut into several, none of it is lost."""
    rows = []
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for record in records:
        ids = np.array([*start, *encode_text(tokenizer, record.text), tokenizer.eos_token_id], dtype=np.int64)
        counts["documents"] += 1
        counts["documents cut into several rows"] += len(ids) > max_seq_len
        for offset in range(0, len(ids), max_seq_len):
            piece = ids[offset : offset + max_seq_len]
            if len(piece) == 1:  # it predicts nothing
                counts["last tokens left alone by a cut"] += 1
                continue
            learned = np.ones(len(piece), dtype=bool)
            rows.append(Group(record.id, piece[:0], (piece,), (learned,)))
    return rows


def encode_conversations(
    records: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    max_seq_len: int,
    on_long: OnLong,
    counts: Counter[str],
) -> list[Group]:
    """Conversations as rows; only assistant turns are learned. A long one is cut at its end, dropped, or an error."""
    rows = []
    for record in records:
        ids, mask = render(tokenizer, template, record.messages)
        counts["conversations"] += 1
        if len(ids) > max_seq_len:
            _too_long(record.id, len(ids), max_seq_len, on_long, counts)
            if on_long == "drop":
                continue
            ids, mask = ids[:max_seq_len], mask[:max_seq_len]
        if not any(mask[1:]):
            counts["rows with nothing left to learn"] += 1
            continue
        learned = np.array(mask)
        rows.append(Group(record.id, np.zeros(0, np.int64), (np.array(ids, np.int64),), (learned,)))
    return rows


def encode_preferences(
    records: Iterable[Preference],
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    max_seq_len: int,
    on_long: OnLong,
    counts: Counter[str],
    *,
    extremes: bool = False,
) -> list[Group]:
    """Preferences as groups. `extremes` keeps only the best and the worst answer (accepted/rejected).

    A prompt too long loses its oldest turns first, never the question; an answer too long is cut.
    """
    rows = []
    for record in records:
        counts["preferences"] += 1
        order = sorted(range(len(record.answers)), key=lambda i: record.ranks[i])
        if record.ranks[order[0]] == record.ranks[order[-1]]:
            counts["preferences that are ties alone"] += 1
            continue
        if extremes:
            order = [order[0], order[-1]]
        prompt = encode_prompt(record.prompt, tokenizer, template)
        answers = [np.array(encode_answer(tokenizer, template, record.answers[i].text), np.int64) for i in order]
        if len(prompt) + max(map(len, answers)) > max_seq_len:
            _too_long(record.id, len(prompt) + max(map(len, answers)), max_seq_len, on_long, counts)
            if on_long == "drop":
                continue
            prompt = prompt[-(max_seq_len // 2) :]
            answers = [answer[: max_seq_len - len(prompt)] for answer in answers]
        ranks = tuple(record.ranks[i] for i in order)
        learned = tuple(np.ones(len(answer), dtype=bool) for answer in answers)
        rows.append(Group(record.id, prompt, tuple(answers), learned, ranks))
    return rows


def encode_prompt(prompt: Sequence[Message], tokenizer: PreTrainedTokenizerFast, template: Template) -> np.ndarray:
    """A chat prompt up to where the answer begins."""
    return np.array(render(tokenizer, template, prompt, reply=True)[0], np.int64)


def _too_long(record_id: str, length: int, limit: int, on_long: OnLong, counts: Counter[str]) -> None:
    if on_long == "error":
        raise InputError(
            f"row {record_id!r} has {length} tokens, max_seq_len is {limit}; "
            "raise it, or set on_long to truncate or drop"
        )
    counts[f"rows over max_seq_len ({on_long})"] += 1


def plan_steps(
    num_rows: int, batch_size: int, epochs: float, seed: int, max_steps: int | None = None
) -> list[np.ndarray]:
    """Row numbers of every optimiser step: each epoch is a fresh shuffle, rows run on over its end, none is skipped."""
    if num_rows == 0:
        raise InputError("0 rows to train on; see the counts of the data stage for why each was dropped")
    total = max(1, round(num_rows * epochs))
    order = np.concatenate(
        [np.random.default_rng([seed, epoch]).permutation(num_rows) for epoch in range(-(-total // num_rows))]
    )[:total]
    steps = [order[i : i + batch_size] for i in range(0, total, batch_size)]
    return steps[:max_steps]
