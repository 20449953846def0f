# ruff: noqa: E501 - a regular expression is easier to check in one piece
"""Dates in every script, and ages from ninety.

    dates(text)   spans over a normalised text; impossible dates (2023-02-30, 13月) are dates too

Kept, because they tell no day: 入院第3天, 术后第2天, 3天前, 3-5个月, a year alone, and
ratios (5/1 of a laboratory, 1/2片, 120/80mmHg).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.lexicon import HAN

N = "〇○零ＯOo一二三四五六七八九十廿卅元"
C1 = "[一二三四五六七八九十]"
MONTH = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    "|Nov(?:ember)?|Dec(?:ember)?)"
)
STEM_BRANCH = "[甲乙丙丁戊己庚辛壬癸][子丑寅卯辰巳午未申酉戌亥]"
LUNAR_DAY = (
    "(?:初[一二三四五六七八九十]|十[一二三四五六七八九]?|[廿卅][一二三四五六七八九]?"
    "|二十[一二三四五六七八九]?|三十|[0-9]{1,2})[日号]?"
)
LUNAR_MONTH = "(?:闰?(?:正|腊|冬|十[一二]|[一二三四五六七八九十])|[0-9]{1,2})月"
ERA = f"(?:民国|公元|光绪|昭和|平成|令和)[ ]?(?:[0-9]{{1,4}}|[{N}]{{1,4}})年"
Y = r"(?:1[89]|2[01])[0-9]{2}"
B = r"[ \t]{0,2}(?:\r?\n[ \t]*)?"

ARABIC = re.compile(
    rf"{Y}[ ]年[ ][0-9]{{1,2}}[ ]月[ ](?=[{HAN}])|(?:{Y}|[0-9]{{2}})[ ]?年{B}[0-9]{{1,2}}{B}月(?:份|{B}[0-9]{{1,2}}{B}[日号]?)?(?:[上中下]旬|初|底|末)?"
    rf"|{Y}[ ]?(?P<sep>[-–—－./·、_])[ ]?[0-9]{{1,2}}[ ]?(?P=sep)[ ]?[0-9]{{1,2}}(?![0-9])[日号]?"
    rf"|{Y}[-–—./][0-9]{{1,2}}[./-][0-9]{{1,2}}(?![0-9])"
    rf"|{Y}{B}[-–—./]{B}[0-9]{{1,2}}{B}[-–—./]{B}[0-9]{{1,2}}(?![0-9])"
    rf"|{Y}(?:[-/](?:0[1-9]|1[0-9])|\.(?:0[1-9]|1[0-2]))(?![0-9.%％\-/])(?![ ]?(?:mg|ml|g|元|万|×|\*))"
    rf"|{Y}[-./ ]{MONTH}[-./ ][0-9]{{1,2}}(?![0-9])"
    rf"|{Y}[ ](?:0[1-9]|1[0-2])[ ](?:[0-2][0-9]|3[01])(?![0-9.])"
    rf"|{Y}(?:0[1-9]|1[0-9])(?:[0-2][0-9]|3[0-9])(?:[0-9]{{4}}(?:[0-9]{{2}})?)?(?![0-9A-Za-z.])"
    
        rf"|{Y}[ ]?年(?:{LUNAR_MONTH}{LUNAR_DAY}|[ ]?[{N}]{{1,3}}月(?:[{N}]{{1,3}}[日号]|份|[上中下]旬|初|底"
        rf"|末)?|[春夏秋冬](?=[季天]))"

    r"|(?P<short>[0-9]{2}(?P<s2>[-./])[0-9]{1,2}(?P=s2)[0-9]{1,2})(?![0-9./%％\-])"
    rf"|(?P<american>[0-9]{{1,2}}(?P<s3>[-./])[0-9]{{1,2}}(?P=s3){Y})(?![0-9])"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th)?[ \-./]?(?:of[ ])?{MONTH}[ \-.,/]{{0,2}}(?:{Y}|[0-9]{{2}})(?![0-9])"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th)?[ ]{MONTH}(?![a-z])"
    r"|[0-9]{1,2}[ ]?月[ ]?[0-9]{1,2}[ ]?[日号]|[0-9]{1,2}月(?:份|[上中下]旬|初(?![次一])|底|末)"
    r"|(?P<slash>(?:1[0-2]|0?[1-9])[/.\-](?:3[01]|[12][0-9]|0?[1-9]))(?![0-9./%％\-])"
    
        r"|(?P<day>(?:[12][0-9]|3[01]|0?[1-9]))[日号](?=(?:[ ]?[0-9]{1,2}[:：][0-9]{2}|上午|下午|晚|晨|凌晨"
        r"|夜间|中午|清晨|入院|出院|手术|行|复查|就诊|于|来院|起|转入|转院))"
,
    re.I,
)  # fmt: skip
SPELLED = re.compile(
    rf"(?:[〇○零ＯOo一二三四五六七八九]{{4}}|[零〇○一二三四五六七八九]{{2}}|{ERA}|(?:农历|阴历|旧历"
    rf"|夏历)?{STEM_BRANCH}年){B}年?{B}(?:农历|阴历)?"
    rf"(?:闰?[{N}正腊冬]{{1,3}}{B}月(?:{B}(?:初?[{N}]{{1,3}})(?:[日号]|(?![{N}个]))|份|[上中下]旬|初|底|末)?)"
    rf"|(?:农历|阴历|旧历|夏历)[ ]?(?:{STEM_BRANCH}年|[{N}0-9]{{2,4}}年)?{LUNAR_MONTH}(?:{LUNAR_DAY})?"
    rf"|闰?(?:正|腊|冬)月(?:{LUNAR_DAY}|底|初(?![次]))?(?:[日号])?"
    rf"|{LUNAR_MONTH}(?:初[一二三四五六七八九十]|廿[一二三四五六七八九]?)"
    rf"|(?:十[一二]|{C1})月(?:[二三]?十[一二三四五六七八九]?|廿[一二三四五六七八九]?|{C1})[日号]"
    rf"|(?:十[一二]|{C1})月(?:份|[上中下]旬|底)"
    rf"|{ERA}(?:[0-9{N}]{{1,3}}月(?:[0-9{N}]{{1,3}}[日号])?)?|{STEM_BRANCH}年(?:{LUNAR_MONTH}{LUNAR_DAY})?"
    r"|(?:去年|今年|前年|本年|当年|同年|次年|翌年)[ ]?(?:[0-9]{1,2}|十[一二]"
    r"|[一二三四五六七八九十])月(?:[0-9]{1,2}[日号]|份|[上中下]旬|初|底)?"
    r"|(?:上月|本月|当月|次月|上个月|这个月|同月)[ ]?(?:[0-9]{1,2}|[二三]?十[一二三四五六七八九]?"
    r"|[一二三四五六七八九])[日号]"
    r"|除夕|大年(?:初[一二三四五六七八]|三十)"
)
ENGLISH = re.compile(
    rf"(?<![A-Za-z]){MONTH}\.?[ \-]?[0-9]{{1,2}}(?:st|nd|rd|th)?(?:[ ,\-./，]{{1,3}}{Y}|["
    rf" ,]{{1,2}}'?[0-9]{{2}}(?![0-9:]))?(?![0-9])"
    rf"|(?<![A-Za-z]){MONTH}\.?[ ,\-./]{{1,2}}{Y}",
    re.I,
)
BEFORE_SLASH = re.compile(r"(?:于|自|从|至|到|定于|截至|截止|日期|时间|今日|昨日|今晨|[日时]期?[:：]|[:：(（ \n])[ ]?$")
CUE_BEFORE = re.compile(
    r"(?:于|自从?|从|截至|截止|日期[:：]?|时间[:：]?|今日|昨日|今天|昨天|明日"
    r"|周[一二三四五六日](?:[(（])?|末次月经[:：为]?|末次月经时间[:：]?|[Ll][Mm][Pp][:：]?|预产期[:：为]?|EDC[:：]?|出生[:：]|生日[:：]?|日[:：]|截止到)[ ]?$"
)
AFTER_SLASH = re.compile(
    r"[ ]?(?:(?:上午|下午|晚|晨|凌晨|夜间|中午|清晨)?[ ]?(?:入院|出院|住院|就诊|复查|复诊|手术|查|行|来院"
    r"|入我|转入|转院|化验|急诊|门诊|检查|起病|发病|出现|再次|开始|随访|术后|在我|予|予以|外院"
    r"|我院|本院|血常规|生化|CT|胸片|B超|彩超|病理)|上午|下午|晚上?[,，]?|晨起?|凌晨|夜间"
    r"|[0-9]{1,2}[:：][0-9]{2}|日(?!间))"
)
NOT_A_DAY = re.compile(
    r"[ ]?(?:片|支|粒|条|mg|g\b|ml|mmHg|级|HP|视野|张|量|量杯|次|倍|天|周|月|年|小时|h\b|cm|mm|分|%|％|岁"
    r"|肺|胎|个|d\b|kg|kPa)",
    re.I,
)
AGE = re.compile(
    r"(?<![0-9.~\-－—至+≥>＞≧])(9[0-9]|1[0-2][0-9])(?=[ ]?(?:周岁|岁|years?[ -]old|y/o|yo\b"
    r"|Y\b)(?!以[上下]|及以))"
)
AGE_LABEL = re.compile(r"(?:年[ ]{0,4}龄|age|Age|AGE)[ ]{0,2}[:：]?[ ]{0,2}(?P<age>9[0-9]|1[0-2][0-9])(?![0-9.+])")
AGE_SPELLED = re.compile(
    r"(?:(?<![一二三四五六七八])九十[一二三四五六七八九]?|一百[零一二]?十?[一二三四五六七八九]?)(?=多?(?:"
    r"周岁|岁)(?!以[上下]))"
)


def dates(text: str) -> Iterator[Span]:
    """Every date and every age from ninety on."""
    yield from _spelled(text)
    yield from _arabic(text)
    for month in ENGLISH_MONTH.finditer(text):
        match = ENGLISH.match(text, month.start())
        if match:
            yield Span(match.start(), match.end(), "date", "english")
    for unit in AGE_UNIT.finditer(text):
        for pattern in (AGE, AGE_SPELLED):
            if match := pattern.search(text, max(0, unit.start() - 7), unit.end() + 3):
                yield Span(match.start(), match.end(), "age_over_89", "age")
    for match in AGE_LABEL.finditer(text):
        yield Span(match.start("age"), match.end("age"), "age_over_89", "age")


def _spelled(text: str) -> Iterator[Span]:
    """Dates with Chinese numerals or words, searched around every 月 and 年."""
    done = 0
    for anchor in ANCHOR.finditer(text):
        while anchor.end() > done:
            match = SPELLED.search(text, max(done, anchor.start() - 12), anchor.end() + 14)
            match = match and SPELLED.match(text, match.start())
            if match is None:
                break
            if _whole(text, match):
                yield Span(match.start(), match.end(), "date", "spelled")
            done = match.end()


ANCHOR = re.compile("[月年]|除夕")
AGE_UNIT = re.compile("岁|周岁|year|y/o|yo|Y")
ENGLISH_MONTH = re.compile(
    "|".join(
        case(m)
        for m in "jan feb mar apr may jun jul aug sep oct nov dec".split()
        for case in (str.lower, str.upper, str.title)
    )
)


def _whole(text: str, match: re.Match[str]) -> bool:
    """Not the end of a longer number (第十二月, 二十五月) and no month of life (满三月)."""
    before = text[match.start() - 1 : match.start()]
    return before not in set("第满近余个") and not (before and before in N and match.group()[0] in N)


def _arabic(text: str) -> Iterator[Span]:
    place = 0
    for token in NUMBER.finditer(text):
        if token.start() < place or (token.start() and text[token.start() - 1] in ".0123456789"):
            if token.start() < place or not ITEM.search(text[max(0, token.start() - 5) : token.start()]):
                continue
        match = ARABIC.match(text, token.start())
        if match and _is_date(text, match):
            yield Span(match.start(), match.end(), "date", "arabic")
            place = match.end()


ITEM = re.compile(r"(?:\A|[\s。；;：:，,）)（(、])[0-9]{1,2}\.\Z")  # 2.2023-06-13复查: the number of a list
NUMBER = re.compile(
    r"[0-9][0-9]*(?=[ \t]{0,2}\r?\n?[ \t]*[-–—－./·、_年月日号a-zA-Z]|[ ][01][0-9][ ][0-3][0-9]"
    r"|(?<=[12][0-9]{7})(?![0-9])|(?<=[12][0-9]{11})(?![0-9])|(?<=[12][0-9]{13})(?![0-9]))"
)


def _is_date(text: str, match: re.Match[str]) -> bool:
    start, end = match.span()
    before = text[max(0, start - 8) : start]
    if match["slash"]:
        return _slash_is_date(text, match, before)
    if before.rstrip(" :：").endswith(("批号", "准字", "版本")):
        return False
    if match["short"]:
        _, month, day = (int(part) for part in re.split(r"[-./]", match["short"]))
        plausible = 1 <= month <= 12 and 1 <= day <= 31
        return (
            plausible
            and not re.search(r"[A-Za-z0-9/\-]\Z|v\.?\Z|[第图表见]\Z", before)
            and not NOT_A_DAY.match(text, end)
        )
    if match["day"]:
        return not re.search(r"[0-9第\-~～至/年月]\Z", before)
    if match.group().endswith(("月初", "月底", "月末")) and "年" not in match.group():
        return not re.search(r"[第近满孕个余0-9\-~～至]$", before)
    month_only = (
        match.group().endswith(("月份", "上旬", "中旬", "下旬", "初", "底", "末")) and "年" not in match.group()
    )
    in_range = month_only and re.search(r"[0-9][-~～至]$", before)
    return not before.endswith(("第", "孕")) and not in_range


def _slash_is_date(text: str, match: re.Match[str], before: str) -> bool:
    """5/1, 06-13, 8.15 are days only where the words around them say so."""
    if NOT_A_DAY.match(text, match.end()):
        return False
    sure_after, sure_before = AFTER_SLASH.match(text, match.end()), CUE_BEFORE.search(before)
    opened = START_BEFORE.search(before) is not None
    if "-" in match.group():
        padded = PADDED.fullmatch(match.group()) is not None
        if sure_before or padded and opened and (sure_after or ACT_AFTER.match(text, match.end())):
            return True
        return bool(opened and sure_after) or padded and opened and before.endswith(("（", "("))
    if "/" in match.group():
        return bool(
            sure_before
            or (opened or BEFORE_SLASH.search(before or "\n"))
            and (sure_after or ACT_AFTER.match(text, match.end()))
        )
    return bool(sure_before and sure_after) or (text.startswith("日", match.end()) and not before.endswith("."))


PADDED = re.compile("(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])")
START_BEFORE = re.compile(r"(?:\A|[\n。；;：:（(，,\]】至]|(?:^|[^0-9.])[0-9]{1,2}[.、])[ ]?\Z")
ACT_AFTER = re.compile(
    r"[ ]?(?:[）)][^0-9]|停用|停止|停药|启用|加用|改用|使用|调整|更换|给予|予|行|查|复|起|因|出|入|门|无明显|无诱因|发热|发现|再发|再次|转|开始|术|来|到|由|于|在|患者|产|分娩|接种|注射|化疗|放疗|拔|置|拆|换药|抽血|采血|送检|报告|血|尿|外周|培养|病理|胃镜|CT|MR|B超|彩超|胸片|心电|急诊|随访|离|回|手术|急|诉|[，,][ ]?孕)"
)
