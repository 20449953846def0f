"""Outpatient and inpatient notes in a hospital's style, with planted identifiers and their exact spans.

    notes(world, count, seed)    outpatient, admission, progress and discharge notes as `Note`s
    case_text(disease, patient)  the clinical part of a note, which holds no identifier; instructions are made of it

Span types: name, id_card, phone, address, mrn, bed, doctor, hospital, date.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator

from xinglin.data.ward.answers import chosen_treatment
from xinglin.data.ward.identifiers import Identity, draw_identity, person
from xinglin.data.ward.patients import Patient, draw_patient
from xinglin.data.ward.world import Disease, World
from xinglin.records import Entity, Note, record_id

KINDS = ("outpatient", "admission", "progress", "discharge")
Piece = str | tuple[str, str]  # plain text, or (span type, text)


def chief_complaint(patient: Patient) -> str:
    return f"{'、'.join(patient.symptoms)}{patient.duration}"


def exam_text(disease: Disease) -> str:
    return "；".join(f"{exam.name}：{exam.finding}" for exam in disease.exams[:2])


def plan_text(disease: Disease, condition: str = "") -> str:
    """The treatment that the chart allows, with its dose."""
    item = chosen_treatment(disease, condition)
    if item is None:
        return f"因{condition}不用{disease.treatments[0].name}，请上级医师会诊后用药"
    return f"{item.name}{'，' + item.dose if item.dose else ''}"


def case_text(disease: Disease, patient: Patient, with_exams: bool = True) -> str:
    """Who, complaint, history, examination, results: no name, no number of a person, no date."""
    parts = [
        f"患者{patient.sex}性，{patient.age}岁。",
        f"主诉：{chief_complaint(patient)}。",
        f"现病史：患者{patient.duration}前出现{'、'.join(patient.symptoms)}，自觉{'、'.join(patient.complaints)}。",
        f"既往史：{patient.condition or '无特殊'}。",
        f"查体：{'，'.join(disease.signs)}。",
    ]
    return "".join(parts) + (f"辅助检查：{exam_text(disease)}。" if with_exams else "")


def assemble(pieces: list[Piece]) -> tuple[str, tuple[Entity, ...]]:
    """Text and spans of the marked pieces."""
    text, entities = "", []
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
        else:
            entities.append(Entity(len(text), len(text) + len(piece[1]), piece[0], piece[1]))
            text += piece[1]
    return text, tuple(entities)


def notes(world: World, count: int, seed: int) -> Iterator[Note]:
    """`count` notes, the four kinds in turn; the three inpatient notes that follow each other share one patient."""
    for number in range(count):
        stay = number // len(KINDS)
        rng = random.Random(f"{seed}/notes/{stay}")
        disease = world.diseases[rng.randrange(len(world.diseases))]
        patient = draw_patient(disease, rng, record_id("patient", seed, "notes", stay), 0.1)
        day = datetime.date(2023, 1, 1) + datetime.timedelta(days=rng.randrange(700))
        identity = draw_identity(patient.sex, patient.age, day, rng)
        kind = KINDS[number % len(KINDS)]
        pieces = {"outpatient": _outpatient, "admission": _admission, "progress": _progress, "discharge": _discharge}
        text, entities = assemble(pieces[kind](disease, patient, identity, day, rng))
        yield Note(
            id=record_id("ward-note", patient.id, kind),
            patient_id=patient.id,
            kind=kind,
            text=text,
            fields=_fields(disease, patient, identity, day),
            entities=entities,
            source="ward",
            meta={"disease": disease.id, "department": disease.department},
        )


def _fields(d: Disease, p: Patient, who: Identity, day: datetime.date) -> dict[str, str]:
    return {
        "name": who.name,
        "sex": p.sex,
        "age": str(p.age),
        "id_card": who.id_card,
        "phone": who.phone,
        "mrn": who.mrn,
        "visit_date": day.isoformat(),
        "department": d.department,
        "chief_complaint": chief_complaint(p),
        "history": p.condition or "无特殊",
        "exam": exam_text(d),
        "diagnosis": d.name,
        "icd10": d.icd10,
        "orders": plan_text(d, p.condition),
    }


def _date(day: datetime.date, rng: random.Random) -> tuple[str, str]:
    styles = ("{0}-{1:02d}-{2:02d}", "{0}年{1}月{2}日", "{0}/{1:02d}/{2:02d}", "{0}.{1}.{2}")
    return "date", rng.choice(styles).format(day.year, day.month, day.day)


def _outpatient(d: Disease, p: Patient, who: Identity, day: datetime.date, rng: random.Random) -> list[Piece]:
    return [
        *(("hospital", who.hospital), f" 门诊病历\n科别：{d.department}  就诊日期：", _date(day, rng)),
        *("\n姓名：", ("name", who.name), f"  性别：{p.sex}  年龄：{p.age}岁  门诊号：", ("mrn", who.mrn)),
        *("\n身份证号：", ("id_card", who.id_card), "  联系电话：", ("phone", who.phone)),
        *("\n住址：", ("address", who.address), f"\n{case_text(d, p)}"),
        f"\n初步诊断：{d.name}\n处理：{plan_text(d, p.condition)}。{'，'.join(d.care)}。不适随诊。",
        *("\n医师签名：", ("doctor", who.doctor)),
    ]


def _admission(d: Disease, p: Patient, who: Identity, day: datetime.date, rng: random.Random) -> list[Piece]:
    teller: list[Piece] = [("name", who.name), "本人及家属"] if p.age >= 10 else ["家属"]
    return [
        *("入院记录\n", ("hospital", who.hospital), f" {d.department}"),
        *("  床号：", ("bed", who.bed), "  住院号：", ("mrn", who.mrn)),
        *("\n", ("name", who.name), f"，{p.sex}，{p.age}岁，住", ("address", who.address)),
        *("，身份证", ("id_card", who.id_card), "，于", _date(day, rng), "入院。"),
        *("病史由", *teller, ("name", person(rng)), "提供，电话", ("phone", who.phone)),
        f"。\n{case_text(d, p)}\n初步诊断：{d.name}（{d.icd10}）。鉴别诊断：{'、'.join(d.differential)}。",
        f"\n诊疗计划：{plan_text(d, p.condition)}；完善{d.exams[-1].name}。",
        *("\n住院医师：", ("doctor", who.doctor)),
    ]


def _progress(d: Disease, p: Patient, who: Identity, day: datetime.date, rng: random.Random) -> list[Piece]:
    later = day + datetime.timedelta(days=rng.randint(1, 3))
    clock = f"{rng.randint(8, 11):02d}:{rng.randrange(60):02d}"
    return [
        *("病程记录\n", _date(later, rng), f" {clock}  ", ("bed", who.bed), " ", ("name", who.name)),
        *("\n今日", ("doctor", who.doctor), f"主任医师查房：患者{'、'.join(p.symptoms)}较前好转。"),
        f"查体：{'，'.join(d.signs)}，较入院时减轻。辅助检查回报：{exam_text(d)}。",
        f"分析：结合病史与检查，诊断{d.name}明确，继续{plan_text(d, p.condition)}，",
        f"注意有无{'、'.join(d.red_flags)}。",
        *("已与家属", ("name", person(rng)), "（电话", ("phone", who.phone), "）沟通病情。"),
    ]


def _discharge(d: Disease, p: Patient, who: Identity, day: datetime.date, rng: random.Random) -> list[Piece]:
    out = day + datetime.timedelta(days=rng.randint(5, 12))
    plan = plan_text(d, p.condition)
    return [
        *("出院小结\n姓名：", ("name", who.name), "  住院号：", ("mrn", who.mrn), "  床号：", ("bed", who.bed)),
        *("\n入院日期：", _date(day, rng), "  出院日期：", _date(out, rng)),
        f"\n入院情况：{case_text(d, p, with_exams=False)}",
        f"\n诊疗经过：{exam_text(d)}。予{plan}，治疗后好转。",
        f"\n出院诊断：{d.name}\n出院医嘱：{plan}；{'，'.join(d.care)}；",
        f"如出现{'、'.join(d.red_flags)}，请立即就医。",
        *("\n医师：", ("doctor", who.doctor), "  ", ("hospital", who.hospital)),
    ]
