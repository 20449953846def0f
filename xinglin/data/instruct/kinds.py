"""The six kinds of instruction made from records: what each asks, and from which sections it is answered.

The paper (IIMedGPT, arXiv:2501.02869) says "six" and names none: these six are ours, and the list is open. A kind asks
from some sections and answers from others; `hidden` sections never reach the question, nor may their words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from xinglin.data.instruct.sections import Section

Sections = dict[str, list[Section]]
DOSE = re.compile(
    r"\d\s*(?:mg|g|ml|μg|ug|mcg|U|IU|万单位|单位|片|粒|袋|支|滴|喷|毫克|克|毫升|微克)|口服|静滴|静脉|肌注|皮下|外用|吸入|含服",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """`asks` are wordings of the question; `needs` are sections of which the question must hold at least one;
    `gives` sections stand in the question where the note has them."""

    asks: tuple[str, ...]
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    answers: tuple[str, ...]
    write: Callable[[list[Section], Sections], str]
    hides: bool = False
    """Whether the answer's words must not stand in the question."""


def labelled(sections: list[Section]) -> str:
    return "".join(f"{LABELS[section.name]}：{section.text}。" for section in sections)


def _plain(targets: list[Section], sections: Sections) -> str:
    return "；".join(section.text for section in targets) + "。"


def _labelled(targets: list[Section], sections: Sections) -> str:
    return labelled(targets)


def _summary(targets: list[Section], sections: Sections) -> str:
    """The doctor's own shortest words for the case; sex, age and diagnosis are restated from the question."""
    person = "".join(f"{section.text}，" for section in sections.get("person", []))
    told = {section.name: section.text for section in targets}
    parts = [f"患者{person}因“{told['complaint']}”就诊" if "complaint" in told else f"患者{person.rstrip('，')}"]
    parts += [f"诊断为{section.text}" for section in sections.get("diagnosis", [])[-1:]]
    return "，".join(parts + ([f"{LABELS['outcome']}：{told['outcome']}"] if "outcome" in told else [])) + "。"


def _drugs(targets: list[Section], sections: Sections) -> str:
    return _parts(targets, with_drugs=True)


def _care(targets: list[Section], sections: Sections) -> str:
    return _parts(targets, with_drugs=False)


def _parts(sections: list[Section], *, with_drugs: bool) -> str:
    """The clauses of orders that name a dose or a way of giving, or those that do not."""
    clauses = [part.strip() for section in sections for part in re.split(r"[；;。\n]", section.text)]
    chosen = [part for part in clauses if part and bool(DOSE.search(part)) is with_drugs]
    return "；".join(chosen) + "。" if chosen else ""


LABELS = {
    **{
        "person": "患者",
        "complaint": "主诉",
        "history": "现病史",
        "past": "既往史",
        "signs": "查体",
        "exams": "辅助检查",
    },
    **{"diagnosis": "诊断", "differential": "鉴别诊断", "analysis": "分析", "course": "诊疗经过", "orders": "处理"},
    **{"discharge": "出院医嘱", "outcome": "出院情况"},
}
CASE = ("person", "complaint", "history", "past", "signs", "exams")
KINDS: dict[str, Kind] = {
    "diagnosis_suggestion": Kind(
        ("根据下面的病历，给出诊断意见。", "请阅读病历，写出可能的诊断。", "这位患者应考虑什么诊断？"),
        ("signs", "exams", "history"),
        CASE,
        ("diagnosis", "differential"),
        _labelled,
        hides=True,
    ),
    "treatment_orders": Kind(
        ("根据病历和诊断，拟定处理意见。", "请为这位患者开出治疗与医嘱。", "下面的患者应如何处理？"),
        ("diagnosis",),
        (*CASE, "diagnosis"),
        ("orders",),
        _plain,
    ),
    "record_summary": Kind(
        ("用一两句话概括下面的病历。", "请写出这份病历的摘要。", "请总结病情要点。"),
        ("history", "course"),
        ("person", "history", "past", "signs", "exams", "diagnosis", "course"),
        ("complaint", "outcome"),
        _summary,
    ),
    "examination_interpretation": Kind(
        ("请解读下面的检查结果。", "这些检查结果说明什么？", "结合病情，分析检查结果的意义。"),
        ("exams",),
        ("person", "complaint", "exams"),
        ("analysis", "diagnosis"),
        _labelled,
        hides=True,
    ),
    "medication_advice": Kind(
        ("这位患者应当怎样用药？", "请给出用药建议，写明用法用量。", "根据诊断，说明药物的用法。"),
        ("diagnosis",),
        ("person", "complaint", "past", "diagnosis"),
        ("orders", "discharge"),
        _drugs,
    ),
    "discharge_education": Kind(
        ("请写出出院指导与随访要求。", "患者出院后要注意什么？", "请对这位患者作健康教育。"),
        ("diagnosis",),
        ("person", "diagnosis", "course", "outcome"),
        ("discharge",),
        _care,
    ),
}
