"""Instructions from notes: sections and spans, no leak, no fact that the note does not hold, patients kept together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_server import chat_server
from typer.testing import CliRunner

from xinglin.cli import app
from xinglin.data.instruct import KINDS, Made, Refused, instruct, part_of, terms_of, unsupported
from xinglin.data.instruct.sections import sections_of
from xinglin.data.ward.notes import notes as ward_notes
from xinglin.data.ward.world import load_world
from xinglin.records import Conversation, InputError, Note, read_any, write_records

TEXT = """出院记录
姓名：【姓名】 性别：男 年龄：62岁
一、主诉：反复胸闷3天
二、现病史：患者3天前出现胸闷，活动后加重。
三、既往史：糖尿病10年，否认青霉素过敏。
四、体格检查：血压150/95mmHg，心律齐。
五、辅助检查：心电图示ST段压低；肌钙蛋白0.02ng/ml。
六、初步诊断：1.冠心病（I25.1） 2.高血压病2级
七、诊疗经过：予阿司匹林100mg口服，每日一次，症状好转。
八、出院医嘱：阿司匹林肠溶片100mg 每日一次 口服；低盐低脂饮食；2周后心内科复诊
医师签名：【医生】"""
NOTE = Note("n1", "p1", "discharge", TEXT, meta={"deidentified": "v1"})


def outcomes(note: Note) -> dict[str, Made | Refused]:
    return dict(zip(KINDS, instruct([note], list(KINDS)), strict=True))


def made(note: Note, kind: str) -> Conversation:
    outcome = outcomes(note)[kind]
    assert isinstance(outcome, Made), outcome
    return outcome.conversation


def test_sections_are_cut_where_they_stand() -> None:
    found = {name: [section.text for section in sections] for name, sections in sections_of(NOTE).items()}
    assert found == {
        "complaint": ["反复胸闷3天"],
        "history": ["患者3天前出现胸闷，活动后加重"],
        "past": ["糖尿病10年，否认青霉素过敏"],
        "signs": ["血压150/95mmHg，心律齐"],
        "exams": ["心电图示ST段压低；肌钙蛋白0.02ng/ml"],
        "diagnosis": ["1.冠心病（I25.1） 2.高血压病2级"],
        "course": ["予阿司匹林100mg口服，每日一次，症状好转"],
        "discharge": ["阿司匹林肠溶片100mg 每日一次 口服；低盐低脂饮食；2周后心内科复诊"],
    }
    for sections in sections_of(NOTE).values():
        assert all(TEXT[section.start : section.end] == section.text for section in sections)


def test_fields_stand_in_for_missing_sections() -> None:
    fields = {"现病史": "受凉后咳嗽", "diagnosis": "急性支气管炎", "phone": "1"}
    note = Note("n", "p", "outpatient", "主诉：咳嗽2天。", fields)
    found = sections_of(note)
    assert {name: (s[0].text, s[0].field) for name, s in found.items()} == {
        "complaint": ("咳嗽2天", "text"),
        "history": ("受凉后咳嗽", "现病史"),
        "diagnosis": ("急性支气管炎", "diagnosis"),
    }


def test_question_and_answer_come_from_different_sections() -> None:
    for kind in ("diagnosis_suggestion", "record_summary", "examination_interpretation", "medication_advice"):
        meta = made(NOTE, kind).meta
        asked, answered = (
            {(span["field"], span["start"]) for span in meta[name]} for name in ("question_spans", "answer_spans")
        )
        assert asked and answered and not asked & answered
        assert meta["deidentified"] == "v1" and meta["patient_id"] == "p1"


def test_answers_are_the_notes_own() -> None:
    said = {kind: made(NOTE, kind).messages[-1].content for kind in KINDS if kind != "treatment_orders"}
    assert said["diagnosis_suggestion"] == "诊断：1.冠心病（I25.1） 2.高血压病2级。"
    assert said["record_summary"] == "患者男，62岁，因“反复胸闷3天”就诊，诊断为1.冠心病（I25.1） 2.高血压病2级。"
    assert said["medication_advice"] == "阿司匹林肠溶片100mg 每日一次 口服。"
    assert said["discharge_education"] == "低盐低脂饮食；2周后心内科复诊。"
    assert outcomes(NOTE)["treatment_orders"] == Refused("n1", "treatment_orders", "no_orders")
    for kind in said:
        assert "姓名" not in made(NOTE, kind).messages[0].content


@pytest.mark.parametrize("past", ["既往冠心病史", "外院诊断高血压，服药中", "既往史无殊，冠心病待排"])
def test_a_question_that_names_its_answer_is_refused(past: str) -> None:
    note = Note("n", "p", "outpatient", TEXT.replace("糖尿病10年", past), meta=NOTE.meta)
    found = outcomes(note)["diagnosis_suggestion"]
    assert isinstance(found, Refused) and found.reason == "target_in_question"


def test_missing_parts_are_counted_reasons() -> None:
    found = outcomes(Note("n", "p", "progress", "今日查房，一般情况可。"))
    assert all(isinstance(outcome, Refused) and outcome.reason.startswith("no_") for outcome in found.values())
    nobody = outcomes(Note("n", "", "discharge", TEXT))["diagnosis_suggestion"]
    assert isinstance(nobody, Refused) and nobody.reason == "no_patient_id"


TERMS = terms_of([("disease", ("冠心病", "冠状动脉粥样硬化性心脏病")), ("drug", ("倍他乐克", "美托洛尔"))])


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("考虑冠状动脉粥样硬化性心脏病，血压150/95mmHg。", []),
        ("阿司匹林100毫克，一日1次，口服。", []),
        ("1. 复查心电图\n2. 两周后复诊", []),
        ("阿司匹林10mg每日一次。", ["number"]),
        ("阿司匹林100g每日一次。", ["number"]),
        ("阿司匹林100mg，每日三次。", ["number"]),
        ("加用美托洛尔。", ["drug"]),
        ("加用阿托伐他汀。", ["drug"]),
        ("合并慢性胃炎。", ["disease"]),
        ("建议完善冠脉造影。", ["examination"]),
    ],
)
def test_what_the_note_does_not_hold_is_seen(answer: str, wrong: list[str]) -> None:
    assert unsupported(answer, TEXT, TERMS) == wrong


def test_patients_are_kept_together() -> None:
    parts = {f"p{n}": part_of(f"p{n}", 0.2, "key") for n in range(2000)}
    assert 330 <= sum(part == "valid" for part in parts.values()) <= 470  # 400 +- 4 standard deviations
    assert parts["p7"] == part_of("p7", 0.2, "key")
    assert any(part_of(p, 0.2, "other") != part for p, part in parts.items())
    assert {part_of(p, 0.0, "key") for p in parts} == {"train"}


def test_ward_notes_give_all_six_kinds_without_leaks() -> None:
    world = load_world()
    notes = list(ward_notes(world, 200, 5))
    diagnosis = {note.id: note.fields["diagnosis"] for note in notes}
    found = list(instruct(notes, list(KINDS)))
    assert len(found) == 200 * 6
    kept = [outcome.conversation for outcome in found if isinstance(outcome, Made)]
    assert {c.meta["task_type"] for c in kept} == set(KINDS)
    identifiers = {n.id: {e.text for e in n.entities if e.type in ("name", "phone", "id_card", "mrn")} for n in notes}
    for c in kept:
        question = c.messages[0].content
        assert c.meta["task_type"] != "diagnosis_suggestion" or diagnosis[c.meta["note_id"]] not in question
        assert not any(word in m.content for m in c.messages for word in identifiers[c.meta["note_id"]])


# --- the command -----------------------------------------------------------------------------------------------------


def run(*args: object) -> dict[str, object]:
    result = CliRunner().invoke(app, ["data", "instruct", *map(str, args), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    notes = [Note(f"n{n}", f"p{n // 2}", "discharge", TEXT, meta=NOTE.meta) for n in range(40)]
    write_records(tmp_path / "notes.jsonl", notes)
    return tmp_path / "notes.jsonl"


def test_the_command_accounts_for_every_pair(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(source, "--out", out, "--valid-share", 0.3)
    assert (report["notes"], report["read"], report["accepted"]) == (40, 240, 200)
    assert report["rejected"] == {"treatment_orders: no_orders": 40}
    people = [{r.meta["patient_id"] for r in read_any(out / f"{name}.jsonl")} for name in ("train", "valid")]  # type: ignore[union-attr]
    assert people[0] and people[1] and not people[0] & people[1] and len(people[0] | people[1]) == 20


def test_raw_notes_are_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "raw.jsonl", [Note("n1", "p1", "discharge", TEXT)])
    with pytest.raises(InputError, match="no mark of de-identification"):
        run(tmp_path / "raw.jsonl", "--out", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert run(tmp_path / "raw.jsonl", "--out", tmp_path / "out", "--allow-raw")["accepted"] == 5
    with pytest.raises(InputError, match="'nope'"):
        run(tmp_path / "raw.jsonl", "--out", tmp_path / "o", "--kinds", "nope")


def test_a_models_answer_is_checked_against_the_note(source: Path, tmp_path: Path) -> None:
    def answer(material: dict[str, object]) -> str:
        invented = material["kind"] == "medication_advice"
        said = "阿司匹林肠溶片100mg每日一次口服，另加阿托伐他汀20mg。" if invented else "应考虑冠心病和高血压病2级。"
        return json.dumps({"answer": said}, ensure_ascii=False)

    out = tmp_path / "out"
    with chat_server(answer) as (url, asked):
        args = ("--kinds", "diagnosis_suggestion,medication_advice", "--url", url, "--model", "m")
        report = run(source, "--out", out, *args)
    assert report["made"] == {"diagnosis_suggestion": 40}
    assert report["rejected"] == {"medication_advice: unsupported_number": 40}
    rejected = list(read_any(out / "rejected.jsonl"))
    assert len(rejected) == 40 and rejected[0].meta["rejected"] == "unsupported_number"  # type: ignore[union-attr]
    assert asked
