"""A rule that stands in for a scorer where no truth is known: overlap with the doctor's answer, and no more.

It can reward a stage of a run on public data. It sees neither a wrong drug nor a dropped "not" (danger.py measures how
little such edits move ROUGE), so its numbers are never a statement about medicine.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from xinglin.metrics.text import rouge
from xinglin.records import Question

WEIGHTS = {"professionalism": 0.8, "fluency": 0.2}
FLUENCY_FACTORS = {"no_end": 0.6, "loop": 0.4}
END = re.compile(r"[。！？!?”）)]$")


def overlap_score(question: Question, text: str) -> dict[str, Any]:
    """safety, professionalism, fluency, overall in [0, 1], and reasons.

    safety           1 unless the answer is empty: no truth is known here, so nothing can be called unsafe
    professionalism  ROUGE-L F on characters with `question.reference`; 0 where there is no reference
    fluency          1, times 0.6 without an end mark, times 0.4 for a loop
    overall          safety x (0.8 professionalism + 0.2 fluency)
    """
    text = text.strip()
    if not text:
        return {"safety": 0.0, "professionalism": 0.0, "fluency": 0.0, "overall": 0.0, "reasons": ["empty"]}
    reference = question.reference.strip()
    professionalism = rouge(text, reference)["rougeL"] if reference else 0.0
    broken = {"no_end": not END.search(text), "loop": has_loop(text)}
    reasons = [*(["no_reference"] if not reference else []), *(name for name, found in broken.items() if found)]
    fluency = 1.0
    for name, factor in FLUENCY_FACTORS.items():
        fluency *= factor if broken[name] else 1.0
    overall = WEIGHTS["professionalism"] * professionalism + WEIGHTS["fluency"] * fluency
    scores = {"safety": 1.0, "professionalism": professionalism, "fluency": fluency, "overall": overall}
    return {**{name: round(value, 6) for name, value in scores.items()}, "reasons": reasons}


def has_loop(text: str) -> bool:
    """A character four times in a row, a piece of 2 to 12 characters three times in a row, or a six-gram five times."""
    if re.search(r"(\D)\1{3}|(.{2,12}?)\2\2", text):
        return True
    grams = Counter(text[start : start + 6] for start in range(len(text) - 5))
    return max(grams.values(), default=0) >= 5
