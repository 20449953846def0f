"""Which schema is this row? One table, read from top to bottom: the first line whose keys the row has.

`a|b c` means: (a or b) and c. Keys are compared in lower case. Rows without names (TSV without header) are told by
their columns. A row that fits no line is rejected with its keys named.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from xinglin.data.sources import choices, dialogues, spans
from xinglin.data.sources.fields import Rejected, Row, split_turns
from xinglin.records import TYPES, InputError, Record, from_json

Convert = Callable[[Row], Record | list[Record]]
Group = Callable[[list[Row]], Iterator[tuple[Row, Record | Rejected | None]]]


def own_record(row: Row) -> Record:
    """A record of ours, as `write_records` wrote it."""
    try:
        return from_json(json.dumps(row.value))
    except InputError as error:
        raise Rejected(f"own_record_{re.sub(r'[^a-z_]+', '_', str(error).split(':')[0].lower())[:60]}") from None


CONVERT: dict[str, tuple[str, Convert]] = {
    "cmdd": ("dialogue-content", dialogues.cmdd),
    "cmedir": ("query documents", choices.retrieved_titles),
    "judge_scores": ("scores model id prompt", dialogues.judged),
    "ranking_task": ("query response_0 response_1", choices.ranking_task),
    "ranking": ("query rank1 rank2", choices.ranking),
    "preference": ("chosen|response_chosen|accepted rejected|response_rejected", choices.chosen_rejected),
    "exam": ("question|stem|qtext|题目|题干 options|option|choices|选项", choices.exam),
    "exam_columns": ("question|stem|题目|题干 a b", choices.exam),
    "tagged": ("text|chars|tokens|words tags|labels|bio|ner_tags", spans.tagged),
    "prompt_target": ("input target", dialogues.prompt_target),
    "case_questions": ("qa_pairs", dialogues.case_questions),
    "dialogue": ("conversations|conversation|messages|dialogue|dialog|dialogs|turns", dialogues.dialogue),
    "adversarial": ("instruct output", dialogues.adversarial),
    "alpaca": ("instruction output|response", dialogues.alpaca),
    "reference_answer": ("question raw_anwser|raw_answer", dialogues.reference_answer),
    "qa": (
        "question|query|prompt|ask|input|问题|提问|questions|q "
        "answer|response|output|completion|答案|回答|answers|reply|a",
        dialogues.answered,
    ),
    "bias_item": ("text_en|text_zh direction", dialogues.bias_item),
    "book_section": ("chapter title body refused book_losses", dialogues.book_section),
    "triple": ("s|subject|head|h p|predicate|relation|r o|object|tail|t", dialogues.triple),
    "answer_key": ("answer category", choices.answer_key),
    "open_question": ("question|prompt|query", dialogues.open_question),
    "document": ("text|content|contents|body|正文|文本|abstract", dialogues.document),
    "dialogue_list": ("data", dialogues.dialogue),
    "kb_entry": ("name desc|cause|symptom|intro|description|alias", dialogues.kb_entry),
}
GROUPED: dict[str, tuple[str, Group]] = {
    "spans": ("text|originaltext|sentence|content mention_data|entities|label_entities|spans", spans.spans),
    "answer_labels": ("", choices.labelled_answers),
    "text_class": ("", choices.text_class),
    "word_list": ("", dialogues.word_list),
}
NAMES = ("record", *CONVERT, *GROUPED, "question_pair")


def group_row(name: str, row: Row) -> Row:
    """A row made ready for its group: cells clean, except where offsets must not move."""
    if name != "spans":
        row.value = row.cells()
        if len(row.value) != {"answer_labels": 3, "text_class": 2}.get(name, len(row.value)):
            raise Rejected("columns_of_another_schema")
    return row


def schema_of(value: Any) -> str:
    """The name of the row's schema, "" when there is none."""
    if isinstance(value, dict):
        return _named(value)
    if isinstance(value, list) and value and all(isinstance(cell, str) for cell in value):
        return _columns(value)
    return "dialogue_list" if isinstance(value, list) and value else ""


def convert(name: str, row: Row) -> list[Record]:
    """The records of one row of an ungrouped schema."""
    if name == "record":
        return [own_record(row)]
    if name == "question_pair":
        return [choices.same_meaning(row)]
    if isinstance(row.value, list):
        row.value = {"data": row.value}
    if not isinstance(row.value, dict):
        raise Rejected("row_is_not_an_object")
    found = CONVERT[name][1](row)
    return found if isinstance(found, list) else [found]


def _named(value: dict[str, Any]) -> str:
    keys = {str(key).strip().lower() for key in value}
    if value.get("type") in TYPES and "id" in keys:
        return "record"
    if _has(keys, GROUPED["spans"][0]) or ("text" in keys and _is_spans(value.get("label"))):
        return "spans"
    if keys <= {"id", "name", "word", "term", "count"} and keys:
        return "word_list"
    if "text" in keys and isinstance(value.get("label"), str) and len(value["label"].split()) == len(value["text"]) > 1:
        return "tagged"
    return _first_fit(frozenset(keys))


@functools.lru_cache(maxsize=1024)
def _first_fit(keys: frozenset[str]) -> str:
    return next((name for name, (spec, _) in CONVERT.items() if _has(keys, spec)), "")


def _has(keys: set[str] | frozenset[str], spec: str) -> bool:
    return all(any(key in keys for key in group.split("|")) for group in spec.split())


def _is_spans(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, list) and len(item) >= 3 for item in value)


def _columns(cells: list[str]) -> str:
    """Rows without column names: a label first, or a word with its count."""
    first, last = cells[0].strip(), cells[-1].strip()
    if len(cells) > 1 and all(split_turns(cell) for cell in cells):
        return "dialogue_list"
    if len(cells) == 3 and first in ("0", "1"):
        return "question_pair"
    if len(cells) == 2 and re.fullmatch(r"\d+", last) and not first.isdigit():
        return "word_list"
    if len(cells) == 2 and (re.fullmatch(r"\d{1,2}", first) or min(len(first), len(last)) <= 20):
        return "text_class"
    return ""
