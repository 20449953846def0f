"""The rules, in the order in which they run: each takes a record and returns it, a mended one, or None to drop it.

A rule is a plain function `(record, known) -> record | None`; its name in `RULES` is the reason that is counted. Rules
on answers look at the answers that are to be learnt: the assistant's turns, a question's reference, and of a preference
the best answers (a bad answer that lost is what it is there for).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from xinglin.data.clean import text as mend
from xinglin.data.clean import words
from xinglin.data.clean.settings import CleanSettings
from xinglin.data.clean.survey import Survey, last_sentence
from xinglin.records import Conversation, Document, Message, Preference, Question, Record

Cleanable = Document | Conversation | Preference | Question


@dataclass(frozen=True, slots=True)
class Known:
    """What a rule may know besides the record."""

    settings: CleanSettings
    survey: Survey


Rule = Callable[[Cleanable, Known], Cleanable | None]

# --- the texts of a record -------------------------------------------------------------------------------------------


def map_texts(record: Cleanable, change: Callable[[str], str]) -> Cleanable:
    """The record with every text changed; the very same record where nothing changes."""
    if isinstance(record, Document):
        text = change(record.text)
        return record if text == record.text else replace(record, text=text)
    if isinstance(record, Conversation):
        messages = _map_messages(record.messages, change)
        return record if messages == record.messages else replace(record, messages=messages)
    prompt = _map_messages(record.prompt, change)
    asked = record if prompt == record.prompt else replace(record, prompt=prompt)
    return map_answers(asked, change)


def _map_messages(messages: tuple[Message, ...], change: Callable[[str], str]) -> tuple[Message, ...]:
    return tuple(Message(message.role, change(message.content)) for message in messages)


def map_answers(record: Cleanable, change: Callable[[str], str]) -> Cleanable:
    """As `map_texts`, for what an assistant has said; documents have no answers."""
    if isinstance(record, Document):
        return record
    if isinstance(record, Conversation):
        said = tuple(Message(m.role, change(m.content)) if m.role == "assistant" else m for m in record.messages)
        return record if said == record.messages else replace(record, messages=said)
    if isinstance(record, Question):
        reference = change(record.reference)
        return record if reference == record.reference else replace(record, reference=reference)
    answers = tuple(replace(answer, text=change(answer.text)) for answer in record.answers)
    return record if answers == record.answers else replace(record, answers=answers)


def questions_of(record: Cleanable) -> list[str]:
    messages = () if isinstance(record, Document) else _messages_of(record)
    return [message.content for message in messages if message.role == "user"]


def answers_of(record: Cleanable) -> list[str]:
    """The answers to learn from."""
    if isinstance(record, Conversation):
        return [message.content for message in record.messages if message.role == "assistant"]
    if isinstance(record, Question):
        return [record.reference] if record.reference else []
    if isinstance(record, Preference):
        return [answer.text for answer, rank in zip(record.answers, record.ranks, strict=True) if rank == 1]
    return []


def texts_of(record: Cleanable) -> Iterator[str]:
    """Every text to learn from; a losing answer is none."""
    if isinstance(record, Document):
        yield record.text
    else:
        if isinstance(record, Conversation):
            yield from (message.content for message in record.messages)
            return
        yield from (message.content for message in record.prompt)
        yield from answers_of(record)


def _messages_of(record: Conversation | Preference | Question) -> tuple[Message, ...]:
    return record.messages if isinstance(record, Conversation) else record.prompt


# --- kinds of rules --------------------------------------------------------------------------------------------------


def in_texts(change: Callable[[str], str]) -> Rule:
    return lambda record, known: map_texts(record, change)


def drop_if(wrong: Callable[[Cleanable, Known], bool]) -> Rule:
    return lambda record, known: None if wrong(record, known) else record


def _task(record: Cleanable) -> bool:
    """Letters of an exam, entity lists and the like keep their form."""
    return bool(record.meta.get("task_type")) and record.meta["task_type"] != "consult"


# --- mended ----------------------------------------------------------------------------------------------------------


def thanks(record: Cleanable, known: Known) -> Cleanable | None:
    """Final turns that only say thanks and you're welcome are taken off; a dialogue of nothing else is dropped."""
    if not isinstance(record, Conversation):
        return record
    messages = record.messages
    while len(messages) >= 2 and _only_thanks(messages[-2], messages[-1]):
        messages = messages[:-2]
    if messages == record.messages:
        return record
    return replace(record, messages=messages) if any(m.role == "assistant" for m in messages) else None


def _only_thanks(question: Message, answer: Message) -> bool:
    asked, said = question.content, answer.content
    if question.role != "user" or answer.role != "assistant" or len(asked) > 80 or len(said) > 150:
        return False
    sentences = [part for part in re.split(r"[。！!？?\n]", said) if part.strip()]
    polite = all(words.POLITE.search(sentence) and len(sentence) <= 45 for sentence in sentences)
    return polite and bool(words.THANKS.search(asked)) and not words.ASKING.search(asked)


def tails(record: Cleanable, known: Known) -> Cleanable | None:
    """Courtesies, forum headings and counted boilerplate at the end of an answer."""
    if _task(record):
        return record
    return map_answers(record, lambda text: _without_tails(text, known))


def _without_tails(text: str, known: Known) -> str:
    while True:
        shorter = words.HEADING.sub("", words.COURTESY.sub("", text)).rstrip()
        ending = last_sentence(shorter)
        if ending in known.survey.tails or ending in known.settings.tails:
            shorter = shorter[: shorter.rindex(ending)].rstrip()
        if shorter == text.rstrip() or len(shorter) < known.settings.min_answer:
            return text
        text = re.sub(r"[，,、；;：:\s]+$", "。", shorter)


def cut_answers(record: Cleanable, known: Known) -> Cleanable | None:
    """An answer that breaks off is taken back to its last whole sentence; where too little is left, it is dropped. A
    last comma alone is a slip of the pen: people end so, programs that cut do it anywhere."""
    if isinstance(record, Document) or _task(record):
        return record
    mended = map_answers(record, lambda text: _ended(_whole_sentences(text) if _is_cut(text, known) else text))
    return None if any(_is_cut(answer, known) for answer in answers_of(mended)) else mended


def _ended(text: str) -> str:
    return re.sub(r"[，,]\s*$", "。", text)


def _is_cut(text: str, known: Known) -> bool:
    if not text or words.END.search(text) or words.CODE_OR_FORMULA.search(text):
        return False
    return words.OPEN_END.search(text) is not None or len(text) in known.survey.pile_ups


def _whole_sentences(text: str) -> str:
    """Up to the last end mark, when that leaves half of the text; else the text itself."""
    marks = list(re.finditer(r"[。！？!?；;\n]", text))
    return text[: marks[-1].end()].rstrip() if marks and marks[-1].end() * 2 >= len(text) else text


# --- dropped ---------------------------------------------------------------------------------------------------------


def is_empty(record: Cleanable, known: Known) -> bool:
    if isinstance(record, Document):
        return not record.text.strip()
    no_question = not any(text.strip() for text in questions_of(record))
    return no_question or any(not answer.strip() for answer in answers_of(record))


def is_short(record: Cleanable, known: Known) -> bool:
    settings = known.settings
    if isinstance(record, Document):
        return len(record.text) < settings.min_document
    if _task(record):
        return False
    short = answers_of(record) and len(answers_of(record)[-1]) < settings.min_answer
    return bool(short) or max(map(len, questions_of(record))) < settings.min_question


def is_long(record: Cleanable, known: Known) -> bool:
    return sum(map(len, texts_of(record))) > known.settings.max_chars


def is_equal(record: Cleanable, known: Known) -> bool:
    """Nothing to learn: a preference whose best and worst answers say the same, an answer that is its question."""
    if isinstance(record, Preference):
        best = {a.text.strip() for a, rank in zip(record.answers, record.ranks, strict=True) if rank == 1}
        rest = {a.text.strip() for a, rank in zip(record.answers, record.ranks, strict=True) if rank > 1}
        return bool(best & rest) or max(record.ranks) == 1
    if isinstance(record, Conversation):
        return any(a.role == "user" and a.content == b.content for a, b in pairwise(record.messages))
    return isinstance(record, Question) and record.reference in questions_of(record)


def is_foreign(record: Cleanable, known: Known) -> bool:
    """Too few Chinese characters among the letters of the whole record; code and formulas are no language."""
    text = "".join(texts_of(record))
    han = len(re.findall(f"[{mend.HAN}]", text))
    letters = len(re.findall(r"[^\W\d_]", text))
    return letters >= 10 and han < known.settings.min_han * letters and not words.CODE_OR_FORMULA.search(text)


def is_gibberish(record: Cleanable, known: Known) -> bool:
    """A question of random characters: most of them outside the common ones of GB 2312."""
    return any(rare_share(text) > known.settings.max_rare for text in questions_of(record))


def rare_share(text: str) -> float:
    """Share of characters outside GB 2312's first level, 0 for fewer than eight characters."""
    han = re.findall(f"[{mend.HAN}]", text)
    common = sum(b"\xb0\xa1" <= char.encode("gb2312", "ignore") <= b"\xd7\xf9" for char in han)
    return 1 - common / len(han) if len(han) >= 8 else 0.0


def is_looping(record: Cleanable, known: Known) -> bool:
    """An answer with one character eight times in a row, or of which a quarter is one sentence, said four times."""
    texts = [record.text] if isinstance(record, Document) else answers_of(record)
    return any(map(_loops, texts))


def _loops(text: str) -> bool:
    if words.CODE_OR_FORMULA.search(text):
        return False
    if re.search(rf"([{mend.HAN}A-Za-z])\1{{7,}}", text):
        return True
    sentences = [part for part in re.split(r"[。！？!?；\n]", text) if len(part) >= 6]
    most = max(Counter(sentences).values(), default=0)
    return most >= 4 and most * 4 >= len(sentences)


def is_advert(record: Cleanable, known: Known) -> bool:
    return any(words.ADVERT.search(answer) and not words.HELP_LINE.search(answer) for answer in answers_of(record))


def is_animal(record: Cleanable, known: Known) -> bool:
    """A pet as the patient. General knowledge about animals is not meant: medical sets and unknown ones are asked."""
    if record.meta.get("domain") == "general" or isinstance(record, Document):
        return False
    text = "".join(texts_of(record))
    return words.ANIMAL.search(text) is not None and not words.PEOPLE.search(text)


def is_masked(record: Cleanable, known: Known) -> bool:
    return any(words.MASKED.search(text) for text in texts_of(record) if not words.CODE_OR_FORMULA.search(text))


def is_reversed(record: Cleanable, known: Known) -> bool:
    texts = [record.text] if isinstance(record, Document) else answers_of(record)
    return any(reversed_wordings(text) for text in texts)


def reversed_wordings(text: str) -> list[str]:
    """Names of the meaning-reversing substitutions in a text (R12)."""
    return [name for name, pattern in words.REVERSED.items() if pattern.search(text)]


RULES: dict[str, Rule] = {
    "quarantine": drop_if(lambda record, known: record.source in known.survey.quarantined),
    "encoding": in_texts(mend.encoding),
    "control": in_texts(mend.control),
    "width": in_texts(mend.width),
    "html": in_texts(mend.html),
    "markers": in_texts(mend.markers),
    "script": in_texts(mend.script),
    "punctuation": in_texts(mend.punctuation),
    "broken": drop_if(lambda record, known: any(map(mend.is_broken, texts_of(record)))),
    "thanks": thanks,
    "tails": tails,
    "cut": cut_answers,
    "empty": drop_if(is_empty),
    "short": drop_if(is_short),
    "long": drop_if(is_long),
    "equal": drop_if(is_equal),
    "foreign": drop_if(is_foreign),
    "gibberish": drop_if(is_gibberish),
    "looping": drop_if(is_looping),
    "masked": drop_if(is_masked),
    "reversed": drop_if(is_reversed),
    "animal": drop_if(is_animal),
    "advert": drop_if(is_advert),
}


def cleanable(record: Record) -> Cleanable | None:
    return record if isinstance(record, Document | Conversation | Preference | Question) else None
