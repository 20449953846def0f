"""The road from a hospital's notes to a run's data folder.

    notes -> de-identified -> six kinds of instruction -> clean -> no doubles -> none that a test holds -> mixture

    build_notes(out, config, settings, place, columns, key)     the whole folder; the facts for its manifest
    build_road(out, source, settings, seed=0, key=key)          the notes' part; `out` holds what notes cannot give
    training_overlap(out)                                       any data folder: training x test, before training

Raw notes are streamed and never copied: the first thing that lies on disk has passed the gate of the de-identification.
Every step says what it read, accepted and rejected; rows that a step refused lie in `aside/`. Splits are by patient.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xinglin.config import Data, HospitalNotes
from xinglin.data import clean, instruct
from xinglin.data.canaries import plant, write_canaries
from xinglin.data.dedup import dedup_files
from xinglin.data.deidentify.columns import load_roles
from xinglin.data.deidentify.ledger import load_key
from xinglin.data.deidentify.pipeline import Read, Settings
from xinglin.data.deidentify.publish import NOTES, private_folder, publish
from xinglin.data.mix import mix
from xinglin.data.notes import read_notes
from xinglin.data.overlap import drop_overlap, find_overlap
from xinglin.data.provenance import licence_of
from xinglin.data.public import build_public
from xinglin.data.ward.build import WardConfig, build_ward, ward_config, worlds
from xinglin.data.ward.notes import notes as ward_notes
from xinglin.records import Conversation, InputError, Note, Record, read_any, read_records, to_json, write_records
from xinglin.run import file_hash, say, write_text

HOSPITAL = "hospital notes"  # not the file's name: it may name a patient
DEIDENTIFIED, ASIDE, WORK = "deidentified", "aside", ".road"
TRAINING = ("documents/train", "conversations/train", "general/train", "preferences/train", "questions/train")
TESTS = (
    *("documents/valid", "questions/test", "questions/heldout_diseases", "general_questions/test", "exam/test"),
    *("general_exam/test", "entities/test", "safety/test", "safety_exam/test"),
)
OVERLAP_COLUMNS = ("items", "exact", "ngram", "overlap", "share")
Advance = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class NoteSource:
    """`read` gives the notes anew for every pass; `refused` tells afterwards which rows gave none."""

    name: str
    read: Read
    refused: Callable[[], Mapping[str, int]] = dict
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    synthetic: bool = False
    licence: str = "not stated"
    research_only: bool = False


# --- where notes come from -------------------------------------------------------------------------------------------


def note_source(place: Path, columns: Path | None = None) -> NoteSource:
    """Note records (a .jsonl file, or a folder of them), or an export with its confirmed columns.

    Raises `InputError` where there is nothing, or where an export has no columns file."""
    if not place.exists():
        raise InputError(f"--data-dir {place}: no such file or folder; give notes, or leave it out for the ward's own")
    words = licence_of(place)
    facts: dict[str, Any] = {"licence": words.licence or "not stated", "research_only": words.research_only}
    if columns is not None and _is_mapping(columns):
        job = read_notes(place, columns)
        return NoteSource(HOSPITAL, lambda: iter(job), lambda: job.rejected, **facts)
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    if not files or any(file.suffix != ".jsonl" for file in files):
        raise InputError(
            f"--data-dir {place}: no note records (.jsonl); for an export give --columns FILE, which "
            "`xinglin data notes SOURCE --propose FILE` proposes"
        )
    roles = load_roles(columns) if columns else {}
    return NoteSource(
        HOSPITAL, lambda: (note for file in files for note in read_records(file, Note)), roles=roles, **facts
    )


def ward_source(config: WardConfig, count: int, seed: int) -> NoteSource:
    """Synthetic notes of the ward's patients, of the diseases that are trained on."""
    _, trained, _ = worlds(config)
    read = lambda: ward_notes(trained, count, seed)  # noqa: E731
    return NoteSource("generated notes", read, synthetic=True, licence="synthetic: generated, of no patient")


def _is_mapping(columns: Path) -> bool:
    """A file of `xinglin data notes --propose`; the other kind gives the roles of note records' fields."""
    if not columns.is_file():
        raise InputError(f"--columns {columns}: no such file; `xinglin data notes SOURCE --propose FILE` writes one")
    lines = columns.read_text("utf-8", errors="replace").splitlines()
    return any(line.startswith("confirmed:") for line in lines)


def check_road(settings: HospitalNotes, place: Path | None, columns: Path | None, key: Path, out: Path) -> None:
    """Raise `InputError` for what can be known to be wrong before anything is written."""
    if place is not None:
        note_source(place, columns)
    elif columns is not None:
        raise InputError(f"--columns {columns}: goes with --data-dir, the notes whose fields it names")
    for name in ("public_dir", "general_file"):
        if (path := getattr(settings, name)) and not Path(path).exists():
            raise InputError(f"data.notes.{name} is {path}: no such file or folder")
    load_key(key, out)


# --- the whole folder ------------------------------------------------------------------------------------------------


def build_notes(
    out: Path, config: Data, settings: HospitalNotes, place: Path | None, columns: Path | None, key: Path,
    advance: Advance = lambda step, count: None,
) -> dict[str, Any]:  # fmt: skip
    """Fill a run's data folder: what notes give from the notes, the rest from the ward or from public sets, marked so.

    Raises what `build_road` raises."""
    ward = dataclasses.replace(ward_config(config.ward), num_notes=0, num_note_tasks=0)
    source = note_source(place, columns) if place else ward_source(ward, settings.count, config.seed)
    if settings.public_dir:
        rest = build_public(out, Path(settings.public_dir), config.public, config.seed)
        beside, licences = "public", rest["licences"]
    else:
        rest = {}
        beside, licences = "ward (synthetic)", {"ward": _licence("synthetic: generated, of no patient", False)}
        build_ward(out, ward, config.seed)
        shutil.rmtree(out / "notes")  # none were asked for: raw notes do not lie in a run's folder
    facts = build_road(out, source, settings, seed=config.seed, key=key, advance=advance)
    licences |= {source.name: _licence(source.licence, source.research_only or settings.research_only)}
    if settings.general_file:
        found = licence_of(Path(settings.general_file))
        licences[Path(settings.general_file).name] = _licence(found.licence or "not stated", found.research_only)
    counts = count_records(out)
    parts = {"dialogues": beside, "general": settings.general_file or beside}
    origins = {
        name: {f"{part}, {parts[part]}" if part in parts else part: count for part, count in found.items()}
        for name, found in facts["origins"].items()
    }
    origins |= {name: {_origin(name, beside): count} for name, count in counts.items() if name not in origins}
    return {
        **{"counts": counts, **facts, "origins": origins, "licences": licences},
        "research_only": sorted(name for name, words in licences.items() if words["research_only"]),
        "notes_from": "generated (synthetic)" if source.synthetic else source.name,
        **({"beside": {name: rest[name] for name in ("left", "overlap", "not_built")}} if rest else {}),
    }


def _licence(words: str, research_only: bool) -> dict[str, Any]:
    return {"licence": words, "research_only": research_only}


def _origin(name: str, beside: str) -> str:
    return "notes" if name.split("/")[0] in (DEIDENTIFIED, ASIDE) else beside


# --- the road --------------------------------------------------------------------------------------------------------


def build_road(
    out: Path, source: NoteSource, settings: HospitalNotes, *, seed: int, key: Path,
    advance: Advance = lambda step, count: None,
) -> dict[str, Any]:  # fmt: skip
    """Make conversations/ and general/ of `out`, which holds the other folders already; the facts for the manifest.

    Raises `InputError`, or `Leak` (deidentify/pipeline.py) where the gate finds a known identifier: then no note and
    nothing made of one was written.
    """
    work, aside = out / WORK, out / ASIDE
    for folder in (work, aside, out / DEIDENTIFIED):
        shutil.rmtree(folder, ignore_errors=True)
    work.mkdir(parents=True)
    aside.mkdir()
    steps: dict[str, dict[str, Any]] = {}
    published, canaries = _deidentify(out / DEIDENTIFIED, source, settings, seed, key, advance)
    steps["deidentify"] = published
    steps["instruct"] = _instruct(out / DEIDENTIFIED / NOTES, work / "made.jsonl", advance)
    steps["clean"] = _clean(work / "made.jsonl", work / "notes.jsonl", aside / "clean.jsonl")
    steps["duplicates"] = dedup_files([work / "notes.jsonl"], work / "unique", near=settings.near)
    (work / "unique/duplicates.jsonl").replace(aside / "duplicates.jsonl")
    steps["overlap"] = _without_tests(out, work, aside, settings.overlap)
    mixture = _mix(out, work, settings, seed)
    steps["mixture"] = _mixed(mixture)
    origins = _lay_out(out, work / "mixed")
    shutil.rmtree(work)
    return {"road": steps, "mixture": mixture, "origins": origins, "canaries": canaries}


def _deidentify(
    out: Path, source: NoteSource, settings: HospitalNotes, seed: int, key: Path, advance: Advance
) -> tuple[dict[str, Any], dict[str, Any]]:
    read, planted = source.read, None
    if settings.canaries:
        read = planted = plant(source.read, settings.canaries, seed)
    how = Settings(source.roles, settings.quasi, settings.k if settings.quasi else 0, workers=settings.workers)
    manifest = publish(read, out, key, how, sample=settings.sample, refused=source.refused, advance=advance)
    if not manifest["accepted"]:
        raise InputError(f"0 of {manifest['read']} notes are left after de-identification: {manifest['rejected']}")
    about: dict[str, Any] = {}
    if planted:
        path = private_folder(key, load_key(key), out) / "canaries.jsonl"
        write_canaries(path, planted.canaries)
        about = {"planted": len(planted.canaries), "file": str(path), "sha256": file_hash(path)}
    shown = ("read", "accepted", "rejected", "patients", "kinds", "repaired_by_gate", "problems", "kanonymity")
    return {name: manifest[name] for name in shown} | {"licence": source.licence}, about


def _instruct(notes: Path, target: Path, advance: Advance) -> dict[str, Any]:
    kinds = instruct.chosen_kinds([])
    made, rejected = Counter[str](), Counter[str]()

    def outcomes() -> Iterator[Conversation]:
        for outcome in instruct.instruct(map(instruct.require_deidentified, read_records(notes, Note)), kinds):
            if isinstance(outcome, instruct.Made):
                made[outcome.conversation.meta["task_type"]] += 1
                yield outcome.conversation
            else:
                rejected[f"{outcome.kind}: {outcome.reason}"] += 1
            advance("instruct", 1)

    accepted = write_records(target, outcomes())
    return {"read": accepted + rejected.total(), "accepted": accepted, "rejected": dict(rejected), "made": dict(made)}


def _clean(source: Path, target: Path, aside: Path) -> dict[str, Any]:
    settings = clean.CleanSettings()
    known = clean.Known(settings, clean.survey_records(read_any(source), settings))
    tally = clean.Tally()

    def kept() -> Iterator[Record]:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            for outcome in clean.clean(read_any(source), known):
                tally.add(outcome)
                if isinstance(outcome, clean.Kept):
                    yield outcome.record
                else:
                    file.write(to_json(clean.with_reason(outcome)) + "\n")

    write_records(target, kept())
    if not tally.accepted:
        raise InputError(f"0 of {tally.read} instructions are left after cleaning: {dict(tally.rejected)}")
    return {name: value for name, value in tally.summary().items() if name != "sources"}


def _without_tests(out: Path, work: Path, aside: Path, threshold: float) -> dict[str, Any]:
    rows, target = work / "unique/notes.jsonl", work / "instructions.jsonl"
    if not (tests := _there(out, TESTS)):
        rows.replace(target)
        return {"read": 0, "accepted": 0, "rejected": {}, "skipped": "there is no test in the data folder"}
    found = find_overlap([rows], tests, threshold=threshold)
    drop_overlap(found, [rows], target)
    (work / "instructions-overlap.jsonl").replace(aside / "overlap.jsonl")
    summary = found.summary()
    return {name: summary[name] for name in ("read", "accepted", "rejected", "threshold")}


def _mix(out: Path, work: Path, settings: HospitalNotes, seed: int) -> dict[str, Any]:
    """The mixture in stated shares; what is not of the notes is training only, its validation stays what it was."""
    general = Path(settings.general_file) if settings.general_file else out / "general/train.jsonl"
    sources: dict[str, dict[str, Any]] = {"notes": {"files": ["notes.jsonl"], "ratio": 1 - settings.dialogue_share}}
    _tag(work / "instructions.jsonl", work / "notes.jsonl", "notes")
    if settings.dialogue_share > 0:
        _tag(out / "conversations/train.jsonl", work / "dialogues.jsonl", "dialogues")
        sources["dialogues"] = {"files": ["dialogues.jsonl"], "ratio": settings.dialogue_share, "split": "train"}
    if settings.general_share > 0:
        _tag(general, work / "general.jsonl", "general")
        sources["general"] = {"files": ["general.jsonl"], "general": True, "split": "train"}
    body = {
        **{"by": "rows", "split_by": "patient", "seed": seed, "sources": sources},
        **{name: getattr(settings, name) for name in ("general_share", "size", "valid_share", "max_epochs")},
    }
    write_text(work / "mixture.yaml", json.dumps(body, indent=1))  # JSON is YAML
    facts = mix(work / "mixture.yaml", work / "mixed")
    shown = ("by", "seed", "read", "rows", "general_share", "split", "histograms")
    of_each = ("rows", "rows_written", "share", "epochs", "upsampled", "left_out")
    sources = {name: {key: one[key] for key in of_each} for name, one in facts["sources"].items()}
    return {name: facts[name] for name in shown} | {"sources": sources}


def _mixed(facts: dict[str, Any]) -> dict[str, Any]:
    left = {f"{name}: beyond its share": one["left_out"] for name, one in facts["sources"].items() if one["left_out"]}
    again = {f"{name}: read {one['epochs']:g} times" for name, one in facts["sources"].items() if one["upsampled"]}
    accepted = facts["read"] - sum(left.values())
    return {"read": facts["read"], "accepted": accepted, "rejected": left, "upsampled": sorted(again)}


def _tag(source: Path, target: Path, origin: str) -> None:
    records = read_records(source, Conversation)
    count = write_records(target, (replace(one, meta={**one.meta, "origin": origin}) for one in records))
    if not count:
        raise InputError(f"{source.name}: 0 conversations for the part {origin!r} of the mixture; set its share to 0")


def _lay_out(out: Path, mixed: Path) -> dict[str, dict[str, int]]:
    """Medical rows to conversations/, general ones to general/, from where `sft` draws them; rows of each origin."""
    valid = out / "conversations/valid.jsonl"
    others = list(read_records(valid, Conversation)) if valid.is_file() else []
    origins: dict[str, Counter[str]] = {name: Counter() for name in ("conversations/train", "conversations/valid")}

    def rows(split: str, general: bool) -> Iterator[Conversation]:
        for record in read_records(mixed / f"{split}.jsonl", Conversation):
            if (record.meta["origin"] == "general") is general:
                origins.setdefault(f"{'general' if general else 'conversations'}/{split}", Counter())[
                    record.meta["origin"]
                ] += 1
                yield replace(record, meta={**record.meta, "split": split})

    def held() -> Iterator[Conversation]:
        yield from rows("valid", general=False)
        origins["conversations/valid"]["dialogues"] += len(others)
        yield from others

    write_records(out / "conversations/train.jsonl", rows("train", general=False))
    write_records(valid, held())
    write_records(out / "general/train.jsonl", rows("train", general=True))
    return {name: dict(counts) for name, counts in origins.items()}


# --- what is said of a data folder -----------------------------------------------------------------------------------


def training_overlap(folder: Path, threshold: float = 0.3) -> dict[str, Any]:
    """How much of each test stands in each training file, by normalised text and by 13-grams: the table of a manifest.

    Nothing is dropped here; `not_compared` names the tests that the folder has not."""
    train, tests = _there(folder, TRAINING), _there(folder, TESTS)
    absent = [name for name in TESTS if folder / f"{name}.jsonl" not in tests]
    if not train or not tests:
        return {"threshold": threshold, "table": [], "not_compared": absent}
    names = {label: f"{path.parent.name}/{path.stem}" for path in (*train, *tests) for label in _labels_of(path)}
    table = [
        {"data": names[row["data"]], "test": names[row["test"]], **{name: row[name] for name in OVERLAP_COLUMNS}}
        for row in find_overlap(train, tests, threshold=threshold).table
        if names[row["data"]] in TRAINING
    ]
    return {"threshold": threshold, "table": table, "not_compared": absent}


def say_overlap(facts: Mapping[str, Any]) -> None:
    """One line for each test of which something stands in the training data."""
    for row in facts["table"]:
        if row["overlap"]:
            share = f"{row['overlap']} of {row['items']} items ({100 * row['share']:.1f} %)"
            say(f"overlap: {share} of {row['test']} stand in {row['data']}; see the report before you trust that score")


def _labels_of(path: Path) -> tuple[str, str]:
    return path.name, f"{path.parent.name}/{path.name}"


def _there(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of these names that hold something."""
    paths = [folder / f"{name}.jsonl" for name in names]
    return [path for path in paths if path.is_file() and path.stat().st_size]


def count_records(folder: Path) -> dict[str, int]:
    """Records of every file of a data folder: {"documents/train": 120, ...}."""
    counts = {}
    for path in sorted(folder.rglob("*.jsonl")):
        if not path.name.startswith("."):
            with path.open("rb") as file:
                counts[path.relative_to(folder).with_suffix("").as_posix()] = sum(1 for _ in file)
    return counts
