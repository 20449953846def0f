"""A model of ours as a `Generator`: the same object is sampled from, measured and served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from xinglin.models.adapters import read_adapter
from xinglin.models.attention import plan_paths
from xinglin.models.load import describe, frozen_dtype, load_base, load_tokenizer
from xinglin.models.template import Template, encode_text, render, stop_id
from xinglin.records import Answer
from xinglin.rollout.decoder import Request, attend_packed, decode, decode_stream, forward
from xinglin.rollout.generator import Decoding, Logprob, Prompt
from xinglin.rollout.weights import Weights, read_weights

PACKED_TOKENS = 4096


class LocalGenerator:
    """`generate`, `stream` and `logprobs` over weights held in memory."""

    def __init__(
        self,
        name: str,
        weights: Weights,
        tokenizer: PreTrainedTokenizerFast,
        template: Template,
        *,
        num_slots: int = 64,
    ) -> None:
        self.name = name
        self.weights = weights
        self.tokenizer = tokenizer
        self.template = template
        self.num_slots = num_slots
        self.stop = stop_id(tokenizer, template)

    @classmethod
    def load(cls, folder: Path, *, name: str | None = None, template: str | None = None) -> LocalGenerator:
        """From a model folder, whole or adapter."""
        found = describe(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = frozen_dtype(device)
        model: nn.Module = load_base(found.base, nf4=found.nf4, device=device, dtype=dtype)
        if found.is_adapter:
            model = read_adapter(model, folder, "policy")  # type: ignore[arg-type]
        return cls(name or folder.name, read_weights(model, dtype), *load_tokenizer(folder, template))

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, seed: int, num_answers: int = 1
    ) -> list[list[Answer]]:
        """See `Generator`. Answer j of prompt i depends on (seed, i, j) alone."""
        tokens = self.generate_tokens(self.encode(prompts), decoding, seed=seed, num_answers=num_answers)
        settings = {**asdict(decoding), "seed": seed}
        return [
            [
                Answer(self.text(ids), self.name, {**settings, "finished": ids[-1] == self.stop, "tokens": len(ids)})
                for ids, _ in group
            ]
            for group in tokens
        ]

    def encode(self, prompts: Sequence[Prompt]) -> list[np.ndarray]:
        return [np.array(render(self.tokenizer, self.template, prompt, reply=True)[0], np.int64) for prompt in prompts]

    def generate_tokens(
        self, prompts: Sequence[np.ndarray], decoding: Decoding, *, seed: int, num_answers: int = 1
    ) -> list[list[tuple[list[int], list[float]]]]:
        """(token ids, log-probabilities) of each answer: what policy training needs, with no text in between."""
        requests = [
            Request(prompt, np.random.default_rng([seed, i, j]).random(decoding.max_new_tokens), i)
            for i, prompt in enumerate(prompts)
            for j in range(num_answers)
        ]
        answers: list[tuple[list[int], list[float]]] = [([], [])] * len(requests)
        for index, ids, logprobs in decode(self.weights, requests, decoding, self.stop, num_slots=self.num_slots):
            answers[index] = (ids, logprobs)
        return [answers[i * num_answers : (i + 1) * num_answers] for i in range(len(prompts))]

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer: control tokens and what is no valid text left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).replace("\ufffd", "")

    def stream(self, prompt: Prompt, decoding: Decoding, *, seed: int) -> Iterator[str]:
        """See `Generator`. Bytes are held back until they make a whole character."""
        ids: list[int] = []
        shown = ""
        for token in self._tokens_one_by_one(prompt, decoding, seed):
            ids.append(token)
            text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
            whole = text.rstrip("\ufffd").replace("\ufffd", "")
            if len(whole) > len(shown) and whole.startswith(shown):
                yield whole[len(shown) :]
                shown = whole

    def _tokens_one_by_one(self, prompt: Prompt, decoding: Decoding, seed: int) -> Iterator[int]:
        uniforms = np.random.default_rng([seed, 0, 0]).random(decoding.max_new_tokens)
        yield from decode_stream(self.weights, Request(self.encode([prompt])[0], uniforms, 0), decoding, self.stop)

    @torch.inference_mode()
    def logprobs(self, pairs: Sequence[tuple[str | Prompt, str]]) -> list[Logprob]:
        """See `Generator`. Packed: as many rows in one forward pass as PACKED_TOKENS holds."""
        rows = [self._row(context, continuation) for context, continuation in pairs]
        results: list[Logprob] = []
        start = 0
        while start < len(rows):
            stop, used = start, 0
            while stop < len(rows) and (stop == start or used + len(rows[stop][0]) <= PACKED_TOKENS):
                used += len(rows[stop][0])
                stop += 1
            results += self._packed_logprobs(rows[start:stop])
            start = stop
        return results

    def _row(self, context: str | Prompt, continuation: str) -> tuple[np.ndarray, int]:
        """Token ids of context and continuation, and how many are the context's."""
        if isinstance(context, str):
            start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
            before = [*start, *encode_text(self.tokenizer, context)] if context else start
        else:
            before = render(self.tokenizer, self.template, context, reply=True)[0]
        after = encode_text(self.tokenizer, continuation)
        limit = len(self.weights.cos)
        before = before[max(0, len(before) + len(after) - limit) :] or [self.stop]
        return np.array([*before, *after][:limit], np.int64), len(before)

    def _packed_logprobs(self, rows: Sequence[tuple[np.ndarray, int]]) -> list[Logprob]:
        device = self.weights.embed.device
        ends = np.cumsum([len(ids) for ids, _ in rows])
        starts = ends - [len(ids) for ids, _ in rows]
        paths = plan_paths([np.arange(a, b) for a, b in zip(starts, ends, strict=True)], int(ends[-1])).to(device)
        ids = torch.from_numpy(np.concatenate([ids for ids, _ in rows])).to(device)
        positions = torch.from_numpy(np.concatenate([np.arange(len(ids)) for ids, _ in rows])).to(device)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return attend_packed(self.weights, paths, layer, q, k, v)

        hidden = forward(self.weights, ids, positions, attend)
        results = []
        for (row, before), start, end in zip(rows, starts, ends, strict=True):
            labels = torch.from_numpy(row[before:]).to(device)
            logits = (hidden[start + before - 1 : end - 1] @ self.weights.head).float()
            chosen = logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]
            greedy = bool((logits.argmax(-1) == labels).all())
            results.append(Logprob(float(chosen.double().sum()), len(labels), greedy))
        return results
