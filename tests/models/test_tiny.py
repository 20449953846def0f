import pytest
import torch
from tiny_models import SHAPES, TEXTS, tokenizer

from xinglin.models.template import encode_text
from xinglin.models.tiny import build_model, train_tokenizer
from xinglin.records import InputError


def test_nothing_is_ever_unknown() -> None:
    for text in ("罕见字龘𠮷", "😷🏥", "αβγ 37.5℃\t\r\n", "\x00", "İß"):
        ids = encode_text(tokenizer(), text)
        assert tokenizer().unk_token_id not in ids
        assert tokenizer().decode(ids) == text


def test_the_same_texts_give_the_same_tokenizer() -> None:
    again = train_tokenizer(TEXTS, 330, "chatml")
    assert again.get_vocab() == tokenizer().get_vocab()
    assert again.chat_template == tokenizer().chat_template


def test_a_dose_is_spelled_digit_by_digit_and_no_token_crosses_a_clause_or_a_line() -> None:
    pieces = [tokenizer().decode([i]) for i in encode_text(tokenizer(), "150/90 mmHg。\n建议")]
    assert pieces[:6] == list("150/90")
    for cut in " 。\n":
        assert pieces.count(cut) == 1


def test_the_end_mark_is_the_templates() -> None:
    assert tokenizer("chatml").eos_token == "<|im_end|>"
    assert tokenizer("llama").eos_token == "</s>"


@pytest.mark.parametrize("shape", sorted({shape for shape, _ in SHAPES.values()}))
def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_randomness_alone(shape: str) -> None:
    def build(seed: int) -> torch.Tensor:
        built = build_model(shape, 300, hidden_size=32, num_layers=1, num_heads=2, max_seq_len=64, seed=seed)
        return torch.cat([p.flatten() for p in built.parameters()])

    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = build(1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, build(1))
    assert not torch.equal(first, build(2))


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(InputError, match="shape 'gpt2' is unknown; allowed: llama, qwen2, qwen3, mistral"):
        build_model("gpt2", 300, hidden_size=32, num_layers=1, num_heads=2, max_seq_len=64, seed=0)
