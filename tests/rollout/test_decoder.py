import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import SHAPES, model, save, shake, training
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from xinglin.models.load import load_base
from xinglin.models.trainable import load_trainable
from xinglin.records import InputError
from xinglin.rollout.decoder import Request, choose, decode, decode_stream
from xinglin.rollout.generator import Decoding
from xinglin.rollout.weights import read_weights

STOP = 4
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(5, 320, n) for n in (3, 12, 1, 30, 12)]
SAMPLED = Decoding(max_new_tokens=20, temperature=1.0)


def requests(num_answers: int = 2, stop_at: int = 20) -> list[Request]:
    return [
        Request(prompt, np.random.default_rng([7, i, j]).random(stop_at), i)
        for i, prompt in enumerate(PROMPTS)
        for j in range(num_answers)
    ]


def answers(weights, asked: list[Request], decoding: Decoding, **options: int) -> list[tuple[list[int], list[float]]]:
    found = {index: (ids, logprobs) for index, ids, logprobs in decode(weights, asked, decoding, STOP, **options)}
    return [found[index] for index in range(len(asked))]


@torch.no_grad()
def assert_logprobs_are_the_models(module: torch.nn.Module, asked: list[Request], found, temperature: float) -> None:
    for request, (ids, logprobs) in zip(asked, found, strict=True):
        row = torch.tensor([[*request.prompt, *ids]])
        logits = module(row).logits[0, len(request.prompt) - 1 : -1] / temperature
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(logprobs), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("shape", SHAPES)
def test_logprobs_of_sampled_tokens_are_the_models(shape: str, temperature: float) -> None:
    """Prompts and answers longer than the sliding window of 7, transformers' own attention as the reference."""
    plain = model(shape)
    found = answers(read_weights(plain), requests(), Decoding(20, temperature), num_slots=3)
    assert_logprobs_are_the_models(plain, requests(), found, temperature)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_logprobs_under_an_adapter_over_a_float_and_an_nf4_base(tmp_path: Path, method: str) -> None:
    made = load_trainable(save(tmp_path / "base"), training(method))
    before = answers(read_weights(made.module), requests(), SAMPLED)
    shake(made.module, seed=3, only=".policy.")
    made.module.eval()
    found = answers(read_weights(made.module), requests(), SAMPLED)
    assert [ids for ids, _ in found] != [ids for ids, _ in before]
    assert_logprobs_are_the_models(made.module, requests(), found, 1.0)


def test_logprobs_of_a_bare_nf4_base(tmp_path: Path) -> None:
    nf4 = load_base(save(tmp_path / "base"), nf4=True)
    assert_logprobs_are_the_models(nf4, requests(), answers(read_weights(nf4), requests(), SAMPLED), 1.0)


@pytest.mark.parametrize("shape", ["llama-gqa", "mistral-window"])
def test_an_answer_does_not_depend_on_slots_or_company(shape: str) -> None:
    weights = read_weights(model(shape))
    together = answers(weights, requests(), SAMPLED)
    assert len({tuple(ids) for ids, _ in together}) == len(together)
    for num_slots in (1, 2, 7):
        for (ids, logprobs), (expected, expected_logprobs) in zip(
            answers(weights, requests(), SAMPLED, num_slots=num_slots), together, strict=True
        ):
            assert ids == expected
            np.testing.assert_allclose(logprobs, expected_logprobs, atol=1e-5)
    for request, (expected, _) in zip(requests(), together, strict=True):
        assert answers(weights, [request], SAMPLED)[0][0] == expected
        streamed = list(decode_stream(weights, request, SAMPLED, STOP))
        assert streamed == [token for token in expected if token != STOP]


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_is_transformers_generate(tmp_path: Path, shape: str) -> None:
    folder = save(tmp_path / "base", shape)
    plain = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    found = answers(read_weights(plain), requests(1), Decoding(20, temperature=0), num_slots=2)
    for prompt, (ids, _) in zip(PROMPTS, found, strict=True):
        row = torch.from_numpy(prompt)[None]
        expected = plain.generate(
            row, attention_mask=torch.ones_like(row), do_sample=False, max_new_tokens=20, eos_token_id=STOP
        )
        assert ids == expected[0, len(prompt) :].tolist()
    assert_logprobs_are_the_models(plain, requests(1), found, 1.0)


def test_the_stop_token_ends_an_answer_and_is_kept_with_its_logprob() -> None:
    plain = model()
    with torch.no_grad():
        plain.lm_head.weight[STOP] += 0.1 * plain.lm_head.weight.mean(0)
        plain.lm_head.weight[STOP] *= 3  # often the likeliest, often the least likely
    found = answers(read_weights(plain), requests(8), SAMPLED, num_slots=5)
    lengths = [len(ids) for ids, _ in found]
    assert min(lengths) < 20 == max(lengths)
    for ids, logprobs in found:
        assert len(ids) == len(logprobs)
        assert STOP not in ids[:-1]
        assert ids[-1] == STOP or len(ids) == 20
    assert_logprobs_are_the_models(plain, requests(8), found, 1.0)


@pytest.mark.parametrize("how", ["decode", "stream"])
def test_a_prompt_too_long_is_named_and_the_longest_one_fits(how: str) -> None:
    weights = read_weights(model())

    def run(length: int) -> int:
        request = Request(np.full(length, 9), np.zeros(20), 0)
        if how == "decode":
            return len(answers(weights, [request], SAMPLED)[0][0])
        return len(list(decode_stream(weights, request, SAMPLED, STOP)))

    assert run(108) <= 20
    with pytest.raises(InputError, match="a prompt of 109 tokens and 20 new ones exceed the model's 128"):
        run(109)


def test_nothing_asked_nothing_answered() -> None:
    assert answers(read_weights(model()), [], SAMPLED) == []


def test_models_it_cannot_read_are_refused() -> None:
    biased = LlamaForCausalLM(
        LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                    attention_bias=True)
    )  # fmt: skip
    with pytest.raises(InputError, match="no bias after attention or MLP"):
        read_weights(biased)
    other = model()
    other.config.model_type = "gemma"
    with pytest.raises(InputError, match="decoding supports llama, qwen2, qwen3, mistral; this model is gemma"):
        read_weights(other)


# --- the choice of a token -------------------------------------------------------------------------------------------

LOGITS = 2 * torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
NUM_DRAWS = 20_000


def frequencies(decoding: Decoding) -> torch.Tensor:
    """Share of each token over uniforms that cover [0, 1) evenly: off by at most one draw a token."""
    uniforms = (torch.arange(NUM_DRAWS) + 0.5) / NUM_DRAWS
    tokens, _ = choose(LOGITS.expand(NUM_DRAWS, -1), uniforms, decoding)
    return torch.bincount(tokens, minlength=50) / NUM_DRAWS


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.6), (1.3, 8, 0.7), (1.0, 999, 0.999), (1.0, 1, 1.0),
     (1.0, 0, 1e-6)],
)  # fmt: skip
def test_the_distribution_is_transformers(temperature: float, top_k: int, top_p: float) -> None:
    logits = TemperatureLogitsWarper(temperature)(None, LOGITS.clone())
    logits = TopKLogitsWarper(top_k)(None, logits) if top_k else logits
    logits = TopPLogitsWarper(top_p)(None, logits) if top_p < 1 else logits
    found = frequencies(Decoding(1, temperature, top_p, top_k))
    torch.testing.assert_close(found, logits[0].softmax(-1), atol=2 / NUM_DRAWS, rtol=0)
    assert (found > 0).sum() <= (logits > -math.inf).sum()


def test_top_p_by_hand() -> None:
    """Shares .5 .3 .15 .05: .6 needs two tokens, .49 one; top-k 3 leaves .526 .316 .158, so that .85 needs three."""
    logits = torch.tensor([[0.05, 0.5, 0.15, 0.3]]).log()

    def kept(top_p: float, top_k: int = 0) -> list[int]:
        tokens, _ = choose(logits.expand(1000, -1), torch.arange(1000) / 1000, Decoding(1, 1.0, top_p, top_k))
        return sorted(set(tokens.tolist()))

    assert kept(0.6) == [1, 3]
    assert kept(0.49) == [1]
    assert kept(0.85, top_k=3) == [1, 2, 3]
    assert kept(0.83, top_k=3) == [1, 3]


def test_a_uniform_that_rounds_to_one_never_picks_a_token_without_mass() -> None:
    logits = torch.tensor([[0.0, 1.0, -200.0]])
    highest = torch.tensor([np.nextafter(1.0, 0.0)])  # a float64 under 1, 1 in fp32
    assert int(choose(logits, highest.float(), Decoding(1))[0]) == 1
    assert int(choose(logits, highest.float(), Decoding(1, top_k=2))[0]) == 0  # sorted: the second and last kept
    assert int(choose(logits, torch.zeros(1), Decoding(1))[0]) == 0


def test_logprobs_are_before_top_k_and_top_p_and_at_the_temperature() -> None:
    token, logprob = choose(LOGITS, torch.tensor([0.3]), Decoding(1, 0.5, 0.7, 5))
    torch.testing.assert_close(logprob, (LOGITS / 0.5).log_softmax(-1)[0, token])
    token, logprob = choose(LOGITS, torch.tensor([0.3]), Decoding(1, 0))
    assert int(token) == int(LOGITS.argmax())
    torch.testing.assert_close(logprob, LOGITS.log_softmax(-1)[0, token])
