"""The battery on each checkpoint of a run, and paired comparisons between them.

OUT/scores.jsonl        one line per (checkpoint, evaluation, metric): value, n, interval, chance
OUT/comparisons.jsonl   one line per (new, old, evaluation, metric): difference, interval, better or not
samples.jsonl           answers side by side
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from xinglin.config import Evaluate
from xinglin.evals import aligned, judge_exam, reward_order
from xinglin.evals.battery import (
    FEWEST_DIFFERING,
    BatterySettings,
    compare,
    embedding_of,
    run_battery,
    score_lines,
)
from xinglin.evals.dialogue import Judge, Scorer, pairwise
from xinglin.evals.result import Evaluation, Metric
from xinglin.metrics import paired_difference
from xinglin.records import InputError, Preference, Question, read_records
from xinglin.rollout.generator import Generator
from xinglin.rollout.reward import load_reward
from xinglin.run import Stage, write_text


def evaluate(
    config: Evaluate,
    stage: Stage,
    models: Mapping[str, Callable[[], Generator]],
    data: Path,
    scorer: Scorer | None,
    bias_items: Path,
    out: Path,
    rewards: Mapping[str, Path] | None = None,
    judge: Judge | None = None,
    held_out_reward: Path | None = None,
    folders: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Evaluate every checkpoint once; what was evaluated before an interruption is not done again.

    `models` loads a checkpoint's generator by name, one at a time; `rewards` names the diagnostics of reward stages.
    `held_out_reward` is a reward model's folder, `folders` the stages' own: `config.aligned` are compared by the one
    and by the costs in the other. The judge is examined on `config.doctor_labels`.
    """
    rankings = _doctors_rankings(config, judge or scorer)
    settings = BatterySettings(
        evaluations=config.evaluations,
        limit=config.limit or 0,
        max_new_tokens=config.decoding.max_new_tokens,
        temperature=config.decoding.temperature,
        bias_items=bias_items,
        canaries=Path(config.canaries) if config.canaries else None,
        exam_modes=config.exam_modes,
    )
    embed = embedding_of(data, seed=config.seed)
    judge = judge or (rule_judge(scorer) if scorer else None)
    results: dict[str, list[Evaluation]] = {}
    with stage.progress("checkpoints", len(models)) as advance:
        for name, load in models.items():
            path = stage.dir / f"{name}.json"
            if not path.is_file():
                generator = load()
                found = run_battery(
                    generator, data, settings, scorer=scorer, judge=judge, embed=embed, seed=config.seed
                )
                write_text(path, json.dumps([asdict(e) for e in found], ensure_ascii=False, default=_plain))
            results[name] = _read(path)
            advance(1, name)
    for name, diagnostics in (rewards or {}).items():
        results[name] = [reward_order.run(diagnostics, seed=config.seed)]
    scores = [line for name, found in results.items() for line in score_lines(name, found)]
    comparisons = [
        {"checkpoint": new, "against": old, **line}
        for new, old in config.compare
        for line in (
            *compare(results[old], results[new], seed=config.seed),
            *head_to_head(judge, data / "questions/test.jsonl", results[old], results[new], config.seed),
        )
    ]
    write_lines(out / "scores.jsonl", scores)
    write_lines(out / "comparisons.jsonl", comparisons)
    facts: dict[str, Any] = {"num_scores": len(scores), "num_comparisons": len(comparisons)}
    if config.aligned:
        reward = _reward_score(held_out_reward) if held_out_reward else None
        how = aligned.Measures(scorer, reward, config.decoding.max_new_tokens, config.seed)
        facts["aligned"] = _side_by_side(config, stage, models, data, how, folders or {})
    if rankings and judge:
        facts["judge_exam"] = _examine_judge(config, stage, judge, rankings)
    return facts


def _doctors_rankings(config: Evaluate, judge: Any) -> list[Preference]:
    """What the judge is examined on, read before anything else is done. Raises `InputError` where there is no judge."""
    if not config.doctor_labels:
        return []
    if judge is None:
        raise InputError("evaluate.doctor_labels is set, but there is no judge to examine; set judge_url as well")
    return list(read_records(Path(config.doctor_labels), Preference))


def _reward_score(folder: Path) -> aligned.RewardScore:
    model = load_reward(folder)
    return lambda question, text: float(model.score_texts(question.prompt, [text])[0])


def _side_by_side(
    config: Evaluate,
    stage: Stage,
    models: Mapping[str, Callable[[], Generator]],
    data: Path,
    how: aligned.Measures,
    folders: Mapping[str, Path],
) -> list[dict[str, Any]]:
    chosen = {name: models[name] for name in (config.reference, *config.aligned)}
    questions = list(islice(read_records(data / "questions/test.jsonl", Question), config.limit))
    costs = {name: aligned.cost_of(folders[name]) for name in config.aligned if name in folders}
    found = aligned.run(chosen, config.reference, questions, how, costs)
    body = {"reference": config.reference, "rows": found}  # no list: those are results of checkpoints
    write_text(stage.dir / "side_by_side.json", json.dumps(body, ensure_ascii=False, indent=1))
    return found


def _examine_judge(config: Evaluate, stage: Stage, judge: Judge, rankings: Sequence[Preference]) -> dict[str, Any]:
    found = judge_exam.run(judge, rankings, name=getattr(judge, "name", "rule"), seed=config.seed)
    found["cost"] = getattr(judge, "cost", {})
    write_text(stage.dir / "judge_exam.json", json.dumps(found, ensure_ascii=False, indent=1))
    return found


def head_to_head(
    judge: Judge | None, questions: Path, old: Sequence[Evaluation], new: Sequence[Evaluation], seed: int
) -> list[dict[str, Any]]:
    """Who wins when both answer one question, greedy and sampled: `a` is the share the old one wins, `b` the new one's.

    Every pair is judged in both orders; two different winners are a tie (IIMedGPT's win / tie / lose, 2501.02869).
    """
    lines = []
    asked = {question.id: question for question in read_records(questions, Question)} if questions.is_file() else {}
    answers = {found.name: found.answers for found in old}
    for found in new if judge else ():
        if found.name not in ("dialogue", "dialogue_sampled") or not answers.get(found.name):
            continue
        items = [asked[name] for name in found.answers]
        assert judge is not None
        duel = pairwise(judge, items, found.answers, answers[found.name], seed=seed)
        win, lose = duel.metrics["win"], duel.metrics["lose"]
        gap = paired_difference(lose.per_item, win.per_item, seed=seed, groups=win.groups or None)
        sure = (gap.low > 0 or gap.high < 0) and gap.num_differ >= FEWEST_DIFFERING
        line = {"evaluation": f"{found.name}_duel", "metric": "wins", "a": lose.value, "b": win.value}
        line |= {"diff": gap.diff, "low": gap.low, "high": gap.high, "n": gap.n, "num_differ": gap.num_differ}
        line |= {"better": gap.diff > 0 if sure else None, "tie": duel.metrics["tie"].value}
        lines.append({**line, "position_consistency": duel.notes["position_consistency"]})
    return lines


def rule_judge(scorer: Scorer, margin: float = 0.02) -> Judge:
    """A pairwise judge out of a scorer: the higher overall score wins, near ones tie."""

    def judge(question: Any, text_a: str, text_b: str) -> Any:
        gap = scorer(question, text_a)["overall"] - scorer(question, text_b)["overall"]
        return "tie" if abs(gap) <= margin else "a" if gap > 0 else "b"

    return judge


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(line, ensure_ascii=False, default=_plain) + "\n" for line in lines))


def _read(path: Path) -> list[Evaluation]:
    return [
        Evaluation(**{**found, "metrics": {name: Metric(**m) for name, m in found["metrics"].items()}})
        for found in json.loads(path.read_text("utf-8"))
    ]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
