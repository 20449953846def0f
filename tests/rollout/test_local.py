from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import model, save, shake, tokenizer, training, user

from xinglin.models.template import TEMPLATES, encode_text, render
from xinglin.models.trainable import load_trainable
from xinglin.records import InputError, Message, Question
from xinglin.rollout.generator import Decoding
from xinglin.rollout.local import LocalGenerator
from xinglin.rollout.sample import sample_rollouts
from xinglin.rollout.weights import read_weights

DECODING = Decoding(max_new_tokens=12)
PROMPTS = [user("头痛三天怎么办"), user("谢谢"), (Message("system", "你是医生"), *user("感冒"))]


@pytest.fixture(scope="module")
def generator() -> LocalGenerator:
    return LocalGenerator("tiny", read_weights(model()), tokenizer(), TEMPLATES["chatml"])


def test_the_same_seed_gives_the_same_answers(generator: LocalGenerator) -> None:
    first = generator.generate(PROMPTS, DECODING, seed=1, num_answers=3)
    assert [len(group) for group in first] == [3, 3, 3]
    assert generator.generate(PROMPTS, DECODING, seed=1, num_answers=3) == first
    assert generator.generate(PROMPTS, DECODING, seed=2, num_answers=3) != first
    assert generator.generate(PROMPTS[:1], DECODING, seed=1)[0][0] == first[0][0]  # fewer prompts, fewer answers
    assert generator.generate([], DECODING, seed=1) == []


def test_every_answer_carries_how_it_was_decoded(generator: LocalGenerator) -> None:
    ((answer,),) = generator.generate(PROMPTS[:1], Decoding(5, 0.5, 0.9, 20), seed=3)
    assert answer.source == "tiny"
    assert answer.decoding == {
        "max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 20, "seed": 3, "finished": False, "tokens": 5,
    }  # fmt: skip


def test_a_stream_is_the_answer_in_pieces(generator: LocalGenerator) -> None:
    for seed in range(20):
        pieces = list(generator.stream(PROMPTS[0], DECODING, seed=seed))
        ((answer,),) = generator.generate(PROMPTS[:1], DECODING, seed=seed)
        assert "".join(pieces) == answer.text
        assert all(pieces) and "\ufffd" not in answer.text


def test_a_stream_refuses_a_prompt_too_long(generator: LocalGenerator) -> None:
    with pytest.raises(InputError, match="exceed the model's 128"):
        list(generator.stream(user("痛" * 120), DECODING, seed=0))


def random_texts(count: int) -> list[str]:
    """Chinese, rare characters, emoji with joiners and skin tones, ASCII and line ends."""
    rng = np.random.default_rng(0)
    ranges = [(0x4E00, 0x9FA5), (0x20000, 0x2A6D6), (0x1F300, 0x1F64F), (0x1F3FB, 0x1F3FF), (0x200D, 0x200D),
              (0x20, 0x7E), (0x0A, 0x0A), (0x3001, 0x3011)]  # fmt: skip
    texts = []
    for _ in range(count):
        chosen = [ranges[i] for i in rng.integers(len(ranges), size=rng.integers(1, 5))]
        texts.append("".join(chr(rng.integers(low, high + 1)) for low, high in chosen))
    return texts


def test_pieces_never_split_a_character(generator: LocalGenerator, monkeypatch) -> None:
    texts = random_texts(10_000)
    for text in texts:
        ids = encode_text(tokenizer(), text)
        monkeypatch.setattr(LocalGenerator, "_tokens_one_by_one", lambda *_, ids=ids: iter(ids))
        pieces = list(generator.stream(PROMPTS[0], DECODING, seed=0))
        assert "".join(pieces) == text
        assert all(pieces)
    assert sum(len(text.encode()) for text in texts) > 60_000


def test_bytes_that_make_no_character_are_left_out_alike(generator: LocalGenerator, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    for _ in range(1000):
        ids = rng.integers(0, len(tokenizer()), 8).tolist()
        monkeypatch.setattr(LocalGenerator, "_tokens_one_by_one", lambda *_, ids=ids: iter(ids))
        pieces = list(generator.stream(PROMPTS[0], DECODING, seed=0))
        assert "".join(pieces) == generator.text(ids)
        "".join(pieces).encode()


@torch.no_grad()
def reference_logprob(before: list[int], after: list[int]) -> tuple[float, bool]:
    logits = model()(torch.tensor([[*before, *after]])).logits[0, len(before) - 1 : -1]
    chosen = logits.log_softmax(-1).gather(-1, torch.tensor(after)[:, None])
    return float(chosen.sum()), logits.argmax(-1).tolist() == after


def test_logprobs_are_the_models(generator: LocalGenerator, monkeypatch) -> None:
    monkeypatch.setattr("xinglin.rollout.local.PACKED_TOKENS", 40)  # several packed rows
    pairs = [
        ("头痛三天", "多喝水"),
        ("头痛三天", "休息"),
        ("", "感冒"),
        (PROMPTS[2], "多喝水,注意休息"),
        ("a", "b" * 30),
    ]
    found = generator.logprobs(pairs)
    for (context, continuation), result in zip(pairs, found, strict=True):
        if isinstance(context, str):
            before = [1, *encode_text(tokenizer(), context)]
        else:
            before = render(tokenizer(), TEMPLATES["chatml"], context, reply=True)[0]
        after = encode_text(tokenizer(), continuation)
        expected, greedy = reference_logprob(before, after)
        assert abs(result.total - expected) < 1e-4
        assert (result.num_tokens, result.greedy) == (len(after), greedy)
    assert generator.logprobs([]) == []


def test_the_greedy_answer_is_greedy(generator: LocalGenerator) -> None:
    ((ids, logprobs),) = generator.generate_tokens(generator.encode(PROMPTS[:1]), Decoding(6, 0), seed=0)[0:1][0]
    (row,) = generator.encode(PROMPTS[:1])
    expected, greedy = reference_logprob(row.tolist(), ids)
    assert greedy
    assert abs(sum(logprobs) - expected) < 1e-4


def test_a_context_too_long_loses_its_beginning(generator: LocalGenerator) -> None:
    (result,) = generator.logprobs([("痛" * 200, "水")])
    after = encode_text(tokenizer(), "水")
    before = [1, *encode_text(tokenizer(), "痛" * 200)][-(128 - len(after)) :]
    assert abs(result.total - reference_logprob(before, after)[0]) < 1e-4


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_load_from_a_folder_serves_what_was_trained(tmp_path: Path, method: str) -> None:
    made = load_trainable(save(tmp_path / "base"), training(method))
    if method != "full":
        shake(made.module, seed=3, only=".policy.")
    made.save(tmp_path / "trained")
    made.module.eval()
    served = LocalGenerator.load(tmp_path / "trained")
    assert served.name == "trained"
    trained = LocalGenerator("trained", read_weights(made.module), made.tokenizer, made.template)
    assert served.generate(PROMPTS, DECODING, seed=0) == trained.generate(PROMPTS, DECODING, seed=0)


def test_rollouts_keep_the_order_of_the_questions_and_their_ids_are_unlike(generator: LocalGenerator) -> None:
    asked = [Question(f"q{i}", PROMPTS[i % 3], source="ward", meta={"patient_id": i}) for i in range(70)]
    seen: list[int] = []
    rollouts = list(sample_rollouts(generator, asked, Decoding(2), 2, 0, seen.append))
    assert [r.question_id for r in rollouts] == [q.id for q in asked for _ in range(2)]
    assert len({r.id for r in rollouts}) == 140
    assert rollouts[-1].meta == {"patient_id": 69}
    assert sum(seen) == 70
