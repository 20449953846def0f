"""What the report says of reward models beyond their accuracy, of judges, and of ways of alignment side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xinglin.report import figures, words
from xinglin.report.folder import RunFolder, mapping

DANGERS = {
    "all": "全部",
    "negation": "否定颠倒",
    "dose_x10": "剂量十倍",
    "side": "左右颠倒",
    "allergy": "忽视过敏",
}


def interval(found: Any, key: str = "value") -> str:
    """值 [下限, 上限]（n），or the reason why there is none."""
    found = mapping(found)
    if found.get(key) is None:
        return f"未定义（{found.get('reason') or '数据不足'}）" if found else "—"
    bounds = f" [{words.num(found['low'])}, {words.num(found['high'])}]" if found.get("low") is not None else ""
    return f"{words.num(found[key])}{bounds}（n {words.whole(found.get('n'))}）"


def probes(found: dict[str, Any]) -> dict[str, str]:
    """The rows that an examination adds to a reward model's facts."""
    if "calibration" not in found:
        return {}
    rows = {
        "期望校准误差 ECE": interval(found["calibration"], "ece"),
        "加一句客套话后得分的变化（标准差）": _change(mapping(found.get("padding"))),
        "重复最后一句后得分的变化（标准差）": _change(mapping(found.get("repetition"))),
        "同来源答案中得分与长度的相关": interval(found.get("length_at_equal_quality"), "correlation"),
    }
    for kind, row in mapping(found.get("danger")).items():
        rows[f"危险对判对：{DANGERS.get(kind, kind)}"] = interval(row, "accuracy")
    raters = mapping(found.get("raters"))
    for name, row in mapping(raters.get("rater")).items():
        rows[f"与评审者 {name} 一致"] = interval(row, "accuracy")
    labels = {"unanimous": "一致的标签", "majority": "多数的标签", "arbiter": "仲裁的标签"}
    for name, row in mapping(raters.get("label")).items():
        rows[f"与{labels.get(name, name)}一致"] = interval(row, "accuracy")
    return rows


def _change(found: dict[str, Any]) -> str:
    rises = "" if found.get("rises") is None else f"，{words.share(found['rises'])} 的答案得分上升"
    return interval(found, "mean") + rises


def reliability(run: RunFolder) -> str:
    """The reliability curves of all reward models, "" where there is none."""
    found = {stage.name: mapping(stage.diagnostics.get("calibration")).get("bins") for stage in run.of_kind("reward")}
    return figures.reliability({name: bins for name, bins in found.items() if bins}, "reliability")


def margin_curves(run: RunFolder) -> str:
    """Validation margin and accuracy of every reward model over training, overlaid; "" for fewer than two."""
    logs = {stage.name: stage.log for stage in run.of_kind("reward") if stage.log}
    return figures.overlaid(logs, "reward models overlaid") if len(logs) > 1 else ""


@dataclass(frozen=True, slots=True)
class NoiseRow:
    name: str
    share: str
    settle: str
    wrong: str
    accuracy: str


def noise_study(run: RunFolder) -> list[NoiseRow]:
    """Reward models trained on planted wrong labels: what was planted, what was left of it, what they learned."""
    settled = {"first": "一人说了算", "majority": "多数", "weighted": "按评审者加权（Dawid–Skene）"}
    found = []
    for stage in run.of_kind("reward"):
        noise = mapping(stage.config.get("noise"))
        counts = mapping(stage.manifest.get("counts"))
        n, wrong = words.number(counts.get("pairs labelled")), words.number(counts.get("labels that are wrong"))
        if noise:
            left = f"{words.share((wrong or 0) / n)}（n {words.whole(n)}）" if n else "—"
            facts = stage.diagnostics or mapping(stage.manifest.get("diagnostics"))
            accuracy = f"{words.share(facts.get('accuracy'))}（{words.whole(facts.get('num_pairs'))} 对）"
            how = settled.get(str(noise.get("settle")), str(noise.get("settle")))
            found.append(NoiseRow(stage.name, words.share(noise.get("share")), how, left, accuracy))
    return found


# --- judges and alignment --------------------------------------------------------------------------------------------


def judges(run: RunFolder) -> list[dict[str, Any]]:
    """One examination of a machine judge each, ready to print."""
    found = []
    for stage in run.of_kind("evaluate"):
        exam = mapping(stage.manifest.get("judge_exam"))
        if exam:
            rows = {
                "与医生一致": interval(exam.get("judge_doctor")),
                "医生之间一致": interval(exam.get("doctor_doctor")),
                "相差": interval(exam.get("gap")),
                "医生之间的 Krippendorff α": interval(exam.get("alpha_doctors")),
                "加入裁判后的 α": interval(exam.get("alpha_with_judge")),
                "与最终标签的加权 κ": interval(exam.get("kappa_with_label")),
                "换位后结论相同": words.share(exam.get("position_consistency")),
                "平局": words.share(exam.get("tie_rate")),
                "未能评出": words.share(exam.get("ungraded_rate")),
                "花费": "，".join(f"{k} {words.whole(v)}" for k, v in mapping(exam.get("cost")).items()) or "—",
            }
            size = {key: words.whole(exam.get(key)) for key in ("items", "pairs", "doctors")}
            verdict = {"headline": exam.get("headline") is True, "against": exam.get("against") or []}
            found.append({"stage": stage.name, "judge": str(exam.get("judge")), "rows": rows, **size, **verdict})
    return found


def aligned(run: RunFolder) -> list[list[dict[str, str]]]:
    """Tables of checkpoints aligned from the same preferences, one of each evaluate stage that has them."""
    found = []
    for stage in run.of_kind("evaluate"):
        rows = stage.manifest.get("aligned")
        if isinstance(rows, list):
            found.append([_aligned_row(mapping(row)) for row in rows])
    return found


def _aligned_row(row: dict[str, Any]) -> dict[str, str]:
    return {
        "阶段": str(row.get("checkpoint")),
        "规则得分": interval(row.get("rule")),
        "规则得分的增益": _gain(row.get("gain_rule")),
        "保留的奖励模型的增益": _gain(row.get("gain_held_out_reward")),
        "KL（nats/答案）": interval(row.get("kl")),
        "长度": interval(row.get("length")),
        "distinct-1 / -2": " / ".join(words.num(mapping(row.get(f"distinct{n}")).get("value")) for n in (1, 2)),
        "采样 / 训练 token": f"{words.whole(row.get('tokens_sampled'))} / {words.whole(row.get('tokens_trained'))}",
        "秒": words.whole(row.get("seconds")),
        "停止": str(row.get("stopped") or "—"),
    }


def _gain(found: Any) -> str:
    found = mapping(found)
    if not found:
        return "—"
    verdict = {True: "变好", False: "变差"}.get(found.get("better"), "分不出")
    return f"{interval(found)} {verdict}"
