"""bench/gpu.py on a CPU with a tiny shape: the road that a GPU is to run, and no figure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu


def test_the_random_model_is_nf4_and_only_its_adapter_learns() -> None:
    from bitsandbytes.nn import Linear4bit

    from xinglin.config import Lora
    from xinglin.models.adapters import with_new_adapter

    base = gpu.random_nf4_model(gpu.TINY, torch.device("cpu"), biased=True)
    quantised = [module for module in base.modules() if isinstance(module, Linear4bit)]
    assert len(quantised) == 7 * gpu.TINY.num_layers
    assert all(module.weight.dtype == torch.uint8 and module.weight.quant_state.nested for module in quantised)
    assert base.model.layers[0].self_attn.q_proj.bias is not None
    assert not any(parameter.device.type == "meta" for parameter in base.parameters())
    assert not any(buffer.device.type == "meta" for buffer in base.buffers())
    module = with_new_adapter(base, "policy", Lora(rank=4), seed=0)
    assert {name.split(".")[-3] for name, p in module.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


@pytest.mark.parametrize("tokens", [30, 100, 1024])
def test_a_packed_row_has_exactly_the_tokens_asked_for(tokens: int) -> None:
    batch = gpu.packed_row(gpu.TINY, tokens, seed=0)
    assert batch.input_ids.shape == (1, tokens)
    assert 0.3 < len(batch.labels) / tokens < 1
    assert int(batch.input_ids.max()) < gpu.TINY.vocab_size


@pytest.mark.parametrize("recompute", [[], ["--recompute"]])
def test_the_script_runs_and_says_that_nothing_was_measured(recompute: list[str], tmp_path: Path, capsys: Any) -> None:

    path = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--shape", "tiny", "--tokens", "64", "--steps", "2", "--warmup", "1", *recompute]
    gpu.main([*options, "--json", str(path)])
    result = json.loads(path.read_text("utf-8"))
    assert result["measured"] is False
    assert "share_of_floor" not in result
    # random weights know nothing: near ln V, the loss of a guess among all tokens
    assert result["loss"][0] == pytest.approx(math.log(gpu.TINY.vocab_size), abs=1.0)


def test_without_a_gpu_the_script_refuses_to_measure(capsys: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SystemExit) as refused:
        gpu.main(["--shape", "tiny"])
    assert refused.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err
