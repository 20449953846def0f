import shutil
from pathlib import Path

import pytest

from xinglin.data.ward.world import World, load_world
from xinglin.records import InputError

FIXTURE = Path(__file__).parent / "fixture"


def test_the_fixture_loads_and_gives_lexicons(world: World) -> None:
    assert sorted(world.by_id) == [
        "acute_myocardial_infarction",
        "acute_tonsillitis",
        "allergic_rhinitis",
        "hypertension",
    ]
    assert world.drug_names == {"氨氯地平", "缬沙坦", "阿司匹林", "阿莫西林", "阿奇霉素", "氯雷他定"}
    assert "急诊冠状动脉介入治疗" in world.treatment_names - world.drug_names
    assert world.department_names == {"心血管内科", "耳鼻咽喉科"}
    assert {"心电图", "血常规"} <= world.exam_names
    assert {"高血压", "高血压病", "心梗"} <= world.disease_names
    assert [fact.statement for fact in world.facts][0] == "法国的首都是巴黎。"
    assert world.safety[0].must == (("不要自行停", "不能自行停"), ("医生", "就医"))


def test_subset_keeps_facts_and_order(world: World) -> None:
    small = world.subset(["hypertension", "acute_tonsillitis"])
    assert [d.id for d in small.diseases] == ["acute_tonsillitis", "hypertension"]
    assert small.facts == world.facts


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    icd10: I10\n", "    icd10: I10\n    icd11: BA00\n", ["hypertension", "icd11", "allowed"]),
        ("    icd10: I10\n", "", ["hypertension", "icd10", "missing"]),
        ("age: [35, 80]", "age: [80, 35]", ["hypertension", "patients", "age"]),
        ("{sex: any, age: [35", "{sex: both, age: [35", ["hypertension", "sex", "'both'", "female"]),
        ("dose: 5毫克每日1次口服, ", "dose: null, ", ["hypertension", "treatments[0]", "dose"]),
        ("kind: procedure", "kind: surgery", ["acute_myocardial_infarction", "kind", "procedure"]),
        ("emergency: true", "emergency: 'yes'", ["acute_myocardial_infarction", "emergency", "true, false"]),
        ("id: hypertension", "id: acute_tonsillitis", ["acute_tonsillitis", "twice"]),
        ("care: [低盐饮食, 规律运动, 限酒]", "care: [低盐饮食, 低盐饮食]", ["hypertension", "care", "twice"]),
        ("review: needs", "\treview: needs", ["cardiology.yaml", "not YAML"]),
    ],
)
def test_a_bad_entry_is_one_line_with_file_entry_and_field(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    folder = tmp_path / "knowledge"
    shutil.copytree(FIXTURE, folder)
    file = folder / "cardiology.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_world(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no \\*.yaml"):
        load_world(tmp_path)


def test_a_fact_whose_wrong_answers_hold_the_right_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "knowledge"
    shutil.copytree(FIXTURE, folder)
    file = folder / "general" / "facts.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("里昂", "巴黎", 1), encoding="utf-8")
    with pytest.raises(InputError, match="capital-france.*wrong"):
        load_world(folder)
