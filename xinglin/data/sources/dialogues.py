"""Rows that become conversations, open questions and documents: one small function per public shape."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from xinglin.data.sources.fields import Rejected, Row, meaning_reversed, messages, role_of, split_turns
from xinglin.records import Answer, Conversation, Document, Message, Question, Record, Rollout, Score

TRUTH = {"1": "true", "2": "false", "3": "uncertain"}
QUESTION = ("question", "query", "prompt", "ask", "instruction", "问题", "提问", "questions", "q", "input")
ANSWER = ("answer", "response", "output", "completion", "答案", "回答", "answers", "reply", "a")
CASE = ("description", "case", "background", "病史")
EXTRA = (
    "department",
    "科室",
    "title",
    "category",
    "domain_en",
    "domain_zh",
    "icd-10",
    "cate1",
    "cate2",
    "related_diseases",
)


def conversation(row: Row, turns: Iterable[tuple[str, Any]], **meta: Any) -> Conversation:
    """The conversation of these turns, refused where its answers carry reversed meanings (R12)."""
    said, ends = messages(row, turns)
    if any(meaning_reversed(message.content) for message in said if message.role == "assistant"):
        raise Rejected("meaning_reversed")
    if "谢" in said[-2].content and len(said[-2].content) < 40 and len(said) > 2:
        row.flag("final_turn_is_thanks")
    return Conversation("", said, meta={**extras(row), **ends, **{k: v for k, v in meta.items() if v}})


def extras(row: Row) -> dict[str, Any]:
    """The columns worth keeping beside the text."""
    found = {name: row.get(name) for name in EXTRA}
    return {name: value for name, value in found.items() if isinstance(value, str) and value.strip()}


def alpaca(row: Row) -> Record:
    """instruction/input/output, with history [[q, a]] and system; the question may itself hold a whole dialogue."""
    question, given = row.text("instruction", "prompt"), row.text("input")
    text = "\n".join(part for part in (question, given) if part)
    raw = row.value.get("instruction")
    inside = split_turns(raw) if isinstance(raw, str) and raw.lstrip().startswith("<") else []
    turns: list[tuple[str, Any]] = [("system", row.get("system"))] if row.text("system") else []
    turns += history_of(row)
    turns += inside or [("user", text)]
    if not text:
        raise Rejected("empty_question")
    answer = row.text("output", "response")
    if not answer:
        raise Rejected("empty_answer")
    return conversation(row, [*turns, ("assistant", answer)])


def adversarial(row: Row) -> Record:
    """Zhongjing's second schema, {"instruct", "output"}: a myth or a trap with a safe answer."""
    return question(row, row.text("instruct"), row.text("output"), kind="safety")


def question(row: Row, text: str, reference: str = "", kind: str = "", **meta: Any) -> Question:
    if not text:
        raise Rejected("empty_question")
    return Question("", (Message("user", text),), reference, kind, meta={**extras(row), **meta})


def open_question(row: Row) -> Record:
    """Only a question: huatuo question.json, CValues (which are safety prompts)."""
    return question(row, row.text(*QUESTION), kind="safety" if "domain_en" in row.value else "open")


def bias_item(row: Row) -> Record:
    """A statement of an attitude scale with the direction of agreement."""
    notes = {name: row.text(name) for name in ("id", "direction", "direction_source")}
    return question(row, row.text("text_zh", "text_en"), kind="bias_item", item=notes.pop("id"), **notes)


def answered(row: Row) -> Record:
    """A question and its answer, whatever the two are called; Toyhom's title goes before its longer question."""
    asked, answer = row.text(*QUESTION), row.text(*ANSWER)
    title = row.text("title", "标题") if "ask" in row.value else ""
    if title and title.rstrip("？?。 ") not in asked:
        asked = f"{title}\n{asked}".strip()
    if not asked:
        raise Rejected("empty_question")
    if not answer:
        raise Rejected("empty_answer")
    return conversation(
        row, [("system", row.get("system")), ("user", asked), ("assistant", answer)][not row.text("system") :]
    )


def reference_answer(row: Row) -> Record:
    """DISC cmd_samples: a question that models are asked, with the raw answer of a doctor as its reference."""
    reference = row.text("raw_anwser", "raw_answer")
    if meaning_reversed(reference):
        raise Rejected("meaning_reversed")
    return question(row, row.text("question"), reference, kind="dialogue", item=row.text("id"))


def prompt_target(row: Row) -> Record:
    """PromptCBLUE: input and target with their task; a test split has no target and becomes a question."""
    meta = {name: row.text(name) for name in ("task_type", "task_dataset", "sample_id")}
    if not row.text("target"):
        return question(row, row.text("input"), kind=meta["task_type"], **meta)
    return conversation(row, [("user", row.text("input")), ("assistant", row.text("target"))], **meta)


def dialogue(row: Row) -> Record:
    """ShareGPT, OpenAI messages, DISC patient/doctor, lists of pairs and of marked strings."""
    value = row.get("conversations", "conversation", "messages", "dialogue", "dialog", "dialogs", "data", "turns")
    system = [("system", row.get("system"))] if row.text("system") else []
    meta = {"item": str(row.get("id", "_id") or ""), "model": str(row.get("model") or "")}
    department = row.get("dataset_info")
    if isinstance(department, dict) and isinstance(department.get("department"), str):
        meta["department"] = department["department"]
    return conversation(row, system + list(turns_of(value)), **meta)


def turns_of(value: Any) -> Iterator[tuple[str, Any]]:
    """(role word, text) of every published way to write turns down."""
    if isinstance(value, str):
        value = split_turns(value) or _literal(value)
    if not isinstance(value, list | tuple) or not value:
        raise Rejected("turns_are_not_a_list")
    for index, item in enumerate(value):
        if isinstance(item, dict):
            yield from _turn(item)
        elif isinstance(item, str):
            yield from split_turns(item) or [(("user", "assistant")[index % 2], item)]
        elif isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(part, str) for part in item):
            marked = item[0].strip().lower() in ("user", "assistant", "human", "gpt", "患者", "医生", "病人")
            yield from [(item[0], item[1])] if marked else [("user", item[0]), ("assistant", item[1])]
        else:
            raise Rejected("turn_of_unknown_shape")


def _turn(item: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    word = next((item[key] for key in ("from", "role", "speaker", "utterance_role") if key in item), None)
    if isinstance(word, str):
        if item.get("tool_calls") or item.get("function_call"):
            raise Rejected("tool_roles")
        yield (
            word,
            next((item[key] for key in ("value", "content", "sentence", "text", "utterance") if key in item), None),
        )
        return
    pairs = (("human", "assistant"), ("user", "assistant"), ("question", "answer"), ("问", "答"), ("q", "a"))
    names = next((pair for pair in pairs if pair[0] in item and pair[1] in item), None)
    if names is None:
        raise Rejected("turn_of_unknown_shape")
    yield from (("user", item[names[0]]), ("assistant", item[names[1]]))


def _literal(text: str) -> Any:
    """A list written into a cell, as JSON or as a Python literal; never evaluated."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise Rejected("turns_are_not_a_list")


def history_of(row: Row) -> list[tuple[str, Any]]:
    """Turns before the question, from a list or from a cell that holds one."""
    value = row.get("history")
    value = _literal(value) if isinstance(value, str) and value.strip() else value or []
    return list(turns_of(value)) if value else []


def case_questions(row: Row) -> Record:
    """CMB-Clin: one case, several questions about it."""
    case, pairs = row.text(*CASE), row.get("qa_pairs")
    turns: list[tuple[str, Any]] = []
    for pair in pairs if isinstance(pairs, list) else []:
        if not isinstance(pair, dict):
            raise Rejected("turn_of_unknown_shape")
        asked = row.clean(pair.get("question"))
        turns += [
            ("user", asked if turns else f"{case}\n{asked}"),
            ("assistant", pair.get("answer") or pair.get("solution")),
        ]
    return conversation(row, turns)


def cmdd(row: Row) -> Record:
    """CMDD: one sentence a row of the dialogue; symptoms with their truth value go to meta, so do label mismatches."""
    lines = row.value["dialogue-content"]
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        raise Rejected("turns_are_not_a_list")
    symptoms, mismatches = [], 0
    for line in lines:
        names, kinds = (value if isinstance(value := line.get(key), list) else [] for key in ("normalized", "type"))
        mismatches += str(line.get("label", "")).count("B") != len(names)
        symptoms += [[name, TRUTH.get(str(kind), "")] for name, kind in zip(names, kinds, strict=False)]
    row.flag("bio_symptom_mismatches", mismatches)
    meta = {"item": str(row.get("example-id")), "split": row.get("data-split"), "symptoms": symptoms}
    return conversation(row, [(str(line.get("speaker")), line.get("sentence")) for line in lines], **meta)


def judged(row: Row) -> Record:
    """A judge's scores ("Proactivity: 5\\nAccuracy: 4") for the dialogue inside its own prompt. The record's answer is
    the last doctor turn; the scores are for the whole dialogue, which meta says."""
    found = re.findall(r"^\s*([A-Za-z][A-Za-z ]*?)\s*[:：]\s*(\d+(?:\.\d+)?)", str(row.get("scores")), re.M)
    if not found:
        raise Rejected("scores_do_not_parse")
    match = re.search(r"\[start of conversation\]\s*(.*?)\s*\[end of conversation\]", str(row.get("prompt")), re.S)
    parts = re.split(r"^(patient|doctor): ", match[1], flags=re.M)[1:] if match else []
    said, _ = messages(row, list(zip(parts[::2], parts[1::2], strict=True)))
    scores = tuple(Score(float(value), name.strip().lower().replace(" ", "_"), "llm", "gpt-4") for name, value in found)
    meta = {"scope": "dialogue", "dataset": row.text("source")}
    item = str(row.get("id"))
    return Rollout("", item, said[:-1], Answer(said[-1].content, row.text("model")), scores, meta=meta)


def document(row: Row) -> Record:
    """A text with or without a title; a text that is a marked dialogue becomes a conversation."""
    text = row.text("text", "content", "contents", "body", "正文", "文本", "abstract")
    raw = next((row.value[k] for k in ("text", "content") if isinstance(row.value.get(k), str)), "")
    turns = split_turns(raw)
    if len(turns) > 1 and {role_of(word) for word, _ in turns} == {"user", "assistant"}:
        return conversation(row, turns)
    if not text:
        raise Rejected("empty_text")
    title = row.text("title", "name", "标题")
    alias = row.text("alias")
    return Document(
        "", f"{title}\n\n{text}" if title else text, meta={**extras(row), **({"alias": alias} if alias else {})}
    )


def kb_entry(row: Row) -> Record:
    """One object of a knowledge base (Mongo exports): each field a line, lists joined."""
    lines = []
    for name, value in row.value.items():
        if name.startswith("_") or isinstance(value, dict):
            continue
        parts = [row.clean(item) for item in value] if isinstance(value, list) else [row.clean(value)]
        text = "、".join(part for part in parts if part)
        lines += [f"{name}：{text}"] if text and name != "name" else []
    title = row.text("name")
    if not title or not lines:
        raise Rejected("empty_text")
    return Document("", "\n".join([title, *lines]))


def triple(row: Row) -> Record:
    """Subject, predicate, object as one short sentence; the triple itself stays in meta."""
    names = (("s", "subject", "head", "h"), ("p", "predicate", "relation", "r"), ("o", "object", "tail", "t"))
    parts = [row.text(*group) for group in names]
    if not all(parts):
        raise Rejected("triple_with_empty_part")
    return Document("", " ".join(part.replace("_", " ") for part in parts), meta={"triple": parts})


def book_section(row: Row) -> Record:
    """One section of an old book under a heading that says where it stands."""
    value = row.value
    if value["refused"]:
        raise Rejected(str(value["refused"]))
    if not value["body"]:
        raise Rejected("empty_section")
    heading = " · ".join(part for part in (value.get("book"), value["chapter"], value["title"]) if part)
    meta = {name: value.get(name, "") for name in ("book", "author", "dynasty", "year", "chapter", "title")}
    return Document("", f"# {heading}\n\n{value['body']}", meta={**meta, "book_losses": value["book_losses"]})


def word_list(rows: list[Row]) -> Iterator[tuple[Row, Record | Rejected | None]]:
    """A lexicon, a list of names or of tree paths: one document for the file, `word<TAB>count` a line. Every row is
    counted; the document is given with the first."""
    lines, first = [], None
    for row in rows:
        if not row.value[0]:
            yield row, Rejected("empty_word")
            continue
        lines.append("\t".join(row.value))
        if first is None:
            first = row
        else:
            yield row, None
    if first is not None:
        yield first, Document("", "\n".join(lines), meta={"kind": "lexicon", "num_words": len(lines)})
