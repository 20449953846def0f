"""Notes in, notes without identifiers out: nothing is written that the last gate has not read.

    deidentify(read, path, secret, ledger, settings)     -> Facts: counts, inventory, problems; never text

Four passes, so that neither the order of files nor the number of workers changes a character of the output: gather
what the fields say of each patient; find identifiers; issue surrogates; rewrite, read again, write. `read` gives the
notes anew for each pass. A note that carries our seal (an HMAC over what we wrote) passes as it is: running twice
changes nothing more. In memory: patients with their field values, and originals until they are issued; on disk
meanwhile: offsets.
"""

from __future__ import annotations

import dataclasses
import functools
import hmac
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from xinglin.data.deidentify import kanonymity
from xinglin.data.deidentify.columns import KEPT, kind_of, role_of
from xinglin.data.deidentify.gate import AGAIN, Survivor, seed_hits
from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.ledger import Ledger, key_name, keyed
from xinglin.data.deidentify.rewrite import Hand, Patient, Patients, Rewritten, rewrite, rewrite_field, year_of
from xinglin.data.deidentify.scan import Slot, Spread, check, knowledge, mark, slots
from xinglin.data.deidentify.surrogates import Issuer
from xinglin.records import InputError, Note, read_records, write_records

MARK = "deidentified"
REPAIRS = 3
Read = Callable[[], Iterable[Note]]
T = TypeVar("T")


class Leak(RuntimeError):
    """The gate found a known identifier in what was to be published. The message names note and kind, no text."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`roles` of columns; `quasi` columns for k-anonymity with `k` (0: none); `workers` processes."""

    roles: Mapping[str, str] = field(default_factory=dict)
    quasi: tuple[str, ...] = ()
    k: int = 0
    max_withheld: float = 0.05
    workers: int = 1


@dataclass(slots=True)
class Facts:
    """What happened, in numbers. `problems` are (note, problem) with the note's new id."""

    read: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    passed: int = 0
    patients: int = 0
    characters: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    repaired: int = 0
    kanonymity: dict[str, Any] | None = None
    links: dict[str, Any] = field(default_factory=dict)
    synthetic: bool = True


def deidentify(
    read: Read,
    path: Path,
    secret: bytes,
    ledger: Ledger,
    settings: Settings = Settings(),  # noqa: B008
    advance: Callable[[str, int], None] = lambda step, count: None,
) -> Facts:
    """Write the de-identified notes to `path` (JSONL).

    Raises `InputError` for the input, `Leak` when the gate finds what it must not; the caller removes what is written.
    """
    with ExitStack() as stack:
        facts = Facts()
        spread = Spread(settings.workers, stack)
        people, gone = Patients(secret, settings.roles), ledger.withdrawn()
        kept = functools.partial(_kept, read, people, gone, secret)
        _gather(read, people, gone, secret, facts, settings, advance)
        hand = Hand(Issuer(secret, ledger))
        spool = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii", dir=path.parent))
        _find_all(kept(), spool, people, hand, spread, facts, advance)
        hand.issuer.issue()
        spool.seek(0)
        write_records(path, _rewrite_all(kept(), spool, people, hand, spread, facts, advance))
        if settings.quasi:
            _anonymise(path, secret, settings, facts)
    return facts


def sealed(note: Note, secret: bytes) -> bool:
    """Whether we wrote this note under this key, and nobody changed it since."""
    mark = note.meta.get(MARK)
    return isinstance(mark, dict) and hmac.compare_digest(str(mark.get("seal")).encode(), _seal(note, secret).encode())


def _seal(note: Note, secret: bytes) -> str:
    body = json.dumps([note.id, note.patient_id, note.kind, note.text, note.fields, note.source], ensure_ascii=False)
    return keyed(secret, "seal", body).hex()[:32]


def _with_seal(note: Note, secret: bytes, counts: Mapping[str, int]) -> Note:
    mark = {"key": key_name(secret), "counts": dict(sorted(counts.items())), "seal": _seal(note, secret)}
    return dataclasses.replace(note, meta={MARK: mark})


# --- first pass: patients --------------------------------------------------------------------------------------------


def _gather(
    read: Read, people: Patients, gone: set[str], secret: bytes, facts: Facts, settings: Settings, advance: Any
) -> None:
    ids: dict[bytes, int] = {}
    patients = set()
    for number, note in enumerate(read(), 1):
        facts.read += 1
        name = keyed(secret, "id", note.id)[:8]
        if ids.setdefault(name, number) != number:
            raise InputError(
                f"notes {ids[name]} and {number} have the same id; ids name one note each: remove the double"
            )
        facts.synthetic &= note.source == "ward" or bool(note.meta.get("synthetic"))
        if sealed(note, secret):
            facts.passed += 1
            patients.add(note.patient_id)
        elif people.of(note).public in gone:
            facts.rejected["withdrawn"] += 1
            continue
        else:
            people.add(note)
            patients.add(people.of(note).public)
        _inventory(note, facts, settings.roles)
        advance("read", 1)
    if not facts.read:
        raise InputError("0 notes to de-identify; give files of note records")
    if missing := [name for name in settings.quasi if name not in facts.columns]:
        raise InputError(f"--quasi {missing[0]}: no note has this field; there are: {', '.join(facts.columns)}")
    people.settle()
    facts.patients = len(patients)
    facts.links = _links(people)


def _kept(read: Read, people: Patients, gone: set[str], secret: bytes) -> Iterator[tuple[Note, Patient | None]]:
    """The notes that are published; the patient is None for one that is already ours."""
    for note in read():
        if sealed(note, secret):
            yield note, None
        elif (patient := people.of(note)).public not in gone:
            yield note, patient


def _inventory(note: Note, facts: Facts, roles: Mapping[str, str]) -> None:
    facts.characters += len(note.text)
    for column, value in note.fields.items():
        entry = facts.columns.setdefault(column, {"role": role_of(column, roles), "filled": 0, "changed": 0})
        entry["filled"] += bool(value.strip())


def _links(people: Patients) -> dict[str, Any]:
    """Who may be one person, by new ids: one patient with two spellings, two patients with one id card."""
    cards: dict[str, set[str]] = {}
    names: Counter[str] = Counter()
    for patient in people.all.values():
        names.update(patient.names)
        for seed, kind in patient.seeds.items():
            if kind in ("id_card", "passport", "insurance"):
                cards.setdefault(seed, set()).add(patient.public)
    return {
        "two_spellings": sorted(patient.public for patient in people.all.values() if len(patient.names) > 1),
        "same_document": sorted(sorted(group) for group in cards.values() if len(group) > 1),
        "names_shared_by_patients": sum(count > 1 for count in names.values()),
    }


# --- second pass: find -----------------------------------------------------------------------------------------------


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(itertools.islice(source, size)):
        yield batch


def _find_all(
    notes: Iterator[tuple[Note, Patient | None]], spool: IO[str], people: Patients, hand: Hand, spread: Spread,
    facts: Facts, advance: Any,
) -> None:  # fmt: skip
    number = 0
    for batch in _batches(((note, patient) for note, patient in notes if patient), spread.size):
        found = [slots(note, people.roles) for note, _ in batch]
        tasks = [
            ([(slot.text, slot.full) for slot in texts], *knowledge(patient))
            for texts, (_, patient) in zip(found, batch, strict=True)
        ]
        for texts, (note, patient), marks in zip(found, batch, spread(mark, tasks), strict=True):
            number += 1
            if isinstance(marks, str):
                raise RuntimeError(f"note {number}: the finder failed with {marks}; nothing was published")
            for slot, spans in zip(texts, marks, strict=True):
                hand.collect(slot.text, spans, patient)
                facts.kinds.update(span.kind for span in spans)
                facts.rules.update(f"{span.kind}: {span.rule}" for span in spans)
            _collect_fields(note, patient, people.roles, hand)
            spool.write(json.dumps([[(s.start, s.end, s.kind, s.rule) for s in spans] for spans in marks]) + "\n")
        advance("find", len(batch))


def _collect_fields(note: Note, patient: Patient, roles: Mapping[str, str], hand: Hand) -> None:
    for column, value in note.fields.items():
        role = role_of(column, roles)
        if role not in (*KEPT, "text", "drop", "date", "birth_date", "age", "age_over_89"):
            hand.collect_field(kind_of(column, roles), value, patient)


# --- third pass: rewrite, gate, write --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    note: Note
    patient: Patient
    slots: list[Slot]
    spans: list[list[Span]]
    year: int | None
    texts: list[Rewritten]


def _rewrite_all(
    notes: Iterator[tuple[Note, Patient | None]], spool: IO[str], people: Patients, hand: Hand, spread: Spread,
    facts: Facts, advance: Any,
) -> Iterator[Note]:  # fmt: skip
    number = 0
    for batch in _batches(notes, spread.size):
        drafts = [_draft(note, patient, spool, people.roles, hand) for note, patient in batch if patient]
        tasks = [_task(draft) for draft in drafts]
        checked = iter(list(zip(drafts, spread(check, tasks), strict=True)))
        for note, patient in batch:
            number += 1
            facts.accepted += 1
            if patient:
                draft, left = next(checked)
                yield _finish(_through_gate(draft, left, number, hand, facts), people, hand, facts)
            else:
                yield note
        advance("write", len(batch))


def _draft(note: Note, patient: Patient, spool: IO[str], roles: Mapping[str, str], hand: Hand) -> _Draft:
    spans = [[Span(*values) for values in marks] for marks in json.loads(spool.readline() or "[]")]
    texts = slots(note, roles)
    if len(spans) != len(texts):
        raise InputError("the notes changed while they were read; run again on files that rest")
    draft = _Draft(note, patient, texts, spans, year_of(note, roles), [])
    _rewrite_slots(draft, hand)
    return draft


def _rewrite_slots(draft: _Draft, hand: Hand) -> None:
    pairs = zip(draft.slots, draft.spans, strict=True)
    try:
        draft.texts = [rewrite(slot.text, spans, draft.patient, draft.year, hand) for slot, spans in pairs]
    except InputError:
        raise
    except Exception as error:  # its message may hold text
        raise RuntimeError(f"rewriting failed with {type(error).__name__}; nothing was published") from None


def _task(draft: _Draft) -> Any:
    """For `_check`. A text in which the finder saw nothing is as it was: only the known values are looked for again."""
    pairs = zip(draft.slots, draft.texts, strict=True)
    texts = [(new.text, slot.full and bool(new.inserted), new.inserted) for slot, new in pairs]
    return (texts, *knowledge(draft.patient))


def _through_gate(draft: _Draft, left: list[list[Survivor]] | str, number: int, hand: Hand, facts: Facts) -> _Draft:
    """What the finder sees only in the new surroundings is masked too; a known value that is left is a leak."""
    for repair in range(REPAIRS + 1):
        if isinstance(left, str):
            raise RuntimeError(f"note {number}: the finder failed with {left}; nothing was published")
        for slot, found in zip(draft.slots, left, strict=True):
            for one in found:
                if one.why != AGAIN or repair == REPAIRS:
                    raise Leak(f"note {number}, {slot.place}: a {one.kind} survived ({one.why}); nothing was published")
        if not any(left):
            break
        facts.repaired += sum(map(len, left))
        _add(draft, left)
        _rewrite_slots(draft, hand)
        left = check(_task(draft))
    return draft


def _add(draft: _Draft, left: list[list[Survivor]]) -> None:
    for place, found in enumerate(left):
        new = draft.texts[place]
        for one in found:
            start, end = new.origin(one.start), new.origin(one.end - 1) + 1
            over = [span for span in draft.spans[place] if span.start < end and start < span.end]
            rest = [span for span in draft.spans[place] if span not in over]
            start, end = min([start, *(s.start for s in over)]), max([end, *(s.end for s in over)])
            draft.spans[place] = sorted([*rest, Span(start, end, one.kind, f"gate: {one.why}")])


def _finish(draft: _Draft, people: Patients, hand: Hand, facts: Facts) -> Note:
    """The note as it is published, under our seal."""
    note, patient = draft.note, draft.patient
    new = {slot.place: text.text for slot, text in zip(draft.slots, draft.texts, strict=True)}
    public_id = "n" + keyed(people.secret, "note", patient.id, note.id).hex()[:20]
    problems = [problem for text in draft.texts for problem in text.problems]
    fields = {}
    for column, value in note.fields.items():
        role = role_of(column, people.roles)
        if f"field {column}" in new:
            fields[column] = new[f"field {column}"]
        else:
            fields[column], problem = rewrite_field(role, value, patient, draft.year, hand)
            problems += [problem] if problem else []
            if any(seed_hits(fields[column], patient.seeds)):
                raise Leak(f"a note's field {column}: a {role} survived; nothing was published")
        facts.columns[column]["changed"] += fields[column] != value
    facts.problems += [(public_id, f"{problem} date") for problem in problems]
    counts = Counter(span.kind for spans in draft.spans for span in spans)
    published = Note(
        public_id, patient.public, new.get("kind", ""), new.get("text", ""), fields, (), new.get("source", "")
    )
    return _with_seal(published, people.secret, counts)


# --- last pass: k-anonymity ------------------------------------------------------------------------------------------


def _anonymise(path: Path, secret: bytes, settings: Settings, facts: Facts) -> None:
    rows, patients = [], []
    for note in read_records(path, Note):
        rows.append(tuple(note.fields.get(name, "") for name in settings.quasi))
        patients.append(note.patient_id)
    plan = kanonymity.anonymise(rows, patients, settings.quasi, settings.k, settings.max_withheld)
    write_records(path, _generalised(path.with_name(path.name), plan.rows, settings.quasi, secret))
    facts.rejected["k_anonymity"] += plan.withheld
    facts.accepted -= plan.withheld
    facts.kanonymity = {
        "k": settings.k, "fields": plan.steps, "groups": plan.groups, "smallest_group": plan.smallest,
        "notes_withheld": plan.withheld, "patients_withheld": plan.withheld_patients,
    }  # fmt: skip


def _generalised(path: Path, rows: Sequence[Any], names: Sequence[str], secret: bytes) -> Iterator[Note]:
    for note, row in zip(read_records(path, Note), rows, strict=True):
        if row is not None:
            fields = note.fields | {name: value for name, value in zip(names, row, strict=True) if name in note.fields}
            changed = dataclasses.replace(note, fields=fields)
            yield _with_seal(changed, secret, note.meta[MARK]["counts"])
