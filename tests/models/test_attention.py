import numpy as np
import pytest
import torch

from xinglin.models.attention import packed_attention, plan_paths


def reference(q, k, v, path, window=None) -> torch.Tensor:
    """(len(path), D) one head's outputs along one path, written as a double loop in float64."""
    out = torch.zeros(len(path), q.shape[-1], dtype=torch.float64)
    for i, position in enumerate(path):
        start = 0 if window is None else max(0, i - window + 1)
        seen = path[start : i + 1]
        weights = [float(q[position] @ k[other]) / q.shape[-1] ** 0.5 for other in seen]
        shares = torch.tensor(weights, dtype=torch.float64).softmax(0)
        for share, other in zip(shares, seen, strict=True):
            out[i] += share * v[other]
    return out


def random_qkv(num_tokens: int, heads: int, kv_heads: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, h, num_tokens, 8, generator=generator) for h in (heads, kv_heads, kv_heads)]


PROMPT = [0, 1, 2, 3]
LAYOUTS = {
    "plain": ([list(range(5)), list(range(5, 12)), [12]], 13),
    "equal": ([list(range(i, i + 4)) for i in range(0, 16, 4)], 16),
    "shared prompt": ([PROMPT + [4, 5, 6], PROMPT + [7], PROMPT + [8, 9, 10, 11, 12]], 13),
    "one row": ([list(range(9))], 9),
}


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_against_a_double_loop(layout: str, kv_heads: int, window: int | None) -> None:
    paths, num_tokens = LAYOUTS[layout]
    q, k, v = random_qkv(num_tokens, 4, kv_heads)
    plan = plan_paths([np.array(path) for path in paths], num_tokens)
    out, _ = packed_attention(None, q, k, v, None, paths=plan, sliding_window=window)
    assert out.shape == (1, num_tokens, 4, 8)
    for head in range(4):
        of = head // (4 // kv_heads)
        for path in paths:
            expected = reference(q[0, head].double(), k[0, of].double(), v[0, of].double(), path, window)
            torch.testing.assert_close(out[0, path, head].double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("window", [None, 3])
def test_without_paths_it_is_plain_causal_attention(window: int | None) -> None:
    q, k, v = random_qkv(9, 4, 2)
    out, _ = packed_attention(None, q, k, v, None, sliding_window=window)
    expected = reference(q[0, 3].double(), k[0, 1].double(), v[0, 1].double(), list(range(9)), window)
    torch.testing.assert_close(out[0, :, 3].double(), expected, atol=1e-6, rtol=0)


def test_many_short_rows_are_few_calls_with_little_padding() -> None:
    plan = plan_paths([np.arange(20 * i, 20 * i + 20) for i in range(160)], 3200)
    assert plan.shapes == ((160, 20),)
    assert plan.gathers == (None,)  # nothing to gather: the row itself is the bucket
    lengths = np.random.default_rng(0).integers(10, 500, 200)
    ends = np.cumsum(lengths)
    plan = plan_paths([np.arange(e - n, e) for n, e in zip(lengths, ends, strict=True)], int(ends[-1]))
    assert len(plan.shapes) <= 20
    assert sum(n * longest for n, longest in plan.shapes) <= 1.25 * ends[-1]


def test_a_position_in_no_path_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="lies in no path"):
        plan_paths([np.array([0, 1])], 3)
