"""A merged model folder, verified by reload.

    xinglin export runs/demo/07-ppo/model --out model-to-publish

The licences of the data behind the model are looked up in the manifests of its run, printed, and written beside it
(provenance.json); data that are for research only stop the export until somebody says so.
An adapter is merged into the base it was trained on: for an NF4 base into the dequantised weights, which are what
it saw in training. Success is reported only after the folder has been loaded again and says the same.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xinglin.models.adapters import merged, read_adapter
from xinglin.models.load import describe, load_base, load_tokenizer, save_model
from xinglin.models.template import encode_text
from xinglin.records import InputError
from xinglin.run import say, write_text

TOLERANCE = 1e-3  # largest difference of a log-probability in fp32
PROBE = "患者头晕、头痛三天，血压150/95 mmHg，既往青霉素过敏。请给出诊断和用药建议。"


def export(model: Path, out: Path, *, acknowledge: bool = False) -> dict[str, Any]:
    """Write the merged model. Raises `InputError` where `out` is in use or the data behind the model are for research
    only and that is not acknowledged, `RuntimeError` where the reload differs."""
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; give --out a new or empty folder")
    found = describe(model)
    licences = provenance_of(model)
    research_only = sorted(name for name, words in licences.items() if words["research_only"])
    open_ = [name for name in research_only if not licences[name]["acknowledged"]]
    _say_provenance(licences)
    if open_ and not acknowledge:
        raise InputError(
            f"{model}: trained on data for research only ({', '.join(open_)}); a model made of them may be "
            "bound by that: read their licences, then give --acknowledge-research-only (in a recipe "
            "export.acknowledge_research_only: true)"
        )
    tokenizer, template = load_tokenizer(model)
    ids = torch.tensor([encode_text(tokenizer, PROBE)])
    trained: Any = load_base(found.base, nf4=found.nf4)
    trained = read_adapter(trained, model, "policy") if found.is_adapter else trained
    expected = _logprobs(trained, ids)
    facts = {"licences": licences, "research_only": research_only}
    partial = out.with_name(out.name + ".partial")
    try:
        save_model(partial, merged(found), tokenizer, template)
        gap = float((_logprobs(load_base(partial, nf4=False), ids) - expected).abs().max())
        if gap > TOLERANCE:
            raise RuntimeError(f"{out}: differs from the trained one by {gap:.2g} in a log-probability")
        write_text(partial / "provenance.json", json.dumps(facts, ensure_ascii=False, indent=1))
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    how = {"was_adapter": found.is_adapter, "was_nf4": found.nf4, "largest_difference": gap}
    return {"base": str(found.base), **how, **facts}


# --- provenance ------------------------------------------------------------------------------------------------------


def provenance_of(model: Path) -> dict[str, dict[str, Any]]:
    """Data set -> licence and research_only, of everything the manifests behind a model name: the data stage of its
    run, mixtures and rows it was trained on alone, and the models it started from."""
    found: dict[str, dict[str, Any]] = {}
    _gather(model.resolve(), found, set())
    return dict(sorted(found.items()))


def _gather(model: Path, found: dict[str, dict[str, Any]], seen: set[Path]) -> None:
    stage = model.parent
    if stage in seen:
        return
    seen.add(stage)
    inputs = _manifest(stage).get("inputs")
    if not isinstance(inputs, dict):
        return
    if (stage.parent / "run.json").is_file():
        for path in sorted(stage.parent.glob("*/manifest.json")):
            if (manifest := _manifest(path.parent)).get("kind") == "data":
                found.update(_licences(manifest))
    for name in inputs:
        path = Path(name)
        if path.is_file():
            found.update(_licences(_manifest(path.parent)) or _licences_of_rows(path))
        elif path.is_absolute() or path.is_dir():
            _gather(path.resolve(), found, seen)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        body = json.loads((folder / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _licences(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a data stage (`licences`) or a mixture (`provenance`) says of its sources."""
    told = manifest.get("licences") or (manifest.get("provenance") if "general_share" in manifest else None) or {}
    acknowledged = manifest.get("acknowledge_research_only") is True
    return {str(name): _words(one, acknowledged) for name, one in told.items() if isinstance(one, dict)}


def _words(told: dict[str, Any], acknowledged: bool = False) -> dict[str, Any]:
    research_only = bool(told.get("research_only"))
    licence = str(told.get("licence") or "not stated")
    return {"licence": licence, "research_only": research_only, "acknowledged": research_only and acknowledged}


def _licences_of_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The licences that the rows of a file carry in their meta, by source; one row for research only binds it."""
    found: dict[str, dict[str, Any]] = {}
    if path.suffix != ".jsonl":
        return found
    with path.open("rb") as file:
        for line in file:
            if b'"licence"' in line or b'"research_only"' in line:
                body = json.loads(line)
                name, words = str(body.get("source") or path.name), _words(body.get("meta") or {})
                if name not in found or words["research_only"]:
                    found[name] = words
    return found


def _say_provenance(licences: dict[str, dict[str, Any]]) -> None:
    for name, words in licences.items():
        say(f"trained on {name}: {words['licence']}{', for research only' if words['research_only'] else ''}")
    if not licences:
        say("trained on: no manifest beside the model names its data")


@torch.no_grad()
def _logprobs(model: Any, ids: Tensor) -> Tensor:
    return model.eval()(input_ids=ids).logits.float().log_softmax(-1)
