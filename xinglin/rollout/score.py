"""A score for each sampled answer, and the rankings that follow from the scores.

    xinglin score --rollouts rollouts.jsonl --data questions.jsonl --judge rule --out DIR

Every score carries its source: human, llm or rule. In a mixture a question whose answers doctors ranked keeps their
ranking, one of which they scored two answers or more is ranked by their scores, and the scorer does the rest: no
ranking mixes sources, and `meta.label_source` of each says which it is.

Answers whose scores lie within the margin are a tie. An answer that the judge could not grade has no score, is in no
ranking, and is counted; more than 1 % of them is an error. The key of a judge that wants one is read from the
environment variable XINGLIN_JUDGE_KEY.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from xinglin.config import Score as ScoreConfig
from xinglin.records import InputError, Preference, Question, Rollout, Score, read_any, read_records, write_records
from xinglin.rollout.judge import LocalScorer, RubricScorer, Ungraded, UrlScorer
from xinglin.rollout.url import REQUESTS_AT_ONCE
from xinglin.run import Stage, seed_for

Scorer = Callable[[Question, str], dict[str, Any]]
VALID_SHARE = 0.1
MOST_UNGRADED = 0.01
JUDGE_KEY = "XINGLIN_JUDGE_KEY"
CRITERIA = ("safety", "professionalism", "fluency", "overall")


def score(config: ScoreConfig, stage: Stage, rollouts: Path, questions: Path, rule: Scorer) -> dict[str, Any]:
    """Write rollouts.jsonl with scores and preferences/{train,valid}.jsonl made from them."""
    counts: Counter[str] = Counter()
    facts: dict[str, Any] = {"scorer": config.scorer}
    if config.scorer == "human" and not config.file:
        raise InputError(f"stage {stage.name!r}: scorer human needs `file:`, a JSONL of rollouts with human scores")
    human = _read_human(config)
    if config.scorer == "human":
        scored = graded = list(human.scored.values())
    else:
        judge = _judge(config, stage)
        name = judge.name if judge else "rule"
        items, kept = human.divide(read_records(rollouts, Rollout), counts)
        graded = _scored(config, stage, items, questions, judge or rule, name, counts)
        scored = [*kept, *graded]
        graded = [rollout for rollout in scored if rollout.scores or not judge]
        facts.update({"judge": {"name": judge.name, **judge.cost}} if judge else {})
    write_records(stage.dir / "rollouts.jsonl", scored)
    made = [*human.ranked.values(), *rank(graded, config.margin, counts)]
    counts.update(f"rankings by {preference.meta['label_source']}" for preference in made)
    parts: dict[str, list[Preference]] = {"train": [], "valid": []}
    for preference in made:
        held = seed_for(config.seed, preference.meta.get("patient_id", preference.id)) % 1000 < 1000 * VALID_SHARE
        parts["valid" if held else "train"].append(preference)
    for name, records in parts.items():
        counts[f"preferences/{name}"] = write_records(stage.dir / f"preferences/{name}.jsonl", records)
    return {"counts": dict(counts), **facts}


@dataclass(frozen=True, slots=True)
class Human:
    """What doctors said: scored answers by rollout id, rankings by question id."""

    scored: dict[str, Rollout]
    ranked: dict[str, Preference]

    def divide(self, items: Iterable[Rollout], counts: Counter[str]) -> tuple[list[Rollout], list[Rollout]]:
        """(left for the scorer, scored by doctors). One score of a question makes no ranking: it goes to the scorer."""
        given = list(items)
        theirs = Counter(item.question_id for item in given if item.id in self.scored)
        left, kept = [], []
        for item in given:
            if item.question_id in self.ranked:
                counts["answers of questions that doctors ranked"] += 1
            elif theirs[item.question_id] < 2:
                left.append(item)
            elif item.id in self.scored:
                kept.append(self.scored[item.id])
            else:
                counts["answers without a doctor's score beside answers that have one"] += 1
        return left, kept


def _read_human(config: ScoreConfig) -> Human:
    """The file of rollouts with human scores and of rankings. Raises `InputError` for a score of another source."""
    scored: dict[str, Rollout] = {}
    ranked: dict[str, Preference] = {}
    for record in read_any(Path(config.file)) if config.file else ():
        if isinstance(record, Preference) and config.scorer != "human":
            trail = record.meta.get("annotation")
            name = trail.get("external_id") if isinstance(trail, dict) else record.id.removeprefix("ranked-")
            ranked[str(name)] = replace(record, meta={**record.meta, "label_source": "human"})
        elif isinstance(record, Rollout):
            if config.scorer != "human" and not record.scores:
                continue  # no doctor scored it: it is the scorer's
            if config.scorer != "human" and any(score.source != "human" for score in record.scores):
                raise InputError(f"{config.file}: rollout {record.id!r} has a score that is not human; give human ones")
            scored[record.id] = record
        else:
            allowed = "rollouts" if config.scorer == "human" else "rollouts or preferences"
            raise InputError(f"{config.file}: found {record.id!r}, a {type(record).__name__}; give {allowed}")
    return Human(scored, ranked)


def _scored(
    config: ScoreConfig,
    stage: Stage,
    items: list[Rollout],
    questions: Path,
    scorer: Scorer,
    name: str,
    counts: Counter[str],
) -> list[Rollout]:
    """Every rollout with its scores; one the judge could not grade has none, and is counted under its reason."""
    by_id = {question.id: question for question in read_records(questions, Question)}
    if lost := [item for item in items if item.question_id not in by_id]:
        raise InputError(
            f"{questions}: {len(lost)} rollouts answer questions that are not in it, the first is {lost[0].id!r}; "
            "give the questions they were sampled from"
        )

    def grade(item: Rollout) -> dict[str, Any] | Ungraded:
        try:
            return scorer(by_id[item.question_id], item.answer.text)
        except Ungraded as error:
            return error

    scored: list[Rollout] = []
    ungraded: Counter[str] = Counter()
    pool = ThreadPoolExecutor(REQUESTS_AT_ONCE)
    grades = pool.map(grade, items) if config.scorer == "llm" else map(grade, items)
    with stage.progress("scores", len(items)) as advance:
        try:
            for item, found in zip(items, grades, strict=True):
                if isinstance(found, Ungraded):
                    ungraded[found.reason] += 1
                    _check_ungraded(stage, name, ungraded, len(items))
                    found = {}
                kinds = [criterion for criterion in CRITERIA if criterion in found]
                source: Literal["rule", "llm"] = "rule" if config.scorer == "rule" else "llm"
                scores = tuple(Score(float(found[kind]), kind, source, name) for kind in kinds)
                scored.append(replace(item, scores=scores))
                advance(1)
        finally:
            pool.shutdown(cancel_futures=True)
    counts.update({f"ungraded: {reason}": count for reason, count in ungraded.items()})
    return scored


def _check_ungraded(stage: Stage, judge: str, ungraded: Counter[str], total: int) -> None:
    """Stop as soon as more than 1 % of the answers are lost: the rest would be paid for in vain."""
    if ungraded.total() > MOST_UNGRADED * total:
        reasons = ", ".join(f"{reason} {count}" for reason, count in ungraded.most_common())
        raise InputError(
            f"stage {stage.name!r}: {ungraded.total()} of {total} answers are ungraded ({reasons}), at most 1 % is "
            f"allowed; check the judge {judge} and run again, verdicts already given are kept"
        )


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
        meta = {**first.meta, "scores": [overall(item) for item in items], "label_source": first.scores[0].source}
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
        if top - value > margin + 1e-9:  # 0.9 - 0.85 is a hair over 0.05
            ranks.append(ranks[-1] + 1 if ranks else 1)
            top = value
        else:
            ranks.append(ranks[-1])
    return tuple(ranks)


def _judge(config: ScoreConfig, stage: Stage) -> RubricScorer | None:
    """The judge of the scorers that have one; its verdicts are kept in the stage's folder."""
    return {"llm": _llm, "local": _local}[config.scorer](config, stage) if config.scorer != "rule" else None


def _local(config: ScoreConfig, stage: Stage) -> RubricScorer:
    """A model folder as judge."""
    if not config.model or not Path(config.model).is_dir():
        raise InputError(f"stage {stage.name!r}: scorer local needs `model:`, a model folder; given {config.model!r}")
    from xinglin.rollout.local import LocalGenerator

    folder = Path(config.model)
    name = f"{folder.absolute().parent.name}/{folder.name}"  # most folders are called model
    return LocalScorer(LocalGenerator.load(folder, name=name), cache=stage.dir / "judge.jsonl")


def _llm(config: ScoreConfig, stage: Stage) -> RubricScorer:
    """A judge behind an address; its key comes from the environment where one is set."""
    if not config.url:
        raise InputError(
            f"stage {stage.name!r}: scorer llm needs `url:`, an OpenAI-style address such as http://127.0.0.1:8000/v1"
        )
    key = JUDGE_KEY if os.environ.get(JUDGE_KEY) else None
    return UrlScorer(config.url, config.model or "default", cache=stage.dir / "judge.jsonl", api_key_env=key)
