"""A merged model folder, verified by reload.

    xinglin export runs/demo/07-ppo/model --out model-to-publish

An adapter is merged into the base it was trained on: for an NF4 base into the dequantised weights, which are what
it saw in training. Success is reported only after the folder has been loaded again and says the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xinglin.models.adapters import merged, read_adapter
from xinglin.models.load import describe, load_base, load_tokenizer, save_model
from xinglin.models.template import encode_text
from xinglin.records import InputError

TOLERANCE = 1e-3  # largest difference of a log-probability in fp32
PROBE = "患者头晕、头痛三天，血压150/95 mmHg，既往青霉素过敏。请给出诊断和用药建议。"


def export(model: Path, out: Path) -> dict[str, Any]:
    """Write the merged model. Raises `InputError` where `out` is in use, `RuntimeError` where the reload differs."""
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; give --out a new or empty folder")
    found = describe(model)
    tokenizer, template = load_tokenizer(model)
    ids = torch.tensor([encode_text(tokenizer, PROBE)])
    trained: Any = load_base(found.base, nf4=found.nf4)
    trained = read_adapter(trained, model, "policy") if found.is_adapter else trained
    expected = _logprobs(trained, ids)
    save_model(out, merged(found), tokenizer, template)
    gap = float((_logprobs(load_base(out, nf4=False), ids) - expected).abs().max())
    if gap > TOLERANCE:
        raise RuntimeError(f"{out}: the exported model differs from the trained one by {gap:.2g} in a log-probability")
    return {"base": str(found.base), "was_adapter": found.is_adapter, "was_nf4": found.nf4, "largest_difference": gap}


@torch.no_grad()
def _logprobs(model: Any, ids: Tensor) -> Tensor:
    return model.eval()(input_ids=ids).logits.float().log_softmax(-1)
