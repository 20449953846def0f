"""One patient's texts and fields, rewritten: every found identifier gives way to its stand-in.

    patient = Patients.of(note)                what all notes of a patient say of him
    rewrite(text, spans, patient, year, hand)  -> Rewritten(text, inserted regions, where they come from)

A patient's own name has a surrogate of his own, although another patient may be called the same; any other name
(doctors, relatives) has one surrogate wherever it is spelled so. 王某某, 王先生, 王主任 take the surname of the full
name they belong to.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xinglin.data.deidentify import dates, invented
from xinglin.data.deidentify.columns import DATES, KEPT, PEOPLE, kind_of, role_of
from xinglin.data.deidentify.gate import Region, seeds_of
from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.ledger import keyed
from xinglin.data.deidentify.surrogates import Issuer, in_layout, normal, only_surname, split_title
from xinglin.records import Note

Pairs = tuple[tuple[str, str], ...]
ABSENT = frozenset({"", "-", "/", "无", "不详", "未知", "nan", "none", "null", "n/a"})
TOO_OLD = f"[{dates.OLDEST}年以前]"
PARTS = re.compile(r"([/,;，；、|]+)")
STAFF = re.compile(r"[副正]?主任|主治|医师|医生|大夫|护|[副正]?教授|院长|住院")
AGE = re.compile(r"\s*(\d{1,3})\s*(?:岁|歲|Y|y)?.*")


@dataclass(slots=True)
class Patient:
    """What a patient's notes say of him together. `names` are his own, in normal form; `met` other full names by
    surname.
    """

    id: str
    public: str
    days: int
    sex: str = ""
    names: set[str] = field(default_factory=set)
    met: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    values: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """column -> its values over all notes"""
    seeds: dict[str, str] = field(default_factory=dict)
    fields: Pairs = ()
    """all values as one set of fields, second values as 电话_2, and the kind of each in `kinds`"""
    kinds: Pairs = ()

    def meet(self, name: str) -> None:
        self.met[name[:2] if name[:2] in invented.COMPOUND else name[:1]].add(name)


class Patients:
    """Everybody of a run, by the patient id of the notes, else by id card or record number. A note with none of these
    is a patient of its own, and the name in it is like any other name: spelled alike, replaced alike."""

    def __init__(self, secret: bytes, roles: Mapping[str, str]) -> None:
        self.secret, self.roles = secret, roles
        self.all: dict[str, Patient] = {}

    def of(self, note: Note) -> Patient:
        name = note.patient_id or self._number(note) or f"note {note.id}"
        if name not in self.all:
            self.all[name] = Patient(name, public_patient(self.secret, name), dates.offset_days(self.secret, name))
        return self.all[name]

    def _number(self, note: Note) -> str:
        """For a note without a patient id: who it speaks of by id card or record number."""
        for role in ("id_card", "mrn"):
            for column, value in note.fields.items():
                if role_of(column, self.roles) == role and value.strip().lower() not in ABSENT:
                    return f"{role} {normal(role, value)}"
        return ""

    def add(self, note: Note) -> None:
        patient = self.of(note)
        for column, value in note.fields.items():
            role = role_of(column, self.roles)
            if value.strip().lower() in ABSENT or role in ("text", "drop"):
                continue
            if role == "name" and not patient.id.startswith("note "):
                patient.names.update(normal("name", part) for part in PARTS.split(value)[::2] if part.strip())
            if role == "sex" and value[:1] in ("男", "女"):
                patient.sex = min(patient.sex or value[:1], value[:1])
            if role not in KEPT and role not in DATES and role != "age":
                patient.values[column].add(value)

    def settle(self) -> None:
        """Once all notes are in: the values that the gate will look for."""
        for patient in self.all.values():
            fields, kinds, pairs = {}, {}, []
            for column, values in sorted(patient.values.items()):
                kind = kind_of(column, self.roles)
                for number, value in enumerate(sorted(values), 1):
                    name = column if number == 1 else f"{column}_{number}"
                    fields[name], kinds[name] = value, kind
                    pairs += [(kind, part) for part in _single(kind, value)]
            patient.fields, patient.kinds = tuple(fields.items()), tuple(kinds.items())
            patient.seeds = seeds_of(pairs)


def public_patient(secret: bytes, patient_id: str) -> str:
    return "P" + keyed(secret, "patient", patient_id).hex()[:20]


def _single(kind: str, value: str) -> Iterable[str]:
    """The values of a field that may hold several ("138…/0532-…"); an address or a firm is one."""
    return [value] if kind in ("address", "employer", "hospital", "url") else PARTS.split(value)[::2]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`inserted[i]` is where the stand-in for `replaced[i]` (a region of the original) stands in `text`."""

    text: str
    inserted: tuple[Region, ...] = ()
    replaced: tuple[Region, ...] = ()
    problems: tuple[str, ...] = ()

    def origin(self, place: int) -> int:
        """Where a character outside the stand-ins stood in the original."""
        moved = 0
        for (_, end), (_, old_end) in zip(self.inserted, self.replaced, strict=True):
            if end > place:
                break
            moved = old_end - end
        return place + moved


class Hand:
    """Chooses stand-ins; `collect` names the originals first, so that the order of notes does not matter."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer

    def collect(self, text: str, spans: Iterable[Span], patient: Patient) -> None:
        for span in spans:
            self._collect(span.kind, text[span.start : span.end], patient)

    def collect_field(self, kind: str, value: str, patient: Patient) -> None:
        for part in _single(kind, value):
            if part.strip().lower() not in ABSENT:
                self._collect(kind, part, patient)

    def _collect(self, kind: str, written: str, patient: Patient) -> None:
        if kind in ("date", "age_over_89"):
            return
        if kind != "name":
            self.issuer.collect(kind, written)
            return
        prefix, base, _ = _name_parts(written)
        if prefix or only_surname(base):
            self.issuer.collect("surname", base)
            return
        self.issuer.collect("name", base, *self._owner(base, patient))
        if base not in patient.names:
            patient.meet(base)

    def _owner(self, name: str, patient: Patient) -> tuple[str, str]:
        return (patient.id, patient.sex) if name in patient.names else ("", "")

    def stand_in(self, kind: str, written: str, patient: Patient, after: str = "") -> str:
        if kind == "name":
            return self._name(written, patient, after)
        return in_layout(kind, self.issuer.surrogate(kind, written), written)

    def _name(self, written: str, patient: Patient, after: str) -> str:
        prefix, base, title = _name_parts(written)
        if prefix or only_surname(base):
            return prefix + self._surname(base, title or after, patient) + title
        return in_layout("name", self.issuer.surrogate("name", base, *self._owner(base, patient)), written) + title

    def _surname(self, surname: str, title: str, patient: Patient) -> str:
        """Of the one full name it can mean: for staff among the other names, else the patient's own first."""
        own = sorted(name for name in patient.names if name.startswith(surname))
        met = sorted(patient.met.get(surname, ()))
        for names in (met, own) if STAFF.match(title) else (own, met):
            if len(names) == 1:
                full = self.issuer.surrogate("name", names[0], *self._owner(names[0], patient))
                return full[:2] if full[:2] in invented.COMPOUND else full[:1]
        return self.issuer.surrogate("surname", surname)


def _name_parts(written: str) -> tuple[str, str, str]:
    """(prefix, name, title): ("小", "王", ""), ("", "王", "某某"), ("", "王建国", "主任")."""
    plain = normal("name", written)
    if len(plain) == 2 and plain[0] in "小老阿":
        return plain[0], plain[1], ""
    return "", *split_title(plain)


def rewrite(text: str, spans: Sequence[Span], patient: Patient, year: int | None, hand: Hand) -> Rewritten:
    """`text` with each span replaced; `year` helps dates that have none."""
    out: list[str] = []
    inserted: list[Region] = []
    replaced: list[Region] = []
    problems: list[str] = []
    done = length = 0
    for span in sorted(spans):
        if span.start < done:  # the weekday or 岁 behind a date or an age went with it
            continue
        new, end, problem = _replacement(text, span, patient, year, hand)
        problems += [problem] if problem else []
        out += [text[done : span.start], new]
        start = length + span.start - done
        length = start + len(new)
        inserted.append((start, length))
        replaced.append((span.start, end))
        done = end
    return Rewritten("".join([*out, text[done:]]), tuple(inserted), tuple(replaced), tuple(problems))


def _replacement(text: str, span: Span, patient: Patient, year: int | None, hand: Hand) -> tuple[str, int, str]:
    """The stand-in, where the original ends, and what is wrong with a date."""
    written, after = text[span.start : span.end], text[span.end : span.end + 12]
    if span.kind == "date":
        moved = _moved(written, patient, year, text[max(0, span.start - 4) : span.start])
        day = dates.weekday(after, moved.last) if moved.last else None
        return (moved.text + day[1], span.end + day[0], "") if day else (moved.text, span.end, moved.problem)
    if span.kind == "age_over_89":
        capped, more = dates.cap_age(written, after)
        return capped, span.end + more, ""
    return hand.stand_in(span.kind, written, patient, after), span.end, ""


def _moved(written: str, patient: Patient, year: int | None, before: str) -> dates.Shifted:
    """The date moved; one that lies 90 years before the note would tell an age of 90 or more."""
    moved = dates.shift(written, patient.days, year, before)
    born = dates.year_of(written) if year and not moved.problem else None
    return dates.Shifted(TOO_OLD) if year and born and year - born >= dates.OLDEST else moved


def rewrite_field(role: str, value: str, patient: Patient, year: int | None, hand: Hand) -> tuple[str, str]:
    """A field that is one identifier, and what is wrong with it where it is a date. `text` fields go to `rewrite`."""
    if value.strip().lower() in ABSENT or role in KEPT:
        return value, ""
    if role == "drop":
        return "", ""
    if role in DATES:
        moved = _moved(value, patient, year, "")
        return moved.text, moved.problem
    if role == "age":
        age = AGE.fullmatch(value)
        return ("90+" if age and int(age[1]) >= dates.OLDEST and "月" not in value and "天" not in value else value), ""
    kind = "name" if role in PEOPLE else role
    if kind in ("address", "employer", "hospital", "url"):
        return hand.stand_in(kind, value, patient), ""
    parts = PARTS.split(value)
    parts[::2] = [hand.stand_in(kind, part, patient) if part.strip() else part for part in parts[::2]]
    return "".join(parts), ""


def year_of(note: Note, roles: Mapping[str, str]) -> int | None:
    """The note's year: the newest of its date fields (no birth dates), else of its text."""
    days = [value for column, value in note.fields.items() if role_of(column, roles) == "date"]
    return dates.year_of("；".join(days)) or dates.year_of(note.text)
