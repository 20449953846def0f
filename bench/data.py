"""The data and the model that all peers get: the same bytes, made from a fixed seed under .bench/data.

Token ids are drawn, not written: ranks by Zipf's law, lengths from those of Chinese medical questions and answers
(log-normal, median 110, from 30 to 360 tokens a row). Nothing here is medicine; it is good for speed and for equal
results, and for nothing else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.workers.protocol import FIRST_FREE_ID

SHAPE = {"vocab_size": 8192, "hidden_size": 256, "num_layers": 6, "num_heads": 8, "max_seq_len": 2048}
TINY = {"vocab_size": 512, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_seq_len": 2048}
MEDIAN, SIGMA, SHORTEST, LONGEST = 110, 0.6, 30, 360
ZIPF = 1.1
SEED = 20261120


def model_folder(home: Path, shape: dict[str, int], seed: int = 0) -> Path:
    """A transformers folder with random weights of `shape` and a tokenizer as long as its vocabulary."""
    folder = home / f"model-d{shape['hidden_size']}-v{shape['vocab_size']}-{seed}"
    if (folder / "xinglin.json").is_file():
        return folder
    from xinglin.data.ward.labelled import labelled_notes
    from xinglin.models.load import save_model
    from xinglin.models.template import template_named
    from xinglin.models.tiny import build_model, train_tokenizer

    texts = [note.text for note in labelled_notes(200, SEED, "dev")]
    tokenizer = train_tokenizer(texts, shape["vocab_size"], "chatml")
    tokenizer.add_tokens([f"<unused-{i}>" for i in range(shape["vocab_size"] - len(tokenizer))])
    options = {name: value for name, value in shape.items() if name != "vocab_size"}
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model = build_model("llama", shape["vocab_size"], **options, seed=seed)
    save_model(partial, model, tokenizer, template_named("chatml"))
    partial.rename(folder)
    return folder


def matrix_parameters(shape: dict[str, int]) -> tuple[int, int]:
    """(weights of the layers' matrices, weights of the head): what a token is multiplied by."""
    d = shape["hidden_size"]
    feed_forward = (d * 8 // 3 + 63) // 64 * 64  # as models/tiny.py
    return shape["num_layers"] * (4 * d * d + 3 * d * feed_forward), d * shape["vocab_size"]


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    partial.replace(path)


def sft_rows(count: int, lengths: str, vocabulary: int) -> Iterator[dict[str, Any]]:
    """Rows of a prompt and an answer; `lengths` is logn or a number of tokens."""
    rng = np.random.default_rng([SEED, 1])
    for _ in range(count):
        length = _log_normal(rng) if lengths == "logn" else int(lengths)
        prompt = max(1, round(length * rng.uniform(0.15, 0.5)))
        yield {"prompt": _ids(rng, prompt, vocabulary), "answer": _ids(rng, length - prompt, vocabulary)}


def pair_rows(count: int, vocabulary: int) -> Iterator[dict[str, Any]]:
    """Preferences: a prompt of 100 to 160 tokens, two answers of 40 to 160."""
    rng = np.random.default_rng([SEED, 2])
    for _ in range(count):
        sizes = {"prompt": (100, 160), "chosen": (40, 160), "rejected": (40, 160)}
        yield {name: _ids(rng, int(rng.integers(low, high + 1)), vocabulary) for name, (low, high) in sizes.items()}


def prompt_rows(count: int, length: int, answers: int, new_tokens: int, vocabulary: int) -> Iterator[dict[str, Any]]:
    """Prompts of one length, with the answers that the check of equal results trains on."""
    rng = np.random.default_rng([SEED, 3])
    for _ in range(count):
        yield {
            "prompt": _ids(rng, length, vocabulary),
            "answers": [_ids(rng, new_tokens, vocabulary) for _ in range(answers)],
        }


def _log_normal(rng: np.random.Generator) -> int:
    while True:
        length = round(rng.lognormal(np.log(MEDIAN), SIGMA))
        if SHORTEST <= length <= LONGEST:
            return length


def _ids(rng: np.random.Generator, count: int, vocabulary: int) -> list[int]:
    """`count` ids whose ranks follow Zipf's law; control tokens never occur."""
    mass = 1.0 / np.arange(1, vocabulary - FIRST_FREE_ID + 1) ** ZIPF
    return (FIRST_FREE_ID + rng.choice(len(mass), size=count, p=mass / mass.sum())).tolist()
