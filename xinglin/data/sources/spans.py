"""Rows that become texts with gold entities: string offsets, start-only, inclusive or exclusive ends, tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from xinglin.data.sources.fields import UNSAFE, Rejected, Row
from xinglin.records import Entity, EntityText, InputError, Record

TEXT = ("text", "originaltext", "sentence", "content")
START = ("start", "start_idx", "start_pos", "start_offset", "begin", "offset")
END = ("end", "end_idx", "end_pos", "end_offset", "stop")
KIND = ("type", "label_type", "label", "entity_type", "category", "tag")
SURFACE = ("mention", "entity", "surface", "word", "text", "name", "value")
Span = tuple[int, int | None, str, str]  # start, end as written, type, surface ("" where the file has none)
Grouped = Iterator[tuple[Row, Record | Rejected | None]]


def spans(rows: list[Row], fold_case: bool = True) -> Grouped:
    """All rows of a file together, because only together do they say whether ends are inclusive."""
    parsed: list[tuple[Row, str, list[Span]]] = []
    for row in rows:
        try:
            parsed.append((row, _text(row), [_span(item) for item in _items(row)]))
        except Rejected as reason:
            yield row, reason
    shift = _end_shift(parsed, fold_case)
    for row, text, found in parsed:
        yield row, _entity_text(row, text, found, shift, fold_case)


def _text(row: Row) -> str:
    """As it stands: cleaning would move the offsets."""
    value = row.get(*TEXT)
    if not isinstance(value, str) or not value.strip():
        raise Rejected("empty_text")
    if UNSAFE.search(value):
        raise Rejected("unsafe_character")
    return value


def _items(row: Row) -> list[Any]:
    value = row.get("mention_data", "entities", "label_entities", "spans", "label", "labels")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise Rejected("spans_are_not_a_list") from None
    if not isinstance(value, list):
        raise Rejected("spans_are_not_a_list")
    return value


def _span(item: Any) -> Span:
    """One span of {start, end, type, surface} in its many spellings, or [start, end, type]."""
    if isinstance(item, list | tuple) and len(item) >= 3:
        item = {"start": item[0], "end": item[1], "type": item[2], "mention": item[3] if len(item) > 3 else ""}
    if not isinstance(item, dict):
        raise Rejected("span_of_unknown_shape")
    start, end = _number(item, START), _number(item, END)
    if start is None:
        raise Rejected("span_without_start")
    kind = next((str(item[name]) for name in KIND if name in item), "entity")
    surface = next((item[name] for name in SURFACE if isinstance(item.get(name), str)), "")
    if end is None and not surface:
        raise Rejected("span_without_end")
    return start, end, kind, surface


def _number(item: dict[str, Any], names: tuple[str, ...]) -> int | None:
    value = next((item[name] for name in names if name in item), None)
    if value is None:
        return None
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value).strip()):
        raise Rejected("offset_is_not_a_number")
    return int(value)


def _end_shift(parsed: list[tuple[Row, str, list[Span]]], fold_case: bool) -> int:
    """0 for exclusive ends, 1 for inclusive ends. A file that holds both is refused."""
    seen: dict[int, list[int]] = {0: [], 1: []}
    for row, text, found in parsed:
        for start, end, _, surface in found:
            if end is None or not surface or start + len(surface) - end not in seen:
                continue
            if _same(text[start : start + len(surface)], surface, fold_case):
                seen[start + len(surface) - end].append(row.number)
    few, many = sorted(seen.values(), key=len)
    if len(few) > 0.02 * len(many) and parsed:
        exclusive, inclusive = seen[0][:3], seen[1][:3]
        raise InputError(
            f"{parsed[0][0].path}: ends of spans are exclusive in rows {exclusive} and inclusive in rows {inclusive}; "
            "one file uses one convention: repair it"
        )
    return 1 if len(seen[1]) > len(seen[0]) else 0


def _same(left: str, right: str, fold_case: bool) -> bool:
    return left == right or (fold_case and left.lower() == right.lower())


def _entity_text(row: Row, text: str, found: list[Span], shift: int, fold_case: bool) -> Record:
    """Spans that do not match their text are left out and counted; those that differ in case take the text's case."""
    entities = []
    for start, end, kind, surface in found:
        stop = start + len(surface) if end is None else end + shift
        written = text[start:stop]
        row.flag("span_mismatches", bool(surface) and written != surface)
        if (surface and not _same(written, surface, fold_case)) or not written or stop > len(text):
            row.flag("spans_left_out")
        else:
            entities.append(Entity(start, stop, kind, written))
        row.flag("ends_taken_as_inclusive" if shift else "ends_taken_as_exclusive", not surface)
    entities.sort(key=lambda entity: (entity.start, entity.end))
    row.flag("overlapping_spans", sum(a.end > b.start for a, b in zip(entities, entities[1:], strict=False)))
    return EntityText("", text, tuple(entities))


def tagged(row: Row) -> Record:
    """One tag a character: `B_x`, `x-B`, BIOES, a list, a joined string ("OOBIO") or one with blanks."""
    chars = row.get("chars", "tokens", "text", "words")
    tags = row.get("tags", "labels", "label", "bio", "ner_tags")
    chars = list(chars) if isinstance(chars, str) else chars
    if isinstance(tags, str):
        tags = tags.split() if " " in tags.strip() else list(tags)
    if not isinstance(chars, list) or not isinstance(tags, list) or len(chars) != len(tags):
        raise Rejected("tags_and_characters_differ_in_number")
    if not all(isinstance(part, str) for part in [*chars, *tags]) or UNSAFE.search("".join(chars)):
        raise Rejected("unsafe_character" if all(isinstance(part, str) for part in chars) else "tags_are_not_text")
    return EntityText("", "".join(chars), tuple(_decode(row, chars, tags)))


def _decode(row: Row, chars: list[str], tags: list[str]) -> Iterator[Entity]:
    text, at, open_at, open_kind = "".join(chars), 0, 0, ""
    for char, tag in zip([*chars, ""], [*tags, "O"], strict=True):
        place, kind = _tag(tag)
        inside = place in ("I", "E", "M") and kind == open_kind
        row.flag("tags_inside_without_begin", place in ("I", "E", "M") and not inside)
        if open_kind and not inside:
            yield Entity(open_at, at, open_kind, text[open_at:at])
            open_kind = ""
        if place != "O" and not inside:
            open_at, open_kind = at, kind
        at += len(char)


def _tag(tag: str) -> tuple[str, str]:
    """(place, type) of `B-x`, `B_x`, `x-B`, `B`, `O`."""
    if match := re.fullmatch(r"([BIESM])(?:[-_](.+))?", tag):
        return match[1], match[2] or "entity"
    if match := re.fullmatch(r"(.+)[-_]([BIESM])", tag):
        return match[2], match[1]
    if tag == "O":
        return "O", ""
    raise Rejected("unknown_tag")
