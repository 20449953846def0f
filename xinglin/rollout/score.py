"""A score for each sampled answer, and the rankings that follow from the scores.

    xinglin score --rollouts rollouts.jsonl --scorer rule --out DIR

Every score carries its source: human, llm or rule. Answers whose scores lie within the margin are a tie.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from xinglin.config import Score as ScoreConfig
from xinglin.records import InputError, Preference, Question, Rollout, Score, read_records, write_records
from xinglin.run import Stage, seed_for

Scorer = Callable[[Question, str], dict[str, Any]]
VALID_SHARE = 0.1
CRITERIA = ("safety", "professionalism", "fluency", "overall")


def score(config: ScoreConfig, stage: Stage, rollouts: Path, questions: Path, rule: Scorer) -> dict[str, Any]:
    """Write rollouts.jsonl with scores and preferences/{train,valid}.jsonl made from them."""
    if config.scorer == "human":
        if not config.file:
            raise InputError(f"stage {stage.name!r}: scorer human needs `file:`, a JSONL of rollouts with human scores")
        scored = list(read_records(Path(config.file), Rollout))
    else:
        by_id = {question.id: question for question in read_records(questions, Question)}
        items = list(read_records(rollouts, Rollout))
        scorer, name = (rule, "rule") if config.scorer == "rule" else _llm(config)
        with stage.progress("scores", len(items)) as advance:
            scored = []
            for item in items:
                found = scorer(by_id[item.question_id], item.answer.text)
                scores = [
                    Score(float(found[criterion]), criterion, config.scorer, name)
                    for criterion in CRITERIA
                    if criterion in found
                ]
                scored.append(replace(item, scores=tuple(scores)))
                advance(1)
    write_records(stage.dir / "rollouts.jsonl", scored)
    counts: Counter[str] = Counter()
    made = list(rank(scored, config.margin, counts))
    parts: dict[str, list[Preference]] = {"train": [], "valid": []}
    for preference in made:
        held = seed_for(config.seed, preference.meta.get("patient_id", preference.id)) % 1000 < 1000 * VALID_SHARE
        parts["valid" if held else "train"].append(preference)
    for name, records in parts.items():
        counts[f"preferences/{name}"] = write_records(stage.dir / f"preferences/{name}.jsonl", records)
    return {"counts": dict(counts), "scorer": config.scorer}


def rank(rollouts: Iterable[Rollout], margin: float, counts: Counter[str]) -> Iterator[Preference]:
    """One ranking for each question out of its answers' overall scores; equal texts are one answer."""
    groups: dict[str, dict[str, Rollout]] = defaultdict(dict)
    for rollout in rollouts:
        counts["rollouts"] += 1
        counts["answers said twice"] += rollout.answer.text in groups[rollout.question_id]
        groups[rollout.question_id].setdefault(rollout.answer.text, rollout)
    for question_id, answers in groups.items():
        counts["questions"] += 1
        items = sorted(answers.values(), key=lambda rollout: -overall(rollout))
        ranks = ranks_with_ties([overall(item) for item in items], margin)
        if len(items) < 2 or ranks[-1] == 1:
            counts["questions whose answers all tie"] += 1
            continue
        first = items[0]
        texts = tuple(item.answer for item in items)
        meta = {**first.meta, "scores": [overall(item) for item in items], "score_source": first.scores[0].source}
        yield Preference(f"ranked-{question_id}", first.prompt, texts, ranks, first.source, meta)


def overall(rollout: Rollout) -> float:
    """The overall score of an answer: given as such, or the mean of its criteria."""
    if not rollout.scores:
        raise InputError(f"rollout {rollout.id!r} has no score; run the score stage on it")
    given = [score.value for score in rollout.scores if score.criterion == "overall"]
    return given[0] if given else sum(score.value for score in rollout.scores) / len(rollout.scores)


def ranks_with_ties(scores: list[float], margin: float) -> tuple[int, ...]:
    """Ranks of scores in falling order; one within `margin` of the first of its rank shares it.

    >>> ranks_with_ties([0.9, 0.88, 0.5, 0.1], 0.05)
    (1, 1, 2, 3)
    """
    ranks: list[int] = []
    top = float("inf")
    for value in scores:
        if top - value > margin:
            ranks.append(ranks[-1] + 1 if ranks else 1)
            top = value
        else:
            ranks.append(ranks[-1])
    return tuple(ranks)


def _llm(config: ScoreConfig) -> tuple[Scorer, str]:
    from xinglin.rollout.judge import UrlScorer

    if not config.url:
        raise InputError("scorer llm needs `url:`, an OpenAI-style address such as http://127.0.0.1:8000/v1")
    scorer = UrlScorer(config.url, config.model or "default")
    return scorer, scorer.name
