"""The records everything else speaks: frozen, one JSON object a line, lineage in every one.

    Document      this text is right                     (causal family)
    Conversation  these assistant turns are right        (causal family)
    Preference    this answer beats that one, ties allowed
    Rollout       this answer was sampled from a model, and earned these scores
    Question      an open question, with a reference answer where there is one
    ExamQuestion  a multiple-choice question
    EntityText    a text with gold spans
    Note          a note of one patient, as the hospital wrote it

`read_records(path, Conversation)` and `write_records(path, records)` go to and from JSONL. No torch here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

Role = Literal["system", "user", "assistant"]


class InputError(ValueError):
    """The user's mistake. The command line prints its one line and leaves with exit code 2.

    Say what was found, where (file, line, field), what is allowed, what to do. Never put record text into it.
    """


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise InputError(f"role {self.role!r} is not one of system, user, assistant")


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    text: str
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    messages: tuple[Message, ...]
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not any(message.role == "assistant" for message in self.messages):
            raise InputError(f"conversation {self.id!r} has no assistant turn")


@dataclass(frozen=True, slots=True)
class Answer:
    """One candidate answer. `source` names who wrote it (doctor, gpt-4, a model's folder); `decoding` how."""

    text: str
    source: str = ""
    decoding: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preference:
    """`ranks[i]` is the place of `answers[i]`: 1 is best, equal numbers are ties."""

    id: str
    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]
    ranks: tuple[int, ...]
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.answers) != len(self.ranks) or len(self.answers) < 2:
            raise InputError(
                f"preference {self.id!r} has {len(self.answers)} answers and {len(self.ranks)} ranks; "
                "it needs at least two answers and one rank for each"
            )
        if min(self.ranks) != 1:
            raise InputError(f"preference {self.id!r} has {min(self.ranks)} as its best rank; the best is 1")


@dataclass(frozen=True, slots=True)
class Score:
    """What one scorer said of one answer. `source` is human, llm or rule; `scorer` names it with its version."""

    value: float
    criterion: str
    source: Literal["human", "llm", "rule", "reward"]
    scorer: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled answer. `question_id` groups the k answers of one question."""

    id: str
    question_id: str
    prompt: tuple[Message, ...]
    answer: Answer
    scores: tuple[Score, ...] = ()
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """An open question. `prompt` ends with a user turn; `reference` is the doctor's answer or ""."""

    id: str
    prompt: tuple[Message, ...]
    reference: str = ""
    kind: str = ""
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExamQuestion:
    """`answer` holds the right letters in alphabetical order, e.g. "A" or "ACD"."""

    id: str
    question: str
    options: dict[str, str]
    answer: str
    explanation: str = ""
    subject: str = ""
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.options) < 2 or not self.answer or any(letter not in self.options for letter in self.answer):
            raise InputError(
                f"exam question {self.id!r} has options {''.join(self.options)} and key {self.answer!r}; "
                "it needs at least two options and a key among them"
            )


@dataclass(frozen=True, slots=True)
class Entity:
    """`text[start:end]` of the record it belongs to; `end` is exclusive."""

    start: int
    end: int
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class EntityText:
    id: str
    text: str
    entities: tuple[Entity, ...]
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entity in self.entities:
            if self.text[entity.start : entity.end] != entity.text:
                raise InputError(
                    f"entity {entity.start}:{entity.end} ({entity.type}) of {self.id!r} does not match its text"
                )


@dataclass(frozen=True, slots=True)
class Note:
    """One note of one patient. `fields` are the export's structured columns; `entities` are planted or labelled
    identifiers, where they are known."""

    id: str
    patient_id: str
    kind: str
    text: str
    fields: dict[str, str] = field(default_factory=dict)
    entities: tuple[Entity, ...] = ()
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


Record = Document | Conversation | Preference | Rollout | Question | ExamQuestion | EntityText | Note
RecordT = TypeVar("RecordT", Document, Conversation, Preference, Rollout, Question, ExamQuestion, EntityText, Note)

TYPES: dict[str, type] = {
    "document": Document,
    "conversation": Conversation,
    "preference": Preference,
    "rollout": Rollout,
    "question": Question,
    "exam_question": ExamQuestion,
    "entity_text": EntityText,
    "note": Note,
}
NAMES = {cls: name for name, cls in TYPES.items()}
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _refuse_constant(name: str) -> typing.NoReturn:
    raise InputError(f"{name} is no JSON number; give a finite one or leave the field out")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def to_json(record: Record) -> str:
    """One line of JSON with a `type` key, no line break inside."""
    body = {"type": NAMES[type(record)], **dataclasses.asdict(record)}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def from_json(line: str) -> Record:
    """The record of one line. Raises `InputError` that names the field, never the text."""
    try:
        body = DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise InputError("not a record: nested too deep") from None
    if not isinstance(body, dict) or not isinstance(body.get("type"), str) or body["type"] not in TYPES:
        kind = body.get("type") if isinstance(body, dict) else type(body).__name__
        raise InputError(f"type is {kind!r}; allowed: {', '.join(TYPES)}")
    if "\\u" in line and (lone := LONE_SURROGATE.search(json.dumps(body, ensure_ascii=False))):
        raise InputError(f"U+{ord(lone[0]):04X} is half of a character; write the text as UTF-8")
    return _build(TYPES[body.pop("type")], body, "")


def record_id(source: str, *parts: object) -> str:
    """A short stable id from what makes the record itself: same input, same id, on every machine."""
    digest = hashlib.sha256("\x1f".join([source, *map(str, parts)]).encode()).hexdigest()
    return f"{source}-{digest[:12]}"


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write JSONL through a temporary file: a half-written file never has the final name; the count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    count = 0
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(to_json(record) + "\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return count


def read_records(path: Path, kind: type[RecordT]) -> Iterator[RecordT]:
    """Stream one kind of record from JSONL. Raises `InputError` with file, line and field on the first bad line."""
    for record in read_any(path):
        if not isinstance(record, kind):
            raise InputError(
                f"{path}: found a {NAMES[type(record)]} record {record.id!r}; this step reads {NAMES[kind]} records"
            )
        yield record


def read_any(path: Path) -> Iterator[Record]:
    """Stream records of every kind from JSONL."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a JSONL file of records (see `xinglin data import --help`)")
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}:{number}: byte {error.start} is not UTF-8; records are UTF-8 JSONL") from None
            if not line.strip():
                continue
            try:
                yield from_json(line)
            except InputError as error:
                raise InputError(f"{path}:{number}: {error}") from None


def _build(cls: type, body: dict[str, Any], where: str) -> Any:
    """A dataclass from parsed JSON, strictly: unknown, missing and mistyped fields are errors."""
    hints, required = _fields(cls)
    if not body.keys() <= hints.keys():
        unknown = min(body.keys() - hints.keys())
        raise InputError(f"unknown field {where}{unknown}; allowed: {', '.join(hints)}")
    for name in required:
        if name not in body:
            raise InputError(f"field {where}{name} is missing")
    return cls(**{name: _convert(hints[name], value, where + name) for name, value in body.items()})


@functools.cache
def _fields(cls: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A dataclass's types by field, and its fields without a default. Resolving the types costs more than the rest."""
    none = dataclasses.MISSING
    required = tuple(f.name for f in dataclasses.fields(cls) if f.default is none and f.default_factory is none)
    return typing.get_type_hints(cls), required


def _convert(hint: Any, value: Any, where: str) -> Any:
    if type(value) is hint and hint in (str, int, float):
        return value
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(f"field {where} is {type(value).__name__}, expected an object")
        return _build(typing.cast(type, hint), value, where + ".")
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"field {where} is {type(value).__name__}, expected a list")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise InputError(f"field {where} is {type(value).__name__}, expected an object")
        inner = typing.get_args(hint)[1] if typing.get_args(hint) else Any
        return {key: item if inner is Any else _convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise InputError(f"field {where} is {value!r}, allowed: {', '.join(map(str, typing.get_args(hint)))}")
        return value
    if origin is types.UnionType:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"field {where} is {type(value).__name__}, expected {hint.__name__}")
    return value
