import math

import torch

from xinglin.objectives import causal
from xinglin.objectives.causal import causal_lm, token_logprobs


def reference_logprob(hidden: list[float], head: list[list[float]], label: int) -> float:
    logits = [sum(h * w for h, w in zip(hidden, row, strict=True)) for row in head]
    return logits[label] - math.log(sum(math.exp(x) for x in logits))


def test_logprobs_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 3, generator=generator)
    head = torch.randn(7, 3, generator=generator)
    labels = torch.tensor([0, 6, 3, 3, 1])
    expected = [reference_logprob(h, head.tolist(), y) for h, y in zip(hidden.tolist(), labels.tolist(), strict=True)]
    torch.testing.assert_close(token_logprobs(hidden, head, labels), torch.tensor(expected), atol=1e-6, rtol=0)


def test_loss_is_a_sum_with_its_count() -> None:
    loss_sum, count, metrics = causal_lm(torch.log(torch.tensor([0.5, 0.25, 1.0])))
    assert math.isclose(float(loss_sum), math.log(8), rel_tol=1e-6)  # ln 2 + ln 4 + ln 1
    assert (count, metrics) == (3, {})


def test_no_supervised_token_gives_zero() -> None:
    loss_sum, count, _ = causal_lm(
        token_logprobs(torch.zeros(0, 3), torch.ones(7, 3), torch.zeros(0, dtype=torch.long))
    )
    assert (float(loss_sum), count) == (0.0, 0)


def test_pieces_give_the_same_loss_and_gradients(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(11, 4, generator=generator)
    head = torch.randn(6, 4, generator=generator)
    labels = torch.randint(6, (11,), generator=generator)

    def run() -> list[torch.Tensor]:
        inputs = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
        logprobs = token_logprobs(*inputs, labels)
        return [logprobs, *torch.autograd.grad(logprobs.sum(), inputs)]

    whole = run()
    monkeypatch.setattr(causal, "CHUNK_LOGITS", 6 * 3)  # three rows at a time
    for piece, one in zip(run(), whole, strict=True):
        torch.testing.assert_close(piece, one, atol=1e-6, rtol=1e-6)


def test_logprobs_are_fp32_under_bf16() -> None:
    hidden, head = torch.ones(1, 4, dtype=torch.bfloat16), torch.zeros(300, 4, dtype=torch.bfloat16)
    logprob = token_logprobs(hidden, head, torch.tensor([0]))
    assert logprob.dtype == torch.float32
    assert math.isclose(float(logprob), -math.log(300), rel_tol=1e-6)
