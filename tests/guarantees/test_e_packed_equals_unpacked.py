"""Guarantee e: packed equals unpacked in logits, loss and gradients, for every shape and attention path we allow.

The reference is transformers' own eager attention on each row alone, with its own cross entropy.
"""

import numpy as np
import pytest
import torch
from tiny_models import SHAPES, model
from torch import Tensor

from xinglin.models.attention import use_packed_attention
from xinglin.models.packing import Group, micro_batches, pack
from xinglin.objectives.causal import causal_lm, token_logprobs

TOLERANCE = 1e-5
RNG = np.random.default_rng(0)


def text(length: int) -> Group:
    ids = RNG.integers(5, 320, length)
    learned = RNG.random(length) < 0.6
    learned[-1] = True
    return Group("", ids[:0], (ids,), (learned,))


def group(prompt: int, *answers: int) -> Group:
    ids = [RNG.integers(5, 320, n) for n in (prompt, *answers)]
    return Group("", ids[0], tuple(ids[1:]), tuple(np.ones(n, bool) for n in answers))


LAYOUTS = {
    "160 rows of 20": [text(20) for _ in range(160)],
    "mixed lengths": [text(n) for n in (40, 3, 7, 8, 21, 40, 2, 6, 33)],
    "shared prompts": [group(13, 4, 9, 9, 2), group(1, 5, 1), group(30, 3, 12, 6)],
    "rows and groups": [text(25), group(9, 6, 6), text(4)],
}


def alone(rows: list[Group], kind: str) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
    """Logits of every answer's own row, the summed loss, the gradients. Rows of one length go as a plain batch."""
    plain = model(kind)
    plain.set_attn_implementation("eager")
    answers = [(np.concatenate([row.prompt, a]), np.concatenate([np.zeros(len(row.prompt), bool), on]))
               for row in rows for a, on in zip(row.answers, row.learned, strict=True)]  # fmt: skip
    same = len({len(ids) for ids, _ in answers}) == 1
    parts = [answers] if same else [[answer] for answer in answers]
    logits, losses = [], []
    for part in parts:
        ids = torch.from_numpy(np.stack([ids for ids, _ in part]))
        learned = torch.from_numpy(np.stack([on for _, on in part]))
        out = plain(ids, use_cache=False).logits
        labels = ids.masked_fill(~learned, -100)[:, 1:]
        losses.append(torch.nn.functional.cross_entropy(out[:, :-1].flatten(0, 1), labels.flatten(), reduction="sum"))
        logits += list(out.detach())
    loss = torch.stack(losses).sum()
    loss.backward()
    return logits, loss.detach(), {name: p.grad for name, p in plain.named_parameters()}


def assert_near(found: Tensor, expected: Tensor, what: str) -> None:
    """To 1e-5 of the largest value."""
    worst = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    assert worst < TOLERANCE, f"{what}: {worst:.2g}"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", SHAPES)
def test_logits_loss_and_gradients(kind: str, layout: str) -> None:
    rows = LAYOUTS[layout]
    logits, loss, gradients = alone(rows, kind)
    packed = use_packed_attention(model(kind))
    batch = pack(rows)
    hidden = packed.get_decoder()(**batch.inputs(), use_cache=False).last_hidden_state[0]
    logprobs = token_logprobs(hidden[batch.targets], packed.lm_head.weight, batch.labels)
    ours, count, _ = causal_lm(logprobs)
    assert_near(ours.detach(), loss, "loss")
    assert count == sum(int(on[i:].sum()) for row in rows for on in row.learned for i in [len(row.prompt) == 0])
    position, index = 0, 0
    out = packed.lm_head(hidden).detach()
    for row in rows:
        prompt = out[position : position + len(row.prompt)]
        position += len(row.prompt)
        for answer in row.answers:
            found = torch.cat([prompt, out[position : position + len(answer)]])
            assert_near(found, logits[index], f"logits of answer {index}")
            position, index = position + len(answer), index + 1
    ours.backward()
    for name, parameter in packed.named_parameters():
        assert_near(parameter.grad, gradients[name], f"gradient of {name}")


@pytest.mark.parametrize("kind", ["llama-gqa", "mistral-window"])
def test_micro_batches_sum_to_the_whole(kind: str) -> None:
    rows = LAYOUTS["mixed lengths"]
    _, loss, gradients = alone(rows, kind)
    packed = use_packed_attention(model(kind))
    total = torch.zeros(())
    for batch in micro_batches(rows, 48):
        hidden = packed.get_decoder()(**batch.inputs(), use_cache=False).last_hidden_state[0]
        ours, _, _ = causal_lm(token_logprobs(hidden[batch.targets], packed.lm_head.weight, batch.labels))
        ours.backward()
        total += ours.detach()
    assert_near(total, loss, "loss")
    for name, parameter in packed.named_parameters():
        assert_near(parameter.grad, gradients[name], f"gradient of {name}")


def test_the_windows_are_shorter_than_the_rows() -> None:
    """Else this file would prove nothing of them."""
    plain = model("mistral-window")
    row = torch.from_numpy(LAYOUTS["mixed lengths"][0].answers[0])[None]
    other = row.clone()
    other[0, 0] = 5 + (row[0, 0] == 5)
    near, far = (plain(x, use_cache=False).logits[0] for x in (row, other))
    assert not torch.allclose(near[3], far[3])
    torch.testing.assert_close(near[14:], far[14:])  # two layers of a window of 7 look back 12 positions
