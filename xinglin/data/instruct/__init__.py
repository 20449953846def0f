"""Instructions from records: note -> conversation, one for each kind of task that the note can answer.

    for outcome in instruct(notes, ["diagnosis_suggestion"]):            by templates, in the note's own words
    for outcome in instruct(notes, kinds, write=written_by(asker)):      by a model, checked against the note
        Made(conversation)  |  Refused(note id, kind, reason, conversation or None)

Question and answer come from different sections of the note, and their spans are kept in meta. Every pair of note and
kind ends as one or the other: `made + refused = notes x kinds`. The kinds are ours (see `kinds.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from xinglin.data.instruct.grounded import Terms, terms_of, unsupported
from xinglin.data.instruct.kinds import KINDS, Kind, Sections, labelled
from xinglin.data.instruct.sections import Section, person_of, sections_of
from xinglin.records import Conversation, InputError, Message, Note, record_id

__all__ = [
    "KINDS",
    "MARK",
    "Made",
    "Refused",
    "Terms",
    "Write",
    "chosen_kinds",
    "instruct",
    "part_of",
    "require_deidentified",
    "terms_of",
    "unsupported",
]
MARK = "deidentified"
SHORTEST = 4
Write = Callable[[str, str], str | None]
"""(kind, question) -> an answer, or None where the model gave none."""


@dataclass(frozen=True, slots=True)
class Made:
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Refused:
    """`conversation` is what was written and then refused, for reading; None where nothing could be written."""

    note_id: str
    kind: str
    reason: str
    conversation: Conversation | None = None


def instruct(
    notes: Iterable[Note], kinds: Sequence[str], *, write: Write | None = None, terms: Terms | None = None
) -> Iterator[Made | Refused]:
    """One outcome for each note and kind. `write` is a model's hand; without it the answer is the note's own text."""
    for note in notes:
        sections = sections_of(note)
        if person := person_of(note):
            sections["person"] = [person]
        for name in kinds:
            yield _one(note, name, sections, write, terms or Terms())


def chosen_kinds(names: Sequence[str]) -> list[str]:
    """The kinds asked for, all where none is. Raises `InputError` for one that is unknown."""
    if unknown := [name for name in names if name not in KINDS]:
        raise InputError(f"kind {unknown[0]!r} is not known; kinds are {', '.join(KINDS)}")
    return list(dict.fromkeys(names)) or list(KINDS)


def require_deidentified(note: Note) -> Note:
    """The note. Raises `InputError` when it lacks the mark that `xinglin data deidentify` leaves."""
    if not note.meta.get(MARK):
        raise InputError(
            f"note {note.id!r} carries no mark of de-identification (meta.{MARK}); run `xinglin data deidentify` "
            "first, or give --allow-raw for notes that never held identifiers"
        )
    return note


def part_of(patient_id: str, valid_share: float, key: str) -> str:
    """train or valid: the patient's, for all of their notes, on every machine; the key keeps it from being guessed."""
    digest = hmac.new(key.encode(), patient_id.encode(), hashlib.sha256).digest()
    return "valid" if int.from_bytes(digest[:8], "big") < valid_share * 2**64 else "train"


def _one(note: Note, name: str, sections: Sections, write: Write | None, terms: Terms) -> Made | Refused:
    kind = KINDS[name]
    targets = _targets(kind, sections)
    given = [section for part in kind.gives for section in sections.get(part, []) if section not in targets]
    if not note.patient_id:
        return Refused(note.id, name, "no_patient_id")
    if not targets:
        return Refused(note.id, name, f"no_{kind.answers[0]}")
    if not any(section.name in kind.needs for section in given):
        return Refused(note.id, name, f"no_{kind.needs[0]}")
    question = _question(note, kind, given)
    if kind.hides and _leaks(question, sections.get("diagnosis", targets)):
        return Refused(note.id, name, "target_in_question")
    reference = labelled(targets)
    answer = kind.write(targets, sections) if write is None else write(name, f"{question}\n{reference}")
    if answer is None:
        return Refused(note.id, name, "no_reply")
    made = _conversation(note, name, question, answer, given, targets, "model" if write else "template")
    if len(answer) < SHORTEST:
        return Refused(note.id, name, f"nothing_for_{name}")
    if write and (wrong := unsupported(answer, question + reference, terms)):
        return Refused(note.id, name, f"unsupported_{wrong[0]}", made)
    return Made(made)


def _targets(kind: Kind, sections: Sections) -> list[Section]:
    """The answer's sections, of each name the last. A differential alone is no diagnosis."""
    found = [sections[part][-1] for part in kind.answers if part in sections]
    return found if any(section.name != "differential" for section in found) else []


def _question(note: Note, kind: Kind, given: list[Section]) -> str:
    ask = kind.asks[int(record_id("ask", note.id, kind.asks[0])[-6:], 16) % len(kind.asks)]
    return f"{ask}\n病历：{labelled(given)}"


def _leaks(question: str, diagnoses: Iterable[Section]) -> bool:
    """Whether the question names a diagnosis that the answer is to find: whole, or without its code and grade."""
    names = [part for section in diagnoses for part in _names(section.text)]
    return any(name in question for name in names)


def _names(text: str) -> list[str]:
    parts = re.split(r"[，,、；;。\n\s]|\d{1,2}[.．、)）]", re.sub(r"[（(][^）)]*[)）]", "", text))
    loose = r"^(?:考虑|疑似|急性|慢性|原发性|继发性)+|(?:可能|待查|待排|[?？]|病|[\dⅠⅡⅢⅣIV一二三四]+[级期型度]\S*)+$"
    bare = [re.sub(loose, "", part) for part in parts]
    return [name for name in bare if len(name) >= 2]


def _conversation(
    note: Note, name: str, question: str, answer: str, given: list[Section], targets: list[Section], made_by: str
) -> Conversation:
    meta = {
        **{"task_type": name, "patient_id": note.patient_id, "note_id": note.id, "note_kind": note.kind},
        **{"made_by": made_by, "question_spans": [section.span(note) for section in given]},
        **{"answer_spans": [section.span(note) for section in targets]},
        **{key: note.meta[key] for key in (MARK, "disease", "department", "research_only") if key in note.meta},
    }
    messages = (Message("user", question), Message("assistant", answer))
    return Conversation(record_id(f"note-{name}", note.id, made_by), messages, note.source, meta)
