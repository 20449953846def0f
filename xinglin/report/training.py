"""What each stage did: curves, the step that was kept, health rules, reward models side by side, best-of-n rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xinglin.report import figures, judging, words
from xinglin.report.folder import RunFolder, StageFolder, listing, mapping

Log = list[dict[str, Any]]
TRAINED = ("base", "pretrain", "sft", "reward", "best_of_n", "dpo", "ppo", "grpo")


@dataclass(frozen=True, slots=True)
class Trained:
    """One stage or round, as the page shows it. `reason` says why there is no curve."""

    name: str
    kind: str
    figure: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    reason: str = ""
    stopped: str | None = None


def stages(run: RunFolder) -> list[Trained]:
    """Every stage that trains, rounds of best-of-n as their own."""
    found = []
    for stage in run.of_kind(*TRAINED):
        kind = words.KINDS.get(stage.kind, stage.kind)
        if stage.status == "not run":
            found.append(Trained(stage.name, kind, reason="没有运行：没有这一阶段的文件夹"))
        elif stage.rounds:
            found += [_causal(f"{stage.name} / {part}", kind, log, stage) for part, log in stage.rounds.items()]
        elif stage.kind in ("ppo", "grpo"):
            found.append(_policy(stage, kind))
        else:
            found.append(_causal(stage.name, kind, stage.log, stage))
    return found


def _causal(name: str, kind: str, log: Log, stage: StageFolder) -> Trained:
    figure = figures.curves(log, name)
    if not figure:
        why = "随机初始化的权重，没有训练" if stage.kind == "base" else "metrics.jsonl 里没有记录"
        return Trained(name, kind, reason=why)
    losses = [value for line in log if (value := words.number(line.get("loss"))) is not None]
    last = _last(log, "step")
    facts = [("步数", words.whole(last))]
    if losses:
        facts.append(("训练损失", f"{words.num(losses[0])} → {words.num(losses[-1])}"))
    if (best := figures.best_step(log)) is not None:
        kept = "，保留的是这一步的权重" if stage.config.get("keep_best", True) else "，保留的是最后一步的权重"
        facts.append(("最低验证损失", f"{words.num(best[1])}（第 {best[0]:.0f} 步{kept}）"))
    facts += [
        (label, words.num(value))
        for label, value in _last_of(log, {"valid_accuracy": "最后验证准确率", "valid_margin": "最后验证分差"})
    ]
    return Trained(name, kind, figure, facts + _progress(stage), _skipped(log))


def _policy(stage: StageFolder, kind: str) -> Trained:
    stopped = stage.manifest.get("stopped_by") or next(
        (line["stopped"] for line in stage.log if line.get("stopped")), None
    )
    rows = [line for line in stage.log if "iteration" in line]
    at = words.number(rows[-1]["iteration"]) if stopped and rows else None
    figure = figures.policy(stage.log, _limits(stage, rows), at, stage.name)
    if not figure:
        return Trained(stage.name, kind, reason="metrics.jsonl 里没有任何一轮的记录")
    facts = [("轮数", str(len(rows)))]
    for key, label in {"score": "平均得分", "kl": "KL", "length": "长度", "entropy": "熵"}.items():
        values = [value for line in rows if (value := words.number(line.get(key))) is not None]
        if values:
            facts.append((label, f"{words.num(values[0])} → {words.num(values[-1])}"))
    limits = {"max_kl": "KL", "min_entropy": "熵", "max_ratio": "比率", "max_length_growth": "长度增长倍数"}
    rules = [f"{name} {words.plain(stage.config[key])}" for key, name in limits.items() if key in stage.config]
    facts.append(("健康规则的停止线", "、".join(rules) or "—"))
    return Trained(stage.name, kind, figure, facts + _progress(stage), _skipped(stage.log), stopped=str(stopped or ""))


def _limits(stage: StageFolder, rows: Log) -> dict[str, tuple[str, float]]:
    """Where the health rules stop, for each watched number."""
    found: dict[str, tuple[str, float]] = {}
    for key, rule in {"kl": "max_kl", "entropy": "min_entropy", "ratio": "max_ratio"}.items():
        if (value := words.number(stage.config.get(rule))) is not None:
            found[key] = (rule, value)
    growth, first = (
        words.number(stage.config.get("max_length_growth")),
        words.number(rows[0].get("length")) if rows else None,
    )
    if growth is not None and first is not None:
        found["length"] = ("max_length_growth", growth * first)
    return found


def _progress(stage: StageFolder) -> list[tuple[str, str]]:
    return [] if stage.status == "done" else [("状态", "没有完成：没有 manifest.json，以下为已记录的部分")]


def _skipped(log: Log) -> list[str]:
    count = sum("skipped" in line for line in log)
    return [f"{count} 步的梯度不是有限数，这些步没有改动权重"] if count else []


def _last(log: Log, key: str) -> Any:
    return next((line[key] for line in reversed(log) if words.number(line.get(key)) is not None), None)


def _last_of(log: Log, names: dict[str, str]) -> list[tuple[str, Any]]:
    return [(label, value) for key, label in names.items() if (value := _last(log, key)) is not None]


def caveats(found: Sequence[Trained]) -> list[str]:
    said = [f"{stage.name}：被健康规则停止（{stage.stopped}）" for stage in found if stage.stopped]
    said += [f"{stage.name}：{alarm}" for stage in found for alarm in stage.alarms]
    return said


# --- reward models ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RewardModel:
    name: str
    facts: dict[str, str]
    sources: list[str]
    matrix: list[tuple[str, list[dict[str, Any] | None]]]
    by_length: list[tuple[str, str, str]]
    alarm: str
    raised: bool
    reason: str = ""


def reward_models(run: RunFolder) -> list[RewardModel]:
    return [_reward_model(stage) for stage in run.of_kind("reward")]


def _reward_model(stage: StageFolder) -> RewardModel:
    found = stage.diagnostics or mapping(stage.manifest.get("diagnostics"))
    if not found:
        why = "没有运行" if stage.status == "not run" else "没有 diagnostics.json：这一阶段没有完成"
        return RewardModel(stage.name, {}, [], [], [], "", False, why)
    pairs = [pair for pair in listing(found.get("by_source")) if isinstance(pair, dict)]
    sources = list(dict.fromkeys(str(pair.get(side)) for side in ("better", "worse") for pair in pairs))
    by_pair = {(str(pair.get("better")), str(pair.get("worse"))): pair for pair in pairs}
    rows = [(better, [by_pair.get((better, worse)) for worse in sources]) for better in sources]
    facts = {
        "训练数据": words.plain(stage.config.get("data", "—")),
        "目标函数": "，ranks ".join(words.plain(stage.config.get(key, "—")) for key in ("loss", "ranks")),
        "验证准确率": f"{words.share(found.get('accuracy'))}（{words.whole(found.get('num_pairs'))} 对；猜测为 50 %）",
        "得分与长度的相关": words.num(found.get("score_length_correlation")),
        "得分均值 ± 标准差": f"{words.num(found.get('score_mean'))} ± {words.num(found.get('score_std'))}",
    }
    lengths = {"better is longer": "较好的更长", "better is not longer": "较好的不更长"}
    by_length = [
        (lengths.get(name, name), words.share(mapping(part).get("accuracy")), words.whole(mapping(part).get("n")))
        for name, part in mapping(found.get("by_length")).items()
    ]
    raised, alarm = _alarm(mapping(found.get("overfit_alarm")))
    facts |= judging.probes(found)
    return RewardModel(stage.name, facts, sources, [row for row in rows if any(row[1])], by_length, alarm, raised)


def _alarm(found: dict[str, Any]) -> tuple[bool, str]:
    """ChiMed-GPT's sign of over-fitting (arXiv:2311.06025), in words."""
    step = found.get("training_accuracy_passed_95_at_step")
    if found.get("raised") is True:
        return True, f"过拟合警报：训练准确率在第 {words.whole(step)} 步超过 95 %，此后验证分差不再增长"
    if step is not None:
        return False, f"训练准确率在第 {words.whole(step)} 步超过 95 %，但验证分差仍在增长，没有警报"
    return False, "训练准确率没有超过 95 %，没有警报" if found else "没有过拟合检查的记录"


# --- rounds and decoding ---------------------------------------------------------------------------------------------


def rounds(run: RunFolder) -> list[dict[str, Any]]:
    """One line for each round of rejection sampling."""
    found = []
    for stage in run.of_kind("best_of_n"):
        decoding = mapping(stage.manifest.get("decoding") or stage.config.get("decoding"))
        common = {
            "stage": stage.name,
            "n": words.plain(stage.manifest.get("n", stage.config.get("num_answers", "—"))),
            "keep": words.plain(stage.manifest.get("keep", stage.config.get("keep", "—"))),
            "temperature": words.plain(decoding.get("temperature", "—")),
        }
        given = [item for item in listing(stage.manifest.get("rounds")) if isinstance(item, dict)]
        for item in given or [{"round": "没有完成" if stage.path else "没有运行"}]:
            counts = "，".join(f"{name} {words.whole(count)}" for name, count in mapping(item.get("counts")).items())
            found.append(
                {
                    **common,
                    "round": item.get("round", "—"),
                    "mean": item.get("reward_mean"),
                    "best": item.get("reward_of_best"),
                    "counts": counts or "—",
                }
            )
    return found


def decoding(run: RunFolder) -> list[tuple[str, str, str]]:
    """Stage, answers a question, decoding settings: for everything that was sampled or evaluated."""
    found = []
    for stage in run.stages:
        settings = mapping(stage.manifest.get("decoding")) or mapping(stage.config.get("decoding"))
        if settings:
            how = "，".join(f"{key} {words.plain(value)}" for key, value in settings.items())
            found.append((stage.name, words.plain(stage.config.get("num_answers", 1)), how))
    return found
