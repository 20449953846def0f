"""Instructions and tasks made from the ward: what a hospital's records and texts are turned into.

note_tasks(world, ...)     six kinds of instruction from a note's clinical part (no identifier in it)
entity_texts(world, ...)   labelled sentences; entity_conversations turn them into "实体\\t类型" lists
exam_questions(world, ...) four options of one kind, balanced keys; exam_conversations answer with letter and option
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from xinglin.data.ward.notes import Piece, assemble, case_text, plan_text
from xinglin.data.ward.patients import Patient, draw_patient
from xinglin.data.ward.world import Disease, Fact, World
from xinglin.records import Conversation, EntityText, ExamQuestion, Message, record_id

# ---- six instructions from a note (IIMedGPT's kinds) ---------------------------------------------------------------

LEAD = {True: "情况紧急，应立即抢救。", False: ""}


def _suggest_diagnosis(d: Disease, p: Patient) -> str:
    return f"{LEAD[d.emergency]}考虑{d.name}。依据：{'、'.join(d.signs)}，{d.exams[0].name}示{d.exams[0].finding}。"


def _order_treatment(d: Disease, p: Patient) -> str:
    return f"{LEAD[d.emergency]}{plan_text(d, p.condition)}。{'，'.join(d.care[:2])}。"


def _summarise(d: Disease, p: Patient) -> str:
    return f"{p.sex}性，{p.age}岁，{'、'.join(p.symptoms)}{p.duration}，查体{'，'.join(d.signs)}，诊断{d.name}。"


def _interpret_exam(d: Disease, p: Patient) -> str:
    exam = d.exams[0]
    normal = f"（正常结果：{exam.reference}）" if exam.reference else ""
    return f"{exam.name}：{exam.finding}{normal}，支持{d.name}。"


def _advise_medication(d: Disease, p: Patient) -> str:
    first = d.treatments[0]
    avoid = f"{first.avoid}者禁用{first.name}。" if first.avoid else ""
    return f"{plan_text(d, p.condition)}。{avoid}请遵医嘱，不要自行停药或加量。"


def _educate_discharge(d: Disease, p: Patient) -> str:
    return f"出院后注意{'、'.join(d.care[:3])}。如出现{'、'.join(d.red_flags)}，请立即就医。到{d.department}定期复诊。"


NOTE_TASKS: dict[str, tuple[tuple[str, ...], Callable[[Disease, Patient], str]]] = {
    "diagnosis_suggestion": (("给出诊断建议。", "考虑什么诊断？", "请分析病历并提出初步诊断。"), _suggest_diagnosis),
    "treatment_orders": (("请开出治疗医嘱。", "请给出这位患者的治疗方案。", "应如何处理？"), _order_treatment),
    "record_summary": (("请用一句话概括这份病历。", "总结病历要点。", "请写出病历摘要。"), _summarise),
    "exam_interpretation": (("请解读病历中的检查结果。", "检查结果说明什么？", "帮忙解释关键检查。"), _interpret_exam),
    "medication_advice": (("请给出用药指导。", "这位患者用药要注意什么？", "请说明怎么用药。"), _advise_medication),
    "discharge_education": (("请写出院宣教。", "患者出院时应交代什么？", "请给患者写出院指导。"), _educate_discharge),
}  # fmt: skip


def note_tasks(world: World, count: int, split: str, seed: int) -> Iterator[Conversation]:
    rng = random.Random(f"{seed}/{split}/note-tasks")
    kinds = list(NOTE_TASKS)
    for number in range(count):
        disease = world.diseases[rng.randrange(len(world.diseases))]
        patient = draw_patient(disease, rng, record_id("patient", seed, split, "note-task", number), 0.1)
        kind = kinds[number % len(kinds)]
        instructions, write = NOTE_TASKS[kind]
        named = "" if kind == "diagnosis_suggestion" else f"诊断：{disease.name}。"
        prompt = f"{rng.choice(instructions)}\n病历：{case_text(disease, patient)}{named}"
        meta = {"task_type": kind, "disease": disease.id, "patient_id": patient.id, "split": split}
        yield _conversation(f"ward-{kind}", patient.id, prompt, write(disease, patient), meta)


def _conversation(source: str, key: str, prompt: str, text: str, meta: dict[str, str]) -> Conversation:
    messages = (Message("user", prompt), Message("assistant", text))
    return Conversation(record_id(source, key, prompt), messages, "ward", meta)


# ---- entities ------------------------------------------------------------------------------------------------------

ENTITY_TYPES = {"disease": "疾病", "symptom": "症状", "drug": "药物", "test": "检查", "department": "科室"}
# {d} disease, {s} {t} symptoms, {m} drug, {x} test, {k} department. The last two are kept for tests.
ENTITY_SENTENCES = (
    "患者因{s}、{t}就诊于{k}，诊断为{d}，予{m}治疗。",
    "{d}常有{s}，首选{m}。",
    "{k}医生建议先做{x}，排除{d}。",
    "{x}提示异常，结合{s}，考虑{d}。",
    "服用{m}后{s}减轻，{t}仍在。",
    "门诊以{s}收入{k}，完善{x}。",
    "既往有{d}病史，长期使用{m}。",
    "{s}伴{t}的患者要警惕{d}，可查{x}。",
    "近来出现{s}，在{k}做了{x}，医生说是{d}。",
    "目前诊断{d}，{t}明显，已用{m}，拟复查{x}。",
)


def entity_texts(world: World, count: int, split: str, seed: int, held_out: bool) -> Iterator[EntityText]:
    rng = random.Random(f"{seed}/{split}/entities")
    sentences = ENTITY_SENTENCES[-2:] if held_out else ENTITY_SENTENCES[:-2]
    for number in range(count):
        disease = world.diseases[rng.randrange(len(world.diseases))]
        text, entities = assemble(_entity_pieces(rng.choice(sentences), disease, rng))
        meta = {"disease": disease.id, "split": split}
        yield EntityText(record_id("ward-entity", seed, split, number), text, entities, "ward", meta)


def _entity_pieces(sentence: str, d: Disease, rng: random.Random) -> list[Piece]:
    drugs = [item.name for item in d.treatments if item.kind == "drug"]
    if not drugs:
        sentence = sentence.replace("，首选{m}", "").replace("，予{m}治疗", "").replace("，长期使用{m}", "")
        sentence = sentence.replace("，已用{m}", "").replace("服用{m}后", "休息后")
    one, two = rng.sample(d.symptoms, 2)
    slots = {
        "{d}": ("disease", rng.choice(d.names)),
        "{s}": ("symptom", one),
        "{t}": ("symptom", two),
        "{m}": ("drug", rng.choice(drugs) if drugs else ""),
        "{x}": ("test", rng.choice(d.exams).name),
        "{k}": ("department", d.department),
    }
    pieces: list[Piece] = []
    for part in sentence.replace("{", "\x00{").replace("}", "}\x00").split("\x00"):
        pieces.append(slots.get(part, part))
    return pieces


def entity_conversations(texts: Iterable[EntityText]) -> Iterator[Conversation]:
    """The model lists one "实体<TAB>类型" a line, in the order of the text."""
    for item in texts:
        lines = [f"{entity.text}\t{ENTITY_TYPES[entity.type]}" for entity in item.entities]
        prompt = f"找出句子中的疾病、症状、药物、检查、科室，每行写一个“实体\t类型”。\n{item.text}"
        meta = {**item.meta, "task_type": "entities"}
        yield _conversation("ward-entities", item.id, prompt, "\n".join(dict.fromkeys(lines)), meta)


# ---- exam questions ------------------------------------------------------------------------------------------------

LETTERS = "ABCD"
# subject: (stem, the right option of a disease). The wrong ones are the right ones of other diseases.
EXAM_KINDS: dict[str, tuple[str, Callable[[Disease], str]]] = {
    "treatment": ("{n}的首选治疗是", lambda d: d.treatments[0].name),
    "exam": ("诊断{n}首先要做的检查是", lambda d: d.exams[0].name),
    "department": ("{n}患者应就诊的科室是", lambda d: d.department),
    "red_flags": ("与{n}关系最密切的危险信号是", lambda d: d.red_flags[0]),
    "diagnosis": ("患者{s}，查体{g}，最可能的诊断是", lambda d: d.name),
    "care": ("与{n}关系最密切的日常注意事项是", lambda d: d.care[0]),
}
EXAM_TEST_SHARE = 0.4


def exam_part(disease: Disease, kind: str) -> str:
    """A stem belongs to train or to test for ever: tests never ask what was trained."""
    return "test" if int(record_id("part", disease.id, kind)[-6:], 16) / 16**6 < EXAM_TEST_SHARE else "train"


def exam_questions(world: World, unseen: World, count: int, split: str, part: str, seed: int) -> Iterator[ExamQuestion]:
    """`count` questions with one stem once, fewer where stems run out. `part`: train, or test, which also asks every
    stem of the `unseen` diseases. Keys go round ABCD."""
    rng = random.Random(f"{seed}/{split}/exam")
    pairs = [(d, kind) for d in world.diseases for kind in EXAM_KINDS]
    own = [(d, kind) for d, kind in pairs if ("test" if d.id in unseen.by_id else exam_part(d, kind)) == part]
    for number, (disease, kind) in enumerate(rng.sample(own, min(count, len(own)))):
        yield _exam_question(world, disease, kind, LETTERS[number % 4], split, f"{seed}/{number}", rng)


def _exam_question(
    world: World, d: Disease, kind: str, key: str, split: str, id: str, rng: random.Random
) -> ExamQuestion:
    stem, right = EXAM_KINDS[kind]
    asked = stem.format(n=d.name, s="、".join(d.symptoms[:3]), g="，".join(d.signs))
    truths = {right(d), *d.own_texts()}
    others = sorted({right(o) for o in world.diseases} - truths)
    wrong = rng.sample(others, min(3, len(others)))
    wrong += ["以上都不是", "需要进一步观察", "不需要处理"][: 3 - len(wrong)]
    options = dict(zip((letter for letter in LETTERS if letter != key), wrong, strict=True)) | {key: right(d)}
    return ExamQuestion(
        id=record_id("ward-exam", split, id),
        question=asked + "（　）。",
        options={letter: options[letter] for letter in LETTERS},
        answer=key,
        explanation=f"{asked}{right(d)}。",
        subject=kind,
        source="ward",
        meta={"disease": d.id, "split": split},
    )


def fact_exam(facts: Iterable[Fact], seed: int) -> Iterator[ExamQuestion]:
    """General knowledge with four options: what fine-tuning must not forget."""
    for number, fact in enumerate(facts):
        rng = random.Random(f"{seed}/fact-exam/{fact.id}")
        key = LETTERS[number % 4]
        letters = [letter for letter in LETTERS if letter != key]
        options = dict(zip(letters, rng.sample(fact.wrong, 3), strict=True)) | {key: fact.answer}
        yield ExamQuestion(
            id=record_id("ward-fact-exam", fact.id),
            question=f"{fact.subject}是（　）。",
            options={letter: options[letter] for letter in LETTERS},
            answer=key,
            explanation=fact.statement,
            subject="general",
            source="ward",
            meta={"fact": fact.id, "topic": fact.topic},
        )


def exam_prompt(item: ExamQuestion) -> str:
    options = "\n".join(f"{letter}.{text}" for letter, text in item.options.items())
    return f"{item.question}\n{options}\n请选出正确答案。"


def exam_conversations(items: Iterable[ExamQuestion]) -> Iterator[Conversation]:
    for item in items:
        text = f"{item.answer}。{item.explanation}"
        yield _conversation("ward-exam-task", item.id, exam_prompt(item), text, {**item.meta, "task_type": "exam"})
