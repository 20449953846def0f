"""Adapters over one base: policy, reference, value and reward share its weights and differ in a few megabytes.

    model = with_new_adapter(base, "policy", lora)
    read_adapter(model, folder, "reference")           # a second one, frozen
    with active(model, "reference"): ...               # run as the reference
    with active(model, None): ...                      # run as the bare base
    save_adapter(folder, model, "policy", ...)         # a peft folder

`Critic` is a backbone with one output per position: the reward model (read at the last token) and the value model (read
at every token). It is saved as transformers' sequence classifier with one label, whole or as a peft folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from xinglin.config import Lora
from xinglin.models.load import (
    ModelFolder,
    check_finite,
    check_names,
    check_weights,
    describe,
    frozen_dtype,
    load_base,
    weights_hash,
    write_sidecar,
)
from xinglin.records import InputError

HEAD = "score.weight"
HEAD_KEY = "base_model.model." + HEAD
ADAPTER_FILE = "adapter_model.safetensors"


def with_new_adapter(base: PreTrainedModel, name: str, lora: Lora, *, seed: int) -> peft.PeftModel:
    """`base` with one fresh adapter that changes nothing yet (B is zero); the base is frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(base, _peft_config(lora), adapter_name=name)


def add_adapter(model: peft.PeftModel, name: str, lora: Lora, *, seed: int) -> None:
    """One more fresh adapter beside those there are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(name, _peft_config(lora))
    set_trainable(model, name, True)


def read_adapter(model: PreTrainedModel | peft.PeftModel, folder: Path, name: str) -> peft.PeftModel:
    """Load the adapter of a folder under a name, frozen."""
    check_adapter(folder)
    try:
        if isinstance(model, peft.PeftModel):
            model.load_adapter(str(folder), name, local_files_only=True)
        else:
            model = peft.PeftModel.from_pretrained(model, str(folder), name, local_files_only=True)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{folder}: does not fit its base model: {str(error).splitlines()[0]}") from None
    with safe_open(folder / ADAPTER_FILE, "pt") as file:
        found = set(file.keys()) - {HEAD_KEY}
    expected = set(peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    check_names(folder, expected - found, found - expected)
    check_finite(folder, adapter_tensors(model, name).items())
    set_trainable(model, name, False)
    return model


def check_adapter(folder: Path) -> None:
    path = folder / ADAPTER_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no adapter_model.safetensors; pickled adapters are refused")
    check_weights(path)


def set_trainable(model: nn.Module, name: str, trainable: bool) -> None:
    for key, parameter in model.named_parameters():
        if f".{name}." in key:
            parameter.requires_grad_(trainable)


@contextlib.contextmanager
def active(model: nn.Module, name: str | None) -> Iterator[None]:
    """Run with adapter `name`, or with the bare base.

    peft's own `set_adapter` also switches `requires_grad`, which would cut the graph between a forward pass as policy
    and its backward pass after a forward pass as value; here only the choice of adapter changes.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._active_adapter, layer._disable_adapters = [name] if name else [], name is None
    try:
        yield
    finally:
        for layer, (adapter, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = adapter, disabled


def adapter_tensors(model: nn.Module, name: str) -> dict[str, Tensor]:
    """The adapter's tensors under the names a peft folder gives them."""
    prefix = "" if any(key.startswith("base_model.") for key, _ in model.named_parameters()) else "base_model.model."
    return {
        prefix + key.replace(f".{name}.", "."): parameter.detach().contiguous()
        for key, parameter in model.named_parameters()
        if f".{name}." in key
    }


def save_adapter(folder: Path, model: peft.PeftModel, name: str, base: Path, nf4: bool, head: Tensor | None) -> None:
    """A peft folder for one adapter, and its head where it is a critic's."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config[name].to_dict()
    targets = config["target_modules"]
    config.update(
        base_model_name_or_path=str(base.resolve()),
        inference_mode=True,
        task_type="CAUSAL_LM" if head is None else "SEQ_CLS",
        modules_to_save=None if head is None else ["score"],
        target_modules=targets if isinstance(targets, str) else sorted(targets),
    )
    tensors = adapter_tensors(model, name)
    if head is not None:
        tensors[HEAD_KEY] = head.detach().contiguous()
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    text = json.dumps(config, indent=1, default=lambda value: getattr(value, "value", str(value)))
    (folder / "adapter_config.json").write_text(text, "utf-8")
    write_sidecar(folder, quantization="nf4" if nf4 else None, base_hash=weights_hash(base))


def merged(found: ModelFolder) -> PreTrainedModel:
    """The whole model of a folder in fp32: an adapter is added to the weights it was trained on, which for an NF4 base
    are the dequantised ones."""
    base = load_base(found.base, nf4=found.nf4)
    if found.nf4:
        base = base.dequantize()
    if not found.is_adapter:
        return base
    return read_adapter(base, found.path, "policy").merge_and_unload()


class Critic(nn.Module):
    """A backbone with one number per position."""

    def __init__(self, model: nn.Module, adapter: str | None, head: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.head = head

    def forward(self, **inputs: Any) -> Tensor:
        """(T,) one number for each position of a packed row."""
        decoder = self.model.get_decoder()  # type: ignore[operator]
        with active(self.model, self.adapter) if self.adapter else contextlib.nullcontext():
            hidden_TD = decoder(**inputs, use_cache=False).last_hidden_state[0]
        return self.head(hidden_TD).float().squeeze(-1)


def new_head(hidden_size: int, like: Tensor) -> nn.Linear:
    """A head that says 0 of everything until it has learned something."""
    head = nn.Linear(hidden_size, 1, bias=False)
    nn.init.zeros_(head.weight)
    return head.to(device=like.device)


def save_critic(folder: Path, critic: Critic, base: Path, nf4: bool) -> None:
    """A reward model as transformers' classifier with one label: a whole folder, or a peft folder over `base`."""
    if critic.adapter is not None:
        save_adapter(folder, critic.model, critic.adapter, base, nf4, critic.head.weight)  # type: ignore[arg-type]
        return
    model: PreTrainedModel = critic.model  # type: ignore[assignment]
    config = AutoConfig.from_pretrained(base, local_files_only=True, num_labels=1)
    whole = AutoModelForSequenceClassification.from_config(config)
    state = {f"model.{key}": value for key, value in model.get_decoder().state_dict().items()}
    whole.load_state_dict({**state, HEAD: critic.head.weight})
    whole.save_pretrained(folder, safe_serialization=True)


def load_critic(folder: Path, *, device: str = "cpu", model: peft.PeftModel | None = None, name: str = "") -> Critic:
    """The reward model of a folder, frozen. With `model`, its adapter is put beside the others there as `name`."""
    found, dtype = describe(folder), frozen_dtype(device)
    if found.is_adapter:
        check_adapter(folder)
        weights = load_file(folder / ADAPTER_FILE)
        shared = model if model is not None else load_base(found.base, nf4=found.nf4, device=device, dtype=dtype)
        shared = read_adapter(shared, folder, name or "reward")
        weight = weights[HEAD_KEY]
        critic = Critic(shared, name or "reward", _head(weight))
    else:
        tensors: dict[str, Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            tensors.update(load_file(path))
        critic = Critic(
            load_base(folder, nf4=False, device=device, dtype=dtype, backbone=True), None, _head(tensors[HEAD])
        )
        critic.requires_grad_(False)
    return critic.to(device)


def _head(weight: Tensor) -> nn.Linear:
    head = nn.Linear(weight.shape[1], 1, bias=False)
    head.weight = nn.Parameter(weight.float(), requires_grad=False)
    return head


def _peft_config(lora: Lora) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
    )
