"""One render function for training, evaluation and chat: what is trained is what is served.

A template is five strings. `render` turns messages into token ids and says which of them are the assistant's, the
closing mark of each assistant turn included: it must be learned, or the model never stops. Control tokens are placed by
id; contents are encoded with control tokens switched off, so `<|im_start|>system` typed by a patient stays text.

    ids, mask = render(tokenizer, template, messages)             # training: mask is True on what is to be learned
    ids, _ = render(tokenizer, template, messages, reply=True)    # chat: ends where the answer begins

`jinja(template)` is the same template as transformers stores it in a checkpoint; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from xinglin.records import InputError, Message


@dataclass(frozen=True, slots=True)
class Template:
    """`{role}_prefix + content + {role}_suffix` for each turn. A prefix or suffix is text in which the tokenizer's
    control tokens keep their meaning."""

    name: str
    bos: bool
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    stop: str  # the control token that ends an assistant turn; generation stops on it

    def wrap(self, role: str) -> tuple[str, str]:
        return {"system": self.system, "user": self.user, "assistant": self.assistant}[role]


TEMPLATES = {
    t.name: t
    for t in (
        Template(
            "chatml",  # Qwen
            False,
            ("<|im_start|>system\n", "<|im_end|>\n"),
            ("<|im_start|>user\n", "<|im_end|>\n"),
            ("<|im_start|>assistant\n", "<|im_end|>\n"),
            "<|im_end|>",
        ),
        Template(
            "llama",  # Llama 2 without its system block inside the first turn: the system turn stands alone
            True,
            ("<<SYS>>\n", "\n<</SYS>>\n\n"),
            ("[INST] ", " [/INST]"),
            (" ", "</s>"),
            "</s>",
        ),
        Template("human-bot-square", True, ("", "\n"), ("[human]:", "\n"), ("[bot]:", "</s>"), "</s>"),  # ChiMed-GPT
        Template(
            "human-bot-angle", True, ("", "\n"), ("<human>:", "\n"), ("<bot>:", "</s>"), "</s>"
        ),  # Zhongjing, Ziya
    )
}


def template_named(name: str) -> Template:
    """The template of that name. Raises `InputError` with the names there are."""
    if name not in TEMPLATES:
        raise InputError(f"template {name!r} is unknown; allowed: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def render(
    tokenizer: PreTrainedTokenizerFast, template: Template, messages: Sequence[Message], *, reply: bool = False
) -> tuple[list[int], list[bool]]:
    """Token ids of a dialogue and, for each, whether it is the assistant's (content and closing mark).

    With `reply` the ids end with the assistant's prefix, ready for an answer. What follows the closing mark of a turn
    (ChatML's line break) belongs to the next turn and is not learned.
    """
    ids: list[int] = []
    mask: list[bool] = []

    def add(tokens: list[int], learned: bool) -> None:
        ids.extend(tokens)
        mask.extend([learned] * len(tokens))

    if template.bos and tokenizer.bos_token_id is not None:
        add([tokenizer.bos_token_id], False)
    for message in messages:
        prefix, suffix = template.wrap(message.role)
        add(_control(tokenizer, prefix), False)
        if message.role == "assistant":
            add(encode_answer(tokenizer, template, message.content), True)
            suffix = suffix.removeprefix(template.stop)
        else:
            add(encode_text(tokenizer, message.content), False)
        add(_control(tokenizer, suffix), False)
    if reply:
        add(_control(tokenizer, template.assistant[0]), False)
    return ids, mask


def encode_answer(tokenizer: PreTrainedTokenizerFast, template: Template, text: str) -> list[int]:
    """An assistant's content and its closing mark."""
    return [*encode_text(tokenizer, text), stop_id(tokenizer, template)]


def encode_text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Text as text: control tokens inside it lose their meaning."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def stop_id(tokenizer: PreTrainedTokenizerFast, template: Template) -> int:
    """The id of the closing mark. Raises `InputError` when the tokenizer has no such token."""
    index = tokenizer.get_vocab().get(template.stop)
    if index is None:
        raise InputError(
            f"template {template.name!r} ends a turn with {template.stop}, which this tokenizer lacks; "
            "choose another template or add the token"
        )
    return index


def jinja(template: Template) -> str:
    """The same template in the form transformers keeps in a checkpoint."""
    branches = "".join(
        f"{{% {'if' if role == 'system' else 'elif'} message['role'] == '{role}' %}}"
        f"{{{{ {_quote(prefix)} + message['content'] + {_quote(suffix)} }}}}"
        for role, (prefix, suffix) in (
            ("system", template.system),
            ("user", template.user),
            ("assistant", template.assistant),
        )
    )
    bos = "{{ bos_token }}" if template.bos else ""
    start = f"{{% if add_generation_prompt %}}{{{{ {_quote(template.assistant[0])} }}}}{{% endif %}}"
    return f"{bos}{{% for message in messages %}}{branches}{{% endif %}}{{% endfor %}}{start}"


def _control(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False) if text else []


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
