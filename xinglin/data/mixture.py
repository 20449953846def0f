"""What a mixture is, and which rows it takes: the file that says it, every row measured, the split, the plan.

Sizes, ids and patients of all rows stand in one small array for each source (44 bytes a row); the texts stay on disk.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from xinglin.config import Config, Positive, Share
from xinglin.data.spread import Arrays, Chunk, Engine, chunks_of, map_chunks, records_of
from xinglin.data.texts import answer_of, normal, patient_of, question_of
from xinglin.recipe import Places, explain, read_yaml
from xinglin.records import NAMES, InputError
from xinglin.run import seed_for

SPLITS = ("train", "valid")
ROW = np.dtype(
    [("key", "u8"), ("patient", "u8"), ("question", "u8"), ("offset", "i8"), ("file", "i4"), ("size", "i4")]
    + [("chars", "i4"), ("research", "?"), ("kind", "i1")]
)
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Source(Config):
    """One source. Without `licence` the notices beside its files are read; `research_only` can only be added."""

    files: tuple[str, ...] = Field(min_length=1)
    ratio: float = Field(default=1.0, gt=0)
    general: bool = False
    split: Literal["auto", "train", "valid"] = "auto"
    """Where its rows go: `auto` splits them by patient, or by the hash of the record's id."""
    licence: str | None = None
    research_only: bool = False


class Mixture(Config):
    """A mixture file. Paths are relative to it."""

    by: Literal["tokens", "rows"] = "tokens"
    general_share: Share
    sources: dict[str, Source] = Field(min_length=1)
    size: Positive | None = None
    """Tokens or rows of the training split; without it, as much as all sources have."""
    valid_share: float = Field(default=0.05, ge=0, lt=1)
    split_by: Literal["patient", "record", "question"] = "patient"
    """patient: all rows of a patient on one side; a row that names none goes by its record id."""
    max_epochs: float = Field(default=4.0, ge=1)
    """A source that would be read more often is an error (arXiv:2305.16264: little is gained beyond four times)."""
    seed: int = 0
    acknowledge_research_only: bool = False


def load_mixture(path: Path) -> Mixture:
    """The checked mixture. Raises one `InputError` with every wrong key and its line."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a YAML file with general_share and sources")
    tree, places = read_yaml(path)
    try:
        mixture = Mixture.model_validate(tree)
    except ValidationError as error:
        wrong = _wrong_sources(tree, path, places) or list(explain(error, Mixture, path, places, ()))
        raise InputError("; ".join(wrong)) from None
    general = [name for name, source in mixture.sources.items() if source.general]
    if bool(general) != (mixture.general_share > 0):
        found = f"the general sources are {', '.join(general)}" if general else "no source has `general: true`"
        raise InputError(f"{path}: general_share is {mixture.general_share:g}, but {found}; make the two agree")
    if mixture.general_share == 1 and len(general) < len(mixture.sources):
        raise InputError(f"{path}: general_share is 1, which leaves nothing to the other sources; take them out")
    return mixture


def _wrong_sources(tree: dict[str, Any], path: Path, places: Places) -> list[str]:
    """The problems of each source by itself: its keys are those of `Source`."""
    problems: list[str] = []
    sources = tree.get("sources")
    for name, values in sources.items() if isinstance(sources, dict) else ():
        try:
            Source.model_validate(values)
        except ValidationError as error:
            problems += explain(error, Source, path, places, ("sources", str(name)))
    return problems


# --- first pass: every row measured ----------------------------------------------------------------------------------


def measure(
    path: Path, name: str, source: Source, tokenizer: Path | None, engine: Engine, workers: int
) -> tuple[NDArray[Any], set[str]]:
    """Every row of a source, and the licences that its rows carry."""
    files = files_of(path, source)
    order = {file: number for number, file in enumerate(files)}
    chunks = chunks_of(files)
    work = partial(_measure_chunk, tokenizer=str(tokenizer) if tokenizer else "")
    parts, licences = [np.empty(0, ROW)], set[str]()
    for chunk, arrays in zip(chunks, map_chunks(work, chunks, engine=engine, workers=workers), strict=True):
        rows = arrays["rows"]
        rows["file"] = order[chunk.path]
        parts.append(rows)
        licences.update(arrays["licences"].tobytes().decode().split("\n"))
    if not sum(map(len, parts)):
        raise InputError(f"{files[0]}: source {name} has no records; give it files with records, or take it out")
    return np.concatenate(parts), licences


def files_of(path: Path, source: Source) -> list[Path]:
    return [path.parent / file for file in source.files]


def _measure_chunk(chunk: Chunk, tokenizer: str) -> Arrays:
    rows, texts, licences = [], [], set()
    for offset, record in records_of(chunk):
        text = f"{question_of(record)}\n{answer_of(record)}".strip()
        question, patient = normal(question_of(record)), patient_of(record)
        keys = [seed_for(word) if word else 0 for word in (record.id, patient, question)]
        research = bool(record.meta.get("research_only", False))
        rows.append((*keys, offset, 0, 0, len(text), research, list(NAMES).index(type(record))))
        texts.append(text)
        licences.add(str(record.meta.get("licence", "")).replace("\n", " "))
    found = np.array(rows, ROW)
    found["size"] = found["chars"]
    if tokenizer and texts:
        found["size"] = [len(encoded.ids) for encoded in load_tokenizer(tokenizer).encode_batch(texts)]
    return {"rows": found, "licences": np.frombuffer("\n".join(sorted(licences)).encode(), np.uint8)}


@cache
def load_tokenizer(folder: str) -> Any:
    from tokenizers import Tokenizer

    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{file}: no such file; give --tokenizer a folder with a tokenizer.json")
    return Tokenizer.from_file(str(file))


def check_kind(sources: dict[str, NDArray[Any]]) -> None:
    kinds = {name: {list(NAMES.values())[kind] for kind in np.unique(rows["kind"])} for name, rows in sources.items()}
    if len(set.union(*kinds.values())) > 1:
        words = "; ".join(f"{name}: {', '.join(sorted(found))}" for name, found in kinds.items())
        raise InputError(f"the sources hold records of several kinds ({words}); mix one kind at a time")


# --- the split -------------------------------------------------------------------------------------------------------


def sides_of(rows: NDArray[Any], mixture: Mixture, source: Source) -> Bools:
    """Which rows are validation."""
    if source.split != "auto":
        return np.full(len(rows), source.split == "valid")
    column = {"patient": "patient", "record": "key", "question": "question"}[mixture.split_by]
    keys = np.where(rows[column] == 0, rows["key"], rows[column])
    return fractions(keys, mixture.seed, "split") < mixture.valid_share


def check_patients(sources: dict[str, NDArray[Any]], sides: dict[str, Bools]) -> None:
    rows = np.concatenate(list(sources.values()))
    valid = np.concatenate([sides[name] for name in sources])
    patients = rows["patient"]
    shared = np.intersect1d(patients[valid & (patients > 0)], patients[~valid & (patients > 0)])
    if len(shared):
        raise InputError(
            f"{len(shared)} patients would stand in train and valid; write `split_by: patient`, and give sources of "
            "one patient the same `split`"
        )


def fractions(keys: NDArray[Any], *seed: object) -> NDArray[np.float64]:
    """A number in [0, 1) for each key, the same on every machine."""
    mixed = keys.astype(np.uint64) ^ np.uint64(seed_for(*seed))
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # SplitMix64's finaliser (Steele et al. 2014)
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


# --- the plan --------------------------------------------------------------------------------------------------------


def _shares(mixture: Mixture) -> dict[str, float]:
    """The share of each source in the whole."""
    whole = {True: mixture.general_share, False: 1 - mixture.general_share}
    sums: dict[bool, float] = defaultdict(float)
    for source in mixture.sources.values():
        sums[source.general] += source.ratio
    return {name: whole[s.general] * s.ratio / sums[s.general] for name, s in mixture.sources.items()}


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a source that go into a split, `copies` of each; `epochs` = units written / units there."""

    name: str
    rows: NDArray[Any]
    copies: I64
    available: int
    written: int

    @property
    def epochs(self) -> float:
        return self.written / max(self.available, 1)


def plan_of(mixture: Mixture, sources: dict[str, NDArray[Any]], sides: dict[str, Bools]) -> dict[str, list[Part]]:
    """Training in the stated shares; validation takes every row once, so that no row counts twice there."""
    plan: dict[str, list[Part]] = {split: [] for split in SPLITS}
    train = {name: rows[~sides[name]] for name, rows in sources.items() if not sides[name].all()}
    if not train:
        raise InputError("no row is left for training; lower valid_share")
    shares = {name: share for name, share in _shares(mixture).items() if name in train}
    units = {name: _units(rows, mixture) for name, rows in train.items()}
    size = mixture.size or sum(int(unit.sum()) for unit in units.values())
    for name, rows in train.items():
        wanted = size * shares[name] / sum(shares.values())
        epochs = wanted / max(int(units[name].sum()), 1)
        if epochs > mixture.max_epochs:
            raise InputError(
                f"source {name} would be read {epochs:.1f} times; allowed by max_epochs: {mixture.max_epochs:g}; give "
                "more of it, a smaller size or ratio, or a larger max_epochs"
            )
        copies = _copies(rows, units[name], wanted, fractions(rows["key"], mixture.seed, "rows", name))
        there = int(units[name].sum())
        plan["train"].append(Part(name, rows, copies, there, int((copies * units[name]).sum())))
    for name, rows in sources.items():
        valid = rows[sides[name]]
        there = int(_units(valid, mixture).sum())
        plan["valid"].append(Part(name, valid, np.ones(len(valid), np.int64), there, there))
    return plan


def _units(rows: NDArray[Any], mixture: Mixture) -> I64:
    return np.ones(len(rows), np.int64) if mixture.by == "rows" else rows["size"].astype(np.int64)


def _copies(rows: NDArray[Any], units: I64, wanted: float, ranks: NDArray[np.float64]) -> I64:
    """How often each row is written: all rows the whole number of times, and once more those of the lowest ranks."""
    whole = int(wanted // max(int(units.sum()), 1))
    rest = wanted - whole * int(units.sum())
    order = np.argsort(ranks, kind="stable")
    before = np.cumsum(units[order]) - units[order]
    copies = np.full(len(rows), whole, np.int64)
    copies[order[before + units[order] / 2 < rest]] += 1  # the row at the border goes where it fits better
    return copies
