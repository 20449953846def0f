"""Rows that become exam questions, preferences and entity texts."""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from xinglin.data.sources.dialogues import history_of, turns_of
from xinglin.data.sources.fields import Rejected, Row, letters, meaning_reversed, messages
from xinglin.records import Answer, Conversation, ExamQuestion, Message, Preference, Record, Rollout, record_id

STEM = ("question", "stem", "qtext", "题目", "题干", "问题")
OPTIONS = ("options", "option", "choices", "选项")
KEY = ("answer_idx", "answer", "answer_key", "label", "答案", "正确答案", "key")
EXPLANATION = ("explanation", "analysis", "解析", "exp", "rationale")
OPTION_LINE = re.compile(r"\s*[(（]?([A-Za-z])[)）]?(?:\s*[.．、:：)]\s*|\s+|(?=[^\x00-\x7f]))(.*)")
Grouped = Iterator[tuple[Row, Record | Rejected | None]]


# --- exam questions ------------------------------------------------------------------------------------------------


def exam(row: Row) -> Record:
    """Options as a dict, a list, a list of {key, value}, one cell with real or written \\n, or columns A to H."""
    value = row.get(*OPTIONS)
    options = _columns(row) if value is None else _options(row, value)
    options = {letter: text for letter, text in options.items() if text}
    if len(options) < 2:
        raise Rejected("fewer_than_two_options")
    expected = letters(ord(max(options)) - 64) if max(options) <= "Z" else letters(len(options))
    row.flag("letter_gap", set(options) != set(expected))
    row.flag("equal_options", len(set(options.values())) < len(options))
    key = row.get(*KEY)
    if key is None:
        key = answers_beside(row.path.parent, row.path.name).get(str(row.get("id")))
    stem = row.text(*STEM)
    if not stem:
        raise Rejected("empty_question")
    subject = row.text("exam_subject", "subject", "category") or (row.path.stem if value is None else "")
    meta = {name: row.text(name) for name in ("exam_type", "exam_class", "question_type") if row.text(name)}
    answer = answer_letters(key, options)
    row.flag("multi_answer", len(answer) > 1)
    return ExamQuestion("", stem, options, answer, row.text(*EXPLANATION), subject, meta=meta)


def _columns(row: Row) -> dict[str, str]:
    names = [letter for letter in "ABCDEFGH" if letter.lower() in row.value]
    return {letter: row.text(letter.lower()) for letter in names}


def _options(row: Row, value: Any) -> dict[str, str]:
    if isinstance(value, str):
        return _cell_options(row, value)
    if isinstance(value, dict):
        return {str(key).strip().upper(): row.clean(text) for key, text in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) and "key" in item for item in value):
        return {str(item["key"]).strip().upper(): row.clean(item.get("value")) for item in value}
    if isinstance(value, list):
        return dict(zip(letters(len(value)), (row.clean(item) for item in value), strict=True))
    raise Rejected("options_of_unknown_shape")


def _cell_options(row: Row, cell: str) -> dict[str, str]:
    found: dict[str, str] = {}
    last = ""
    for line in re.sub(r"\\n(?=\s*[(（]?[A-Z][\s.．、:：)）])", "\n", cell).splitlines():
        match = OPTION_LINE.fullmatch(line)
        if match and match[1].upper() > last:
            last = match[1].upper()
            found[last] = match[2]
        elif last:
            found[last] += "\n" + line
    return {letter: row.clean(text) for letter, text in found.items()}


def answer_letters(key: Any, options: dict[str, str]) -> str:
    """The key as sorted letters: "ACD", "A,C", full-width, a 0-based index, or the text of an option."""
    if key is None:
        raise Rejected("no_answer_key")
    if isinstance(key, list):
        key = "".join(map(str, key)) if all(isinstance(item, str) for item in key) else key[0] if len(key) == 1 else ""
    if isinstance(key, bool) or (isinstance(key, float) and key != key):
        raise Rejected("invalid_key")
    text = str(key).strip()
    if re.fullmatch(r"\d", text):
        text = letters(int(text) + 1)[-1]
    plain = text.translate({ord("Ａ") + i: ord("A") + i for i in range(26)})
    if re.fullmatch(r"[A-Za-z](?:[\s,，、;；|/]*[A-Za-z])*\.?", plain) and plain.lower() not in ("nan", "none", "null"):
        found = "".join(sorted(set(re.sub(r"[^A-Za-z]", "", plain.upper() if max(options) <= "Z" else plain))))
        if all(letter in options for letter in found):
            return found
        if len(found) <= 8 and text not in options.values():
            raise Rejected("key_not_among_options")
    same = [letter for letter, option in options.items() if option == text]
    if len(same) != 1:
        raise Rejected("invalid_key")
    return same[0]


@functools.lru_cache(maxsize=4)
def answers_beside(folder: Path, own_name: str) -> dict[str, Any]:
    """Answers that lie in a file of their own beside the questions: {"<id>": {"answer": 0-based index}}."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*answer*.json")):
        if path.name == own_name:
            continue
        try:
            body = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError):
            raise Rejected("answers_file_is_not_json") from None
        for key, item in body.items() if isinstance(body, dict) else []:
            if isinstance(item, dict) and "answer" in item:
                found[key] = item["answer"]
    return found


def answer_key(row: Row) -> Record:
    """A row of an answers file holds no question; the questions file beside it joins it."""
    raise Rejected("answer_key_without_question")


def same_meaning(row: Row) -> Record:
    """cMedQQ `0|1 <TAB> q1 <TAB> q2` as a two-option question: that is how a language model is asked for the label."""
    label, first, second = (row.clean(cell) for cell in row.value)
    if label not in ("0", "1"):
        raise Rejected("invalid_key")
    if not first or not second:
        raise Rejected("empty_question")
    stem = f"下面两个问题的意思相同吗？\n问题一：{first}\n问题二：{second}"
    return ExamQuestion("", stem, {"A": "相同", "B": "不同"}, "A" if label == "1" else "B", subject="paraphrase")


def text_class(rows: list[Row]) -> Grouped:
    """cMedIC, cMedTC `label <TAB> text`: which of the file's classes? The label names are published nowhere, so the
    options carry the labels themselves; meta says so."""
    pairs = [(row, *_label_first(row.value)) for row in rows]
    names = sorted({label for _, label, _ in pairs if label})
    for row, label, text in pairs:
        if not label or not text or len(names) < 2 or len(names) > 52:
            yield row, Rejected("empty_question" if not text else "not_two_to_52_classes")
            continue
        options = dict(
            zip(letters(len(names)), (f"类别{name}" if name.isdigit() else name for name in names), strict=True)
        )
        answer = next(letter for letter, name in zip(options, names, strict=True) if name == label)
        meta = {"label": label, "label_names": "not published" if label.isdigit() else "as in the file"}
        stem = f"下面这句话属于哪一类？\n{text}"
        yield row, ExamQuestion("", stem, options, answer, subject="classification", meta=meta)


def _label_first(cells: list[str]) -> tuple[str, str]:
    first, second = cells
    return (second, first) if len(second) < len(first) and not first.isdigit() else (first, second)


# --- preferences ---------------------------------------------------------------------------------------------------


def preference(
    row: Row, prompt: tuple[Message, ...], answers: list[tuple[str, str]], ranks: list[int], **meta: Any
) -> Record:
    """Refuse what teaches nothing: empty, equal or wholly tied answers."""
    if not prompt or not prompt[-1].content:
        raise Rejected("empty_question")
    if not all(text for text, _ in answers):
        raise Rejected("empty_answer")
    if len({text for text, _ in answers}) < 2:
        raise Rejected("equal_answers")
    if len(set(ranks)) < 2:
        raise Rejected("all_answers_tied")
    best = [text for (text, _), rank in zip(answers, ranks, strict=True) if rank == 1]
    if any(meaning_reversed(text) for text in best):
        raise Rejected("meaning_reversed")
    given = tuple(Answer(text, source) for text, source in answers)
    return Preference("", prompt, given, tuple(ranks), meta={name: value for name, value in meta.items() if value})


def chosen_rejected(row: Row) -> Record:
    """{prompt, chosen, rejected} as strings, as message lists or as {from, value}; prompts in any of those forms."""
    good, bad = row.get("chosen", "response_chosen", "accepted"), row.get("rejected", "response_rejected")
    start = _prompt(row)
    if _is_messages(good) and _is_messages(bad):
        shared, good, bad = good[:-1], good[-1], bad[-1]
        start = start or list(turns_of(shared))
    said = _prompt_messages(row, start)
    answers = [(row.clean(good), "chosen"), (row.clean(bad), "rejected")]
    return preference(row, said, answers, [1, 2])


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _prompt(row: Row) -> list[tuple[str, Any]]:
    value = row.get("conversations", "conversation", "messages", "prompt", "question", "instruction", "query")
    system = [("system", row.get("system"))] if row.text("system") else []
    if _is_messages(value):
        return system + list(turns_of(value))
    text = "\n".join(part for part in (row.clean(value), row.text("input")) if part)
    return system + history_of(row) + [("user", text)] if text else []


def _prompt_messages(row: Row, turns: list[tuple[str, Any]]) -> tuple[Message, ...]:
    """Through the same checks as a conversation; the answer is put in its place and taken out again."""
    if not turns:
        raise Rejected("empty_question")
    said, _ = messages(row, [*turns, ("assistant", "。")])
    if said[-1].content != "。":
        raise Rejected("prompt_ends_with_answer")
    return said[:-1]


def retrieved_titles(row: Row) -> Record:
    """cMedIR: a query and its labelled documents; the titles are the answers, labels 0 to 4 give the places."""
    documents = row.get("documents")
    if not isinstance(documents, list) or len(documents) < 2 or not all(isinstance(d, dict) for d in documents):
        raise Rejected("fewer_than_two_documents")
    titles = [(row.clean(d.get("title")).strip(" :：`"), str(d.get("url", ""))) for d in documents]
    labels = [str(d.get("label")) for d in documents]
    if not all(label.isdigit() for label in labels):
        raise Rejected("invalid_label")
    order = sorted({int(label) for label in labels}, reverse=True)
    ranks = [order.index(int(label)) + 1 for label in labels]
    query = row.text("query")
    prompt = (Message("user", query),) if query else ()
    return preference(row, prompt, titles, ranks, labels=labels, answers_are="titles of web pages")


def ranking(row: Row) -> Record:
    """RLHF-Label-Tool's output: rank1 is best. A text that stands at two places contradicts itself and is left out."""
    names = sorted((name for name in row.value if re.fullmatch(r"rank\d+", name)), key=lambda name: int(name[4:]))
    texts = [row.text(name) for name in names]
    kept = [text for text in texts if texts.count(text) == 1]
    row.flag("contradicting_answers", len(texts) - len(kept))
    if len(kept) < 2:
        raise Rejected("equal_answers")
    said = _prompt_messages(row, [*history_of(row), ("user", row.text("query"))])
    return preference(row, said, [(text, "") for text in kept], list(range(1, len(kept) + 1)))


def labelled_answers(rows: list[Row]) -> Grouped:
    """cMedQA `label <TAB> question <TAB> answer`: one preference a question. Questions without a positive, or with
    three and more (nearly all about something else), are refused with their rows."""
    groups: dict[str, list[tuple[Row, str, str]]] = defaultdict(list)
    for row in rows:
        label, asked, answer = row.value
        if label not in ("0", "1") or not asked or not answer:
            yield row, Rejected("empty_answer" if label in ("0", "1") else "invalid_label")
        else:
            groups[asked].append((row, label, answer))
    for asked, members in groups.items():
        yield from _one_question(asked, members)


def _one_question(asked: str, members: list[tuple[Row, str, str]]) -> Grouped:
    positives = sum(label == "1" for _, label, _ in members)
    reason = {0: "question_without_positive"}.get(
        positives, "question_with_3_or_more_positives" if positives > 2 else ""
    )
    if not reason and positives == len(members):
        reason = "question_without_negative"
    try:
        if reason:
            raise Rejected(reason)
        answers = [(answer, "positive" if label == "1" else "negative") for _, label, answer in members]
        ranks = [1 if label == "1" else 2 for _, label, _ in members]
        record = preference(members[0][0], (Message("user", asked),), answers, ranks)
    except Rejected as refused:
        yield from ((row, refused) for row, _, _ in members)
        return
    yield members[0][0], record
    yield from ((row, None) for row, _, _ in members[1:])


def ranking_task(row: Row) -> list[Record]:
    """RLHF-Label-Tool's input: k unranked answers of one model. They wait for a score, so they are rollouts."""
    said = _prompt_messages(row, [*history_of(row), ("user", row.text("query"))])
    names = sorted(name for name in row.value if re.fullmatch(r"response_\d+", name))
    item = str(row.value.get("_key", row.number))
    texts = [text for name in names if (text := row.text(name))]
    if not texts:
        raise Rejected("empty_answer")
    return [Rollout("", item, said, Answer(text)) for text in texts]


def judged_preferences(
    dialogues: Iterable[Conversation], scores: Iterable[Rollout], margin: float = 0.5
) -> tuple[list[Preference], dict[str, int]]:
    """Preferences from several models' dialogues and a judge's scores, and what became of every question.

    Judges saturate, so ties dominate: a model stands below another only when its mean over the criteria is at least
    `margin` lower than the best of that place. The one prompt all models share is the opening question, so the first
    answers are compared, by the scores of their whole dialogues (`score_scope` in meta).
    """
    opened = {(talk.meta.get("item"), talk.meta.get("model")): talk for talk in dialogues}
    judged: dict[str, list[tuple[float, Conversation, str]]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for rollout in scores:
        talk = opened.get((rollout.question_id, rollout.answer.source))
        if talk is None or not rollout.scores:
            counts["score_without_dialogue"] += 1
            continue
        mean = sum(score.value for score in rollout.scores) / len(rollout.scores)
        judged[rollout.question_id].append((mean, talk, rollout.answer.source))
    found = []
    for item, candidates in judged.items():
        reason, record = _compare(item, candidates, margin)
        counts[reason] += 1
        found += [record] if record else []
    return found, dict(counts)


def _compare(
    item: str, candidates: list[tuple[float, Conversation, str]], margin: float
) -> tuple[str, Preference | None]:
    first = [(mean, *_opening(talk), name) for mean, talk, name in sorted(candidates, key=lambda c: (-c[0], c[2]))]
    if len({prompt for _, prompt, _, _ in first}) > 1:
        return "questions_differ", None
    if len({text for _, _, text, _ in first}) < 2:
        return "fewer_than_two_answers", None
    places, best, place = [], first[0][0], 1
    for index, (mean, _, _, _) in enumerate(first):
        if best - mean >= margin:
            best, place = mean, index + 1
        places.append(place)
    if len(set(places)) < 2:
        return "tied", None
    source = candidates[0][1].source
    meta = {"item": item, "margin": margin, "means": [mean for mean, *_ in first], "score_scope": "dialogue"}
    answers = tuple(Answer(text, name) for _, _, text, name in first)
    new_id = record_id(source, "judged", item, margin, *(answer.source for answer in answers))
    return "preferred", Preference(new_id, first[0][1], answers, tuple(places), source, meta)


def _opening(talk: Conversation) -> tuple[tuple[Message, ...], str]:
    """Everything before the first answer, and that answer."""
    at = next(index for index, message in enumerate(talk.messages) if message.role == "assistant")
    return talk.messages[:at], talk.messages[at].content
