import math

import pytest
import torch

from xinglin.objectives.preference import dpo, ordered_pairs, pairwise, plackett_luce

LN2 = math.log(2)


def one(scores: list[float], ranks: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.tensor(scores), torch.tensor(ranks), torch.zeros(len(scores), dtype=torch.long)


def reference_pairwise(scores: list[float], ranks: list[int]) -> float:
    losses = [
        math.log1p(math.exp(-(scores[i] - scores[j])))
        for i in range(len(scores))
        for j in range(len(scores))
        if ranks[i] < ranks[j]
    ]
    return sum(losses) / len(losses) if losses else 0.0


def reference_plackett_luce(scores: list[float], ranks: list[int]) -> float:
    """Breslow: every winner of a place against all of that place or below; the last place is won by nobody."""
    total = 0.0
    for i, rank in enumerate(ranks):
        if any(other > rank for other in ranks):
            field = sum(math.exp(s) for s, other in zip(scores, ranks, strict=True) if other >= rank)
            total -= math.log(math.exp(scores[i]) / field)
    return total


def random_groups(seed: int) -> tuple[list[list[float]], list[list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    scores, ranks = [], []
    for _ in range(30):
        size = int(torch.randint(2, 6, (1,), generator=generator))
        scores.append(torch.randn(size, generator=generator, dtype=torch.float64).tolist())
        ranks.append(torch.randint(1, 4, (size,), generator=generator).tolist())
    return scores, ranks


def flat(scores: list[list[float]], ranks: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sizes = torch.tensor([len(s) for s in scores])
    return (
        torch.tensor(sum(scores, []), dtype=torch.float64),
        torch.tensor(sum(ranks, [])),
        torch.arange(len(scores)).repeat_interleave(sizes),
    )


def test_ordered_pairs_stay_in_their_group_and_skip_ties() -> None:
    better, worse = ordered_pairs(torch.tensor([2, 1, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 1]))
    assert sorted(zip(better.tolist(), worse.tolist(), strict=True)) == [(1, 0), (2, 0), (3, 4)]


def test_pairwise_by_hand() -> None:
    # margins 1, 3, 2: the mean of ln(1 + e^-m) = (0.313262 + 0.048587 + 0.126928) / 3
    loss_sum, count, metrics = pairwise(*one([2.0, 1.0, -1.0], [1, 2, 3]))
    assert math.isclose(float(loss_sum), 0.162926, abs_tol=1e-6)
    assert count == 1
    assert (float(metrics["accuracy"]), float(metrics["margin"])) == (1.0, 2.0)


def test_two_answers_are_bradley_terry_in_all_three() -> None:
    scores, ranks, group = one([0.3, 1.1], [2, 1])
    expected = math.log1p(math.exp(-0.8))
    zeros = torch.zeros(2)
    for loss_sum, count, _ in (
        pairwise(scores, ranks, group),
        plackett_luce(scores, ranks, group),
        dpo(scores / 0.1, zeros, ranks, group, 0.1),
    ):
        assert math.isclose(float(loss_sum), expected, rel_tol=1e-6)
        assert count == 1


def test_plackett_luce_by_hand() -> None:
    # e^s = 1, 2, 1 in the order of rank 1, 2, 3: P = 1/4 * 2/3 = 1/6
    loss_sum, count, _ = plackett_luce(*one([0.0, LN2, 0.0], [1, 2, 3]))
    assert math.isclose(loss_sum.item(), math.log(6), rel_tol=1e-6)
    assert count == 1


def test_plackett_luce_tie_at_the_top_by_hand() -> None:
    # both winners against all three: (1/4) (2/4)
    loss_sum, _, _ = plackett_luce(*one([0.0, LN2, 0.0], [1, 1, 2]))
    assert math.isclose(loss_sum.item(), math.log(8), rel_tol=1e-6)


def test_plackett_luce_tie_at_the_bottom_asks_nothing_of_the_tied() -> None:
    scores = torch.tensor([0.0, LN2, 0.0], requires_grad=True)
    loss_sum, _, _ = plackett_luce(scores, torch.tensor([1, 2, 2]), torch.zeros(3, dtype=torch.long))
    assert math.isclose(loss_sum.item(), math.log(4), rel_tol=1e-6)
    (gradient,) = torch.autograd.grad(loss_sum, scores)
    torch.testing.assert_close(gradient, torch.tensor([-0.75, 0.5, 0.25]))  # softmax less the winner


def test_a_tie_pulls_equal_answers_together() -> None:
    scores = torch.tensor([1.0, -1.0, 0.0], requires_grad=True)
    loss_sum, _, _ = plackett_luce(scores, torch.tensor([1, 1, 2]), torch.zeros(3, dtype=torch.long))
    (gradient,) = torch.autograd.grad(loss_sum, scores)
    assert gradient[0] > gradient[1]  # the higher of the two is pushed down, the lower up


@pytest.mark.parametrize("loss", [pairwise, plackett_luce])
def test_ties_alone_count_nothing(loss) -> None:
    scores = torch.tensor([0.5, -0.5, 1.0, 2.0])
    loss_sum, count, _ = loss(scores, torch.tensor([1, 1, 1, 2]), torch.tensor([0, 0, 1, 1]))
    assert math.isclose(loss_sum.item(), math.log1p(math.e), rel_tol=1e-6)
    assert count == 1


@pytest.mark.parametrize(
    ("loss", "reference"), [(pairwise, reference_pairwise), (plackett_luce, reference_plackett_luce)]
)
def test_many_groups_with_ties_against_a_loop(loss, reference) -> None:
    scores, ranks = random_groups(3)
    loss_sum, count, _ = loss(*flat(scores, ranks))
    expected = sum(reference(s, r) for s, r in zip(scores, ranks, strict=True))
    assert math.isclose(float(loss_sum), expected, rel_tol=1e-12)
    assert count == sum(len(set(r)) > 1 for r in ranks)


def test_order_of_answers_and_groups_does_not_matter() -> None:
    scores, ranks, group = flat(*random_groups(4))
    shuffled = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    for loss in (pairwise, plackett_luce):
        whole = loss(scores, ranks, group)
        mixed = loss(scores[shuffled], ranks[shuffled], group[shuffled])
        assert math.isclose(float(whole[0]), float(mixed[0]), rel_tol=1e-12)
        assert whole[1] == mixed[1]


def test_dpo_gradient_is_that_of_the_formula() -> None:
    """-beta sigmoid(r_worse - r_better) (grad logp_better - grad logp_worse): arXiv:2305.18290, section 4."""
    logprobs = torch.tensor([-12.0, -15.0], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([-13.0, -13.5], dtype=torch.float64)
    beta = 0.3
    loss_sum, _, metrics = dpo(logprobs, ref, torch.tensor([1, 2]), torch.zeros(2, dtype=torch.long), beta)
    (gradient,) = torch.autograd.grad(loss_sum, logprobs)
    better, worse = beta * 1.0, beta * -1.5
    weight = beta / (1 + math.exp(better - worse))
    torch.testing.assert_close(gradient, torch.tensor([-weight, weight], dtype=torch.float64))
    assert math.isclose(float(metrics["chosen_reward"]), better)
    assert math.isclose(float(metrics["rejected_reward"]), worse)
    assert math.isclose(float(metrics["margin"]), better - worse)


def test_dpo_over_groups_against_autograd_of_the_formula() -> None:
    scores, ranks, group = flat(*random_groups(5))
    ref = torch.randn(len(scores), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, plain = (scores.clone().requires_grad_() for _ in range(2))
    (gradient,) = torch.autograd.grad(dpo(ours, ref, ranks, group, 0.2)[0], ours)
    total = torch.zeros((), dtype=torch.float64)
    for g in range(30):
        rows = [i for i in range(len(ranks)) if group[i] == g]
        pairs = [(i, j) for i in rows for j in rows if ranks[i] < ranks[j]]
        for i, j in pairs:
            margin = 0.2 * ((plain[i] - ref[i]) - (plain[j] - ref[j]))
            total = total - torch.log(1 / (1 + torch.exp(-margin))) / len(pairs)
    torch.testing.assert_close(gradient, torch.autograd.grad(total, plain)[0])


def test_extreme_margins_stay_finite() -> None:
    for loss in (pairwise, plackett_luce):
        scores = torch.tensor([-1e4, 1e4], requires_grad=True)
        loss_sum, _, _ = loss(scores, torch.tensor([1, 2]), torch.zeros(2, dtype=torch.long))
        assert loss_sum.item() == 2e4
        (gradient,) = torch.autograd.grad(loss_sum, scores)
        assert gradient.tolist() == [-1.0, 1.0]


def test_a_dead_heat_is_half_right() -> None:
    assert float(pairwise(*one([1.0, 1.0], [1, 2]))[2]["accuracy"]) == 0.5
