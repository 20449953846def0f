"""Which pool a public record belongs to, how long it may be, which texts it holds, and the form it is trained in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from xinglin.data.texts import normal
from xinglin.records import (
    Conversation,
    Document,
    EntityText,
    ExamQuestion,
    Message,
    Preference,
    Question,
    Record,
    Rollout,
)

MAX_CHARS = {"prompt": 300, "answer": 200, "conversation": 800, "compared answer": 400, "document": 600}
MOST_ANSWERS = 4
SHORTEST_KEY = 10  # below that a line ("谢谢") is nobody's own
GENERAL = re.compile(r"alpaca|belle|firefly", re.I)
TOOLS = re.compile(r"glaive|tool", re.I)
MODEL_WRITTEN = re.compile(r"bencao|llama_data|gpt|disc_?med", re.I)  # their answers are no doctor's
DEV = re.compile(r"(?:^|[/_.-])dev(?:[/_.-]|$)", re.I)
TEST = re.compile(r"(?:^|[/_.-])test(?:[/_.-]|$)", re.I)
HELD_OUT = re.compile(r"(?:^|[/_.-])(?:dev|val|valid|test)(?:[/_.-]|$)", re.I)
MEDICAL_SUBJECTS = {
    *("anatomy", "clinical_knowledge", "college_medicine", "college_medical_statistics", "genetics"),
    *("human_sexuality", "nutrition", "professional_medicine", "professional_psychology"),
    *("traditional_chinese_medicine", "virology", "basic_medicine", "physician"),
}
SAFETY_SUBJECTS = {
    *("Offensiveness", "Unfairness and Bias", "Physical Health", "Mental Health", "Illegal Activities"),
    *("Ethics and Morality", "Privacy and Property"),
}
# As the evaluation asks (evals/exam.py, evals/entities.py): a test holds the two forms together.
SINGLE_TASK = "以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n"
MULTIPLE_TASK = "以下是关于{subject}的多项选择题，请直接给出全部正确答案的选项。\n\n"
ENTITY_TASK = "找出句子中的{types}，每行写一个“实体\t类型”。\n{text}"
TYPE_NAMES = {
    **{"disease": "疾病", "symptom": "症状", "drug": "药物", "test": "检查", "department": "科室", "body": "部位"},
    **{"treatment": "治疗", "crowd": "人群", "physiology": "生理", "feature": "特征", "time": "时间"},
}


# --- which pool ------------------------------------------------------------------------------------------------------


def pool_of(record: Record, place: str) -> str:
    """The pool of a record, or "not used: <why>". `place` is data set and file: some sets are told by name alone."""
    if isinstance(record, Document):
        kind = "word list" if record.meta.get("kind") == "lexicon" else "triple" if "triple" in record.meta else ""
        return f"not used: {kind}" if kind else "documents"
    if isinstance(record, Conversation):
        return _conversation_pool(record, place)
    if isinstance(record, ExamQuestion):
        return _exam_pool(record, place)
    if isinstance(record, Question):
        if record.kind == "safety":
            return "safety"
        return "doctor" if record.reference else f"not used: {record.kind or 'question'} without a reference answer"
    if isinstance(record, Preference):
        return "retrieval" if record.meta.get("schema") in ("cmedir", "answer_labels") else "preferences"
    if isinstance(record, EntityText):
        return "entities_test" if HELD_OUT.search(place) else "entities"
    if isinstance(record, Rollout) and record.scores and record.meta.get("scope") == "dialogue":
        return "judge's score"
    return f"not used: {type(record).__name__.lower()}"


def _conversation_pool(record: Conversation, place: str) -> str:
    if record.meta.get("model"):
        return "judged dialogue"
    if record.meta.get("schema") == "prompt_target":
        return "not used: task of a benchmark"
    if TOOLS.search(place):
        return "not used: tool dialogue"
    if GENERAL.search(place):
        return "general"
    if sum(message.role == "assistant" for message in record.messages) > 1:
        return "multi"
    return "model_written" if MODEL_WRITTEN.search(place) else "doctor"


def _exam_pool(record: ExamQuestion, place: str) -> str:
    if record.meta.get("schema") in ("question_pair", "text_class"):
        return "not used: paraphrase or class label"
    if record.subject in SAFETY_SUBJECTS or "safetybench" in place.lower():
        return "safety_exam"
    part = "_dev" if DEV.search(place) else "_test" if TEST.search(place) else ""
    if re.search(r"mmlu|ceval", place, re.I) and record.subject not in MEDICAL_SUBJECTS:
        return f"general_exam{part or '_test'}"
    return f"exam{part}"


# --- how long --------------------------------------------------------------------------------------------------------


def too_long(record: Record, limits: Mapping[str, int]) -> int:
    """The limit in characters that the record breaks, 0 when it keeps all."""
    return next((limits[name] for name, count in _lengths(record) if count > limits[name]), 0)


def _lengths(record: Record) -> Iterable[tuple[str, int]]:
    if isinstance(record, Document):
        yield "document", len(record.text)
    elif isinstance(record, Conversation):
        yield from (("answer" if m.role == "assistant" else "prompt", len(m.content)) for m in record.messages)
        yield "conversation", sum(len(message.content) for message in record.messages)
    elif isinstance(record, Preference):
        yield "prompt", sum(len(message.content) for message in record.prompt)
        yield from (("compared answer", len(answer.text)) for answer in record.answers)
    elif isinstance(record, Question):
        yield from (("prompt", sum(len(m.content) for m in record.prompt)), ("answer", len(record.reference)))
    elif isinstance(record, ExamQuestion):
        yield "prompt", len(exam_prompt(record))
    elif isinstance(record, EntityText):
        yield from (("prompt", len(record.text)), ("answer", len(entity_lines(record))))


# --- which texts -----------------------------------------------------------------------------------------------------


def keys_of(record: Record) -> tuple[str, ...]:
    """The record's identity first (two records that share it are duplicates), then every text of its question (whole,
    and each longer line) that must not stand in another split."""
    texts = _texts(record)
    identity = normal("\n".join(texts))
    if isinstance(record, ExamQuestion):  # one stem may be asked with other options: another question, the same split
        identity += normal("\n".join(record.options.values()))
    parts = [normal(text) for text in texts[:1]]
    parts += [key for text in texts for line in (text, *text.split("\n")) if len(key := normal(line)) >= SHORTEST_KEY]
    return tuple(dict.fromkeys([identity, *parts]))


def _texts(record: Record) -> list[str]:
    if isinstance(record, Document):
        return [record.text.partition("\n\n")[2] or record.text, record.text.replace("\n", " ")]
    if isinstance(record, Conversation):
        said = [message.content for message in record.messages if message.role == "user"]
        return said or [record.messages[-1].content]
    if isinstance(record, Preference | Question | Rollout):
        return [message.content for message in record.prompt if message.role == "user"] or [record.id]
    if isinstance(record, ExamQuestion):
        return [record.question]
    return [record.text]


# --- which form ------------------------------------------------------------------------------------------------------


def question(record: Record) -> Record:
    """A doctor's single turn as a question with its reference answer."""
    if not isinstance(record, Conversation):
        return record
    *prompt, answer = record.messages
    return Question(record.id, tuple(prompt), answer.content, "consult", record.source, record.meta)


def conversation(record: Record) -> Record:
    if not isinstance(record, Question):
        return record
    messages = (*record.prompt, Message("assistant", record.reference))
    return Conversation(record.id, messages, record.source, record.meta)


def medical(record: Record) -> Record:
    return replace(record, meta={**record.meta, "domain": "medical"})


def general_document(record: Record) -> Record:
    text = "\n".join(message.content for message in cast(Conversation, record).messages)
    return Document(f"{record.id}-text", text, record.source, {**record.meta, "domain": "general"})


def unlabelled_safety(record: Record) -> Record:
    """Nobody has said what a safe answer must or must never say: the lists are empty and `harmful` is absent."""
    return replace(record, meta={**record.meta, "must": [], "never": []})


def exam_prompt(item: ExamQuestion) -> str:
    """Task line, question, options, `答案：`."""
    multiple = bool(item.meta.get("multiple", len(item.answer) > 1))
    task = (MULTIPLE_TASK if multiple else SINGLE_TASK).format(subject=item.subject or "医学")
    lines = [f"{letter}. {text}" for letter, text in item.options.items()]
    return task + "\n".join([item.question.strip(), *lines, "答案："])


def exam_task(record: Record) -> Record:
    """The letters, then the explanation where it is short."""
    item = cast(ExamQuestion, record)
    why = item.explanation if len(item.explanation) <= MAX_CHARS["answer"] else ""
    answer = f"{item.answer}\n{why}".strip()
    return _task(item, exam_prompt(item), answer, "exam")


def entity_types(pools: Mapping[str, Mapping[str, Iterable[Any]]], names: Sequence[str]) -> list[str]:
    """Every type of the entity texts: the named ones in the order of `TYPE_NAMES`, then the others."""
    texts = (candidate.record for name in names for queue in pools[name].values() for candidate in queue)
    found = {entity.type for text in texts for entity in text.entities}
    return [kind for kind in TYPE_NAMES if kind in found] + sorted(found - TYPE_NAMES.keys())


def entity_lines(item: EntityText) -> str:
    ordered = sorted(item.entities, key=lambda entity: (entity.start, entity.end))
    return "\n".join(f"{entity.text}\t{TYPE_NAMES.get(entity.type, entity.type)}" for entity in ordered) or "无"


def entity_task(record: Record, types: Sequence[str]) -> Record:
    item = cast(EntityText, record)
    asked = ENTITY_TASK.format(types="、".join(TYPE_NAMES.get(kind, kind) for kind in types), text=item.text)
    return _task(item, asked, entity_lines(item), "entities")


def _task(item: ExamQuestion | EntityText, prompt: str, answer: str, kind: str) -> Record:
    messages = (Message("user", prompt), Message("assistant", answer))
    return Conversation(item.id, messages, item.source, {**item.meta, "task_type": kind})


def preference(record: Record) -> Record:
    """At most `MOST_ANSWERS` answers: the best ones, and the last of them always a worse one."""
    item = cast(Preference, record)
    order = sorted(range(len(item.ranks)), key=lambda i: item.ranks[i])
    if len(order) <= MOST_ANSWERS:
        return item
    kept = order[: MOST_ANSWERS - 1] + [
        next((i for i in order[MOST_ANSWERS - 1 :] if item.ranks[i] > item.ranks[order[0]]), order[-1])
    ]
    kept.sort()
    meta = {**item.meta, "answers_left_out": len(order) - len(kept)}
    answers, ranks = tuple(item.answers[i] for i in kept), tuple(item.ranks[i] for i in kept)
    return replace(item, answers=answers, ranks=ranks, meta=meta)
