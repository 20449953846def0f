"""What the rest of Xinglin sees of a model: text in, text out.

    generate   answers to chat prompts, k of each
    stream     one answer, piece by piece
    logprobs   how likely a continuation is after a context

`LocalGenerator` (rollout/local.py) runs a model of ours; `UrlGenerator` (rollout/url.py) an OpenAI-style server.
Evaluation, serving and sampling use nothing else, so the object that is measured is the object that serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from xinglin.records import Answer, Message

Prompt = Sequence[Message]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to decode. temperature 0 is greedy. Every answer carries these values in `Answer.decoding`."""

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Logprob:
    """Natural-log probability of a continuation, summed over its tokens; `greedy` = every token was the likeliest."""

    total: float
    num_tokens: int
    greedy: bool


class Generator(Protocol):
    """A model as evaluation sees it."""

    name: str

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, seed: int, num_answers: int = 1
    ) -> list[list[Answer]]:
        """`num_answers` answers for each prompt, in the order of the prompts. The same seed gives the same answers."""
        ...

    def stream(self, prompt: Prompt, decoding: Decoding, *, seed: int) -> Iterator[str]:
        """The answer in pieces that never split a character; joined they are the whole answer."""
        ...

    def logprobs(self, pairs: Sequence[tuple[str | Prompt, str]]) -> list[Logprob]:
        """Log-probability of each continuation after raw text, or after a chat prompt rendered as in training."""
        ...
