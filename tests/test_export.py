"""Export: an adapter and its base become one folder that transformers loads and that says the same."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from tiny_models import save, shake, tokenizer, training
from transformers import AutoModelForCausalLM, AutoTokenizer

from xinglin import export as export_module
from xinglin.export import PROBE, export
from xinglin.models.load import describe
from xinglin.models.trainable import load_trainable
from xinglin.records import InputError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tmp_path / "base")


def adapter(base: Path, folder: Path, method: str) -> Path:
    made = load_trainable(base, training(method))
    shake(made.module, seed=3, only=".policy.")
    made.save(folder)
    return folder


def logprobs(model: torch.nn.Module, text: str = PROBE) -> torch.Tensor:
    ids = torch.tensor([tokenizer()(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits.float().log_softmax(-1)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_is_merged_into_the_base_it_was_trained_on(tmp_path: Path, base: Path, method: str) -> None:
    trained = adapter(base, tmp_path / "adapter", method)
    facts = export(trained, tmp_path / "out")
    assert facts["was_adapter"] and facts["was_nf4"] == (method == "qlora") and facts["largest_difference"] <= 1e-3
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    text = "感冒怎么办?多喝水,注意休息。"  # not the text that export itself compares
    live = load_trainable(trained, training(method)).module
    torch.testing.assert_close(logprobs(plain, text), logprobs(live, text), atol=1e-3, rtol=0)
    assert (logprobs(plain, text) - logprobs(AutoModelForCausalLM.from_pretrained(base), text)).abs().max() > 0.1
    assert not describe(tmp_path / "out").is_adapter and not describe(tmp_path / "out").nf4
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_a_float_merge_is_as_peft_merges(tmp_path: Path, base: Path) -> None:
    trained = adapter(base, tmp_path / "adapter", "lora")
    export(trained, tmp_path / "out")
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(trained))
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in theirs.merge_and_unload().state_dict().items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=0)


def test_a_whole_model_is_copied(tmp_path: Path, base: Path) -> None:
    facts = export(base, tmp_path / "out")
    how = {"base": str(base), "was_adapter": False, "was_nf4": False, "largest_difference": 0.0}
    assert facts == {**how, "licences": {}, "research_only": []}
    one, other = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (base, tmp_path / "out"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_in_use_is_refused(tmp_path: Path, base: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="out: not empty; give --out a new or empty folder"):
        export(base, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter.txt"]
    with pytest.raises(InputError, match="base: not empty"):
        export(base, base)


def test_a_merge_that_says_something_else_is_no_success(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(found: object) -> torch.nn.Module:
        model = merged(found)
        shake(model, seed=9)
        return model

    merged = export_module.merged
    monkeypatch.setattr(export_module, "merged", wrong)
    with pytest.raises(RuntimeError, match="differs from the trained one by"):
        export(adapter(base, tmp_path / "adapter", "lora"), tmp_path / "out")


def test_a_base_that_has_moved(tmp_path: Path, base: Path) -> None:
    trained = adapter(base, tmp_path / "adapter", "lora")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="adapter: its base model .* is not on disk; put it back there"):
        export(trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()
