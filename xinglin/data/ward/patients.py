"""Patients of the ward: seeded draws, and a rule-based patient who answers a doctor's questions.

draw_patient(disease, rng, id)   age, sex, duration, complaints, who speaks, what the chart forbids
PatientSimulator(world, patient) opening() and reply(doctor_turn), for training dialogues and interactive evaluation
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from xinglin.data.ward.world import Disease, World

# (word, sex or "" for any, youngest, oldest): who speaks for whom
RELATIVES = (
    ("我妈妈", "女", 45, 80),
    ("我爸爸", "男", 45, 80),
    ("我奶奶", "女", 65, 100),
    ("我爷爷", "男", 65, 100),
    ("我爱人", "", 24, 65),
    ("我女儿", "女", 0, 25),
    ("我儿子", "男", 0, 25),
)
# How long it has lasted: for emergencies, acute illness (and children), chronic illness, and the rest.
EMERGENCY = ("半小时", "1小时", "2小时", "3小时", "半天")
ACUTE = ("1天", "2天", "3天", "4天", "5天")
CHRONIC = ("1个月", "2个月", "3个月", "半年", "1年")
COURSES = ("5天", "1周", "10天", "2周", "3周", "1个月")
ACUTE_WORDS = re.compile("急性|感染|肺炎|病毒|流感|传染|骤|突发|结石|中毒|疱疹|荨麻疹")
CHRONIC_WORDS = re.compile("慢性|长期|持续|反复|退行|代谢|精神|进行性")
PREGNANT = ("妊娠", "怀孕", "孕", "哺乳")


@dataclass(frozen=True, slots=True)
class Patient:
    """`who` is 我 or a relative; `condition` is a contraindication in the chart, or ""."""

    id: str
    disease: str
    who: str
    sex: str
    age: int
    duration: str
    complaints: tuple[str, ...]
    symptoms: tuple[str, ...]
    condition: str = ""


def draw_patient(disease: Disease, rng: random.Random, id: str, condition_share: float = 0.0) -> Patient:
    age = rng.randint(*disease.age)
    sex = {"any": rng.choice("男女"), "female": "女", "male": "男"}[disease.sex]
    relatives = [word for word, s, low, high in RELATIVES if s in ("", sex) and low <= age <= high]
    speaks = age >= 14 and (not relatives or rng.random() < 0.6)
    who = "我" if speaks else rng.choice(relatives or ["我家人"])
    complaints = rng.sample(disease.complaints, min(len(disease.complaints), rng.choice((1, 2, 2))))
    symptoms = rng.sample(disease.symptoms, min(len(disease.symptoms), 2))
    condition = drawn_condition(disease, sex, age) if rng.random() < condition_share else ""
    duration = rng.choice(_courses(disease, age))
    return Patient(id, disease.id, who, sex, age, duration, tuple(complaints), tuple(symptoms), condition)


def _courses(disease: Disease, age: int) -> tuple[str, ...]:
    told = "".join((*disease.names, disease.summary))
    if disease.emergency:
        return EMERGENCY
    if "妊娠" in told or "孕" in told:
        return ACUTE + COURSES[1:4]
    if age < 2 or ACUTE_WORDS.search(told):
        return ACUTE
    return CHRONIC if CHRONIC_WORDS.search(told) else COURSES


def drawn_condition(disease: Disease, sex: str, age: int) -> str:
    """The contraindication of the first-line drug, where this patient can have it."""
    first = disease.treatments[0]
    can_bear = sex == "女" and 18 <= age <= 45
    if first.kind != "drug" or re.search(r"\d+岁", first.avoid):
        return ""
    if any(word in first.avoid for word in PREGNANT) and not can_bear:
        return ""
    return first.avoid


# Ordered: the first topic whose words occur in the doctor's turn is answered. 过敏 stands before 病史 (过敏史).
TOPICS = (
    ("allergy", "过敏"),
    ("duration", "多久|几天|多长时间|什么时候|何时|持续"),
    ("age", "多大|年龄|几岁|年纪"),
    ("sex", "男的|女的|性别"),
    ("family", "家族|家里人|遗传"),
    ("medicine", "吃什么药|用什么药|用药|服药|用过药|吃过药"),
    ("history", "病史|以前|既往|得过|基础病|慢性病"),
    ("more", "伴随|还有|其他|别的|另外"),
    ("place", "哪里|部位|哪儿|什么症状|怎么不舒服|哪些不舒服|不适"),
)


class PatientSimulator:
    """A patient by rules: answers what was asked, says it does not know otherwise, leaves after `max_turns` replies."""

    def __init__(self, world: World, patient: Patient, max_turns: int = 4) -> None:
        self.patient = patient
        self.disease = world.by_id[patient.disease]
        self.max_turns = max_turns
        self.num_replies = 0

    @property
    def ended(self) -> bool:
        return self.num_replies >= self.max_turns

    def opening(self) -> str:
        return f"医生您好，{self.patient.who}最近{self.patient.complaints[0]}，怎么回事？"

    def reply(self, doctor_turn: str) -> str:
        """What the patient says next; "" once the consultation is over."""
        if self.ended:
            return ""
        self.num_replies += 1
        if not re.search(r"[？?吗呢]|有没有|是否|多少|请问|请说", doctor_turn):
            self.num_replies = self.max_turns
            return "好的，谢谢医生。"
        answers = [self._symptom(doctor_turn), *self._topics(doctor_turn)]
        said = [text for text in answers if text]
        return "，".join(dict.fromkeys(said)) + "。" if said else "这个不太清楚。"

    def _topics(self, turn: str) -> list[str]:
        return [self._about(topic) for topic, words in TOPICS if re.search(words, turn)][:2]

    def _symptom(self, turn: str) -> str:
        """有没有发热: yes where the disease has it, no where another complaint of the same kind is asked."""
        asked = re.search(r"有没有([^，。？?、]{2,8})|是否(?:有)?([^，。？?、]{2,8})", turn)
        if asked is None or any(re.search(words, turn) for _, words in TOPICS):
            return ""
        what = asked.group(1) or asked.group(2)
        return "有的" if any(s in what or what in s for s in self._felt()) else "没有"

    def _felt(self) -> tuple[str, ...]:
        return (*self.disease.symptoms, *self.disease.complaints)

    def _about(self, topic: str) -> str:
        p = self.patient
        more = [c for c in (*p.complaints[1:], *p.symptoms) if c != p.complaints[0]]
        answers = {
            "allergy": p.condition if "过敏" in p.condition else "没有药物过敏",
            "duration": f"有{p.duration}了",
            "age": f"{p.age}岁",
            "sex": f"{p.sex}的",
            "family": "家里人没听说有",
            "medicine": "还没有用药",
            "history": f"病历上写着{p.condition}" if p.condition else "以前身体还好",
            "more": f"还有{more[0]}" if more else "没有别的了",
            "place": f"主要是{'、'.join(p.complaints)}",
        }
        return answers[topic]
