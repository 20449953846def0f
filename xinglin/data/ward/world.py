"""The ward's knowledge: diseases with what belongs to them, general facts and safety items, read from YAML and checked.

    load_world()          the knowledge files shipped with the package
    load_world(folder)    another folder laid out alike: *.yaml, a department each, and general/{facts,safety}.yaml

A `World` is the truth of everything the ward generates, and of the rule scorer. Every entry is synthetic teaching
material until a clinician has reviewed it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from xinglin.records import InputError

KNOWLEDGE = Path(__file__).parent / "knowledge"
SEXES = ("any", "female", "male")
KINDS = ("drug", "procedure", "other")


@dataclass(frozen=True, slots=True)
class Exam:
    name: str
    finding: str
    reference: str


@dataclass(frozen=True, slots=True)
class Treatment:
    name: str
    kind: str
    dose: str
    max_daily: str
    avoid: str
    note: str


@dataclass(frozen=True, slots=True)
class Harmful:
    """A piece of advice that hurts, and why."""

    advice: str
    why: str


@dataclass(frozen=True, slots=True)
class Disease:
    id: str
    name: str
    department: str
    aliases: tuple[str, ...]
    icd10: str
    summary: str
    sex: str
    age: tuple[int, int]
    symptoms: tuple[str, ...]
    complaints: tuple[str, ...]
    signs: tuple[str, ...]
    exams: tuple[Exam, ...]
    treatments: tuple[Treatment, ...]
    care: tuple[str, ...]
    harmful: tuple[Harmful, ...]
    red_flags: tuple[str, ...]
    emergency: bool
    ask: tuple[str, ...]
    differential: tuple[str, ...]
    sources: tuple[str, ...]
    review: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    def own_texts(self) -> tuple[str, ...]:
        """Every true string about the disease. Its harmful advice is not among them."""
        exams = [text for exam in self.exams for text in (exam.name, exam.finding, exam.reference)]
        treatments = [text for item in self.treatments for text in (item.name, item.dose, item.avoid, item.note)]
        lists = (self.names, self.symptoms, self.complaints, self.signs, self.care, self.red_flags, self.differential)
        return (self.department, self.summary, *(text for part in lists for text in part), *exams, *treatments)


@dataclass(frozen=True, slots=True)
class Fact:
    """One piece of general knowledge; "{subject}是什么" asks for it."""

    id: str
    topic: str
    subject: str
    answer: str
    statement: str
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SafetyItem:
    """`harmful`: the request must not be met; False: a look-alike that must be answered, and `never` is how a refusal
    sounds. `must`: groups of alternatives, one of each has to be said; `never`: phrases that must not be said."""

    id: str
    category: str
    prompt: str
    harmful: bool
    good: str
    must: tuple[tuple[str, ...], ...]
    never: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class World:
    diseases: tuple[Disease, ...]
    facts: tuple[Fact, ...] = ()
    safety: tuple[SafetyItem, ...] = ()

    @cached_property
    def by_id(self) -> dict[str, Disease]:
        return {disease.id: disease for disease in self.diseases}

    @cached_property
    def drug_names(self) -> frozenset[str]:
        return frozenset(item.name for disease in self.diseases for item in disease.treatments if item.kind == "drug")

    @cached_property
    def treatment_names(self) -> frozenset[str]:
        return frozenset(item.name for disease in self.diseases for item in disease.treatments)

    @cached_property
    def exam_names(self) -> frozenset[str]:
        return frozenset(exam.name for disease in self.diseases for exam in disease.exams)

    @cached_property
    def department_names(self) -> frozenset[str]:
        return frozenset(disease.department for disease in self.diseases)

    @cached_property
    def disease_names(self) -> frozenset[str]:
        return frozenset(name for disease in self.diseases for name in disease.names)

    def subset(self, ids: Iterable[str]) -> World:
        """The same world with these diseases only, in the world's order."""
        keep = frozenset(ids)
        return World(tuple(disease for disease in self.diseases if disease.id in keep), self.facts, self.safety)


def load_world(folder: Path = KNOWLEDGE) -> World:
    """Read and check a knowledge folder. Raises `InputError` naming file, entry and field."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise InputError(f"{folder}: no *.yaml file; a knowledge folder holds one file per department")
    diseases = [disease for file in files for disease in _department(file)]
    _unique(diseases, folder)
    general = folder / "general"
    facts = [_fact(entry) for entry in _items(general / "facts.yaml", "facts")]
    safety = [_safety_item(entry) for entry in _items(general / "safety.yaml", "safety")]
    _unique(facts, general / "facts.yaml")
    _unique(safety, general / "safety.yaml")
    return World(tuple(sorted(diseases, key=lambda d: d.id)), tuple(facts), tuple(safety))


class _Entry:
    """One mapping of a YAML file, read field by field: a wrong type, an empty value and an unknown field are errors."""

    def __init__(self, body: Any, file: Path, where: str, allowed: str) -> None:
        self.body, self.file, self.where = body, file, where
        if not isinstance(body, dict):
            raise self.error(f"is {type(body).__name__}, expected a mapping")
        unknown = sorted(str(key) for key in body if key not in allowed.split())
        if unknown:
            raise self.error(f"has the unknown field {unknown[0]!r}; allowed: {allowed.replace(' ', ', ')}")

    def error(self, problem: str, field: str = "") -> InputError:
        place = f"{self.where}, field {field}" if field else self.where
        return InputError(f"{self.file}: {place} {problem}")

    def text(self, field: str, optional: bool = False) -> str:
        value = self.body.get(field)
        if value is None and optional:
            return ""
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"is {_kind(value)}, expected a text that is not empty", field)
        return value.strip()

    def one_of(self, field: str, allowed: tuple[str, ...]) -> str:
        value = self.body.get(field)
        if value not in allowed:
            raise self.error(f"is {value!r}, allowed: {', '.join(allowed)}", field)
        return str(value)

    def flag(self, field: str) -> bool:
        value = self.body.get(field)
        if not isinstance(value, bool):
            raise self.error(f"is {_kind(value)}, allowed: true, false", field)
        return value

    def items(self, field: str, least: int) -> list[Any]:
        value = self.body.get(field) or []
        if not isinstance(value, list) or len(value) < least:
            raise self.error(f"is {_kind(value)}, expected a list of at least {least}", field)
        return value

    def texts(self, field: str, least: int) -> tuple[str, ...]:
        values = self.items(field, least)
        if any(not isinstance(value, str) or not value.strip() for value in values):
            raise self.error("holds an item that is not a text; quote it", field)
        if len(set(values)) < len(values):
            raise self.error("holds the same item twice; keep one", field)
        return tuple(value.strip() for value in values)

    def entries(self, field: str, least: int, allowed: str) -> list[_Entry]:
        values = self.items(field, least)
        return [_Entry(v, self.file, f"{self.where}, field {field}[{i}]", allowed) for i, v in enumerate(values)]


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{type(value).__name__} of length {len(value)}" if isinstance(value, (str, list)) else type(value).__name__


def _read(file: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(file.read_bytes(), Loader=loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise InputError(f"{file}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputError(f"{file}: not YAML in UTF-8") from None


def _department(file: Path) -> list[Disease]:
    page = _Entry(_read(file), file, "the file", "department review diseases")
    department, review = page.text("department"), page.text("review")
    bodies = page.items("diseases", 1)
    return [_disease(body, file, index, department, review) for index, body in enumerate(bodies)]


DISEASE_FIELDS = (
    "id name aliases icd10 summary patients symptoms complaints signs exams treatments care harmful red_flags "
    "emergency ask differential sources"
)


def _disease(body: Any, file: Path, index: int, department: str, review: str) -> Disease:
    id = body.get("id") if isinstance(body, dict) else None
    entry = _Entry(body, file, f"disease {id or index!r}", DISEASE_FIELDS)
    sex, age = _patients(entry)
    return Disease(
        id=entry.text("id"),
        name=entry.text("name"),
        department=department,
        aliases=entry.texts("aliases", 0),
        icd10=entry.text("icd10"),
        summary=entry.text("summary").rstrip("。"),
        sex=sex,
        age=age,
        symptoms=entry.texts("symptoms", 2),
        complaints=entry.texts("complaints", 2),
        signs=entry.texts("signs", 1),
        exams=tuple(_exam(e) for e in entry.entries("exams", 1, "name finding reference")),
        treatments=tuple(_treatment(e) for e in entry.entries("treatments", 1, "name kind dose max_daily avoid note")),
        care=entry.texts("care", 2),
        harmful=tuple(Harmful(e.text("advice"), e.text("why")) for e in entry.entries("harmful", 1, "advice why")),
        red_flags=entry.texts("red_flags", 2),
        emergency=entry.flag("emergency"),
        ask=entry.texts("ask", 1),
        differential=entry.texts("differential", 1),
        sources=entry.texts("sources", 1),
        review=review,
    )


def _patients(entry: _Entry) -> tuple[str, tuple[int, int]]:
    patients = _Entry(entry.body.get("patients"), entry.file, f"{entry.where}, field patients", "sex age")
    age = patients.items("age", 2)
    if len(age) != 2 or any(type(bound) is not int for bound in age) or not 0 <= age[0] <= age[1] <= 110:
        raise patients.error("is not two whole years in order between 0 and 110, e.g. [35, 80]", "age")
    return patients.one_of("sex", SEXES), (age[0], age[1])


def _exam(entry: _Entry) -> Exam:
    return Exam(entry.text("name"), entry.text("finding"), entry.text("reference", optional=True))


def _treatment(entry: _Entry) -> Treatment:
    kind = entry.one_of("kind", KINDS)
    return Treatment(
        name=entry.text("name"),
        kind=kind,
        dose=entry.text("dose", optional=kind != "drug"),
        max_daily=entry.text("max_daily", optional=True),
        avoid=entry.text("avoid", optional=True),
        note=entry.text("note", optional=True),
    )


def _items(file: Path, field: str) -> list[_Entry]:
    """The entries of a general file: a list, or a mapping that holds the list under the file's word."""
    if not file.is_file():
        return []
    body = _read(file)
    items = body.get(field) if isinstance(body, dict) else body
    if not isinstance(items, list):
        raise InputError(f"{file}: field {field} is {_kind(items)}, expected a list")
    allowed = {
        "facts": "id topic subject answer statement wrong",
        "safety": "id category prompt harmful good must never",
    }[field]
    return [
        _Entry(item, file, f"entry {item.get('id', i) if isinstance(item, dict) else i!r}", allowed)
        for i, item in enumerate(items)
    ]


def _fact(entry: _Entry) -> Fact:
    subject, answer = entry.text("subject"), entry.text("answer")
    wrong = entry.texts("wrong", 3)
    if answer in wrong:
        raise entry.error("holds the right answer", "wrong")
    statement = entry.text("statement").rstrip("。") + "。"
    return Fact(entry.text("id"), entry.text("topic"), subject, answer, statement, wrong)


def _safety_item(entry: _Entry) -> SafetyItem:
    groups = entry.items("must", 1)
    if any(not isinstance(g, list) or not g or any(not isinstance(alt, str) for alt in g) for g in groups):
        raise entry.error("is not a list of lists of phrases", "must")
    return SafetyItem(
        id=entry.text("id"),
        category=entry.text("category"),
        prompt=entry.text("prompt"),
        harmful=entry.flag("harmful"),
        good=entry.text("good"),
        must=tuple(tuple(group) for group in groups),
        never=entry.texts("never", 0),
    )


def _unique(entries: Iterable[Disease] | Iterable[Fact] | Iterable[SafetyItem], place: Path) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise InputError(f"{place}: the id {entry.id!r} is used twice; ids are unique over all files")
        seen.add(entry.id)
