"""Guarantee d: token-and-label fixtures written by hand. One token a character, so that they can be read.

In a fixture `·` is a space, `⏎` a line end; control tokens stand whole; what is learned stands between ⟦ and ⟧.
"""

import re
from collections import Counter

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xinglin.data.batches import encode_conversations
from xinglin.models.packing import pack
from xinglin.models.template import TEMPLATES, render
from xinglin.records import Conversation, Message

CONTROL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHARACTERS = "\n !/:;<>[]ISTNYabcdefghijklmnopqrstuvwxyz你是医生头痛多喝水谢不客气"
SYMBOL = re.compile(r"<unk>|</?s>|<\|im_(?:start|end)\|>|⟦|⟧|.", re.DOTALL)

SINGLE = [("user", "头痛"), ("assistant", "多喝水")]
MULTI = [("system", "你是医生"), *SINGLE, ("user", "谢谢"), ("assistant", "不客气")]
GOLDEN = {
    ("chatml", "single"): "<|im_start|>user⏎头痛<|im_end|>⏎<|im_start|>assistant⏎⟦多喝水<|im_end|>⟧⏎",
    ("chatml", "multi"): (
        "<|im_start|>system⏎你是医生<|im_end|>⏎"
        "<|im_start|>user⏎头痛<|im_end|>⏎<|im_start|>assistant⏎⟦多喝水<|im_end|>⟧⏎"
        "<|im_start|>user⏎谢谢<|im_end|>⏎<|im_start|>assistant⏎⟦不客气<|im_end|>⟧⏎"
    ),
    ("llama", "single"): "<s>[INST]·头痛·[/INST]·⟦多喝水</s>⟧",
    ("llama", "multi"): (
        "<s><<SYS>>⏎你是医生⏎<</SYS>>⏎⏎[INST]·头痛·[/INST]·⟦多喝水</s>⟧[INST]·谢谢·[/INST]·⟦不客气</s>⟧"
    ),
    ("human-bot-square", "single"): "<s>[human]:头痛⏎[bot]:⟦多喝水</s>⟧",
    ("human-bot-square", "multi"): "<s>你是医生⏎[human]:头痛⏎[bot]:⟦多喝水</s>⟧[human]:谢谢⏎[bot]:⟦不客气</s>⟧",
    ("human-bot-angle", "single"): "<s><human>:头痛⏎<bot>:⟦多喝水</s>⟧",
    ("human-bot-angle", "multi"): "<s>你是医生⏎<human>:头痛⏎<bot>:⟦多喝水</s>⟧<human>:谢谢⏎<bot>:⟦不客气</s>⟧",
}
REPLY = {  # the prompt of a chat after MULTI's first three turns
    "chatml": (
        "<|im_start|>system⏎你是医生<|im_end|>⏎<|im_start|>user⏎头痛<|im_end|>⏎<|im_start|>assistant⏎多喝水<|im_end|>⏎"
        "<|im_start|>user⏎谢谢<|im_end|>⏎<|im_start|>assistant⏎"
    ),
    "llama": "<s><<SYS>>⏎你是医生⏎<</SYS>>⏎⏎[INST]·头痛·[/INST]·多喝水</s>[INST]·谢谢·[/INST]·",
    "human-bot-square": "<s>你是医生⏎[human]:头痛⏎[bot]:多喝水</s>[human]:谢谢⏎[bot]:",
    "human-bot-angle": "<s>你是医生⏎<human>:头痛⏎<bot>:多喝水</s><human>:谢谢⏎<bot>:",
}
VOCABULARY = {token: i for i, token in enumerate([*CONTROL, *CHARACTERS])}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip


def read_golden(text: str) -> tuple[list[int], list[bool]]:
    ids, mask, learned = [], [], False
    for symbol in SYMBOL.findall(text):
        if symbol in "⟦⟧":
            learned = symbol == "⟦"
        else:
            ids.append(VOCABULARY[{"·": " ", "⏎": "\n"}.get(symbol, symbol)])
            mask.append(learned)
    return ids, mask


def messages(talk: list[tuple[str, str]]) -> tuple[Message, ...]:
    return tuple(Message(role, text) for role, text in talk)  # type: ignore[arg-type]


def test_the_fixtures_can_be_read() -> None:
    ids, mask = read_golden("<s>⟦头</s>⟧⏎")
    assert ids == [1, VOCABULARY["头"], 2, 5]
    assert mask == [False, True, True, False]


def test_every_template_has_its_fixtures() -> None:
    assert {name for name, _ in GOLDEN} == set(REPLY) == set(TEMPLATES)


@pytest.mark.parametrize(("name", "talk"), GOLDEN)
def test_tokens_and_mask(tokenizer: PreTrainedTokenizerFast, name: str, talk: str) -> None:
    said = messages(SINGLE if talk == "single" else MULTI)
    assert render(tokenizer, TEMPLATES[name], said) == read_golden(GOLDEN[name, talk])


@pytest.mark.parametrize("name", REPLY)
def test_tokens_of_a_chat_prompt(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    ids, _ = render(tokenizer, TEMPLATES[name], messages(MULTI[:-1]), reply=True)
    assert ids == read_golden(REPLY[name])[0]


@pytest.mark.parametrize(("name", "talk"), GOLDEN)
def test_labels_of_a_training_batch(tokenizer: PreTrainedTokenizerFast, name: str, talk: str) -> None:
    said = messages(SINGLE if talk == "single" else MULTI)
    rows = encode_conversations([Conversation("c", said)], tokenizer, TEMPLATES[name], 999, "error", Counter())
    batch = pack(rows)
    ids, mask = read_golden(GOLDEN[name, talk])
    learned = [i for i, on in enumerate(mask) if on]
    assert batch.input_ids.tolist() == [ids]
    assert batch.labels.tolist() == [ids[i] for i in learned]
    assert batch.targets.tolist() == [i - 1 for i in learned]
