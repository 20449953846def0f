import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from tiny_models import model, save, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from xinglin.models.load import (
    context_length,
    describe,
    load_base,
    load_tokenizer,
    read_sidecar,
    save_model,
    weights_hash,
)
from xinglin.models.template import TEMPLATES, jinja
from xinglin.models.tiny import build_model
from xinglin.records import InputError

IDS = torch.tensor([[5, 40, 77, 120, 9, 33]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "base")


def test_what_is_saved_is_a_plain_transformers_folder(folder: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    expected = model()(IDS).logits
    torch.testing.assert_close(plain(IDS).logits, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(load_base(folder, nf4=False)(IDS).logits, expected, atol=1e-5, rtol=0)
    assert plain.generation_config.eos_token_id == tokenizer().get_vocab()["<|im_end|>"]
    again = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert again.encode("头痛 3 天") == tokenizer().encode("头痛 3 天")
    assert "xinglin" not in (folder / "config.json").read_text("utf-8")


def test_saving_does_not_change_the_model_in_hand(folder: Path, tmp_path: Path) -> None:
    ours = load_base(folder, nf4=False)
    save_model(tmp_path / "again", ours, tokenizer(), TEMPLATES["chatml"])
    assert ours.config._attn_implementation == "xinglin_packed"
    assert weights_hash(tmp_path / "again") == weights_hash(folder)


def test_describe_a_whole_model(folder: Path) -> None:
    found = describe(folder)
    assert (found.base, found.is_adapter, found.nf4) == (folder, False, False)
    assert context_length(folder) == 128


def test_nf4_is_near_the_float_model(folder: Path) -> None:
    """The NF4 code's error on normal weights is some 9 % of their size (arXiv:2305.14314)."""
    nf4, whole = load_base(folder, nf4=True), load_base(folder, nf4=False)
    quantised = 0
    for name, module in nf4.named_modules():
        if hasattr(module, "weight") and hasattr(module.weight, "quant_state"):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            expected = whole.get_submodule(name).weight
            assert 0.08 < (weight - expected).norm() / expected.norm() < 0.11, name
            quantised += 1
    assert quantised == 14  # q, k, v, o, gate, up, down of two layers; embedding and head stay float


def test_nf4_of_a_width_that_bitsandbytes_gets_wrong_is_refused(tmp_path: Path) -> None:
    narrow = build_model("llama", len(tokenizer()), hidden_size=32, num_layers=1, num_heads=2, max_seq_len=64, seed=0)
    save_model(tmp_path / "narrow", narrow, tokenizer(), TEMPLATES["chatml"])
    with pytest.raises(InputError, match="a layer is 32 wide; NF4 on a CPU needs multiples of 64"):
        load_base(tmp_path / "narrow", nf4=True)


def test_nf4_says_the_same_before_and_after_a_pass_without_gradient(folder: Path) -> None:
    nf4 = load_base(folder, nf4=True)
    before = nf4.train()(IDS).logits.detach()
    with torch.no_grad():
        assert torch.equal(nf4.eval()(IDS).logits, before)
    assert torch.equal(nf4.train()(IDS).logits.detach(), before)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_is_remembered_or_recognised(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / name, template=name)
    assert load_tokenizer(folder)[1].name == name
    (folder / "xinglin.json").unlink()
    assert load_tokenizer(folder)[1].name == name  # by its jinja
    assert load_tokenizer(folder, "chatml")[1].name == "chatml"


def test_another_chatml_is_recognised_by_its_control_tokens(folder: Path) -> None:
    (folder / "xinglin.json").unlink()
    (folder / "chat_template.jinja").write_text("{# Qwen #}" + jinja(TEMPLATES["chatml"]), "utf-8")
    assert load_tokenizer(folder)[1].name == "chatml"
    (folder / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    with pytest.raises(InputError, match="chat template not recognised; name one of chatml, llama"):
        load_tokenizer(folder)


def test_no_folder_and_no_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        describe(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no config.json"):
        describe(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="found no weights"):
        describe(folder)


def test_a_damaged_config_is_one_line(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla', "utf-8")
    with pytest.raises(InputError, match="config.json: not a JSON object; the folder is damaged"):
        describe(folder)
    (folder / "config.json").write_text('{"model_type": "nothing-we-know"}', "utf-8")
    with pytest.raises(InputError, match="cannot be loaded") as error:
        load_base(folder, nf4=False)
    assert "\n" not in str(error.value)


def test_an_adapter_without_its_base_is_one_line(tmp_path: Path, folder: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for config, says in (
        ({}, "base_model_name_or_path is missing"),
        ({"base_model_name_or_path": "/no/such/base"}, "its base model /no/such/base is not on disk"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(config), "utf-8")
        with pytest.raises(InputError, match=says):
            describe(adapter)
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "../base"}', "utf-8")
    assert describe(adapter).base == folder.resolve()  # relative to the adapter, so that folders can be moved together


def test_the_sidecar_is_added_to(folder: Path) -> None:
    assert read_sidecar(folder) == {"template": "chatml"}
