"""Evaluation: entity recognition, the model writing one `实体<tab>类型` a line.

what     every entity of a text with its type
prompt   `PROMPT` with the allowed types; `shots` are shown as earlier turns of the chat
metric   strict_f1, relaxed_f1 (micro, from summed TP / FP / FN) and both for each type
chance   none
paper    ChiMed-GPT: micro F1 over sets of (text, type) lines, no positions (2311.06025)

A written entity has no position: it is searched in the text from left to right, each mention after the one before it
(a second line with the same entity means its second place). What the text does not hold is a false positive. A line
that is not `text<tab>type` of an allowed type is a parse failure; `无` means none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from xinglin.evals.result import (
    GREEDY,
    Evaluation,
    Metric,
    Resampling,
    answer_texts,
    evaluation,
    groups_of,
    metric,
    prompt_hash,
    share,
    unique_ids,
)
from xinglin.metrics import entity_counts, entity_f1
from xinglin.metrics.entities import MICRO, Mode
from xinglin.records import Entity, EntityText, Message
from xinglin.rollout.generator import Decoding, Generator, Prompt

PROMPT = "找出句子中的{types}，每行写一个“实体\t类型”。\n{text}"
# What the types are called in prompts and answers; a type that is not here is called by its own name.
TYPE_NAMES = {
    **{"disease": "疾病", "symptom": "症状", "drug": "药物", "test": "检查", "department": "科室", "body": "部位"},
    **{"treatment": "治疗", "crowd": "人群", "physiology": "生理", "feature": "特征", "time": "时间"},
}
NOTHING = ("无", "无。", "没有", "无实体")
FAR_AWAY = 1 << 30  # where an entity that the text does not hold is put: it can match no gold span


def run(
    generator: Generator,
    items: Sequence[EntityText],
    *,
    seed: int,
    types: Sequence[str] = (),
    shots: Sequence[EntityText] = (),
    decoding: Decoding = GREEDY,
    draws: int = 10_000,
) -> Evaluation:
    unique_ids(items, "entities")
    allowed = list(types) or types_of([*items, *shots])
    prompts = {item.id: prompt_messages(item, allowed, shots) for item in items}
    texts = answer_texts(generator, prompts, decoding, seed)
    parsed = {item.id: parse_entities(texts[item.id], item.text, allowed) for item in items}
    predicted = {name: entities for name, (entities, _, _) in parsed.items()}
    how = Resampling(seed, draws, groups_of(items))
    metrics: dict[str, Metric] = {}
    notes: dict[str, Any] = {}
    for mode in get_args(Mode):
        counts = {item.id: entity_counts(item.entities, predicted[item.id], cast(Mode, mode)) for item in items}
        metrics.update(_by_type(mode, counts, how))
        notes[f"{mode}_counts"] = {kind: [s.tp, s.fp, s.fn] for kind, s in entity_f1(counts.values()).items()}
    lines, failed = sum(row[1] for row in parsed.values()), sum(row[2] for row in parsed.values())
    notes["parse_failure_rate"] = failed / lines if lines else 0.0
    notes["empty_rate"] = share(not text for text in texts.values())
    notes["prompt_sha256"] = prompt_hash(prompts.values())
    return evaluation("entities", metrics, notes, texts)


def types_of(items: Sequence[EntityText]) -> list[str]:
    """The types of the gold spans: the named ones in the order of `TYPE_NAMES`, then the others."""
    found = {entity.type for item in items for entity in item.entities}
    return [kind for kind in TYPE_NAMES if kind in found] + sorted(found - TYPE_NAMES.keys())


def prompt_messages(item: EntityText, types: Sequence[str], shots: Sequence[EntityText] = ()) -> Prompt:
    turns: list[Message] = []
    for shot in shots:
        turns += [Message("user", _ask(shot.text, types)), Message("assistant", gold_lines(shot))]
    return (*turns, Message("user", _ask(item.text, types)))


def gold_lines(item: EntityText) -> str:
    """The answer in the asked form, e.g. for training conversations."""
    ordered = sorted(item.entities, key=lambda entity: (entity.start, entity.end))
    return "\n".join(f"{entity.text}\t{TYPE_NAMES.get(entity.type, entity.type)}" for entity in ordered) or "无"


def parse_entities(answer: str, text: str, types: Sequence[str]) -> tuple[list[Entity], int, int]:
    """Entities with positions, the number of lines read, and how many of them were not in the form.

    An empty answer is one unreadable line: it said neither an entity nor that there is none."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()] or [""]
    entities: list[Entity] = []
    failed = 0
    used: dict[str, int] = {}
    kinds = {written: kind for kind in types for written in (kind, TYPE_NAMES.get(kind, kind))}
    for line in lines:
        found = re.fullmatch(r"(.+?)(?:\t+|\s+|\s*[:：|，,]\s*)(\S+)", line)
        if line in NOTHING:
            continue
        if not found or found[2] not in kinds:
            failed += 1
            continue
        entities.append(_placed(found[1].strip(), kinds[found[2]], text, used))
    return entities, len(lines), failed


def _placed(mention: str, kind: str, text: str, used: dict[str, int]) -> Entity:
    start = text.find(mention, used.get(mention, 0))
    if start < 0:  # absent, or named more often than it occurs: each such line is a false positive of its own
        start = used["absent"] = used.get("absent", FAR_AWAY) + len(mention)
    else:
        used[mention] = start + len(mention)
    return Entity(start, start + len(mention), kind, mention)


def _by_type(mode: str, counts: Mapping[str, Mapping[str, tuple[int, int, int]]], how: Resampling) -> dict[str, Metric]:
    kinds = sorted({kind for row in counts.values() for kind in row} - {MICRO})
    metrics = {f"{mode}_f1": metric({name: row[MICRO] for name, row in counts.items()}, how, statistic="f1")}
    for kind in kinds:
        rows = {name: row[kind] if kind in row else (0, 0, 0) for name, row in counts.items()}
        metrics[f"{mode}_f1.{kind}"] = metric(rows, how, statistic="f1")
    return metrics


def _ask(text: str, types: Sequence[str]) -> str:
    return PROMPT.format(types="、".join(TYPE_NAMES.get(kind, kind) for kind in types), text=text)
