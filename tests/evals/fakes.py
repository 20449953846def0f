"""Generators without a model: evaluations see nothing else, so their arithmetic can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from xinglin.records import Answer, Message
from xinglin.rollout.generator import Decoding, Logprob, Prompt


class FakeGenerator:
    """`reply` answers the last user turn; `logprob` gives the log-probability of (context as text, continuation)."""

    name = "fake"

    def __init__(
        self,
        reply: Callable[[str], str] = lambda prompt: "",
        logprob: Callable[[str, str], float] = lambda context, text: -float(len(text)),
    ) -> None:
        self.reply, self.logprob = reply, logprob
        self.asked: list[Prompt] = []
        self.pairs: list[tuple[str | Prompt, str]] = []

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, seed: int, num_answers: int = 1
    ) -> list[list[Answer]]:
        self.asked += prompts
        return [[Answer(self.reply(prompt[-1].content))] * num_answers for prompt in prompts]

    def stream(self, prompt: Prompt, decoding: Decoding, *, seed: int) -> Iterator[str]:
        yield from self.reply(prompt[-1].content)

    def logprobs(self, pairs: Sequence[tuple[str | Prompt, str]]) -> list[Logprob]:
        self.pairs += pairs
        return [Logprob(self.logprob(_text(context), text), len(text), False) for context, text in pairs]


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def _text(context: str | Prompt) -> str:
    return context if isinstance(context, str) else context[-1].content
