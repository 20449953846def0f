"""Evaluation: how well the model predicts medical text it has not seen.

what     bits per character over held-out documents, comparable between tokenizers
prompt   none: each piece of 200 characters after an empty context
metric   bits_per_character (lower is better), bootstrap over documents
chance   none
paper    all three systems continue pre-training or start from it; none reports this number
"""

from __future__ import annotations

from collections.abc import Sequence

from xinglin.evals.result import Evaluation, Resampling, evaluation, groups_of, metric, prompt_hash, unique_ids
from xinglin.records import Document
from xinglin.rollout.generator import Generator

CHUNK = 200


def run(
    generator: Generator, documents: Sequence[Document], *, seed: int, chunk: int = CHUNK, draws: int = 10_000
) -> Evaluation:
    ids = unique_ids(documents, "documents")
    pieces = [(doc.id, piece) for doc in documents for piece in split_text(doc.text, chunk)]
    found = generator.logprobs([("", piece) for _, piece in pieces])
    sums = {name: [0.0, 0.0] for name in ids}
    tokens = 0
    for (name, piece), logprob in zip(pieces, found, strict=True):
        sums[name][0] -= logprob.total
        sums[name][1] += len(piece)
        tokens += logprob.num_tokens
    rows = {name: (nats, chars) for name, (nats, chars) in sums.items() if chars}
    bits = metric(rows, Resampling(seed, draws, groups_of(documents)), statistic="bits", higher_is_better=False)
    chars = sum(row[1] for row in rows.values())
    notes = {
        "chunk_characters": chunk,
        "characters": int(chars),
        "tokens": tokens,
        "empty_documents": len(ids) - len(rows),
        "prompt_sha256": prompt_hash(piece for _, piece in pieces),
    }
    return evaluation("documents", {"bits_per_character": bits}, notes)


def split_text(text: str, chunk: int) -> list[str]:
    return [text[start : start + chunk] for start in range(0, len(text), chunk)]
