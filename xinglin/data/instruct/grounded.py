"""Does an answer say only what the note holds? Numbers with units, drugs, diseases and examinations are looked up.

    unsupported(answer, note_text, terms)     ["number 0.5g", "drug ..."] -> kinds of what the note does not hold

Terms are found by a list (`Terms`: the ward's by default, the hospital's own beside it) and by the endings that name
drugs (international non-proprietary stems in their Chinese form), diseases and examinations. An ending is looked up
with the character or two before it, because where a Chinese word begins is not written. This refuses more than it must,
and it cannot see a false relation between true words: a sample is to be read by a clinician.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_DIGITS = {char: str(value) for value, char in enumerate("零一二三四五六七八九")} | {"两": "2", "半": "0.5"}
_COUNTED = "次日天周月年片粒袋支滴小岁度级期型个分"
_UNITS = {
    **{
        "毫克": "mg",
        "克": "g",
        "微克": "ug",
        "μg": "ug",
        "mcg": "ug",
        "毫升": "ml",
        "升": "l",
        "公斤": "kg",
        "千克": "kg",
    },
    **{
        "天": "日",
        "度": "℃",
        "°c": "℃",
        "毫米汞柱": "mmhg",
        "粒": "片",
        "小时": "h",
        "分钟": "min",
        "厘米": "cm",
        "毫米": "mm",
    },
}
_UNIT = (
    r"毫米汞柱|毫克|微克|毫升|公斤|千克|毫米|厘米|小时|分钟|个月|mmol/l|umol/l|μmol/l|ng/ml|mg/dl|mg/l|g/l|u/l|iu/l|mmhg|mcg"
    r"|kpa|cm|mm|mg|kg|ug|μg|ml|iu|℃|°c|[%％]|[克升次日天周月年片粒袋支滴岁度级期型]|[ghlu](?![a-z])"
)
_NUMBER = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNIT})?")
_LIST_MARK = re.compile(r"(?:^|\n)\s*[（(]?\d{1,2}[)）、.．]\s*(?!\d)")
STEMS: dict[str, str] = {
    "drug": "洛尔|普利|沙坦|他汀|地平|西林|头孢[\u4e00-\u9fff]{2}|霉素|沙星|拉唑|替丁|列净"
    "|格列[\u4e00-\u9fff]|双胍|匹林|布芬|芬酸|昔康|昔布"
    "|米松|泼尼松|尼龙|替尼|单抗"
    "|唑仑|西泮|西汀|唑酮|噻嗪|呋塞米|内酯|洛韦|韦德|硝唑|康唑|胰岛素|肝素|法林|格雷|特罗|茶碱|司特"
    "|胶囊|颗粒|注射液|口服液|软膏|滴眼液",
    "disease": "炎|癌|瘤|综合征|结石|骨折|梗死|梗塞|衰竭|中毒|休克|溃疡|硬化"
    "|贫血|高血压|糖尿病|心脏病|冠心病|肝病|肾病|血症|积液|疝|哮喘|肺结核|白血病|痛风|癫痫",
    "examination": "CT|MRI|核磁|B超|彩超|超声|X线|胸片|心电图|肠镜|胃镜|支气管镜"
    "|造影|活检|穿刺|血常规|尿常规|便常规|肝功能|肾功能|脑电图|肌钙蛋白|培养",
}
_ENDINGS = {kind: re.compile(rf"([\u4e00-\u9fff]{{0,2}})({stems})", re.I) for kind, stems in STEMS.items()}
# Characters that stand before a word without belonging to it
_LOOSE = set(
    "为是有患性与和或及的予用服加查行做做复见示考虑断因对无伴并合诊即后前在以给口选可曾作按再需若如完善急慢型期发级"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Names by kind, each with its synonyms (itself included)."""

    names: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


def terms_of(groups: Iterable[tuple[str, Iterable[str]]]) -> Terms:
    """(kind, synonyms) groups as `Terms`; names of one character are left out."""
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    for kind, words in groups:
        same = tuple(word for word in words if len(word) > 1)
        names.setdefault(kind, {}).update({word: same for word in same})
    return Terms(names)


def unsupported(answer: str, note: str, terms: Terms) -> list[str]:
    """Kinds of facts of the answer that the note does not hold, each once: number, drug, disease, examination."""
    plain, held = _plain(answer), _plain(note)
    wrong = ["number"] if _numbers(plain) - _numbers(held, every=True) else []
    for kind, names in terms.names.items():
        for word in sorted((word for word in names if _plain(word) in plain), key=len, reverse=True):
            if any(_plain(same) in held for same in names[word]):
                plain = plain.replace(_plain(word), "，")  # told by a synonym: its ending needs no further proof
            elif _plain(word) in plain:
                wrong.append(kind)
    wrong += [
        kind for kind, ending in _ENDINGS.items() if any(not _held(mark, held) for mark in ending.finditer(plain))
    ]
    return list(dict.fromkeys(wrong))


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", _LIST_MARK.sub("\n", text)).lower()
    text = re.sub(r"(?:[一1]|每)[日天](?=[\d一二三四五六两])", "每日", text)
    text = re.sub(
        rf"十(?=[{_COUNTED}])", "10", re.sub(r"十([一二三四五六七八九])", lambda m: "1" + _DIGITS[m[1]], text)
    )
    return re.sub(rf"[零一二三四五六七八九两半](?=[{_COUNTED}])", lambda mark: _DIGITS[mark[0]], text)


def _numbers(text: str, *, every: bool = False) -> set[tuple[float, str]]:
    """(value, unit) of each number; `every`: also without its unit, which an answer may leave out, never change."""
    found = {(float(value), _UNITS.get(unit, unit)) for value, unit in _NUMBER.findall(text)}
    return found | {(value, "") for value, _ in found} if every else found


def _held(mark: re.Match[str], note: str) -> bool:
    before, ending = mark[1].lower(), mark[2].lower()
    if before + ending in note:
        return True
    if len(before) == 2 and before[0] in _LOOSE:
        return before[1:] + ending in note or (before[1] in _LOOSE and ending in note and len(ending) > 1)
    return (not before or before[-1] in _LOOSE) and ending in note and len(ending) > 1
