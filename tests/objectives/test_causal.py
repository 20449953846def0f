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
    monkeypatch.setattr(causal, "CACHED_LOGITS", 6 * 2)  # two rows at a time
    for piece, one in zip(run(), whole, strict=True):
        torch.testing.assert_close(piece, one, atol=1e-6, rtol=1e-6)
    monkeypatch.setattr(causal, "KEPT_LOGITS", 6 * 3)  # three rows at a time, computed again in the backward pass
    for piece, one in zip(run(), whole, strict=True):
        torch.testing.assert_close(piece, one, atol=1e-6, rtol=1e-6)


def test_gradients_against_pytorch() -> None:
    """Against autograd through log_softmax, with a weight of its own for each token; a frozen head gets none."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(9, 5, generator=generator, requires_grad=True)
    head = torch.randn(13, 5, generator=generator, requires_grad=True)
    labels, weights = torch.randint(13, (9,), generator=generator), torch.randn(9, generator=generator)
    expected = (hidden @ head.T).log_softmax(1)[torch.arange(9), labels]
    wanted = torch.autograd.grad((expected * weights).sum(), (hidden, head))
    ours = token_logprobs(hidden, head, labels)
    torch.testing.assert_close(ours, expected)
    loss = (ours * weights).sum()
    for _ in range(2):  # the second pass computes the logits again
        found = torch.autograd.grad(loss, (hidden, head), retain_graph=True)
        for mine, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    frozen = token_logprobs(hidden, head.detach(), labels)
    torch.testing.assert_close(
        torch.autograd.grad((frozen * weights).sum(), hidden)[0], wanted[0], atol=1e-6, rtol=1e-5
    )


def test_logprobs_are_fp32_under_bf16() -> None:
    hidden, head = torch.ones(1, 4, dtype=torch.bfloat16), torch.zeros(300, 4, dtype=torch.bfloat16)
    logprob = token_logprobs(hidden, head, torch.tensor([0]))
    assert logprob.dtype == torch.float32
    assert math.isclose(float(logprob), -math.log(300), rel_tol=1e-6)
