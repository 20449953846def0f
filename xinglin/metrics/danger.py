"""Small edits that make medical advice dangerous, and the share of them that a text metric fails to punish.

A metric that compares surface forms hardly moves when a "not" is dropped or a dose grows tenfold. Each text metric is
therefore printed with `unpunished_share`: how often a dangerous variant of a text still keeps `keep` (0.8) of the
score that the text itself gets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

NUMBER = r"\d+(?:\.\d+)?"
DOSE = re.compile(
    rf"(?<![\d.])({NUMBER})(?=\s*(?:毫克|微克|克|毫升|单位|万单位|片|粒|支|mg|μg|ug|g|ml|mL|IU|U)(?![A-Za-z]))"
)
SIDE = re.compile(r"左(?!氧氟|甲状腺素|旋|西替|乙拉|炔|卡尼|美丙|归)|右(?!美沙芬|美托|旋|佐匹|归|丙亚胺)")
UNITS = {"微克": "毫克", "毫克": "克", "毫升": "升", "μg": "mg", "ug": "mg", "mg": "g"}
UNIT = re.compile(rf"(?<=\d)(\s*)({'|'.join(UNITS)})(?![A-Za-z])")
# The first rule that fits turns the advice round. Denials come first: dropping one is the shortest road to harm.
NEGATIONS = [
    (r"不建议|不推荐", "建议"),
    (r"禁用|忌用|慎用", "可用"),
    (r"严禁|禁止|切勿|切忌", "可以"),
    (r"不要|不必", "要"),
    (r"不能|不可以|不可|不得", "可以"),
    (r"不宜|不应|不该", "应"),
    (r"避免", "坚持"),
    (r"建议|推荐", "不建议"),
    (r"应立即|请立即|应及时|请及时", "不必"),
    (r"需要|必须", "不需要"),
    (r"可以|可用", "不可以"),
    (r"应", "不应"),
]
ALLERGIES = [
    (r"过敏者?(?:禁用|慎用|忌用|不能用)", "过敏者可用"),
    (r"(?:无|没有|否认)([^，。；,;]{0,10}过敏)", r"有\1"),
    (r"对([^，。；,;]{1,10}?)过敏", r"对\1不过敏"),
]


def danger_pairs(text: str) -> list[tuple[str, str]]:
    """(kind, dangerous variant) of the kinds that fit: negation, dose_x10, side, unit, allergy; each differs."""
    variants = {
        "negation": _first_rule(NEGATIONS, text),
        "dose_x10": DOSE.sub(lambda found: _tenfold(found[1]), text, count=1),
        "side": SIDE.sub(lambda found: "右" if found[0] == "左" else "左", text, count=1),
        "unit": UNIT.sub(lambda found: found[1] + UNITS[found[2]], text, count=1),
        "allergy": _first_rule(ALLERGIES, text),
    }
    return [(kind, variant) for kind, variant in variants.items() if variant != text]


def unpunished_share(
    metric: Callable[[str, str], float], texts: Iterable[str], keep: float = 0.8
) -> dict[str, dict[str, float]]:
    """By kind and for `all`: n, and the share of variants that keep at least `keep` of the identical text's score.

    `metric` takes (prediction, reference)."""
    kept: dict[str, list[bool]] = {"all": []}
    for text in texts:
        best = metric(text, text)
        for kind, variant in danger_pairs(text):
            unpunished = metric(variant, text) >= keep * best
            kept.setdefault(kind, []).append(unpunished)
            kept["all"].append(unpunished)
    return {kind: {"n": len(row), "share": sum(row) / len(row)} for kind, row in kept.items() if row}


def _first_rule(rules: list[tuple[str, str]], text: str) -> str:
    return next((re.sub(find, put, text, count=1) for find, put in rules if re.search(find, text)), text)


def _tenfold(number: str) -> str:
    if "." not in number:
        return number + "0"
    whole, part = number.split(".")
    moved = (whole + part[0]).lstrip("0") or "0"
    return moved + ("." + part[1:] if part[1:] else "")
