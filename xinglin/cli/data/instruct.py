"""`xinglin data instruct`: notes into instructions, split by patient."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from xinglin.cli.data.clean import Json, KeyEnv, Out, PriceIn, PriceOut, asker_for, open_folder, shown
from xinglin.records import InputError, Note, to_json

if TYPE_CHECKING:
    from xinglin.data.instruct import Made, Refused, Terms

INSTRUCT_EXAMPLES = (
    "Examples:  xinglin data instruct deidentified/notes.jsonl --out instructions   |   xinglin data instruct "
    "notes.jsonl --out instructions --kinds diagnosis_suggestion --url http://127.0.0.1:8000/v1 --model qwen"
)
FILES = ("train", "valid", "rejected")


def instruct_command(
    notes: Annotated[Path, typer.Argument(help="De-identified notes, JSONL.")],
    out: Out,
    kinds: Annotated[str, typer.Option(help="Kinds of instruction, with commas between; default: all six.")] = "",
    url: Annotated[str | None, typer.Option(help="OpenAI-style address of a model that writes the answers.")] = None,
    model: Annotated[str, typer.Option(help="That model's name.")] = "",
    key_env: KeyEnv = None,
    terms: Annotated[Path | None, typer.Option(help="Terms that answers are checked for: kind, TAB, synonyms.")] = None,
    valid_share: Annotated[float, typer.Option(min=0, max=0.9, help="Share of patients kept for validation.")] = 0.05,
    split_key: Annotated[str, typer.Option(help="Word that decides which patients these are.")] = "xinglin",
    allow_raw: Annotated[
        bool, typer.Option("--allow-raw", help="Take notes without the de-identification mark.")
    ] = False,
    price_in: PriceIn = 0.0,
    price_out: PriceOut = 0.0,
    json_: Json = False,
) -> None:
    """Make training conversations of notes; DIR gets train.jsonl, valid.jsonl, rejected.jsonl and report.json.

    Without --url the answers are the notes' own words, and nothing leaves this machine.
    """
    from xinglin.data.instruct import chosen_kinds, instruct, require_deidentified
    from xinglin.data.instruct.written import PROMPT, VERSION, written_by
    from xinglin.records import read_records
    from xinglin.run import file_hash, write_text

    names = chosen_kinds([name.strip() for name in kinds.split(",") if name.strip()])
    known = _terms(terms)
    asker = asker_for(url, model, key_env, PROMPT, VERSION, out)
    open_folder(out)
    read = Counter[str]()

    def checked() -> Iterator[Note]:
        for note in shown(read_records(notes, Note), "reading"):
            read["notes"] += 1
            yield note if allow_raw else require_deidentified(note)

    outcomes = instruct(checked(), names, write=written_by(asker) if asker else None, terms=known)
    counts = _write(outcomes, out, valid_share, split_key)
    if not read["notes"]:
        raise InputError(f"{notes}: holds 0 notes; give a JSONL file of note records")
    report = {
        "notes": read["notes"],
        **{"kinds": names, "kinds_note": "the six kinds are Xinglin's own; the paper does not name its six"},
        **counts,
        "input": {"name": notes.name, "sha256": file_hash(notes)},
        "valid_share": valid_share,
        **({"model": asker.cost(price_in, price_out)} if asker else {}),
    }
    write_text(out / "report.json", json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    print(json.dumps(report, ensure_ascii=False)) if json_ else _print(report)


def _terms(path: Path | None) -> Terms:
    """The ward's diseases, drugs and examinations, and the user's own beside them."""
    from xinglin.data.instruct import terms_of
    from xinglin.data.ward.world import load_world

    groups: list[tuple[str, tuple[str, ...]]] = []
    for disease in load_world().diseases:
        groups.append(("disease", disease.names))
        groups += [("drug", (item.name,)) for item in disease.treatments if item.kind == "drug"]
        groups += [("examination", (exam.name,)) for exam in disease.exams]
    for number, line in enumerate(_lines(path), 1):
        kind, *words = line.split("\t")
        if line and not words:
            raise InputError(f"{path}:{number}: one column; write a kind (drug, disease, examination), TAB, synonyms")
        groups.append((kind, tuple(words)))
    return terms_of(groups)


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__}); give a TSV file") from None


def _write(outcomes: Iterator[Made | Refused], out: Path, valid_share: float, key: str) -> dict[str, Any]:
    """All files through temporary ones. `rejected.jsonl` holds what was written and refused; a kind that a note could
    not answer at all leaves a count."""
    partial = {name: out / f"{name}.jsonl.partial" for name in FILES}
    files: dict[str, TextIO] = {}
    try:
        for name, path in partial.items():
            files[name] = path.open("w", encoding="utf-8", newline="\n")
        counts = _count(outcomes, files, valid_share, key)
    except BaseException:
        for path in partial.values():
            path.unlink(missing_ok=True)
        raise
    finally:
        for file in files.values():
            file.close()
    for name, path in partial.items():
        path.replace(out / f"{name}.jsonl")
    return counts


def _count(
    outcomes: Iterator[Made | Refused], files: dict[str, TextIO], valid_share: float, key: str
) -> dict[str, Any]:
    from dataclasses import replace

    from xinglin.data.instruct import Made, part_of

    parts, made, rejected = Counter[str](), Counter[str](), Counter[str]()
    for outcome in outcomes:
        if isinstance(outcome, Made):
            record = outcome.conversation
            part = part_of(record.meta["patient_id"], valid_share, key)
            files[part].write(to_json(replace(record, meta={**record.meta, "split": part})) + "\n")
            parts[part] += 1
            made[record.meta["task_type"]] += 1
            continue
        rejected[f"{outcome.kind}: {outcome.reason}"] += 1
        if outcome.conversation:
            meta = {**outcome.conversation.meta, "rejected": outcome.reason}
            files["rejected"].write(to_json(replace(outcome.conversation, meta=meta)) + "\n")
    return {
        "read": made.total() + rejected.total(),
        "accepted": made.total(),
        "rejected": dict(rejected.most_common()),
        "made": dict(made),
        "train": parts["train"],
        "valid": parts["valid"],
    }


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "kind", "count")
    for name in ("notes", "train", "valid"):
        table.add_row(name, "", str(report[name]))
    for what in ("made", "rejected"):
        for name, count in report[what].items():
            table.add_row(what, name, str(count))
    Console(stderr=True).print(table)
