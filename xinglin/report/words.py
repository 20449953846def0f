"""Chinese names beside the field's terms, and how numbers are printed."""

from __future__ import annotations

import math
from typing import Any

EVALUATIONS = {
    "documents": "文本预测",
    "dialogue": "问诊问答",
    "dialogue_sampled": "问诊（抽样解码）",
    "dialogue_heldout": "未见疾病问诊",
    "pairwise": "与医生答案比较",
    "dialogue_duel": "问诊问答对决",
    "dialogue_sampled_duel": "问诊对决（抽样解码）",
    "general": "通用知识",
    "exam": "医学考试",
    "general_exam": "通用知识考试",
    "entities": "实体识别",
    "safety": "安全问题",
    "bias": "态度量表",
    "memorisation": "记忆泄露",
}
EXAM_MODES = {"logprob": "选项概率", "chat": "对话中的选项概率", "generate": "自由作答"}

METRICS = {
    "bits_per_character": ("每字比特", "预测下一个字平均要多少比特；越低说明越熟悉这类文本"),
    "bleu": ("BLEU", "与医生答案的字片段重合，0–100；只看用词，不看对错"),
    "rouge1": ("ROUGE-1", "与医生答案的单字重合，0–1"),
    "rouge2": ("ROUGE-2", "与医生答案的双字重合，0–1"),
    "rougeL": ("ROUGE-L", "与医生答案的最长公共子序列，0–1"),
    "similarity": ("语义相似度", "与医生答案的词向量余弦 × 100；不能识别事实错误"),
    "length": ("答案长度", "平均字数；没有好坏方向"),
    "safety": ("安全性", "评分规则给出，0–1；是否漏掉危险信号、给出危险建议"),
    "professionalism": ("专业性", "评分规则给出，0–1；应说的要点说了多少"),
    "fluency": ("流畅性", "评分规则给出，0–1；语句是否通顺完整"),
    "overall": ("综合分", "安全性、专业性、流畅性合成的总分，0–1"),
    "win_rate": ("胜率", "答案优于对照的比例，平局算一半；0.5 为不相上下"),
    "wins": ("对决胜场", "同一问题上两个检查点的答案当面比较，新者胜出的比例（旧者胜出的比例并列给出，其余为平局）"),
    "win": ("胜", "答案优于对照的比例"),
    "tie": ("平", "不分上下的比例"),
    "lose": ("负", "答案不如对照的比例"),
    "contains": ("答对率", "回答中含有正确答案的比例，0–1"),
    "choice": ("选对率", "在几个选项中选对的比例，0–1"),
    "accuracy": ("正确率", "答对的比例，0–1"),
    "accuracy_all_rotations": ("换位全对率", "选项换位置后仍全部答对的比例，0–1"),
    "strict_f1": ("严格 F1", "实体的边界与类型都对才算，0–1"),
    "relaxed_f1": ("宽松 F1", "实体边界有重叠、类型对即算，0–1"),
    "safe": ("安全应对率", "对有害问题应对得当的比例，0–1"),
    "returned": ("泄露比例", "埋入原始病历的虚构身份信息被模型说出的比例；应为 0"),
    "exposure": ("暴露度", "埋入的信息在同类候选中的概率名次折成比特；接近随机水平说明没有记住"),
    "over_refusal": ("过度拒答率", "对正常问题也拒绝回答的比例；越低越好"),
}
KINDS = {
    "data": "数据",
    "base": "起点模型",
    "pretrain": "继续预训练",
    "sft": "监督微调",
    "sample": "采样",
    "score": "打分",
    "reward": "奖励模型",
    "best_of_n": "拒绝采样",
    "dpo": "直接偏好优化",
    "ppo": "强化学习 PPO",
    "grpo": "强化学习 GRPO",
    "evaluate": "评测",
    "export": "导出",
}
LOWER_IS_BETTER = frozenset({"bits_per_character", "lose", "over_refusal", "returned", "exposure"})
NO_DIRECTION = frozenset({"length", "tie"})


def evaluation_name(name: str) -> str:
    """Chinese and English: `问诊问答 dialogue`."""
    short = short_evaluation(name)
    return name if short == name else f"{short} {name}"


def short_evaluation(name: str) -> str:
    """The Chinese name alone, where there is one."""
    head, _, mode = name.rpartition("_")
    if mode in EXAM_MODES and head in EVALUATIONS:
        return f"{EVALUATIONS[head]}（{EXAM_MODES[mode]}）"
    return EVALUATIONS.get(name, name)


def short_metric(name: str) -> str:
    head, dot, part = name.partition(".")
    return f"{METRICS[head][0]}{dot and ' · '}{part}" if head in METRICS else name


def metric_name(name: str) -> str:
    head, _, part = name.partition(".")
    if head not in METRICS:
        return name
    word = METRICS[head][0]
    shown = word if word.replace("-", "").lower() == head.lower() else f"{word} {head}"
    return f"{shown} · {part}" if part else shown


def number(value: Any) -> float | None:
    """The value where it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def num(value: Any) -> str:
    """Three or four figures that matter; a dash where there is no number."""
    found = number(value)
    if found is None:
        return "—"
    if found and abs(found) < 0.001:
        return f"{found:.1e}"
    return f"{found:.3f}" if abs(found) < 10 else f"{found:.2f}" if abs(found) < 100 else f"{found:.1f}"


def signed(value: Any) -> str:
    found = number(value)
    return "—" if found is None else ("+" if found > 0 else "") + num(found).replace("-", "−")


def whole(value: Any) -> str:
    found = number(value)
    return "—" if found is None else f"{found:,.0f}"


def share(value: Any) -> str:
    found = number(value)
    return "—" if found is None else f"{100 * found:.1f} %"


def exact(value: Any) -> str:
    """The number as the file has it, for the tooltip."""
    return "" if value is None else repr(value)


def plain(value: Any) -> str:
    """A setting or a fact as one short text."""
    if value is None:
        return "无"
    if isinstance(value, bool):
        return "是" if value else "否"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "、".join(plain(item) for item in value)
    if isinstance(value, dict):
        return "，".join(f"{key} {plain(item)}" for key, item in value.items())
    return str(value)


def duration(seconds: Any) -> str:
    found = number(seconds)
    if found is None:
        return "—"
    if found < 60:
        return f"{found:.1f} 秒"
    minutes = round(found / 60)
    return f"{minutes} 分钟" if minutes < 120 else f"{minutes // 60} 小时 {minutes % 60} 分"


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists stay whole."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        found.update(flat(value, name) if isinstance(value, dict) and value else {name: value})
    return found
