"""Consultations: what patients ask, in many phrasings, and the doctors' answers.

    questions(...)      open questions for rollouts and tests
    conversations(...)  single-turn questions and answers of mixed quality
    dialogues(...)      the doctor asks one or two things first; the patient is a `PatientSimulator`

The last three phrasings of every kind are kept for tests, one for validation. No patient is in two splits.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xinglin.data.ward.answers import ASKS, QUALITIES, Quality, answer
from xinglin.data.ward.patients import Patient, PatientSimulator, draw_patient
from xinglin.data.ward.world import Disease, World
from xinglin.records import Conversation, Message, Question, record_id

# Phrasings of each part: a validation or test prompt is never a training prompt.
PARTS = {"train": range(0, 7), "valid": range(7, 8), "test": range(8, 11)}
CONDITION_SHARE = 0.12
# {c}: complaints, {d}: duration, {a}: age, {s}: sex, {w}: who speaks for whom, {n}: the disease
PHRASINGS = {
    "diagnosis": (
        "{w}最近{c}，有{d}了，{a}岁，{s}，这是什么病？该挂什么科？",
        "医生，{w}{c}，已经{d}，{s}，{a}岁，请问是怎么回事？",
        "{w}{a}岁，{s}，{c}{d}了，可能是什么问题？看哪个科？",
        "您好，{w}这{d}一直{c}，{a}岁，{s}性，会是什么病呢？",
        "{s}，{a}岁，{c}，持续{d}，请问考虑什么病，怎么办？",
        "{w}{c}有{d}了，{s}，{a}岁，要不要紧，去哪个科看？",
        "请教医生，{w}{d}前开始{c}，今年{a}岁，{s}，是得了什么病？",
        "{w}总是{c}，{d}没好，{a}岁{s}性，应该看什么科？",
        "想问一下，{w}{a}岁，{s}，近{d}来{c}，大概是什么病，该去哪里看？",
        "大夫，{w}{c}，差不多{d}了，{s}，{a}岁，帮忙看看是什么情况？",
        "{w}（{s}，{a}岁）{c}，病了{d}，到底是什么毛病，挂哪科？",
    ),
    "treatment": (
        "{w}确诊了{n}，用什么药治疗？",
        "{n}一般怎么治？{w}今年{a}岁。",
        "医生，{w}得了{n}，吃什么药好？",
        "{n}首选什么治疗，怎么用？{w}{a}岁，{s}。",
        "{w}有{n}，请问该怎么治疗？",
        "{a}岁{s}性，诊断{n}，应该用什么药，剂量多少？",
        "{w}查出{n}，治疗方案是什么？",
        "请问{n}怎么用药？患者{a}岁。",
        "{w}患{n}{d}了，想知道现在该怎么治。",
        "大夫，{n}的首选治疗是什么，{w}{a}岁能用吗？",
        "{w}被诊断为{n}，麻烦说说用药和注意的地方。",
    ),
    "exam": (
        "怀疑{n}要做什么检查？",
        "{w}可能是{n}，该查什么？",
        "医生，{n}怎么确诊？{w}{a}岁。",
        "{w}想查一下是不是{n}，做哪些检查？",
        "{n}需要做哪些检查才能诊断？",
        "{a}岁{s}性，考虑{n}，先做什么检查？",
        "请问{n}查什么，结果怎样才算？",
        "{w}担心是{n}，去医院要查什么项目？",
        "想确定{w}是不是得了{n}，应该做什么化验或检查？",
        "大夫，诊断{n}靠什么检查，{w}{a}岁。",
        "{n}要怎么查出来？{w}有点担心。",
    ),
    "red_flags": (
        "{n}出现什么情况要马上去医院？",
        "{w}有{n}，哪些症状是危险信号？",
        "医生，{n}什么时候必须急诊？{w}{a}岁。",
        "{w}得了{n}，什么情况不能再等？",
        "{n}有哪些危险的表现？",
        "{a}岁{s}性，{n}，出现什么要立即就医？",
        "请问{n}加重会有什么表现，什么时候要去医院？",
        "{w}患{n}{d}，要警惕什么？",
        "{w}在家养着{n}，碰到什么样的情况得赶紧去医院？",
        "大夫，{n}最怕出现什么？{w}{a}岁。",
        "{n}病人有哪些症状说明很严重，需要马上看医生？",
    ),
    "care": (
        "{n}平时要注意什么？",
        "{w}有{n}，生活上怎么调理？",
        "医生，{n}日常怎么护理？{w}{a}岁。",
        "{w}得了{n}，饮食和生活要注意哪些？",
        "{n}除了用药还要做什么？",
        "{a}岁{s}性，{n}，平时怎么保养？",
        "请问{n}患者在家该怎么做？",
        "{w}患{n}{d}，日常有什么要注意的？",
        "{w}想知道{n}在生活里该怎么照顾自己。",
        "大夫，{n}回家以后怎么护理，{w}{a}岁。",
        "得了{n}日子该怎么过，有什么讲究？",
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One patient with one question: the seed of questions, conversations and preferences."""

    patient: Patient
    ask: str
    phrasing: int
    split: str
    prompt: str

    def meta(self) -> dict[str, Any]:
        return {
            "disease": self.patient.disease,
            "ask": self.ask,
            "patient_id": self.patient.id,
            "split": self.split,
            "phrasing": self.phrasing,
            "condition": self.patient.condition if self.ask == "treatment" else "",
        }


def cases(world: World, count: int, split: str, part: str, seed: int) -> Iterator[Case]:
    """`count` cases that walk over diseases and asks evenly, in a seeded order. `part`: whose phrasings."""
    rng = random.Random(f"{seed}/{split}")
    plan: list[tuple[Disease, str]] = []
    for number in range(count):
        if not plan:
            plan = [(disease, ask) for disease in world.diseases for ask in ASKS]
            rng.shuffle(plan)
        disease, ask = plan.pop()
        patient = draw_patient(disease, rng, record_id("patient", seed, split, number), CONDITION_SHARE)
        yield _case(patient, disease, ask, rng.choice(PARTS[part]), split)


def _case(patient: Patient, disease: Disease, ask: str, phrasing: int, split: str) -> Case:
    words = {"w": patient.who, "n": disease.name, "a": patient.age, "s": patient.sex, "d": patient.duration}
    prompt = PHRASINGS[ask][phrasing].format(c="、".join(patient.complaints), **words)
    prompt = re.sub(r"(?<!\d)0岁", "不到1岁", prompt)
    if ask == "treatment" and patient.condition:
        prompt += f"病历上写着{patient.condition}。"
    return Case(patient, ask, phrasing, split, prompt)


def case_answer(world: World, case: Case, quality: Quality, rng: random.Random) -> str:
    disease = world.by_id[case.patient.disease]
    return answer(world, disease, case.ask, quality, rng, case.meta()["condition"])


def questions(world: World, count: int, split: str, part: str, seed: int) -> Iterator[Question]:
    """Open questions with the complete answer as reference. `meta` is what the scorer reads."""
    rng = random.Random(f"{seed}/{split}/reference")
    for case in cases(world, count, split, part, seed):
        yield Question(
            id=record_id("ward-question", case.patient.id, case.ask),
            prompt=(Message("user", case.prompt),),
            reference=case_answer(world, case, "complete", rng),
            kind="consult",
            source="ward",
            meta=case.meta(),
        )


def conversations(
    world: World, count: int, split: str, part: str, seed: int, mixture: Sequence[float]
) -> Iterator[Conversation]:
    """Single-turn consultations. `mixture` are the shares of complete, good, poor and dangerous answers."""
    rng = random.Random(f"{seed}/{split}/quality")
    for case in cases(world, count, split, part, seed):
        quality = rng.choices(QUALITIES, mixture)[0]
        messages = (Message("user", case.prompt), Message("assistant", case_answer(world, case, quality, rng)))
        yield _conversation(case, messages, "consult", quality)


def dialogues(
    world: World, count: int, split: str, part: str, seed: int, mixture: Sequence[float]
) -> Iterator[Conversation]:
    """Multi-turn: the doctor asks one or two things, then advises on the diagnosis."""
    rng = random.Random(f"{seed}/{split}/dialogue")
    for case in cases(world, count, split, part, seed):
        quality = rng.choices(QUALITIES, mixture)[0]
        disease = world.by_id[case.patient.disease]
        patient = PatientSimulator(world, case.patient)
        messages = [Message("user", patient.opening())]
        for turn in doctor_questions(disease, rng):
            messages += [Message("assistant", turn), Message("user", patient.reply(turn))]
        messages.append(Message("assistant", answer(world, disease, "diagnosis", quality, rng)))
        yield _conversation(case, tuple(messages), "dialogue", quality)


def doctor_questions(disease: Disease, rng: random.Random) -> list[str]:
    """One or two turns: how long and what else, then one of the disease's own questions. Emergencies: one only."""
    first = rng.choice(("请问这样有多久了？", "请问持续多久了，还有其他不舒服吗？", "还有其他不舒服吗？"))
    second = f"请问{rng.choice(disease.ask)}？"
    return [rng.choice((first, second))] if disease.emergency or rng.random() < 0.5 else [first, second]


def _conversation(case: Case, messages: tuple[Message, ...], task_type: str, quality: str) -> Conversation:
    meta = {**case.meta(), "task_type": task_type, "quality": quality}
    if task_type == "dialogue":
        meta["ask"] = "diagnosis"
    return Conversation(record_id(f"ward-{task_type}", case.patient.id), messages, "ward", meta)
