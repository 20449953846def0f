"""May a machine judge be a headline? Judge and doctors on the same pairs, beside doctors among themselves.

what     every pair of answers of rankings that carry doctors' votes (`xinglin annotate export`)
judge    asked in both orders; two different winners are a tie; no verdict after the retries is ungraded
metric   raw agreement and Krippendorff's alpha (ordinal: worse, tie, better) with bootstrap intervals over items,
         Cohen's kappa of the judge with the final label
rule     a headline needs 200 items, position consistency of 80 %, at most 1 % ungraded, and agreement with the doctors
         at most 5 points under theirs among themselves; each reason against it is named
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from xinglin.evals.dialogue import Judge
from xinglin.evals.result import share
from xinglin.metrics.agreement import (
    Agreement,
    Bootstrap,
    cohen,
    gap_to_others,
    krippendorff,
    per_rater,
    raw,
)
from xinglin.records import InputError, Preference, Question

FEWEST_ITEMS = 200
LEAST_CONSISTENT, MOST_UNGRADED, MOST_UNDER = 0.8, 0.01, 0.05
WORTH = {"a": 1.0, "b": -1.0, "tie": 0.0}
Row = list[float | None]


def run(
    judge: Judge, rankings: Sequence[Preference], *, name: str = "judge", draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The figures of the list above as a plain dict; `headline` is the decision and `against` its reasons.

    Raises `InputError` where no ranking carries two doctors' votes.
    """
    voted = [(record, votes) for record in rankings if len(votes := _votes(record)) > 1]
    if not voted:
        raise InputError(f"{len(rankings)} rankings, none with two doctors' votes; give those of `xinglin annotate`")
    doctors = sorted({code for _, votes in voted for code in votes})
    matrix: list[Row] = []
    labels: Row = []
    items: list[str] = []
    orders: list[tuple[Any, Any]] = []
    for record, votes in voted:
        for i, j in itertools.combinations(range(len(record.answers)), 2):
            orders.append(_both(judge, record, i, j))
            said = [_sign(votes[code], i, j) if code in votes else None for code in doctors]
            matrix.append([*said, _verdict(orders[-1])])
            labels.append(_sign(record.ranks, i, j))
            items.append(record.id)
    how = Bootstrap(draws, seed, items)
    found = _figures(matrix, labels, how) | {
        "position_consistency": share(one == two for one, two in orders),
        "tie_rate": share(_verdict(pair) == 0 for pair in orders),
        "ungraded_rate": share(_verdict(pair) is None for pair in orders),
    }
    against = reasons_against(found, len(voted))
    facts = {"judge": name, "items": len(voted), "pairs": len(matrix), "doctors": len(doctors)}
    plain = {key: _plain(value) for key, value in found.items()}
    return {**facts, **plain, "headline": not against, "against": against}


def _figures(matrix: list[Row], labels: Row, how: Bootstrap) -> dict[str, Any]:
    doctors: list[Row] = [row[:-1] for row in matrix]
    place = len(matrix[0]) - 1
    return {
        "judge_doctor": per_rater(matrix, "ordinal", how)[place]["raw"],
        "doctor_doctor": raw(doctors, how),
        "gap": gap_to_others(matrix, place, how),
        "alpha_doctors": krippendorff(doctors, "ordinal", how),
        "alpha_with_judge": krippendorff(matrix, "ordinal", how),
        "kappa_with_label": cohen([row[-1] for row in matrix], labels, "linear", how),
    }


def reasons_against(found: Mapping[str, Any], items: int) -> list[str]:
    """Why the judge may not be a headline; none: it may."""
    gap = found["gap"].value
    under = f"agreement with doctors is {-100 * (gap or 0):.1f} points under theirs"
    rules = {
        f"{items} items with two doctors' votes, {FEWEST_ITEMS} are needed": items < FEWEST_ITEMS,
        f"position consistency {found['position_consistency']:.0%} is under {LEAST_CONSISTENT:.0%}": (
            found["position_consistency"] < LEAST_CONSISTENT
        ),
        f"{found['ungraded_rate']:.1%} of the pairs are ungraded, at most {MOST_UNGRADED:.0%} may be": (
            found["ungraded_rate"] > MOST_UNGRADED
        ),
        f"agreement with doctors is undefined: {found['gap'].reason}": gap is None,
        f"{under}, at most {100 * MOST_UNDER:.0f} may be": gap is not None and gap < -MOST_UNDER,
    }
    return [reason for reason, holds in rules.items() if holds]


def _votes(record: Preference) -> dict[str, Sequence[int]]:
    """Each doctor's ranks; arbitrations are no independent votes."""
    trail = record.meta.get("annotation")
    votes = trail.get("votes", ()) if isinstance(trail, dict) else ()
    return {str(vote["rater"]): vote["verdict"]["ranks"] for vote in votes if vote.get("kind") == "vote"}


def _both(judge: Judge, record: Preference, i: int, j: int) -> tuple[Any, Any]:
    """Both verdicts in terms of answer i (a) and answer j (b)."""
    question = Question(record.id, record.prompt)
    one, two = record.answers[i].text, record.answers[j].text
    turned = {"a": "b", "b": "a", "tie": "tie"}
    return judge(question, one, two), turned.get(judge(question, two, one))


def _verdict(pair: tuple[Any, Any]) -> float | None:
    if any(said not in WORTH for said in pair):
        return None
    return WORTH[pair[0]] if pair[0] == pair[1] else 0.0


def _sign(ranks: Sequence[int], i: int, j: int) -> float:
    """1 where answer i is better, -1 where answer j is."""
    return float((ranks[j] > ranks[i]) - (ranks[j] < ranks[i]))


def _plain(value: Any) -> Any:
    return {**asdict(value), "colour": value.colour} if isinstance(value, Agreement) else value
