"""Checkpoints x metrics, paired differences, and what may be said of them.

"Better" and "worse" are taken from comparisons.jsonl, where they stand only if the paired interval excludes 0. Both are
said in the same words and at the same length.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from xinglin.report import figures, words
from xinglin.report.folder import RunFolder, mapping

MOST_NAMED = 6
HEADLINE = ("overall", "safety", "professionalism", "safe", "win_rate", "accuracy", "strict_f1", "contains")
SHOWN_NOTES = (
    *("similarity_floor", "parse_failure_rate", "empty_rate", "degenerate", "position_consistency"),
    "ungraded_rate",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One score. `at_chance`: its interval holds the chance level."""

    value: Any
    low: Any
    high: Any
    n: Any
    at_chance: bool


@dataclass(frozen=True, slots=True)
class Row:
    metric: str
    name: str
    arrow: str
    n: str
    chance: Any
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class Group:
    """One evaluation: its rows, and why it was not run where it was not."""

    evaluation: str
    name: str
    rows: list[Row]
    notes: list[tuple[str, list[str]]]
    not_run: list[str]


@dataclass(frozen=True, slots=True)
class Compared:
    """One pair of checkpoints: new against old."""

    new: str
    old: str
    lines: list[dict[str, Any]]
    better: str
    worse: str
    counts: Counter[str]
    figure: str


def checkpoints(run: RunFolder) -> list[str]:
    return list(dict.fromkeys(str(line.get("checkpoint")) for line in run.scores))


def matrix(run: RunFolder) -> list[Group]:
    names = checkpoints(run)
    directions = _directions(run)
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in run.scores:
        groups.setdefault(str(line.get("evaluation")), []).append(line)
    return [_group(name, lines, names, directions) for name, lines in groups.items()]


def _group(
    evaluation: str, lines: list[dict[str, Any]], names: list[str], directions: dict[tuple[str, str], Any]
) -> Group:
    metrics = dict.fromkeys(str(line["metric"]) for line in lines if line.get("metric") is not None)
    rows = []
    for metric in metrics:
        by_name = {str(line.get("checkpoint")): line for line in lines if line.get("metric") == metric}
        counts = sorted({n for line in by_name.values() if (n := words.number(line.get("n"))) is not None})
        rows.append(
            Row(
                metric,
                words.metric_name(metric),
                arrow(directions.get((evaluation, metric), _usual(metric))),
                "、".join(words.whole(count) for count in counts) or "—",
                next((line["chance"] for line in by_name.values() if line.get("chance") is not None), None),
                [_cell(by_name[name]) if name in by_name else None for name in names],
            )
        )
    return Group(evaluation, words.evaluation_name(evaluation), rows, _group_notes(lines, names), _not_run(lines))


def _cell(line: dict[str, Any]) -> Cell:
    low, high, chance = (words.number(line.get(key)) for key in ("low", "high", "chance"))
    at_chance = low is not None and high is not None and chance is not None and low <= chance <= high
    return Cell(line.get("value"), line.get("low"), line.get("high"), line.get("n"), at_chance)


def _not_run(lines: list[dict[str, Any]]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for line in lines:
        if line.get("metric") is None:
            reason = str(mapping(line.get("notes")).get("not_run") or "没有写明原因")
            reasons.setdefault(reason, []).append(str(line.get("checkpoint")))
    return [f"{'、'.join(names)}：{reason}" for reason, names in reasons.items()]


def _group_notes(lines: list[dict[str, Any]], names: list[str]) -> list[tuple[str, list[str]]]:
    """Rates a reader must know beside the scores, by checkpoint."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        known = {**mapping(line.get("notes")), "parse_failure_rate": line.get("parse_failure_rate")}
        known["similarity_floor"] = mapping(known.get("similarity")).get("floor")
        for key in SHOWN_NOTES:
            if known.get(key) is not None:
                found.setdefault(key, {})[str(line.get("checkpoint"))] = known[key]
    return [(key, [_note(key, by_name.get(name)) for name in names]) for key, by_name in found.items()]


def _note(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "是" if value else "否"
    return words.num(value) if key == "similarity_floor" else words.share(value)


def _directions(run: RunFolder) -> dict[tuple[str, str], Any]:
    """`higher_is_better` of every metric, as the evaluation wrote it."""
    return {
        (str(found.get("name")), metric): mapping(body).get("higher_is_better", _usual(metric))
        for results in run.results.values()
        for found in results
        for metric, body in mapping(found.get("metrics")).items()
    }


def _usual(metric: str) -> bool | None:
    if metric in words.NO_DIRECTION:
        return None
    return metric not in words.LOWER_IS_BETTER


def arrow(higher_is_better: bool | None) -> str:
    return "" if higher_is_better is None else "↑" if higher_is_better else "↓"


def explained(groups: list[Group]) -> list[tuple[str, str, str]]:
    """The words of the metrics that occur: name, direction, meaning."""
    rows = {row.metric.partition(".")[0]: row for group in groups for row in group.rows}
    return [
        (words.metric_name(name), row.arrow or "无方向", words.METRICS[name][1])
        for name, row in rows.items()
        if name in words.METRICS
    ]


# --- differences -----------------------------------------------------------------------------------------------------


def comparisons(run: RunFolder) -> list[Compared]:
    directions, doubted = _directions(run), _doubted(run)
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in run.comparisons:
        evaluation, metric = str(line.get("evaluation")), str(line.get("metric"))
        shown = {key: line.get(key) for key in ("a", "b", "diff", "low", "high", "n", "num_differ", "better")}
        if shown["better"] not in (True, False):
            shown["better"] = None
        shown["where"] = words.evaluation_name(evaluation)
        shown["what"] = words.metric_name(metric)
        shown["arrow"] = arrow(directions.get((evaluation, metric), _usual(metric)))
        shown["verdict"] = {True: "变好", False: "变差"}.get(shown["better"], "看不出差别")  # type: ignore[arg-type]
        shown["key"] = (evaluation, metric)
        shown["short"] = f"{words.short_evaluation(evaluation)}：{words.short_metric(metric)}"
        if shown["arrow"] == "" and line.get("better") is None:
            shown["verdict"] = "无好坏方向"
        if shown["better"] is not None and (str(line.get("checkpoint")), evaluation, metric) in doubted:
            shown["better"], shown["verdict"] = None, "有差别，不作好坏结论"
        pairs.setdefault((str(line.get("checkpoint")), str(line.get("against"))), []).append(shown)
    return [_compared(new, old, lines) for (new, old), lines in pairs.items()]


def _doubted(run: RunFolder) -> set[tuple[str, str, str]]:
    """Scores that the report itself disowns, so that no "better" may rest on them: one answer to nearly everything, not
    above chance, or a similarity that cannot tell right from negated."""
    found = set()
    for line in run.scores:
        metric, notes = str(line.get("metric")), mapping(line.get("notes"))
        value, chance = words.number(line.get("value")), words.number(line.get("chance"))
        by_chance = metric == "accuracy" and value is not None and chance is not None and value <= chance
        blind = metric == "similarity" and bool(mapping(notes.get("similarity")).get("verdict"))
        if blind or by_chance or (metric.startswith("accuracy") and notes.get("degenerate") is True):
            found.add((str(line.get("checkpoint")), str(line.get("evaluation")), metric))
    return found


def _compared(new: str, old: str, lines: list[dict[str, Any]]) -> Compared:
    main = [line for line in lines if _is_main(line["key"], {other["key"] for other in lines})]
    better, worse = (_named([line for line in lines if line["better"] is wanted]) for wanted in (True, False))
    counts = Counter(line["verdict"] for line in lines)
    figure = figures.forest(main, f"{new} − {old}")
    return Compared(new, old, lines, better, worse, counts, figure)


def _is_main(key: tuple[str, str], keys: set[tuple[str, str]]) -> bool:
    """Not a part of a metric that is there as a whole."""
    evaluation, metric = key
    whole = metric.partition(".")[0]
    if metric in ("win", "tie", "lose"):
        return (evaluation, "win_rate") not in keys
    return metric == whole or (evaluation, whole) not in keys


def _named(lines: list[dict[str, Any]]) -> str:
    """What changed, from what to what: the metrics a doctor asks for first, and how many more there are."""
    first = {metric: place for place, metric in enumerate(HEADLINE)}
    order = sorted(lines, key=lambda line: first.get(line["key"][1], len(first)))
    items = [f"{line['short']} {words.num(line['a'])} → {words.num(line['b'])}" for line in order[:MOST_NAMED]]
    more = [f"另有 {len(lines) - MOST_NAMED} 项见第 2 节"] if len(lines) > MOST_NAMED else []
    return "；".join(items + more)


# --- notes -----------------------------------------------------------------------------------------------------------


def notes_table(run: RunFolder) -> list[tuple[str, str, list[str]]]:
    """Everything else the evaluations noted, for the appendix: evaluation, key, value by checkpoint."""
    names = checkpoints(run)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in run.scores:
        for key, value in words.flat(mapping(line.get("notes"))).items():
            if key not in ("warnings", "not_run", "") and not isinstance(value, dict):
                found.setdefault((str(line.get("evaluation")), key), {})[str(line.get("checkpoint"))] = value
    return [
        (evaluation, key, [_short(by_name[name]) if name in by_name else "—" for name in names])
        for (evaluation, key), by_name in found.items()
    ]


def _short(value: Any) -> str:
    text = words.num(value) if isinstance(value, float) else words.plain(value)
    return text if len(text) <= 40 else text[:16] + "…"


def caveats(run: RunFolder) -> list[str]:
    """Warnings of the evaluations, each once with the checkpoints it was said of."""
    said: dict[tuple[str, str], list[str]] = {}
    failed: dict[tuple[str, str], list[str]] = {}
    for line in run.scores:
        evaluation, name = str(line.get("evaluation")), str(line.get("checkpoint"))
        notes = mapping(line.get("notes"))
        warnings = notes.get("warnings")
        told = [str(item) for item in warnings] if isinstance(warnings, list) else []
        if notes.get("degenerate") is True:
            told.append("退化：九成以上的题给出同一个答案，分数说明不了问题")
        if (rate := words.number(line.get("parse_failure_rate"))) is not None and rate > 0:
            failed.setdefault((evaluation, name), [words.share(rate)])
        for warning in told:
            if name not in said.setdefault((evaluation, warning), []):
                said[evaluation, warning].append(name)
    found = [f"{words.evaluation_name(e)}（{'、'.join(names)}）：{text}" for (e, text), names in said.items()]
    found += [
        f"{words.evaluation_name(e)}（{name}）：{rate[0]} 的回答无法解析，按错计" for (e, name), rate in failed.items()
    ]
    total = len(run.comparisons)
    if total:
        found.append(
            f"共做了 {total} 项配对比较，每项各用 95 % 区间，没有做多重比较校正：即使毫无差别，"
            f"也会有约 {max(1, round(total * 0.05))} 项碰巧显得不同。看一致的走向，不看单项。"
        )
    return found
