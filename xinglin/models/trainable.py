"""A model that is trained: all of it, or one adapter over a frozen base.

    model = load_trainable(parent, config)      # parent: a model folder; config.method: full, lora or qlora
    model.logprobs(batch)                       # (M,) of the supervised tokens of a packed batch
    model.reference_logprobs(batch)             # the same under the weights it started from
    model.save(folder)                          # a transformers or peft folder

What an adapter starts from is never merged on the way: an adapter folder is continued, so that an NF4 base is quantised
once and the reference is the very model the stage began with.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from xinglin.config import Training
from xinglin.models.adapters import active, read_adapter, save_adapter, set_trainable, with_new_adapter
from xinglin.models.load import describe, frozen_dtype, load_base, load_tokenizer, save_model, save_tokenizer
from xinglin.models.packing import Batch
from xinglin.models.template import Template
from xinglin.objectives.causal import token_logprobs
from xinglin.run import seed_for

POLICY = "policy"
REFERENCE = "reference"


@dataclass(slots=True)
class Trainable:
    """`adapter` is None where all weights train. `reference_adapter` is None where the reference is the bare base."""

    module: nn.Module
    tokenizer: PreTrainedTokenizerFast
    template: Template
    base: Path
    nf4: bool
    adapter: str | None
    reference_adapter: str | None = None
    frozen: nn.Module | None = None

    def hidden(self, batch: Batch) -> Tensor:
        """(T, D) last hidden states of a packed batch."""
        return _hidden(self.module, self.adapter, batch)

    def logprobs(self, batch: Batch) -> Tensor:
        """(M,) log-probabilities of the supervised tokens."""
        return _logprobs(self.module, self.adapter, batch)

    def reference_logprobs(self, batch: Batch) -> Tensor:
        """(M,) the same under the weights the stage started from."""
        if self.adapter is not None:
            with torch.no_grad(), active(self.module, self.reference_adapter):
                return _logprobs(self.module, None, batch)
        assert self.frozen is not None, "call freeze_reference() before the first step of a full training"
        with torch.no_grad():
            return _logprobs(self.frozen, None, batch)

    def freeze_reference(self) -> None:
        """Keep the starting weights as reference. Costs a copy of the model in full training, nothing with adapters."""
        if self.adapter is None:
            self.frozen = copy.deepcopy(self.module).requires_grad_(False).eval()

    def save(self, folder: Path) -> None:
        """The trained model as a transformers folder, or as a peft folder over its base."""
        if self.adapter is None:
            save_model(folder, self.module, self.tokenizer, self.template)  # type: ignore[arg-type]
        else:
            save_adapter(folder, self.module, self.adapter, self.base, self.nf4, None)  # type: ignore[arg-type]
            save_tokenizer(folder, self.tokenizer, self.template)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device


def load_trainable(parent: Path, config: Training, *, reference: bool = False) -> Trainable:
    """The model of `parent`, ready to train by `config.method`. With `reference`, a parent adapter is loaded a second
    time, frozen, so that the reference is the parent and not the bare base."""
    found = describe(parent)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer, template = load_tokenizer(parent, config.template)
    nf4 = config.method == "qlora"
    if config.method == "full":
        model = load_base(found.base, nf4=False, device=device)
        if found.is_adapter:
            with_adapter = read_adapter(model, parent, POLICY)
            model = with_adapter.merge_and_unload().requires_grad_(True)  # peft froze the base
        return Trainable(model.train(), tokenizer, template, found.base, False, None)
    base = load_base(found.base, nf4=nf4, device=device, dtype=frozen_dtype(device))
    if found.is_adapter:
        module = read_adapter(base, parent, POLICY)
        set_trainable(module, POLICY, True)
        if reference:
            module = read_adapter(module, parent, REFERENCE)
    else:
        module = with_new_adapter(base, POLICY, config.lora, seed=seed_for(config.seed, POLICY))
    held = REFERENCE if found.is_adapter and reference else None
    return Trainable(module.train(), tokenizer, template, found.base, nf4, POLICY, held)


def _hidden(module: nn.Module, adapter: str | None, batch: Batch) -> Tensor:
    decoder = module.get_decoder()  # type: ignore[operator]
    with active(module, adapter) if adapter else contextlib.nullcontext():
        return decoder(**batch.inputs(), use_cache=False).last_hidden_state[0]


def _logprobs(module: nn.Module, adapter: str | None, batch: Batch) -> Tensor:
    head = module.get_output_embeddings().weight  # type: ignore[operator]
    return token_logprobs(_hidden(module, adapter, batch).index_select(0, batch.targets), head, batch.labels)
