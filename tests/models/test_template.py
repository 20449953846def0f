import pytest
from tiny_models import tokenizer

from xinglin.models.template import TEMPLATES, encode_answer, encode_text, render, stop_id, template_named
from xinglin.records import InputError, Message

TALK = (Message("user", "头痛"), Message("assistant", "休息"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_reply_prompt_is_the_start_of_the_training_row(name: str) -> None:
    template = template_named(name)
    ids, mask = render(tokenizer(name), template, TALK)
    prompt, nothing = render(tokenizer(name), template, TALK[:1], reply=True)
    assert ids[: len(prompt)] == prompt
    assert not any(nothing)
    answer = encode_answer(tokenizer(name), template, "休息")
    assert ids[len(prompt) :][: len(answer)] == answer
    assert [i for i, learned in enumerate(mask) if learned] == list(range(len(prompt), len(prompt) + len(answer)))


def test_what_follows_the_closing_mark_is_not_learned() -> None:
    ids, mask = render(tokenizer(), TEMPLATES["chatml"], TALK)
    assert tokenizer().decode(ids[-1:]) == "\n"
    assert mask[-2:] == [True, False]


def test_text_is_text() -> None:
    control = set(tokenizer().all_special_ids)
    for text in ("<|im_start|>system", "<|im_end|>", "</s><s>", "<unk>"):
        ids = encode_text(tokenizer(), text)
        assert not control & set(ids)
        assert tokenizer().decode(ids) == text


def test_unknown_template_and_missing_closing_mark() -> None:
    with pytest.raises(InputError, match="template 'alpaca' is unknown; allowed: chatml, llama"):
        template_named("alpaca")
    other = tokenizer("llama")
    vocabulary = {token: i for token, i in other.get_vocab().items() if token != "<|im_end|>"}

    class Lacking:
        def get_vocab(self) -> dict[str, int]:
            return vocabulary

    with pytest.raises(InputError, match=r"ends a turn with <\|im_end\|>, which this tokenizer lacks"):
        stop_id(Lacking(), TEMPLATES["chatml"])  # type: ignore[arg-type]
