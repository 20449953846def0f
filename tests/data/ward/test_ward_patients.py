import random

from xinglin.data.ward.patients import Patient, PatientSimulator, draw_patient
from xinglin.data.ward.world import World

PATIENT = Patient(
    id="p1",
    disease="acute_tonsillitis",
    who="我女儿",
    sex="女",
    age=9,
    duration="3天",
    complaints=("嗓子疼得厉害", "浑身发烫"),
    symptoms=("咽痛",),
    condition="青霉素过敏",
)


def test_the_patient_answers_what_was_asked(world: World) -> None:
    patient = PatientSimulator(world, PATIENT, max_turns=20)
    assert patient.opening() == "医生您好，我女儿最近嗓子疼得厉害，怎么回事？"
    assert patient.reply("请问这样有多久了？") == "有3天了。"
    assert patient.reply("对什么药过敏吗？") == "青霉素过敏。"
    assert patient.reply("以前有什么病史吗？") == "病历上写着青霉素过敏。"
    assert patient.reply("还有其他不舒服吗？") == "还有浑身发烫。"
    assert patient.reply("哪里不舒服？") == "主要是嗓子疼得厉害、浑身发烫。"
    assert patient.reply("孩子多大年龄？") == "9岁。"
    assert patient.reply("有没有发热？") == "有的。"
    assert patient.reply("有没有胸痛？") == "没有。"
    assert patient.reply("请问持续多久了，还有其他不舒服吗？") == "有3天了，还有浑身发烫。"
    assert patient.reply("请问今天的股票涨了吗？") == "这个不太清楚。"
    assert not patient.ended


def test_the_patient_leaves_after_advice_or_too_many_turns(world: World) -> None:
    patient = PatientSimulator(world, PATIENT, max_turns=2)
    patient.reply("多久了？")
    patient.reply("多久了？")
    assert patient.ended and patient.reply("多久了？") == ""
    patient = PatientSimulator(world, PATIENT)
    assert patient.reply("考虑急性扁桃体炎，建议到耳鼻咽喉科就诊。") == "好的，谢谢医生。"
    assert patient.ended


def test_draws_fit_the_disease_and_the_speaker(world: World) -> None:
    for seed in range(200):
        disease = world.diseases[seed % len(world.diseases)]
        p = draw_patient(disease, random.Random(seed), f"p{seed}", 0.5)
        assert disease.age[0] <= p.age <= disease.age[1]
        assert set(p.complaints) <= set(disease.complaints)
        assert p.who != "我" or p.age >= 14
        assert p.who not in ("我妈妈", "我奶奶", "我女儿") or p.sex == "女"
        assert p.who not in ("我爸爸", "我爷爷", "我儿子") or p.sex == "男"
        assert p.condition in ("", disease.treatments[0].avoid)
