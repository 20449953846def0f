"""On one large GPU: sft with NF4 and LoRA at the true shape of LLaMA-33B (python -m pytest -m gpu tests/gpu)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def measured(tmp_path: Path, *options: str) -> dict[str, Any]:
    path = tmp_path / "result.json"
    gpu.main([*options, "--json", str(path)])
    return json.loads(path.read_text("utf-8"))


def test_a_small_shape_trains_on_the_gpu(tmp_path: Path) -> None:
    result = measured(tmp_path, "--shape", "tiny", "--tokens", "256", "--steps", "3", "--warmup", "2")
    assert result["measured"] and 0 < result["share_of_floor"] < 1  # a speed over the floor would be a mistake
    assert result["peak_memory"] >= result["allocated"] > 0


@pytest.mark.slow
def test_33b_reaches_the_speed_the_project_aims_at(tmp_path: Path) -> None:
    result = measured(tmp_path, "--shape", "ivygpt", "--tokens", "1024")
    assert result["value"] >= 2700  # 45 % of the floor on one H200


@pytest.mark.slow
def test_33b_fits_24_gb_with_recompute(tmp_path: Path) -> None:
    result = measured(tmp_path, "--shape", "ivygpt", "--tokens", "1024", "--recompute", "--steps", "10")
    assert result["peak_memory"] <= 24e9
