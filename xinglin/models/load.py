"""Model folders in and out: plain transformers and peft folders, nothing of our own inside the weights.

A folder is either a whole model (`config.json`, safetensors, tokenizer) or an adapter (`adapter_config.json`) over one.
`xinglin.json` beside them says what those formats cannot: the template, whether the base was NF4, the base's hash.

    model, tokenizer, template = load_model(folder)                      # to run
    trainable = load_trainable(folder, method="qlora", lora=Lora())      # to train

Remote code and pickles are refused; nothing is ever fetched.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from xinglin.models.attention import use_packed_attention
from xinglin.models.template import TEMPLATES, Template, jinja, stop_id, template_named
from xinglin.records import InputError
from xinglin.run import file_hash, write_text

SIDECAR = "xinglin.json"
MOST_NAMES = 10  # in a message
CONVERTED = ("qwen", "baichuan")  # published as remote code alone; `xinglin convert` maps them (models/convert/)
# A user can do nothing about these lines: a bar for each load, a renamed attribute that peft still reads.
logging.disable_progress_bar()
logging.set_verbosity_error()  # a reward head read as a model without one would be reported at length
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a model folder is, before its weights are read."""

    path: Path
    base: Path
    """The folder of the whole model: `path` itself, or what the adapter stands on."""
    is_adapter: bool
    nf4: bool


def describe(path: Path) -> ModelFolder:
    """Read what `path` is. Raises `InputError` for what is missing, unsafe, or not a model."""
    if not path.is_dir():
        raise InputError(f"{path}: no such model folder; give a transformers or peft folder on disk")
    sidecar = read_sidecar(path)
    if (path / "adapter_config.json").is_file():
        stored = _read_json(path / "adapter_config.json").get("base_model_name_or_path")
        if not stored:
            raise InputError(f"{path}/adapter_config.json: base_model_name_or_path is missing; name the base's folder")
        base = Path(stored) if Path(stored).is_absolute() else (path / stored).resolve()
        if not base.is_dir():
            raise InputError(f"{path}: its base model {stored} is not on disk; put it back there")
        expected = sidecar.get("base_hash")
        if expected and expected != weights_hash(base):
            raise InputError(f"{path}: was trained on another base than {base} holds (hash differs)")
        check_safe(base)
        return ModelFolder(path, base, True, sidecar.get("quantization") == "nf4")
    check_safe(path)
    return ModelFolder(path, path, False, False)


def check_safe(folder: Path) -> None:
    """Refuse remote code, pickled weights and damaged safetensors before anything is loaded."""
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{folder}: no config.json; give a transformers folder")
    said = _read_json(config)
    if "auto_map" in said or said.get("model_type") in CONVERTED:
        mend = f"; `xinglin convert {folder} --out DIR` maps it to a native shape"
        raise InputError(
            f"{config}: asks for remote code (auto_map); Xinglin never runs a model's own code"
            + (mend if said.get("model_type") in CONVERTED else "")
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = [p.name for p in folder.glob("*.bin")] + [p.name for p in folder.glob("*.pt")]
        found = f"found pickled weights ({pickles[0]}), which are refused" if pickles else "found no weights"
        raise InputError(f"{folder}: {found}; convert them to safetensors")
    for path in weights:
        check_weights(path)


def check_weights(path: Path) -> None:
    """Refuse a damaged safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged safetensors file ({error}); copy it again") from None


def load_tokenizer(folder: Path, template: str | None = None) -> tuple[PreTrainedTokenizerFast, Template]:
    """The tokenizer of a folder and its template: named, remembered, or recognised by its control tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    name = template or read_sidecar(folder).get("template")
    if name is None:
        stored = tokenizer.chat_template or ""
        name = next((t.name for t in TEMPLATES.values() if jinja(t) == stored), None)
        name = name or ("chatml" if "<|im_start|>" in stored else None)
    if name is None:
        raise InputError(f"{folder}: chat template not recognised; name one of {', '.join(TEMPLATES)} in the recipe")
    found = template_named(name)
    stop_id(tokenizer, found)
    return tokenizer, found


def frozen_dtype(device: str | torch.device) -> torch.dtype:
    """What weights that do not train are held and multiplied in: bf16 on a GPU, where fp32 would not fit; fp32 on a
    CPU, where sampler and trainer agree to 1e-5."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def load_base(
    folder: Path, *, nf4: bool, device: str = "cpu", dtype: torch.dtype = torch.float32, backbone: bool = False
) -> PreTrainedModel:
    """The whole model with packed attention, float or with its linear layers in NF4 (double-quantised). `backbone`: its
    output layer may be another one. Raises `InputError` for weights that are missing, unknown, misshapen or NaN."""
    check_safe(folder)
    options: dict[str, Any] = {}
    if nf4:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        both: Any = AutoModelForCausalLM.from_pretrained(  # the model and what became of each tensor
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            device_map=device,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: cannot be loaded: {str(error).splitlines()[0]}") from None
    model, loaded = both
    heads = {"lm_head.weight", "score.weight"} if backbone else set()
    shapes = [f"{name} is {tuple(a)}, not {tuple(b)}" for name, a, b in sorted(loaded["mismatched_keys"])]
    check_names(folder, set(loaded["missing_keys"]) - heads, set(loaded["unexpected_keys"]) - heads, shapes)
    check_finite(folder, model.named_parameters())
    if nf4 and device == "cpu":
        _plain_cpu_kernel(folder, model)
    return use_packed_attention(model)


def check_names(folder: Path, missing: set[str], unexpected: set[str], shapes: Sequence[str] = ()) -> None:
    """Refuse a folder whose tensors are not those of its configuration: nothing is loaded in part."""
    unexpected = {name for name in unexpected if not name.endswith("rotary_emb.inv_freq")}  # older LLaMA files hold it
    kinds = {"missing": sorted(missing), "not known": sorted(unexpected), "of another shape": sorted(shapes)}
    said = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds.items() if names]
    if said:
        raise InputError(f"{folder}: the weights do not fit the configuration: {'; '.join(said)}; copy both again")


def check_finite(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse weights that hold NaN or infinity, by name: whatever is trained or served from them would be noise."""
    bad = [name for name, t in tensors if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise InputError(
            f"{folder}: {len(bad)} weights hold NaN or infinity ({_listed(bad)}); take an earlier checkpoint or copy "
            "the model again"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")


def _plain_cpu_kernel(folder: Path, model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking NF4 weights at the first forward pass in eval mode, with scales rounded to bf16:
    the reference would differ from the policy, and the decoder would read another layout than it expects."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            if module.in_features % 64:  # its CPU kernel mixes up the scales of the blocks then
                raise InputError(f"{folder}: a layer is {module.in_features} wide; NF4 on a CPU needs multiples of 64")


def save_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast, template: Template) -> None:
    """Tokenizer, chat template and generation settings as transformers keeps them."""
    tokenizer.chat_template = jinja(template)
    tokenizer.save_pretrained(folder)
    generation = {"eos_token_id": stop_id(tokenizer, template), "pad_token_id": tokenizer.pad_token_id}
    write_text(folder / "generation_config.json", json.dumps(generation, indent=1))
    write_sidecar(folder, template=template.name)


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, template: Template) -> None:
    """A whole model as a transformers folder that `AutoModelForCausalLM.from_pretrained` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    attention = model.config._attn_implementation
    model.set_attn_implementation("sdpa")  # our attention's name means nothing to whoever loads the folder
    model.save_pretrained(folder, safe_serialization=True)
    model.set_attn_implementation(attention)
    save_tokenizer(folder, tokenizer, template)


def context_length(folder: Path) -> int:
    """Longest text the model was made for, in tokens."""
    config = AutoConfig.from_pretrained(describe(folder).base, local_files_only=True)
    return int(config.max_position_embeddings)


def read_sidecar(folder: Path) -> dict[str, Any]:
    path = folder / SIDECAR
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text("utf-8"))
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise InputError(f"{path}: not a JSON object; the folder is damaged, copy it again")
    return body


def write_sidecar(folder: Path, **facts: Any) -> None:
    write_text(folder / SIDECAR, json.dumps({**read_sidecar(folder), **facts}, indent=1))


def weights_hash(folder: Path) -> str:
    """One hash over the weight files of a folder."""
    return "".join(file_hash(path)[:12] for path in sorted(folder.glob("*.safetensors")))
