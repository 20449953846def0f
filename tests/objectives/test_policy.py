import math

import pytest
import torch

from xinglin.objectives.policy import (
    gae,
    group_advantages,
    kl_estimate,
    ppo_clip,
    sum_by_rollout,
    value_clip,
    whiten,
)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gae_by_hand() -> None:
    # gamma 0.5, lambda 0.5; deltas: 0 + 0.5 * 2 - 1 = 0, then 4 - 2 = 2; A_0 = 0 + 0.25 * 2
    advantages, returns = gae(torch.tensor([0.0, 4.0]), torch.tensor([1.0, 2.0]), 0.5, 0.5)
    assert advantages.tolist() == [0.5, 2.0]
    assert returns.tolist() == [1.5, 4.0]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.7), (0.99, 0.0)])
def test_gae_against_the_direct_sum(gamma: float, lam: float) -> None:
    rewards, values = draws(9), draws(9, seed=1)
    advantages, returns = gae(rewards, values, gamma, lam)
    after = [*values[1:].tolist(), 0.0]
    deltas = [r + gamma * nxt - v for r, nxt, v in zip(rewards.tolist(), after, values.tolist(), strict=True)]
    direct = [sum((gamma * lam) ** k * deltas[t + k] for k in range(9 - t)) for t in range(9)]
    torch.testing.assert_close(advantages, torch.tensor(direct, dtype=torch.float64))
    torch.testing.assert_close(returns, advantages + values)


def test_gae_with_lambda_one_returns_the_discounted_rewards() -> None:
    rewards, values = draws(6), draws(6, seed=1)
    _, returns = gae(rewards, values, 0.9, 1.0)
    direct = [sum(0.9**k * float(rewards[t + k]) for k in range(6 - t)) for t in range(6)]
    torch.testing.assert_close(returns, torch.tensor(direct, dtype=torch.float64))


def test_group_advantages_by_hand() -> None:
    # group 0: mean 2, deviation sqrt(2/3); group 1: alone
    rewards, group = torch.tensor([1.0, 7.0, 2.0, 3.0]), torch.tensor([0, 1, 0, 0])
    expected = torch.tensor([-math.sqrt(1.5), 0.0, 0.0, math.sqrt(1.5)])
    torch.testing.assert_close(group_advantages(rewards, group), expected)


def test_group_advantages_leave_out_nobody() -> None:
    rewards, group = draws(24), torch.arange(24) % 4
    advantages = group_advantages(rewards, group)
    for g in range(4):
        members = [float(r) for r, i in zip(rewards, group, strict=True) if i == g]
        mean = sum(members) / 6
        deviation = math.sqrt(sum((r - mean) ** 2 for r in members) / 6)
        expected = torch.tensor([(r - mean) / deviation for r in members], dtype=torch.float64)
        torch.testing.assert_close(advantages[group == g], expected)


def test_equal_rewards_teach_nothing() -> None:
    advantages = group_advantages(torch.full((6,), 0.1), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert advantages.abs().max() < 0.02  # 0.1 has no exact mean in fp32; what is left must not be blown up


def test_whiten() -> None:
    torch.testing.assert_close(whiten(torch.tensor([1.0, 3.0])), torch.tensor([-1.0, 1.0]))
    assert whiten(torch.full((3,), 5.0)).tolist() == [0.0, 0.0, 0.0]


def reference_ppo(logprob: float, old: float, advantage: float, clip: float) -> float:
    ratio = math.exp(logprob - old)
    limited = min(max(ratio, 1 - clip), 1 + clip)
    return -min(ratio * advantage, limited * advantage)


def test_ppo_clip_by_hand() -> None:
    # ratios 2, 2, 1/2, 1/2 with eps 0.2: -min(2, 1.2), -min(-2, -1.2), -min(.5, .8), -min(-.5, -.8)
    logprobs = torch.log(torch.tensor([2.0, 2.0, 0.5, 0.5]))
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss_sum, count, metrics = ppo_clip(logprobs, torch.zeros(4), advantages, 0.2)
    assert math.isclose(float(loss_sum), -1.2 + 2 - 0.5 + 0.8, rel_tol=1e-6)
    assert count == 4
    assert (float(metrics["ratio"]), float(metrics["ratio_max"]), float(metrics["clipped"])) == pytest.approx(
        (2.0, 2.0, 1.0)
    )


def test_ppo_clip_against_a_scalar_loop_with_gradient() -> None:
    logprobs, old, advantages = draws(40), draws(40, seed=1), draws(40, seed=2)
    logprobs.requires_grad_()
    loss_sum, _, _ = ppo_clip(logprobs, old, advantages, 0.2)
    triples = list(zip(logprobs.tolist(), old.tolist(), advantages.tolist(), strict=True))
    assert math.isclose(loss_sum.item(), sum(reference_ppo(*triple, 0.2) for triple in triples), rel_tol=1e-12)
    (gradient,) = torch.autograd.grad(loss_sum, logprobs)
    step = 1e-6
    for got, (p, q, a) in zip(gradient.tolist(), triples, strict=True):
        slope = (reference_ppo(p + step, q, a, 0.2) - reference_ppo(p - step, q, a, 0.2)) / (2 * step)
        assert math.isclose(got, slope, rel_tol=1e-5, abs_tol=1e-7)


def test_value_clip_by_hand() -> None:
    # far from the old value: max((3 - 0)^2, (1.2 - 0)^2) / 2; near it: (1.1 - 2)^2 / 2
    loss_sum, count, _ = value_clip(torch.tensor([3.0, 1.1]), torch.ones(2), torch.tensor([0.0, 2.0]), 0.2)
    assert math.isclose(float(loss_sum), 4.5 + 0.405, rel_tol=1e-6)
    assert count == 2


def test_value_clip_stops_the_gradient_only_where_clipping_is_the_worse() -> None:
    values = torch.tensor([3.0, 3.0], requires_grad=True)
    loss_sum, _, _ = value_clip(values, torch.ones(2), torch.tensor([0.0, 9.0]), 0.2)
    (gradient,) = torch.autograd.grad(loss_sum, values)
    assert gradient.tolist() == [3.0, 0.0]


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    perfect = value_clip(returns, returns, returns, 0.2)[2]["explained_variance"]
    blind = value_clip(torch.full((3,), 2.0), returns, returns, 0.2)[2]["explained_variance"]
    assert (float(perfect), float(blind)) == (1.0, 0.0)


def test_kl_estimate_is_unbiased_and_never_negative() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    estimate = kl_estimate(policy.log(), reference.log())
    assert (estimate >= 0).all()
    expected = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    assert math.isclose(float((policy * estimate).sum()), expected, rel_tol=1e-5)  # the mean over the policy's draws
    assert kl_estimate(policy.log(), policy.log()).tolist() == [0.0, 0.0, 0.0]


def test_sum_by_rollout() -> None:
    sums = sum_by_rollout(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3)
    assert sums.tolist() == [1.0, 0.0, 6.0]
