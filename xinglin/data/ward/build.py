"""Build the whole ward into a folder of records: same seed and config, same bytes.

    documents/{train,valid}.jsonl        encyclopaedia pages and general facts; meta.domain medical | general
    conversations/{train,valid}.jsonl    consultations of mixed quality, dialogues, instructions, exams, safety
    general/{train,valid}.jsonl          general facts asked and answered
    preferences/{train,valid}.jsonl      four ranked answers to a prompt
    preferences/danger.jsonl             a safe answer and a dangerous one, one place apart
    questions/{train,test,heldout_diseases}.jsonl   rollout prompts; held-out patients and phrasings; unseen diseases
    general_questions/test.jsonl  general_exam/test.jsonl  exam/{dev,test}.jsonl  entities/{train,test}.jsonl
    safety/test.jsonl  notes/train.jsonl

Splits are by patient. Some diseases stand in documents and in heldout_diseases only (and in exam and entity tests).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from xinglin.data.ward import consult, danger, general, notes, preferences, tasks, text
from xinglin.data.ward.world import World, load_world
from xinglin.records import Conversation, InputError, Record, write_records


@dataclass(frozen=True, slots=True)
class WardConfig:
    """Counts of what to generate. The defaults suit the tiny model: about 350k characters of documents."""

    num_diseases: int = 0
    """Diseases of the world, the departments in turn; 0 = all. A tiny model learns few well."""
    num_page_renderings: int = 14
    """Pages told of each disease."""
    num_fact_renderings: int = 3
    """Times each general fact is told in documents."""
    num_facts: int = 320
    """General facts used, in documents, conversations and tests alike."""
    num_consultations: int = 1500
    num_dialogues: int = 300
    num_note_tasks: int = 240
    num_entity_tasks: int = 200
    num_exam_tasks: int = 200
    num_safety_phrasings: int = 2
    num_fact_phrasings: int = 3
    num_preferences: int = 600
    num_valid_preferences: int = 100
    num_danger_pairs: int = 60
    """Pairs of each of the four kinds of danger that a reward model is examined with."""
    num_questions: int = 400
    num_test_questions: int = 200
    num_heldout_questions: int = 80
    num_exam_dev: int = 20
    num_exam_test: int = 180
    num_entity_test: int = 150
    num_notes: int = 240
    valid_share: float = 0.08
    """Size of each validation file as a share of its training file."""
    num_heldout_diseases: int = 8
    complete_share: float = 0.35
    good_share: float = 0.35
    poor_share: float = 0.28
    dangerous_share: float = 0.02

    def __post_init__(self) -> None:
        if abs(sum(self.mixture) - 1) > 1e-6 or min(self.mixture) < 0:
            raise InputError(
                f"the ward's shares complete, good, poor, dangerous are {self.mixture}; they sum to 1, none below 0"
            )
        counts = [name for name in self.__slots__ if name.startswith("num_") and getattr(self, name) < 0]
        if counts:
            raise InputError(f"the ward's {counts[0]} is {getattr(self, counts[0])}; counts are 0 or more")

    @property
    def mixture(self) -> tuple[float, float, float, float]:
        return self.complete_share, self.good_share, self.poor_share, self.dangerous_share

    def valid(self, count: int) -> int:
        return max(1, round(count * self.valid_share)) if count else 0


def ward_config(values: Mapping[str, int | float]) -> WardConfig:
    """The defaults with some values changed. Raises `InputError` for a key that is none, with the nearest."""
    names = [field.name for field in dataclasses.fields(WardConfig)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown key data.ward.{name}; {hint}allowed: {', '.join(names)}")
    return dataclasses.replace(WardConfig(), **values)  # type: ignore[arg-type]


def heldout_diseases(world: World, count: int) -> list[str]:
    """The same diseases for every seed, spread by hash; at most a quarter of the world."""
    order = sorted(world.by_id, key=lambda id: hashlib.sha256(id.encode()).hexdigest())
    return sorted(order[: min(count, len(order) // 4)])


def build_ward(out_dir: Path, config: WardConfig, seed: int, world: World | None = None) -> dict[str, int]:
    """Write every file; {"documents/train": count, ...}."""
    world, trained, unseen = worlds(config, world)
    files = {**_causal(world, trained, config, seed), **_aligned(trained, config, seed)}
    files |= _tests(world, trained, unseen, config, seed)
    return {name: write_records(out_dir / f"{name}.jsonl", records) for name, records in files.items()}


def worlds(config: WardConfig, world: World | None = None) -> tuple[World, World, World]:
    """The world of these counts; the part of it that is trained on; the diseases that are not."""
    world = _with_facts(_with_diseases(world or load_world(), config.num_diseases), config.num_facts)
    held_out = heldout_diseases(world, config.num_heldout_diseases)
    return world, world.subset(world.by_id.keys() - held_out), world.subset(held_out)


def _with_diseases(world: World, count: int) -> World:
    """The world with `count` of its diseases, the departments in turn; 0 keeps all."""
    order = sorted(world.diseases, key=lambda d: hashlib.sha256(d.id.encode()).hexdigest())
    turn = Counter[str]()
    place = {}
    for disease in order:
        place[disease.id] = (turn[disease.department], order.index(disease))
        turn[disease.department] += 1
    chosen = sorted(place, key=lambda name: place[name])[: count or None]
    return world.subset(chosen)


def _with_facts(world: World, count: int) -> World:
    """The world with `count` of its facts, spread by hash over the topics, in the world's order."""
    chosen = set(sorted(world.facts, key=lambda fact: hashlib.sha256(fact.id.encode()).hexdigest())[:count])
    return World(world.diseases, tuple(fact for fact in world.facts if fact in chosen), world.safety)


def _causal(world: World, trained: World, c: WardConfig, seed: int) -> dict[str, Iterator[Record]]:
    return {
        "documents/train": chain(
            text.disease_documents(world, c.num_page_renderings, seed),
            text.fact_documents(world, c.num_fact_renderings, seed),
        ),
        "documents/valid": text.valid_documents(world, seed),
        "conversations/train": _conversations(trained, c, "train", seed),
        "conversations/valid": _conversations(trained, c, "valid", seed),
        "general/train": general.fact_conversations(world, c.num_fact_phrasings, seed),
        "general/valid": general.fact_conversations(world, 1, seed, held_out=True),
        "notes/train": notes.notes(trained, c.num_notes, seed),
    }


def _conversations(world: World, c: WardConfig, part: str, seed: int) -> Iterator[Conversation]:
    """All medical conversations of a part. Validation: other patients, another phrasing, other draws."""
    size = (lambda count: count) if part == "train" else c.valid
    yield from consult.conversations(world, size(c.num_consultations), f"sft-{part}", part, seed, c.mixture)
    yield from consult.dialogues(world, size(c.num_dialogues), f"dialogue-{part}", part, seed, c.mixture)
    yield from tasks.note_tasks(world, size(c.num_note_tasks), f"tasks-{part}", seed)
    texts = tasks.entity_texts(world, size(c.num_entity_tasks), f"entities-{part}", seed, held_out=False)
    yield from tasks.entity_conversations(texts)
    if part == "train":
        exams = tasks.exam_questions(world, World(()), c.num_exam_tasks, "exam-train", "train", seed)
        yield from tasks.exam_conversations(exams)
        yield from general.safety_conversations(general.split_safety(world, seed)[0], c.num_safety_phrasings)


def _aligned(world: World, c: WardConfig, seed: int) -> dict[str, Iterator[Record]]:
    return {
        "preferences/train": preferences.preferences(world, c.num_preferences, "preference-train", "train", seed),
        "preferences/valid": preferences.preferences(world, c.num_valid_preferences, "preference-valid", "valid", seed),
        "questions/train": consult.questions(world, c.num_questions, "rollout", "train", seed),
    }


def _tests(world: World, trained: World, unseen: World, c: WardConfig, seed: int) -> dict[str, Iterator[Record]]:
    return {
        "preferences/danger": danger.danger_pairs(trained, c.num_danger_pairs, seed),
        "questions/test": consult.questions(trained, c.num_test_questions, "test", "test", seed),
        "questions/heldout_diseases": consult.questions(
            unseen, c.num_heldout_questions if unseen.diseases else 0, "heldout", "test", seed
        ),
        "general_questions/test": general.fact_questions(world, seed),
        "general_exam/test": tasks.fact_exam(world.facts, seed),
        "exam/dev": tasks.exam_questions(world, unseen, c.num_exam_dev, "exam-dev", "train", seed),
        "exam/test": tasks.exam_questions(world, unseen, c.num_exam_test, "exam-test", "test", seed),
        "entities/train": tasks.entity_texts(trained, c.num_entity_tasks, "entities-train", seed, held_out=False),
        "entities/test": tasks.entity_texts(world, c.num_entity_test, "entities-test", seed, held_out=True),
        "safety/test": general.safety_questions(general.split_safety(world, seed)[1], "test"),
    }
