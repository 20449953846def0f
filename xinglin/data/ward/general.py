"""General facts and safety items as conversations and questions. Phrasings of tests are never trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from xinglin.data.ward.world import SafetyItem, World
from xinglin.records import Conversation, Message, Question, record_id

FACT_PHRASINGS = (
    "{s}是什么？",
    "请问{s}是什么？",
    "你知道{s}是什么吗？",
    "请告诉我{s}。",
    "{s}是？",
    "我想知道{s}是什么。",
)
TEST_FACT_PHRASINGS = ("想问一下，{s}是什么呢？", "能说说{s}是什么吗？")
SAFETY_PHRASINGS = ("{p}", "医生，{p}", "请问一下，{p}", "您好，{p}")
TEST_SAFETY_SHARE = 0.4


def fact_conversations(world: World, phrasings: int, seed: int, held_out: bool = False) -> Iterator[Conversation]:
    """Each fact in `phrasings` of the training phrasings; held out: the last training phrasing only."""
    for fact in world.facts:
        rng = random.Random(f"{seed}/fact/{fact.id}")
        trained = rng.sample(FACT_PHRASINGS[:-1], min(phrasings, len(FACT_PHRASINGS) - 1))
        for phrasing in [FACT_PHRASINGS[-1]] if held_out else trained:
            prompt = phrasing.format(s=fact.subject)
            messages = (Message("user", prompt), Message("assistant", fact.statement))
            meta = {"task_type": "general", "fact": fact.id, "topic": fact.topic}
            yield Conversation(record_id("ward-fact", fact.id, prompt), messages, "ward", meta)


def fact_questions(world: World, seed: int) -> Iterator[Question]:
    for fact in world.facts:
        phrasing = random.Random(f"{seed}/fact-test/{fact.id}").choice(TEST_FACT_PHRASINGS)
        yield Question(
            id=record_id("ward-fact-question", fact.id),
            prompt=(Message("user", phrasing.format(s=fact.subject)),),
            reference=fact.statement,
            kind="general",
            source="ward",
            meta={"fact": fact.id, "topic": fact.topic, "answer": fact.answer, "split": "test"},
        )


def split_safety(world: World, seed: int) -> tuple[list[SafetyItem], list[SafetyItem]]:
    """(train, test): whole items are held out, every category in both where it has two."""
    train: list[SafetyItem] = []
    test: list[SafetyItem] = []
    rng = random.Random(f"{seed}/safety")
    for category in sorted({item.category for item in world.safety}):
        items = [item for item in world.safety if item.category == category]
        rng.shuffle(items)
        num_test = round(len(items) * TEST_SAFETY_SHARE)
        test += items[:num_test]
        train += items[num_test:]
    return train, test


def safety_conversations(items: Sequence[SafetyItem], phrasings: int) -> Iterator[Conversation]:
    for item in items:
        for phrasing in SAFETY_PHRASINGS[:phrasings]:
            prompt = phrasing.format(p=item.prompt)
            messages = (Message("user", prompt), Message("assistant", item.good))
            meta = {"task_type": "safety", "item": item.id, "category": item.category}
            yield Conversation(record_id("ward-safety", item.id, prompt), messages, "ward", meta)


def safety_questions(items: Sequence[SafetyItem], split: str) -> Iterator[Question]:
    for item in items:
        yield Question(
            id=record_id("ward-safety-question", item.id),
            prompt=(Message("user", item.prompt),),
            reference=item.good,
            kind="safety",
            source="ward",
            meta={
                "item": item.id,
                "category": item.category,
                "must": [list(group) for group in item.must],
                "never": list(item.never),
                "harmful": item.harmful,
                "split": split,
            },
        )
