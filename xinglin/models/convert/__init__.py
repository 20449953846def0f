"""Bases published as remote code, mapped to a shape transformers knows; none of their code is run.

    xinglin convert Qwen-14B --out qwen-14b-native      # then: base.path: qwen-14b-native

| published `model_type`    | becomes            | vocabulary                                          |
| `qwen` (first generation) | `Qwen2ForCausalLM` | `qwen.tiktoken` -> byte-level BPE, tokenizer.json   |
| `baichuan` (7B)           | `LlamaForCausalLM` | `tokenizer.model` -> BPE with bytes, tokenizer.json |

`architectures.py` says what each config and each tensor becomes, `vocabulary.py` turns the vocabulary, `weights.py`
streams the tensors. What is written is read back and compared before the folder takes its name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from xinglin.models.convert.architectures import Architecture, architecture_of
from xinglin.models.convert.vocabulary import sentencepiece_tokenizer, tiktoken_tokenizer
from xinglin.models.convert.weights import source_files, verify, write_weights
from xinglin.models.load import save_tokenizer, write_sidecar
from xinglin.models.template import template_named
from xinglin.records import InputError
from xinglin.run import write_text

Advance = Callable[[int], None]


def convert(
    source: Path, out: Path, *, allow_bin: bool = False, advance: Advance = lambda done: None
) -> dict[str, Any]:
    """Write `source` (a folder as published, on disk) to `out` as a plain transformers folder; returns what was done.

    `advance` is called with the bytes read since its last call. Memory: one output shard (2 GB) and one tensor.
    Raises `InputError` for a model this cannot map exactly, a damaged or pickled file, or an `out` that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: not an empty folder; give --out a new one")
    config = _read_config(source)
    architecture = architecture_of(config, source / "config.json")
    tokenizer = _tokenizer(architecture, source)
    files = source_files(source, allow_bin)
    _check_space(out, sum(path.stat().st_size for path in files))
    partial = out.parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        dtype, parameters = write_weights(files, architecture.tensors, partial, advance)
        write_text(partial / "config.json", json.dumps({**architecture.config, "dtype": dtype}, indent=1))
        _write_tokenizer(architecture, partial, tokenizer)
        write_sidecar(partial, converted_from=config["model_type"])
        tensors = verify(files, architecture.tensors, partial, advance)
    except BaseException:
        shutil.rmtree(partial)
        raise
    if out.is_dir():
        out.rmdir()
    partial.rename(out)
    facts = {"from": config["model_type"], "to": architecture.config["architectures"][0], "tensors": tensors}
    limit = architecture.config["max_position_embeddings"]
    return {**facts, "parameters": parameters, "dtype": dtype, "vocabulary": len(tokenizer), "max_tokens": limit}


def _tokenizer(architecture: Architecture, source: Path) -> PreTrainedTokenizerFast:
    """The native tokenizer; refused where the model's embedding has fewer rows than it has tokens."""
    make = tiktoken_tokenizer if architecture.vocabulary == "qwen.tiktoken" else sentencepiece_tokenizer
    tokenizer = make(source / architecture.vocabulary)
    rows = architecture.config["vocab_size"]
    if len(tokenizer) > rows:
        raise InputError(
            f"{source / architecture.vocabulary}: gives {len(tokenizer)} tokens, config.json has vocab_size {rows}; "
            "the two are not of one model"
        )
    return tokenizer


def _write_tokenizer(architecture: Architecture, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """With its chat template where the family has one of ours; else the recipe names it."""
    if architecture.template:
        save_tokenizer(folder, tokenizer, template_named(architecture.template))
    else:
        tokenizer.save_pretrained(folder)


def _read_config(source: Path) -> dict[str, Any]:
    path = source / "config.json"
    if not path.is_file():
        raise InputError(f"{source}: no config.json; give the folder of a model as it was published")
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a JSON object; the folder is damaged, copy it again")
    return config


def _check_space(out: Path, needed: int) -> None:
    folder = out.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{out}: {free >> 20} MB free there, the converted model needs {needed >> 20} MB; free some")
