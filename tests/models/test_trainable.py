from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny_models import model, save, shake, tokenizer, training

from xinglin.data.batches import encode_conversations
from xinglin.models.load import describe, load_base, read_sidecar
from xinglin.models.packing import Batch, pack
from xinglin.models.template import TEMPLATES
from xinglin.models.trainable import Trainable, load_trainable
from xinglin.records import Conversation, Message


@pytest.fixture
def batch() -> Batch:
    talks = [
        Conversation(str(i), (Message("user", ask), Message("assistant", say)))
        for i, (ask, say) in enumerate([("头痛怎么办", "多喝水,注意休息"), ("谢谢", "不客气")])
    ]
    return pack(encode_conversations(talks, tokenizer(), TEMPLATES["chatml"], 128, "error", Counter()))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tmp_path / "base")


def trained(base: Path, folder: Path, method: str) -> Trainable:
    """An adapter that has learned something, saved to `folder`."""
    made = load_trainable(base, training(method))
    shake(made.module, seed=3, only=".policy.")
    made.module.eval()
    made.save(folder)
    return made


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_what_trains(base: Path, batch: Batch, method: str) -> None:
    made = load_trainable(base, training(method))
    assert made.module.training
    made.logprobs(batch).sum().backward()
    for name, parameter in made.module.named_parameters():
        should = method == "full" or "lora_" in name
        assert parameter.requires_grad == should, name
        if method == "full":
            assert parameter.grad is not None, name


def test_logprobs_are_the_models(base: Path, batch: Batch) -> None:
    """Each conversation alone through transformers' own attention."""
    stops = (batch.last + 1).tolist()
    expected = []
    for start, stop in zip([0, *stops], stops, strict=False):
        shares = model()(batch.input_ids[:, start:stop]).logits[0].log_softmax(-1)
        for target, label in zip(batch.targets.tolist(), batch.labels.tolist(), strict=True):
            if start <= target < stop:
                expected.append(shares[target - start, label])
    made = load_trainable(base, training("full"))
    torch.testing.assert_close(made.logprobs(batch), torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_is_continued_and_its_start_is_the_reference(
    base: Path, tmp_path: Path, batch: Batch, method: str
) -> None:
    first = trained(base, tmp_path / "first", method)
    found = describe(tmp_path / "first")
    assert (found.is_adapter, found.nf4) == (True, method == "qlora")
    assert read_sidecar(tmp_path / "first")["template"] == "chatml"
    second = load_trainable(tmp_path / "first", training(method), reference=True)
    start = second.logprobs(batch)
    torch.testing.assert_close(start, first.logprobs(batch), atol=1e-5, rtol=0)
    assert torch.equal(second.reference_logprobs(batch), start.detach())
    names = {name.split(".")[-2] for name, p in second.module.named_parameters() if p.requires_grad}
    assert names == {"policy"}
    shake(second.module, seed=9, only=".policy.")
    assert not torch.allclose(second.logprobs(batch), start)
    assert torch.equal(second.reference_logprobs(batch), start.detach())


def test_a_fresh_adapters_reference_is_the_bare_base(base: Path, batch: Batch) -> None:
    made = load_trainable(base, training("lora"), reference=True)
    shake(made.module, seed=3, only=".policy.")
    whole = load_trainable(base, training("full"))
    torch.testing.assert_close(made.reference_logprobs(batch), whole.logprobs(batch).detach(), atol=1e-5, rtol=0)


def test_full_training_goes_on_from_an_adapter_with_every_weight(base: Path, tmp_path: Path, batch: Batch) -> None:
    first = trained(base, tmp_path / "first", "lora")
    whole = load_trainable(tmp_path / "first", training("full"))
    assert all(p.requires_grad for p in whole.module.parameters())
    torch.testing.assert_close(whole.logprobs(batch), first.logprobs(batch), atol=1e-5, rtol=0)
    whole.freeze_reference()
    start = whole.logprobs(batch).detach()
    shake(whole.module, seed=5)
    assert torch.equal(whole.reference_logprobs(batch), start)


def test_what_is_saved_is_what_was_trained(base: Path, tmp_path: Path, batch: Batch) -> None:
    made = load_trainable(base, training("full"))
    shake(made.module, seed=5)
    made.save(tmp_path / "saved")
    again = load_base(tmp_path / "saved", nf4=False)
    for a, b in zip(made.module.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert load_trainable(tmp_path / "saved", training("full")).template.name == "chatml"
