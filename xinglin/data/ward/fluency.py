"""How an answer reads, by rules that need no model: ends, repetition, broken characters, role tags, length."""

from __future__ import annotations

import re
from collections import Counter

MAX_LENGTH = 160
ROLE_TAGS = re.compile(
    r"<\||\|>|\[(?:human|bot|INST)\]|<(?:human|bot|s)>|assistant|(?:^|\n|。)(?:用户|患者|医生|问|答|助手)[:：]", re.I
)
# A sentence that begins in the middle, or a condition without its main clause.
CUT = re.compile(r"^[者的了们吗，、]|(?:如出现|若出现|如果出现)[^，]*$|(?:，请|请立|请立即|[或把、，])$")
# Abbreviations in capitals (CT, MRI) are words of the trade; other Latin words have to be known.
LATIN = re.compile(r"(?![A-Z]{2,6}(?![A-Za-z]))[A-Za-z]{2,}")
FACTORS = {
    "empty": 0.0,
    "no_end": 0.6,
    "repeated_sentence": 0.5,
    "loop": 0.4,
    "broken_characters": 0.4,
    "latin": 0.6,
    "punctuation": 0.7,
    "cut_sentence": 0.7,
    "run_on": 0.7,
    "role_tag": 0.3,
    "too_short": 0.5,
}


def fluency_breaches(text: str, known_latin: frozenset[str] = frozenset(), min_length: int = 10) -> dict[str, float]:
    """{code: factor} of each rule that the text breaks; their product is the fluency."""
    sentences = [s for s in re.split(r"[。！？!?\n]", text) if s.strip()]
    rules = {
        "empty": not text,
        "no_end": not re.search(r"[。！？!?”）)]$", text),
        "repeated_sentence": any(n > 1 for n in Counter(s for s in sentences if len(s) > 3).values()),
        "loop": _loops(text),
        "broken_characters": bool(re.search(r"[\ufffd\x00-\x08\x0b-\x1f\ue000-\uf8ff\u200b]|锟斤拷", text)),
        "latin": any(word not in known_latin for word in LATIN.findall(text)),
        "punctuation": bool(re.search(r"[，、；：][，、；：。]|。[，、；：。]|^[，。、；：]", text)),
        "cut_sentence": any(CUT.search(s.strip()) for s in sentences),
        "run_on": any(len(clause) > 45 for clause in re.split(r"[，。！？；：、,;:!?\n]", text)),
        "role_tag": bool(ROLE_TAGS.search(text)),
        "too_short": len(text) < min_length,
    }
    broken = {code: FACTORS[code] for code, is_broken in rules.items() if is_broken}
    if len(text) > MAX_LENGTH:
        broken["too_long"] = max(0.1, 1 - (len(text) - MAX_LENGTH) / MAX_LENGTH)
    return broken


def _loops(text: str) -> bool:
    """A character four times in a row, a piece of 2 to 12 characters three times in a row, or a six-gram five times."""
    if re.search(r"(\D)\1{3}|(.{2,12}?)\2\2", text):
        return True
    grams = Counter(text[i : i + 6] for i in range(len(text) - 5))
    return bool(grams) and max(grams.values()) >= 5
