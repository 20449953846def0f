"""The folder that is published, and the private one beside the key.

    publish(read, out, key_path, settings, sample=300)     OUT/notes.jsonl, report.html, manifest.json (written last)
    withdraw(out, patient_id, key_path)                    one patient's notes out of a published folder, for good

All is made in a hidden folder beside OUT and renamed at the end: a run that fails leaves nothing. The private folder,
beside the key, holds what helps to find a person again: masked dates, possible links, the reading sample.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xinglin import __version__
from xinglin.data.deidentify import kanonymity, page
from xinglin.data.deidentify.ledger import Ledger, key_name, keyed, ledger_path, load_key
from xinglin.data.deidentify.pipeline import Facts, Read, Settings, deidentify
from xinglin.data.deidentify.rewrite import public_patient
from xinglin.records import InputError, Note, read_records, write_records
from xinglin.run import file_hash, write_text

NOTES, REPORT, MANIFEST = "notes.jsonl", "report.html", "manifest.json"


def publish(
    read: Read,
    out: Path,
    key_path: Path,
    settings: Settings,
    *,
    measurement: dict[str, Any] | None = None,
    sample: int = 0,
    refused: Callable[[], Mapping[str, int]] = dict,
    advance: Callable[[str, int], None] = lambda step, count: None,
) -> dict[str, Any]:
    """De-identify into OUT; the manifest. `refused` tells, after reading, which rows the reader gave no note for.

    Raises `InputError`, or `Leak` when the gate refuses: then OUT does not exist.
    """
    refuse_existing(out)
    secret = load_key(key_path, out)
    private = private_folder(key_path, secret, out)
    draft = out.with_name(f".{out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with Ledger(ledger_path(key_path)) as ledger:
            facts = deidentify(read, draft / NOTES, secret, ledger, settings, advance)
        facts.read += sum(refused().values())
        facts.rejected.update(refused())
        drawn = _write_private(private, draft / NOTES, facts, secret, sample)
        manifest = _manifest(facts, settings, key_path, secret, private) | {"measurement": measurement, "sample": drawn}
        _seal_folder(draft, manifest)
        if out.exists():
            out.rmdir()
        os.replace(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def refuse_existing(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: already there and not empty; give another --out, or remove it first")


def private_folder(key_path: Path, secret: bytes, out: Path) -> Path:
    """Beside the key, one for each place that is published to."""
    return key_path.expanduser().parent / f"{out.name}-{keyed(secret, 'private', str(out.resolve())).hex()[:8]}"


def withdraw(out: Path, patient_id: str, key_path: Path) -> dict[str, Any]:
    """Remove a patient's notes, and those whose group falls below k without them; leave a tombstone. Later runs under
    this key leave the patient out. `patient_id` is the hospital's. Raises `InputError` where the folder or key is
    another."""
    manifest = _read_manifest(out)
    if not key_path.expanduser().is_file():
        raise InputError(f"--key {key_path}: no such file; withdrawal needs the key of the publication")
    secret = load_key(key_path, out)
    if manifest["key"]["name"] != key_name(secret):
        raise InputError(f"--key {key_path}: {out} was made under another key; give that one")
    public = public_patient(secret, patient_id)
    with Ledger(ledger_path(key_path)) as ledger:
        ledger.withdraw(public)
    (out / MANIFEST).unlink()  # from here the folder is incomplete until the end
    removed, thinned = _remove(out / NOTES, public, manifest)
    _remove_from_sample(Path(manifest["private"]), public)
    manifest["withdrawn"].append(
        {"patient": public, "notes": removed, "notes_of_small_groups": thinned, "date": _today()}
    )
    manifest["accepted"] -= removed + thinned
    rejected = Counter(manifest["rejected"]) + Counter({"withdrawn": removed, "k_anonymity": thinned})
    manifest["rejected"] = dict(rejected)
    manifest["patients"] -= bool(removed)
    _seal_folder(out, manifest)
    return manifest


def _read_manifest(out: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"{out}: no folder of ours (manifest.json is missing or broken); give a published --out"
        ) from None
    if not isinstance(manifest, dict) or manifest.get("made_by") != "deidentify":
        raise InputError(f"{out}: not made by `xinglin data deidentify`; give a folder that is")
    return manifest


def _remove(path: Path, public: str, manifest: dict[str, Any]) -> tuple[int, int]:
    """(the patient's notes, notes of groups that are too small without them)."""
    rows, people, names = [], [], list((manifest["kanonymity"] or {}).get("fields", {}))
    removed = 0
    for note in read_records(path, Note):
        if note.patient_id == public:
            removed += 1
            continue
        rows.append(tuple(note.fields.get(name, "") for name in names))
        people.append(note.patient_id)
    small = kanonymity.small_groups(rows, people, manifest["kanonymity"]["k"]) if names else set()
    kept = (note for note in read_records(path, Note) if note.patient_id != public)
    write_records(path, (note for number, note in enumerate(kept) if number not in small))
    return removed, len(small)


def _remove_from_sample(private: Path, public: str) -> None:
    path = private / "sample.jsonl"
    if path.is_file():
        left = [note for note in read_records(path, Note) if note.patient_id != public]
        _write_sample(private, left)


# --- the private side ------------------------------------------------------------------------------------------------


def _write_private(private: Path, notes: Path, facts: Facts, secret: bytes, sample: int) -> dict[str, Any] | None:
    private.mkdir(parents=True, exist_ok=True, mode=0o700)
    listed = [{"note": note, "problem": problem} for note, problem in facts.problems]
    write_text(private / "problems.json", json.dumps(listed, ensure_ascii=False, indent=1))
    write_text(private / "links.json", json.dumps(facts.links, ensure_ascii=False, indent=1))
    if not sample:
        return None
    drawn = _draw(read_records(notes, Note), sample, secret)
    _write_sample(private, drawn)
    return {"notes": len(drawn), "asked": sample, "folder": str(private), "bounds": page.bounds(len(drawn))}


def _draw(notes: Iterator[Note], size: int, secret: bytes) -> list[Note]:
    """`size` notes by the smallest HMAC of their ids: a random sample nobody chose, the same on every draw."""
    keyed_notes = ((keyed(secret, "sample", note.id), number, note) for number, note in enumerate(notes))
    return [note for _, _, note in heapq.nsmallest(size, keyed_notes)]


def _write_sample(private: Path, notes: list[Note]) -> None:
    write_records(private / "sample.jsonl", notes)
    write_text(private / "sheet.html", page.sheet(notes))


# --- manifest --------------------------------------------------------------------------------------------------------


def _manifest(facts: Facts, settings: Settings, key_path: Path, secret: bytes, private: Path) -> dict[str, Any]:
    return {
        "made_by": "deidentify",
        "version": __version__,
        "date": _today(),
        "synthetic": facts.synthetic,
        "read": facts.read,
        "accepted": facts.accepted,
        "rejected": dict(facts.rejected),
        "already_deidentified": facts.passed,
        "patients": facts.patients,
        "characters": facts.characters,
        "kinds": dict(facts.kinds.most_common()),
        "rules": dict(facts.rules.most_common()),
        "repaired_by_gate": facts.repaired,
        "columns": facts.columns,
        "problems": dict(Counter(problem for _, problem in facts.problems)),
        "possible_links": {name: len(v) if isinstance(v, list) else v for name, v in facts.links.items()},
        "kanonymity": facts.kanonymity,
        "key": {"name": key_name(secret), "path": str(key_path), "ledger": str(ledger_path(key_path))},
        "private": str(private),
        "rule_hashes": _rule_hashes(),
        "settings": {"quasi": list(settings.quasi), "k": settings.k, "max_withheld": settings.max_withheld},
        "withdrawn": [],
    }


def _rule_hashes() -> dict[str, str]:
    """One SHA-256 over the rules and one over each word list."""
    folder = Path(__file__).parent
    rules = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        rules.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    lists = {path.name: file_hash(path) for path in sorted((folder / "lexicons").glob("*")) if path.is_file()}
    return {"rules (*.py)": rules.hexdigest(), **lists}


def _seal_folder(folder: Path, manifest: dict[str, Any]) -> None:
    """Report, then the manifest with the hashes: its presence means the folder is whole."""
    write_text(folder / REPORT, page.report(manifest))
    manifest["outputs"] = {name: file_hash(folder / name) for name in (NOTES, REPORT)}
    write_text(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1))


def _today() -> str:
    return time.strftime("%Y-%m-%d")
