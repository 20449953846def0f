"""Evaluation: does a reward model put answers of known rank in order?

what     every ordered pair of the held-out rankings, scored by a reward model
metric   accuracy: share of pairs in the right order (a dead heat counts half); good_over_poor: the pairs in which a
         doctor's or a strong model's answer stands against a weak model's, which are neither the best nor the worst
         and the hardest to learn from accepted/rejected pairs alone. Bootstrap over rankings, not over pairs
chance   0.5
paper    ChiMed-GPT (2311.06025) inserts middle ranks because accepted/rejected pairs alone are learned by heart
"""

from __future__ import annotations

import json
from pathlib import Path

from xinglin.evals.result import Evaluation, Resampling, evaluation, metric
from xinglin.metrics.intervals import Value
from xinglin.records import InputError

GOOD = ("doctor", "strong-model")
POOR = ("weak-model",)


def run(diagnostics: Path, *, seed: int = 0, draws: int = 10_000) -> Evaluation:
    """From the pairs that the reward stage wrote."""
    if not diagnostics.is_file():
        raise InputError(f"{diagnostics}: not there; it is written by a reward stage")
    found = json.loads(diagnostics.read_text("utf-8"))
    everything: dict[str, Value] = {}
    middle: dict[str, Value] = {}
    groups: dict[str, str] = {}
    for pair in found["pairs"]:
        name = f"{pair['preference']} {pair['pair']}"
        groups[name] = pair["preference"]
        everything[name] = pair["right"]
        if pair["better"] in GOOD and pair["worse"] in POOR:
            middle[name] = pair["right"]
    how = Resampling(seed, draws, groups)
    metrics = {"accuracy": metric(everything, how, chance=0.5)}
    if middle:
        metrics["good_over_poor"] = metric(middle, how, chance=0.5)
    notes = {"overfit_alarm": found["overfit_alarm"], "score_length_correlation": found["score_length_correlation"]}
    return evaluation("reward_order", metrics, notes, {})
