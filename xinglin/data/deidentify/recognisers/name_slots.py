# ruff: noqa: E501 - a regular expression is easier to check in one piece
"""Names that no listed cue leads to: a small model weighs the characters of a candidate and the edges it stands between.

    slots(text)   spans over a normalised text

A candidate begins with a surname behind an edge: a mark, a line start, or the last character of a word for a person
(记录员, 其女, 陪人) or of a word that hands over to one (由, 请, 我是). Its worth is the log odds, set by hand, of surname,
given name and both edges against ordinary text; what reaches THRESHOLD is a name. Words of the lexicon are none, unless
they fill the field of a person.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.lexicon import HAN, any_of, characters, word_end, words
from xinglin.data.deidentify.recognisers.name_shapes import BAD_GIVEN, TITLES

THRESHOLD = 1.9
LONGER_THAN_A_WORD = 3.4
UNLISTED = 0.5  # a given-name character that clinical prose hardly holds
NONE = -10.0
SURNAMES = characters("names", "common") | characters("names", "rare")
AMBIGUOUS = characters("names", "ambiguous") | {"师"}
PERSON = frozenset("者人员师士生长属亲母父子女儿妻夫兄弟姐妹哥爸妈婿媳孙甥侄姨姑舅叔婶伯爷奶婆友邻伴护姆签任授公")
HANDS_OVER = frozenset(
    "由请与和及经找给叫是跟随邀谢写名核录班线检诊助刀验科院挂为让示托联告审替帮陪代本工警机服医表绍房总药理客户孩宝爷采送收操执查治责致转"
    "对药配把被问遵按据之组室区队处即我"
)
DOUBLE = any_of(words("names", "compound") | words("names", "japanese"))
DOUBLE_NAME = re.compile(DOUBLE)
DOUBLE_FIRST = frozenset(word[0] for word in words("names", "compound") | words("names", "japanese"))
EDGE = re.compile(  # the class stands first so that the search skips fast
    rf"[{''.join(sorted(SURNAMES | DOUBLE_FIRST))}](?:(?<![{HAN}0-9A-Za-z.·%].)|(?<=[{''.join(sorted(PERSON | HANDS_OVER))}].))(?=[{HAN}])"
)
STAMP = r"[ \t]*(?:[\[【(（]?[0-9年月日号时分:：.\-/ ]{4,24}[\]】)）]?[ ]{0,3})?"
LINE = re.compile(rf"(?:^|\n){STAMP}$")
SPEAKER = re.compile(rf"(?:^|\n){STAMP}(?P<name>[{HAN}]{{2,4}})[ ]?[:：]")
FIELD = re.compile(
    rf"(?P<label>[{HAN}]{{1,10}}|[A-Za-z]{{2,12}})?(?:[（(][^（）()\n]{{1,10}}[）)])?[ ]{{0,3}}[:：][ _]{{0,8}}$|】[ ]{{0,3}}$"
)
SPACED_FIELD = re.compile(rf"(?P<label>[{HAN}]{{1,8}})[ ]{{1,4}}$")
NO_FIELD = frozenset("体房史断状征型式况质色位果程级度食便眠苔脉剂量科族业症病诉因")
SURE_RIGHT = re.compile(
    r"[ ]{0,3}(?:[:：]|[0-9]{2,4}[-./年]|[（(](?:签|[男女父母夫妻子兄弟姐妹配]|之)|[男女][ ，,、]|[，,][ ]?[男女]|日期|时间|电话|联系)"
)
TITLE = re.compile(any_of(TITLES))
SOFT = re.compile(any_of({word for word in words("cues", "after_name") if len(word) > 1} | words("cues", "acts")))
NO_EDGE = words("cues", "across")
STOLEN = re.compile(  # 陈丽代述, 李先生: the last character begins the next word
    any_of(
        {
            word
            for word in words("cues", "after_name") | words("cues", "acts") | words("cues", "titles")
            if len(word) > 1
        }
    )
)
THIN = frozenset("因于在到来自至与和及同将已系为是以行经被今昨现患签等后阅诉述称说的之")
BROKEN_WORD = re.compile(rf"[{HAN}][-–—－]\Z")
NO_PERSON = frozenset("菌征氏综法试体线染酶素酸剂片丸散膏汤路街村镇县市区乡号院样果性型症过")
EPONYM = re.compile(  # 夏科-马里-图思病, 葛洪桂龙膏: what follows makes the name part of a term
    rf"[{HAN}]{{0,3}}[-－–—·‐][{HAN}]|[ ]?[0-9.]+[ ]?(?:g|mg|ml|片|粒|克|枚|%|丸|支|U|IU)"
    rf"|[{HAN}]{{0,4}}(?:综合[征症]|现象|病(?![情历房人区程史床案重危友])|征|氏|试验|分级|分期|评分|量表|菌|反射|骨折|畸形|三联|方案|标准|膏|胶囊|颗粒|口服液|蛇药|注射|疫苗|过敏)"
)
WHO = re.compile(
    r"(?:(?P<staff>(?<![病患伤死来])者|[员师士生长助刀签录户核配验送收告审制表]|(?<![药品商产])名)|[长属亲签名母父妻夫兄弟姐妹户侄甥]|[子女儿](?![女子])|(?<![病患])人|写|线|班)(?P<gap>[ ]{0,3}[:：（(]?[ ]{0,3})$"
)
FILLED = re.compile(r"[ ]{0,3}(?:[\n，,。；;、/（(]|[0-9]{2,4}[-./年:]|$|日期|时间|[ ]{2})")
SURELY_FILLED = re.compile(
    r"[ ]{0,3}(?:[\n/（(:：、]|[0-9]{2}|$|[，,。][ ]?(?:[男女系与均]|电话|手机|联系|身份证|[0-9]{2})|在.{2,16}工作|帮"
    rf"|{any_of(words('cues', 'acts'))})"
)


@functools.cache
def _weights() -> tuple[dict[str, float], dict[str, float]]:
    """Log odds of surnames and of given-name characters, roughly."""
    surname = dict.fromkeys(characters("names", "rare"), 0.0) | dict.fromkeys(characters("names", "common"), 0.6)
    surname |= dict.fromkeys(characters("names", "frequent"), 1.0)
    surname |= {char: surname.get(char, 0.0) - 0.6 for char in AMBIGUOUS}
    given = dict.fromkeys(characters("names", "prose"), -1.5) | dict.fromkeys(characters("names", "mixed"), 0.2)
    given |= dict.fromkeys(characters("names", "given"), 1.0) | dict.fromkeys(characters("names", "everyday"), 0.5)
    given |= dict.fromkeys(BAD_GIVEN - characters("names", "mixed"), -4.0)
    return surname, given


@functools.cache
def _ordinary() -> frozenset[str]:
    sections = ("ordinary", "drugs_and_herbs", "eponyms")
    return words("names", "words").union(words("cues", "kin"), *(words("protect", section) for section in sections))


def slots(text: str) -> Iterator[Span]:
    """Names between edges, and names that need none."""
    yield from _free(text)
    yield from _sounded(text)
    yield from _called(text)
    turns: list[str] | None = None
    for edge in EDGE.finditer(text):
        start, first = edge.span()
        if text[start - 1 : first] in NO_EDGE:
            continue
        compound = DOUBLE_NAME.match(text, start) if text[start] in DOUBLE_FIRST else None
        double, first = compound is not None, compound.end() if compound else first
        if not double and text[start] not in SURNAMES:
            continue
        for end in (first + 2, first + 1):
            worth = _candidate(text, start, first, end, double)
            if worth < THRESHOLD:
                continue
            if (
                EPONYM.match(text, end)
                or BROKEN_WORD.search(text[max(0, start - 2) : start])
                or end - start == len(text)
            ):
                break
            word = word_end(text, start)
            longer = word < end and worth >= LONGER_THAN_A_WORD and _firm(text, start)
            if word and not longer or text[start:end] in _ordinary():
                turns = [m["name"] for m in SPEAKER.finditer(text)] if turns is None else turns
                if not _word_in_field(text, start, end) and turns.count(text[start:end]) < 2:
                    continue
            yield Span(start, end, "name", "slot")
            break


def _firm(text: str, start: int) -> bool:
    """Whether the place is so much a person's that 黄金凤 beats 黄金."""
    return text[start - 1 : start] in tuple("员师士人/、属\n") or _left(text, start) >= 1.3


def _candidate(text: str, start: int, first: int, end: int, double: bool) -> float:
    """The worth of one candidate, given name from `first` to `end`."""
    if end > len(text):
        return NONE
    worth = _worth(text, start, first, end, double)
    if worth < -0.5 and text[start:end] not in words("names", "words"):
        return NONE
    if STOLEN.match(text, end - 1):
        return NONE
    right = _right(text, end)
    if text[start:end] in words("names", "words"):
        return THRESHOLD
    if word_end(text, start) == end and right is not None and SEX_BEHIND.match(text, end):
        return THRESHOLD
    if right is None:
        return _open_ended(text, start, end, worth, end - first)
    total = worth + right + _left(text, start) if worth + right >= 0.4 else NONE
    return max(total, _open_ended(text, start, end, worth, end - first)) if right < 0 else total


def _worth(text: str, start: int, first: int, end: int, double: bool) -> float:
    surname, given = _weights()
    total = 1.5 if double else surname.get(text[start], 0.0)
    for char in text[first:end]:
        if not "\u3400" <= char <= "\u9fff":
            return NONE
        total += given.get(char, UNLISTED)
    if (
        text[end - 1] == "征"
        and text[end - 2] not in "长远"
        or text[first:end] in TITLES
        or text[end - 1] in "男女"
        and not (end - first == 2 and text[first] in "亚胜若赛超依一")
    ):
        return NONE
    return total + (0.2 if end - first == 2 else 0.0)


def char_worth(given: str) -> float:
    return sum(_weights()[1].get(char, UNLISTED) for char in given)


def _right(text: str, end: int) -> float | None:
    after = text[end : end + 1]
    if not "\u3400" <= after <= "\u9fff" and not after.isalpha() and after not in ("·", "%"):
        return 1.0 if SURE_RIGHT.match(text, end) else 0.5
    if after in ("男", "女") or TITLE.match(text, end):
        return 1.2
    if SOFT.match(text, end):
        return 0.5
    return -0.3 if after in THIN else None


def _left(text: str, start: int) -> float:
    if start == 0:
        return 0.5
    before = text[start - 1]
    if "\u3400" <= before <= "\u9fff":
        return (0.8 if before in PERSON else 0.3) - (0.4 if text[start] in AMBIGUOUS else 0.0)
    if before not in ":：_ 】\n])）\t":
        return 0.5 if before in '、/（(“"[@—' else 0.3
    window = text[max(0, start - 26) : start]
    if before in ":：_ 】" and (field := FIELD.search(window)):
        last = (field["label"] or " ")[-1]
        return -0.6 if last in NO_FIELD else 2.0 if last in PERSON or last in HANDS_OVER else 1.3
    if LINE.search(window):
        return 0.7
    if before == " " and (field := SPACED_FIELD.search(window)):
        return 1.3 if field["label"][-1] in PERSON or field["label"][-1] in HANDS_OVER else 0.3
    return 0.5 if before in '、/（(“"[@—' else 0.3


def _open_ended(text: str, start: int, end: int, worth: float, size: int) -> float:
    """给李娜测血糖: no edge behind the name, so what stands before it and its characters must do."""
    if text[end] in NO_PERSON or worth < (2.6 if size == 2 else 2.0):
        return NONE
    before = text[start - 1 : start]
    if before and (before in PERSON or before in HANDS_OVER and not text[end].isascii()):
        return THRESHOLD
    edge = not before or before in "、，。；：:\n@ （("
    return THRESHOLD if edge and (text[end] in THIN if size == 1 else worth >= 3.1) else NONE


def _word_in_field(text: str, start: int, end: int) -> bool:
    """记录员：高原; 弟弟方便陪同: a word that is a name too and fills the place of a person."""
    piece, word = text[start:end], word_end(text, start)
    if piece in words("cues", "kin"):
        return False
    if piece not in words("names", "words") and word >= end and _weights()[1].get(piece[-1], UNLISTED) < 0:
        return False
    if SEX_BEHIND.match(text, end):
        return True
    if _left(text, start) >= 1.3 and text[start - 3 : start - 1] != "查房" and _person_label(text, start):
        return bool(FILLED.match(text, end))
    who = WHO.search(text, max(0, start - 8), start)
    if who and who["staff"] and text[end : end + 1] == " ":
        return True
    return bool(who and (FILLED if who["gap"] or who["staff"] else SURELY_FILLED).match(text, end))


SEX_BEHIND = re.compile(
    r"[ ]{0,3}(?:[，,（(/]?[ ]?[男女][，, 性/）)0-9]|[，,]?[ ]?(?:系|与)患者|[，,（(]?[ ]?(?:联系)?(?:电话|手机)[号码]{0,2}[:： ]?[0-9+]|[，,（( ][ ]?1[3-9][0-9]{9}|[，,（(]?身份证"
    r"|[（(](?:患者)?(?:父|母|夫|妻|丈夫|儿|女|子|配偶|兄|弟|姐|妹|哥|孙|侄|爱人|签|之)|之[子女妻夫父母])"
)


def _person_label(text: str, start: int) -> bool:
    label = text[max(0, start - 12) : start].rstrip(" _:：】）)")[-2:]
    return (
        label[-1:] in PERSON | HANDS_OVER
        and label[-1:] not in NO_FIELD | {"药"}
        and label not in ("患者", "病人", "患儿", "查房", "处理", "护理", "检查", "复查", "家族")
    )


@functools.cache
def _sound_shape() -> re.Pattern[str]:
    sound = "".join(sorted(characters("names", "sounds")))
    person = "".join(sorted(PERSON - set("师生长医公")))
    return re.compile(
        rf"(?:(?<=[{person}叫是由请]|[@】])|(?<=[者人员名师士生长属亲班录核收送写][:：])|(?<=\n)(?=[{HAN}]{{3,9}}[ ]?[:：]))"
        rf"(?P<name>[{sound}]{{3,9}}|(?:{any_of(words('names', 'minority'))}){{1,4}}(?<=..))(?=[^{HAN}·病征氏综]|$|{SOFT.pattern}|{TITLE.pattern})"
    )


@functools.cache
def _called_shape() -> tuple[re.Pattern[str], re.Pattern[str]]:
    surname = "".join(sorted(characters("names", "frequent") - AMBIGUOUS - set("高白马石金江牛毛温苗路")))
    right = rf"(?=[^{HAN}]|[{''.join(sorted(THIN))}]|[去讲帮陪送给也说家打接吃反您你看查会指主带签意认考建交嘱今昨现处开写批教长]|$)"
    call = (
        "大?[姐哥叔姨婶嫂伯妈]|阿[姨婆公伯]|[老总工医护姓组]|老太太?|老爷子|老人家?|[大老]娘|奶奶?|爷爷?|医助|主诊|主刀|副高|正高|护长|教头|团队|总监|经理|师[兄姐弟妹]|同学|女士|先生|小姐|太太"
        "|副?主任|主治|住院|进修|规培|实习|带组|二线|三线|一线|值班|博士|硕士|专家|院士|副?院长|书记|干事|秘书|警官|律师|法官|老板|女儿|儿子|家属|护理|药师|技师|医生|医师|大夫|教授|护士|老师|师傅"
    )
    return re.compile(rf"[老小阿](?P<name>[{surname}]){right}"), re.compile(rf"(?P<name>[{surname}])(?:{call}){right}")


def _called(text: str) -> Iterator[Span]:
    """老张, 小李, 王姐: the surname alone is the identifier."""
    for pattern in _called_shape():
        for match in pattern.finditer(text):
            before = text[match.start() - 1 : match.start()]
            if not "\u3400" <= before <= "\u9fff" or before in PERSON or before in HANDS_OVER:
                yield Span(match.start("name"), match.end("name"), "name", "called")


def _sounded(text: str) -> Iterator[Span]:
    """陪人哈斯额尔德, 家属：伊琳娜: three characters or more that write foreign sounds, in the place of a person."""
    for match in _sound_shape().finditer(text):
        if not word_end(text, match.start()):
            yield Span(match.start(), match.end(), "name", "sounds")


@functools.cache
def _sure_shapes() -> tuple[re.Pattern[str], ...]:
    given, everyday = characters("names", "given") - BAD_GIVEN, characters("names", "everyday") - BAD_GIVEN
    strong, either = "".join(sorted(given - everyday)), "".join(sorted(given | everyday))
    frequent = characters("names", "frequent") - AMBIGUOUS - set("高白马黄石金田江何段毛康祝万黎温")
    surname, known = "".join(sorted(frequent)), "".join(sorted(SURNAMES - AMBIGUOUS))
    behind = rf"(?=[^{HAN}A-Za-z%]|$|{TITLE.pattern}|{SOFT.pattern})"
    return (
        re.compile(rf"[{surname}][{strong}]{{2}}(?![{''.join(sorted(NO_PERSON))}])"),
        re.compile(rf"[{known}](?:[{strong}][{either}]|[{either}][{strong}]){behind}"),
        re.compile(rf"[{surname}][{strong}]{behind}"),
    )


DRUG_ENDS = frozenset("林尔星素汀坦洛征声子衡生情能")  # 莫西林, 康惠尔; as names they need an edge


def _free(text: str) -> Iterator[Span]:
    """Characters that are so much a name that no edge is asked for on their left."""
    for shape in _sure_shapes():
        for match in shape.finditer(text):
            start, end = match.span()
            if EPONYM.match(text, end) or STOLEN.match(text, end - 1) or text[max(0, start - 1) : start + 1] in NO_EDGE:
                continue
            if text[start + 1 : end] in TITLES or text[end - 1] in DRUG_ENDS:
                continue
            if end - start < len(text) and not any(
                word_end(text, at) > start for at in range(max(0, start - 2), start + 2)
            ):
                yield Span(start, end, "name", "characters")
