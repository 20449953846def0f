"""A mixture of sources in stated shares, split by patient, with its provenance: what a model is trained on.

    by: tokens                 # or rows. Tokens are characters where no tokenizer is given
    general_share: 0.2         # share of the general sources; must be written, 0 is allowed
    sources:
      wards: {files: [notes.jsonl], ratio: 3}
      exams: {files: [exams.jsonl], ratio: 1, licence: MIT}
      daily: {files: [alpaca.jsonl], general: true}

Ratios are shares among the medical sources, and among the general ones. A source that is too small for its share is
read several times (upsampling: `epochs` says how often), one that is too large is cut; which rows are in is decided by
a hash of seed and row. Two passes: the first measures every row, the second writes the chosen ones in a shuffled order,
each read from its place in the file, so that memory grows by a few dozen bytes a row and not by its text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xinglin.data.mixture import (
    SPLITS,
    Mixture,
    Part,
    Source,
    check_kind,
    check_patients,
    files_of,
    fractions,
    load_mixture,
    load_tokenizer,
    measure,
    plan_of,
    sides_of,
)
from xinglin.data.provenance import licence_of
from xinglin.data.shingles import within
from xinglin.data.spread import Engine
from xinglin.run import file_hash, versions, write_text

BINS = (0, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def mix(
    path: Path,
    out: Path,
    *,
    tokenizer: Path | None = None,
    engine: Engine = "local",
    workers: int = 1,
    acknowledge: bool = False,
) -> dict[str, Any]:
    """Write train.jsonl, valid.jsonl and, last, manifest.json into `out`; the manifest.

    Raises `InputError` for a wrong mixture file, a patient who would stand in both splits, records of
    several kinds, or a source that would have to be read more than `max_epochs` times.
    """
    mixture = load_mixture(path)
    if tokenizer is not None:
        load_tokenizer(str(tokenizer))
    measured = {name: measure(path, name, s, tokenizer, engine, workers) for name, s in mixture.sources.items()}
    sources = {name: rows for name, (rows, _) in measured.items()}
    check_kind(sources)
    sides = {name: sides_of(rows, mixture, mixture.sources[name]) for name, rows in sources.items()}
    check_patients(sources, sides)
    plan = plan_of(mixture, sources, sides)
    out.mkdir(parents=True, exist_ok=True)
    written = {split: _write(out / f"{split}.jsonl", path, mixture, plan[split]) for split in SPLITS}
    facts = _facts(mixture, sources, plan, "tokens" if tokenizer else "characters")
    provenance = {n: _provenance(path, s, *measured[n]) for n, s in mixture.sources.items()}
    facts |= {"provenance": provenance, "research_only": sorted(n for n, p in provenance.items() if p["research_only"])}
    facts["acknowledge_research_only"] = mixture.acknowledge_research_only or acknowledge
    outputs = {f"{split}.jsonl": file_hash(out / f"{split}.jsonl") for split in SPLITS}
    manifest = {**facts, "rows": written, "outputs": outputs, "versions": versions()}
    write_text(out / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1))
    return manifest


# --- second pass -----------------------------------------------------------------------------------------------------


def _write(target: Path, path: Path, mixture: Mixture, parts: Sequence[Part]) -> int:
    """The chosen rows in the order of a hash; each is read at its place. A row's second copy has an id of its own."""
    number = np.repeat(np.arange(len(parts)), [int(part.copies.sum()) for part in parts])
    row = np.concatenate([np.repeat(np.arange(len(part.rows)), part.copies) for part in parts])
    copy = np.concatenate([within(part.copies) for part in parts])
    ranks = [
        fractions(part.rows["key"][row[number == n]] + copy[number == n].astype(np.uint64), mixture.seed, part.name)
        for n, part in enumerate(parts)
    ]
    temporary = target.with_name(target.name + ".partial")
    with ExitStack() as stack:
        inputs = {
            part.name: [stack.enter_context(file.open("rb")) for file in files_of(path, mixture.sources[part.name])]
            for part in parts
        }
        file = stack.enter_context(temporary.open("wb"))
        for place in np.argsort(np.concatenate(ranks), kind="stable").tolist():
            part = parts[number[place]]
            entry = part.rows[row[place]]
            line = _line(inputs[part.name][entry["file"]], int(entry["offset"]))
            file.write(_again(line, int(copy[place])) if copy[place] else line)
    temporary.replace(target)
    return len(row)


def _line(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.readline().removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") + b"\n"


def _again(line: bytes, copy: int) -> bytes:
    body = json.loads(line)
    body["id"] = f"{body['id']}#{copy + 1}"
    body["meta"] = {**body.get("meta", {}), "copy": copy + 1}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


# --- what is said about it -------------------------------------------------------------------------------------------


def _facts(
    mixture: Mixture, sources: dict[str, NDArray[Any]], plan: dict[str, list[Part]], unit: str
) -> dict[str, Any]:
    total = sum(part.written for part in plan["train"])
    described = {}
    for part in plan["train"]:
        described[part.name] = {
            "rows": len(part.rows),
            "rows_written": int(part.copies.sum()),
            "units": part.available,
            "units_written": part.written,
            "share": round(part.written / max(total, 1), 6),
            "epochs": round(part.epochs, 4),
            "upsampled": bool((part.copies > 1).any()),
            "left_out": int((part.copies == 0).sum()),
        }
    general = sum(part.written for part in plan["train"] if mixture.sources[part.name].general)
    rows = np.concatenate(list(sources.values()))
    return {
        "by": mixture.by,
        "unit": "rows" if mixture.by == "rows" else unit,
        "size_unit": unit,
        "seed": mixture.seed,
        "read": len(rows),
        "general_share": round(general / max(total, 1), 6),
        "sources": described,
        "split": {
            "by": mixture.split_by,
            "patients": len(np.unique(rows["patient"][rows["patient"] > 0])),
            "rows_without_patient": int((rows["patient"] == 0).sum()),
            "questions_in_both": _questions_in_both(plan),
        },
        "histograms": {split: _histograms(plan[split], unit) for split in SPLITS},
        "config": mixture.model_dump(mode="json"),
    }


def _questions_in_both(plan: dict[str, list[Part]]) -> int:
    asked = {split: np.concatenate([part.rows["question"] for part in plan[split]]) for split in SPLITS}
    return int(np.isin(asked["valid"], asked["train"]).sum())


def _histograms(parts: Sequence[Part], unit: str) -> dict[str, Any]:
    """Rows by length in characters and, with a tokenizer, in tokens: {"32-63": rows, ...}."""
    columns = {"characters": "chars", **({"tokens": "size"} if unit == "tokens" else {})}
    return {
        name: _histogram(np.concatenate([np.repeat(part.rows[column], part.copies) for part in parts]))
        for name, column in columns.items()
    }


def _histogram(sizes: NDArray[Any]) -> dict[str, Any]:
    counts, _ = np.histogram(sizes, bins=[*BINS, np.inf])
    names = [f"{low}-{high - 1}" for low, high in zip(BINS, BINS[1:], strict=False)] + [f"{BINS[-1]}-"]
    median = float(np.median(sizes)) if len(sizes) else 0.0
    return {
        "rows": len(sizes),
        "sum": int(sizes.sum()),
        "median": median,
        **dict(zip(names, counts.tolist(), strict=True)),
    }


def _provenance(path: Path, source: Source, rows: NDArray[Any], carried: set[str]) -> dict[str, Any]:
    """Licence and origin of a source: what the mixture says, what stands beside its files, what its rows carry."""
    found = [licence_of(file) for file in files_of(path, source)]
    licences = {source.licence} if source.licence else {one.licence for one in found} | carried
    return {
        "files": {file: file_hash(path.parent / file) for file in source.files},
        "licence": ", ".join(sorted(filter(None, licences))) or "not stated",
        "from": sorted({one.source for one in found if one.source}),
        "commit": sorted({one.commit for one in found if one.commit}),
        "research_only": source.research_only
        or any(one.research_only for one in found)
        or bool(rows["research"].any()),
    }
