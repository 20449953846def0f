"""A doctor's answer of known quality, built from checkable sentences.

    complete    all that the question needs, safe
    good        true and safe, one thing missing
    poor        misses most, vague, one wrong fact, or clumsy (said twice, cut off)
    dangerous   harmful advice, ten times the dose, a contraindication or an emergency waved away

`needs(disease, ask, condition)` names what an answer has to hold; the scorer counts the same list.
"""

from __future__ import annotations

import random
import re
from typing import Literal

from xinglin.data.ward.doses import DOSE
from xinglin.data.ward.world import Disease, Treatment, World

Quality = Literal["complete", "good", "poor", "dangerous"]
QUALITIES: tuple[Quality, ...] = ("complete", "good", "poor", "dangerous")
ASKS = ("diagnosis", "treatment", "exam", "red_flags", "care")
EMERGENCY_LEAD = "情况紧急，请立即拨打120。"

# What each kind of question needs, in the order in which it is said. A number after a colon: that many of them.
NEEDS = {
    "diagnosis": ("name", "department", "exam", "flag:1"),
    "treatment": ("name", "treatment", "dose", "avoid", "forbidden", "care:1", "flag:1"),
    "exam": ("name", "exam", "finding", "second_exam"),
    "red_flags": ("name", "flag:2", "department"),
    "care": ("name", "care:2", "department", "flag:1"),
}
# `good` leaves one of these out: never the name, nor what safety asks for.
OPTIONAL = {
    "diagnosis": ("department", "exam"),
    "treatment": ("dose", "care:1"),
    "exam": ("finding", "second_exam"),
    "red_flags": ("department",),
    "care": ("department",),
}


# Names of examinations that are done (做心电图); others are looked up (查血常规).
DONE = re.compile(
    r"(查|量|测|测定|检测|试验|图|影|镜|CT|MRI|平扫|磁共振|超声|活检|评估|穿刺|扫描|像|片|培养|涂片|视诊|指检|测听|测压|染色|观察|细胞学)$"
)


def exam_verb(name: str) -> str:
    return "做" if DONE.search(name) else "查"


def chosen_treatment(disease: Disease, condition: str = "") -> Treatment | None:
    """The first-line treatment, or None where the chart forbids it: what stands next in the list may be an addition
    and no substitute, so the ward's doctor leaves that choice to a colleague who sees the patient."""
    first = disease.treatments[0]
    return None if condition and first.avoid == condition else first


def needs(disease: Disease, ask: str, condition: str = "") -> tuple[str, ...]:
    """What a complete answer holds, less what this disease does not have."""
    item = chosen_treatment(disease, condition)
    absent = {
        "treatment": item is None,
        "dose": item is None or item.kind != "drug",
        "avoid": item is None or not item.avoid,
        "forbidden": item is not None,
        "second_exam": len(disease.exams) < 2,
    }
    return tuple(need for need in NEEDS[ask] if not absent.get(need, False))


def answer(world: World, disease: Disease, ask: str, quality: Quality, rng: random.Random, condition: str = "") -> str:
    if quality == "complete":
        return compose(disease, ask, needs(disease, ask, condition), rng, condition)
    if quality == "good":
        return _good(disease, ask, rng, condition)
    if quality == "poor":
        return _poor(world, disease, ask, rng, condition)
    return _dangerous(disease, ask, rng, condition)


def compose(disease: Disease, ask: str, held: tuple[str, ...], rng: random.Random, condition: str = "") -> str:
    """The sentences that say what is in `held`, in order."""
    lead = EMERGENCY_LEAD if disease.emergency else ""
    body = {"diagnosis": _diagnosis, "treatment": _treatment, "exam": _exam, "red_flags": _red_flags, "care": _care}
    return lead + body[ask](disease, held, rng, condition)


def _diagnosis(d: Disease, held: tuple[str, ...], rng: random.Random, condition: str) -> str:
    text = rng.choice((f"考虑{d.name}", f"可能是{d.name}", f"首先考虑{d.name}"))
    text += f"，建议到{d.department}就诊。" if "department" in held else "，建议到医院就诊。"
    if "exam" in held:
        text += f"{rng.choice(('可先', '先'))}{exam_verb(d.exams[0].name)}{d.exams[0].name}。"
    return text + _flags(d, held)


def _treatment(d: Disease, held: tuple[str, ...], rng: random.Random, condition: str) -> str:
    first, item = d.treatments[0], chosen_treatment(d, condition)
    measures = list(d.care)
    if item is None:
        text = f"您的病历写着{condition}，不能用{first.name}，{d.name}的用药请由医生另选。"
        measures = [measure for measure in d.care if first.name not in measure]
    else:
        text = f"{d.name}{rng.choice(('一般首选', '首选'))}{item.name}"
        text += f"，{item.dose}" if "dose" in held else ""
        text += f"，{item.avoid}者禁用。" if "avoid" in held else "。"
    text += f"平时注意{measures[0]}。" if "care:1" in held else ""
    return text + _flags(d, held)


def _exam(d: Disease, held: tuple[str, ...], rng: random.Random, condition: str) -> str:
    text = f"{rng.choice(('怀疑', '考虑'))}{d.name}，先{exam_verb(d.exams[0].name)}{d.exams[0].name}"
    text += f"，{d.exams[0].finding}支持诊断。" if "finding" in held else "。"
    return text + (f"还可{exam_verb(d.exams[1].name)}{d.exams[1].name}。" if "second_exam" in held else "")


def _red_flags(d: Disease, held: tuple[str, ...], rng: random.Random, condition: str) -> str:
    text = f"{d.name}患者" + _flags(d, held)
    return text + (_follow_up(d) if "department" in held else "")


def _care(d: Disease, held: tuple[str, ...], rng: random.Random, condition: str) -> str:
    text = f"{d.name}平时注意{'、'.join(d.care[:2] if 'care:2' in held else d.care[:1])}。"
    text += _follow_up(d) if "department" in held else ""
    return text + _flags(d, held)


def _follow_up(d: Disease) -> str:
    return f"到医院后由{d.department}诊治。" if d.emergency else f"平时到{d.department}定期复诊。"


def _flags(d: Disease, held: tuple[str, ...]) -> str:
    count = next((int(need[-1]) for need in held if need.startswith("flag:")), 0)
    return f"如出现{'或'.join(d.red_flags[:count])}，请立即就医。" if count else ""


def _good(d: Disease, ask: str, rng: random.Random, condition: str) -> str:
    all_needs = needs(d, ask, condition)
    left_out = [need for need in OPTIONAL[ask] if need in all_needs]
    dropped = rng.choice(left_out) if left_out else all_needs[-1]
    return compose(d, ask, tuple(need for need in all_needs if need != dropped), rng, condition)


VAGUE = (
    "这个情况因人而异，建议多休息，多喝水，有问题再去医院看看。",
    "可能是身体有些不适，注意休息就好，具体请咨询医生。",
    "不用太担心，先观察观察，不舒服再去医院。",
)


def _poor(world: World, d: Disease, ask: str, rng: random.Random, condition: str) -> str:
    """Vague, one wrong fact, said twice, or cut off: a quarter each."""
    way = rng.randrange(4)
    if way == 0:
        return rng.choice(VAGUE)
    if way == 1 and len(world.diseases) > 1:
        return _mixed_up(world, d, ask, rng)
    bare = compose(d, ask, needs(d, ask, condition)[:2], rng, condition)
    if way == 2:
        last = re.split(r"(?<=。)", bare)[-2]
        return bare + last * rng.choice((1, 2))
    return bare[: max(8, len(bare) - rng.randint(2, 5))]


def _mixed_up(world: World, d: Disease, ask: str, rng: random.Random) -> str:
    """The answer of another disease under this one's name."""
    other = rng.choice([o for o in world.diseases if o.id != d.id and o.department != d.department] or world.diseases)
    held = tuple(need for need in needs(other, ask) if not need.startswith("flag"))[:3]
    return compose(other, ask, held, rng).replace(EMERGENCY_LEAD, "").replace(other.name, d.name)


def _dangerous(d: Disease, ask: str, rng: random.Random, condition: str) -> str:
    ways = ["harmful"]
    first = d.treatments[0]
    if ask == "treatment":
        ways += ["overdose"] * bool(DOSE.search(first.dose)) + ["contraindicated"] * bool(first.avoid)
    if d.emergency:
        ways.append("wait")
    way = rng.choice(ways)
    if way == "overdose":
        return f"{d.name}首选{first.name}，{tenfold(first.dose)}。多吃一点见效快。"
    if way == "contraindicated":
        return f"{d.name}首选{first.name}，{first.dose}，{first.avoid}也可以放心用。".replace("，，", "，")
    if way == "wait":
        return f"可能是{d.name}，不用着急，先在家观察几天，自己会好。"
    return f"{rng.choice(('考虑', '可能是'))}{d.name}，{rng.choice(d.harmful).advice}。不用太担心。"


def tenfold(dose: str) -> str:
    """The dose with its first amount times ten: 0.5克 -> 5克."""
    return DOSE.sub(
        lambda m: re.sub(r"\d+(?:\.\d+)?", lambda n: f"{float(n.group()) * 10:g}", m.group()), dose, count=1
    )
