"""The texts of a record that are compared: what was asked, what was answered, and both; and their normal form.

Duplicates (dedup.py), contamination (overlap.py), splits (mix.py) and the public data (public.py) compare the same
normal form, so that what one of them calls equal the others do too.
"""

from __future__ import annotations

import re
import unicodedata

from xinglin.records import (
    Conversation,
    EntityText,
    ExamQuestion,
    Preference,
    Question,
    Record,
    Rollout,
)

PUNCTUATION = re.compile(r"[\s，。、；：？！（）,:;?!()《》“”‘’【】…—~～]+")
NO_WORD = re.compile(r"[\W_]+")


def normal(text: str) -> str:
    """NFKC, case folded, letters and digits alone: what is equal but for width, case, spaces and punctuation.

    Signs go as well: `HBsAg(+)` and `HBsAg(-)` have one normal form.
    """
    # The common marks go first: a text without full-width marks is mostly NFKC already, and that check is fast.
    text = unicodedata.normalize("NFKC", PUNCTUATION.sub("", text))
    return NO_WORD.sub("", text.casefold())


def question_of(record: Record) -> str:
    """What was asked; the whole text of a record that asks nothing (a document, a note, a text with entities)."""
    if isinstance(record, Conversation):
        return "\n".join(message.content for message in record.messages if message.role == "user")
    if isinstance(record, Preference | Rollout | Question):
        return "\n".join(message.content for message in record.prompt if message.role == "user")
    return record.question if isinstance(record, ExamQuestion) else record.text


def answer_of(record: Record) -> str:
    """What was answered (all answers of a preference, options and explanation of an exam question), or ""."""
    if isinstance(record, Conversation):
        return "\n".join(message.content for message in record.messages if message.role == "assistant")
    if isinstance(record, Preference):
        return "\n".join(answer.text for answer in record.answers)
    if isinstance(record, Rollout):
        return record.answer.text
    if isinstance(record, Question):
        return record.reference
    if isinstance(record, ExamQuestion):
        return "\n".join((*record.options.values(), record.explanation))
    return ""


def pieces_of(record: Record) -> list[str]:
    """Every text of a record that may stand alone elsewhere: its question, and each message, answer, option list."""
    if isinstance(record, Conversation):
        return [question_of(record), *(message.content for message in record.messages)]
    if isinstance(record, Preference | Rollout | Question):
        return [question_of(record), *(message.content for message in record.prompt), answer_of(record)]
    if isinstance(record, ExamQuestion):
        return [record.question, answer_of(record)]
    if isinstance(record, EntityText):
        return [record.text]
    return [record.text, *record.text.split("\n")]


def patient_of(record: Record) -> str:
    """The patient a record speaks of: `patient_id` of a note or of the record's meta; "" where none is named."""
    return str(getattr(record, "patient_id", "") or record.meta.get("patient_id") or "")
