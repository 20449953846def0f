from pathlib import Path

import peft
import pytest
import torch
from tiny_models import model, save, shake
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from xinglin.config import Lora
from xinglin.models.adapters import (
    Critic,
    active,
    adapter_tensors,
    add_adapter,
    load_critic,
    new_head,
    read_adapter,
    save_adapter,
    save_critic,
    with_new_adapter,
)
from xinglin.models.load import load_base, read_sidecar
from xinglin.records import InputError

IDS = torch.tensor([[5, 40, 77, 120, 9, 33]])
LORA = Lora(rank=4, alpha=8)


def two_adapters() -> peft.PeftModel:
    both = with_new_adapter(model(), "policy", LORA, seed=0)
    add_adapter(both, "value", LORA, seed=1)
    return both.eval()


def test_a_new_adapter_changes_nothing_and_trains_alone() -> None:
    fresh = with_new_adapter(model(), "policy", LORA, seed=0)
    assert torch.equal(fresh(IDS).logits, model()(IDS).logits)
    assert all(("lora_" in name) == p.requires_grad for name, p in fresh.named_parameters())
    again = with_new_adapter(model(), "policy", LORA, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), again.parameters(), strict=True))


def test_the_update_is_alpha_over_rank_times_b_a() -> None:
    """arXiv:2106.09685, section 4.1."""
    both = two_adapters()
    shake(both, seed=3, only=".policy.")
    layer = both.get_decoder().layers[0].self_attn.q_proj
    a, b = layer.lora_A["policy"].weight, layer.lora_B["policy"].weight
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    with active(both, "policy"):
        torch.testing.assert_close(layer(x), x @ (layer.base_layer.weight + 8 / 4 * b @ a).T, atol=1e-5, rtol=0)


def test_active_chooses_and_puts_back() -> None:
    both = two_adapters()
    shake(both, seed=3, only=".policy.")
    shake(both, seed=4, only=".value.")
    before = both(IDS).logits
    seen = {}
    for name in ("policy", "value", None):
        with active(both, name):
            seen[name] = both(IDS).logits
    assert torch.equal(seen[None], model()(IDS).logits)
    assert not torch.allclose(seen["policy"], seen["value"])
    with pytest.raises(ZeroDivisionError), active(both, "value"):
        raise ZeroDivisionError
    assert torch.equal(both(IDS).logits, before)
    assert torch.equal(before, seen["policy"])


def test_each_adapter_gets_its_own_gradient_in_one_backward_pass() -> None:
    both = two_adapters()
    shake(both, seed=3, only="lora_")
    expected = {}
    for name in ("policy", "value"):
        with active(both, name):
            both(IDS).logits.sum().backward()
        expected |= {k: p.grad.clone() for k, p in both.named_parameters() if f".{name}." in k}
        both.zero_grad()
    with active(both, "policy"):
        loss = both(IDS).logits.sum()
    with active(both, "value"):
        loss = loss + both(IDS).logits.sum()
    loss.backward()
    for name, parameter in both.named_parameters():
        if "lora_" in name:
            torch.testing.assert_close(parameter.grad, expected[name])
        else:
            assert parameter.grad is None


def test_a_saved_adapter_is_a_plain_peft_folder(tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    both = two_adapters()
    shake(both, seed=3, only=".policy.")
    save_adapter(tmp_path / "adapter", both, "policy", base, False, None)
    expected = both(IDS).logits
    plain = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    plain = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    torch.testing.assert_close(plain(IDS).logits, expected, atol=1e-5, rtol=0)
    ours = read_adapter(load_base(base, nf4=False), tmp_path / "adapter", "reference")
    torch.testing.assert_close(ours(IDS).logits, expected, atol=1e-5, rtol=0)
    assert not any(p.requires_grad for p in ours.parameters())
    assert set(adapter_tensors(ours, "reference")) == set(adapter_tensors(both, "policy"))
    assert read_sidecar(tmp_path / "adapter")["quantization"] is None


def test_an_adapter_of_another_shape_is_one_line(tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    save_adapter(tmp_path / "adapter", two_adapters(), "policy", base, False, None)
    with pytest.raises(InputError, match="does not fit its base model") as error:
        read_adapter(model("llama"), tmp_path / "adapter", "policy")  # as many key heads as query heads
    assert "\n" not in str(error.value)


def test_a_new_head_says_nothing_yet() -> None:
    critic = Critic(model(), None, new_head(64, torch.zeros(1)))
    values = critic(input_ids=IDS)
    assert values.tolist() == [0.0] * 6


@pytest.mark.parametrize("adapter", [None, "reward"])
def test_a_saved_critic_is_transformers_classifier(tmp_path: Path, adapter: str | None) -> None:
    base = save(tmp_path / "base")
    backbone = model() if adapter is None else with_new_adapter(model(), "reward", LORA, seed=0).eval()
    shake(backbone, seed=3, only="lora_" if adapter else "")
    head = new_head(64, torch.zeros(1))
    torch.nn.init.normal_(head.weight)
    critic = Critic(backbone, adapter, head)
    save_critic(tmp_path / "critic", critic, base, False)
    expected = critic(input_ids=IDS)

    ours = load_critic(tmp_path / "critic").eval()
    torch.testing.assert_close(ours(input_ids=IDS), expected, atol=1e-5, rtol=0)
    assert not any(p.requires_grad for p in ours.parameters())
    source = tmp_path / "critic" if adapter is None else base
    plain = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, local_files_only=True)
    if adapter is not None:
        plain = peft.PeftModel.from_pretrained(plain, str(tmp_path / "critic"))
    torch.testing.assert_close(plain.eval()(IDS).logits[0], expected[-1:], atol=1e-5, rtol=0)


def test_a_critic_beside_the_policy_leaves_the_policy_alone(tmp_path: Path) -> None:
    base = save(tmp_path / "base")
    reward = with_new_adapter(model(), "reward", LORA, seed=5).eval()
    shake(reward, seed=5, only="lora_")
    critic = Critic(reward, "reward", torch.nn.Linear(64, 1, bias=False))
    save_critic(tmp_path / "critic", critic, base, False)
    both = two_adapters()
    shake(both, seed=3, only=".policy.")
    before = both(IDS).logits
    trains = {name for name, p in both.named_parameters() if p.requires_grad}
    beside = load_critic(tmp_path / "critic", model=both, name="reward")
    torch.testing.assert_close(beside(input_ids=IDS), critic(input_ids=IDS), atol=1e-5, rtol=0)
    assert torch.equal(both(IDS).logits, before)
    assert {name for name, p in both.named_parameters() if p.requires_grad} == trains
