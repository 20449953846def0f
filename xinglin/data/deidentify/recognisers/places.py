# ruff: noqa: E501 - a regular expression is easier to check in one piece
"""Hospitals, employers and addresses.

    hospitals(text), employers(text), addresses(text)   spans over a normalised text

Chinese has no capital letters: a name is found by its last word (…医院, …有限公司, …号) and read backwards to a stop
word or to a place name of the lexicon. What is no one's name (当地医院, 某公司, 大学文化) is kept.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.lexicon import HAN, any_of, words

CHINESE = "一二三四五六七八九十百零〇"
GENERIC = words("places", "generic")
WEAK = words("places", "weak_employer_ends")
MARK = re.compile(
    f"{any_of(words('places', 'provinces') | words('places', 'cities') | words('places', 'counties'))}"
    f"|[省市县区镇乡村州盟旗路街]|大学|医科|附属|第[{CHINESE}]|人民|红十字|协和|铁路|武警|解放军|陆军"
    f"|海军|空军|总队|[0-9]{{2,4}}|[A-Z]{{2,}}"
)
PLACES = any_of(words("places", "provinces") | words("places", "cities") | words("places", "counties"))
SHORT = re.compile(any_of(words("places", "short_hospitals")) + "(?:医院|附院|院)?")
SHORT_FIRST = re.compile(f"[{''.join(sorted({word[0] for word in words('places', 'short_hospitals')}))}]")
ASKED = "(?=[看查住就做复开拍，。、；,])"  # 省人民查CT
SHORT_END = re.compile(
    rf"(?:妇幼|妇保|协和|同济|湘雅|省立|市立|(?:儿童|肿瘤|胸科|口腔|骨科){ASKED})(?:保健)?(?:医院|院)?|(?:人民|中医|中心|立){ASKED}|(?<![0-9.])[1-4][0-9]{{2}}(?:医院|院(?![内前外]))"
)
BARE_NUMBERED = re.compile(
    "第?[一二三四五六七八九十]院(?![内外前后感区])(?:(?<=[由在到至去转于从往赴经].院)|(?<=[由在到至去转于从往赴经]第.院))"
)
SHORT_HEAD = re.compile(rf"(?:(?:{PLACES})[省市区县]?|[省市区县])\Z")
NUMBERED = re.compile(f"[{CHINESE[:10]}][{CHINESE[:10]}]?(?:人民)?院(?!内|外|前|后|感|区)")
NUMBERED_HEAD = re.compile(
    rf"(?:(?:(?:{PLACES})[省市县区]?|[{HAN}]{{1,2}}[省市县区州盟旗])?(?:[{HAN}]?医?大学?|医科大学?|[{HAN}]医)?附属?|(?:{PLACES})[省市县区]?(?:医大)?"
    rf"|[省市县区州盟旗]|[{HAN}]{{1,3}}医?大(?:附属?)?|[{HAN}]医)第?\Z"
)
SOFT_STOPS = frozenset(
    "和或并曾现我因诊入住送回给被将已予向对该内诉经自系为是任其者不就会都让跟进查把各只些找问帮需应读念来"
)
STOP_BEFORE = re.compile(  # 回 is no stop in 回民区, 和 none in 协和
    rf".*(?:{any_of(words('places', 'before_a_name') - SOFT_STOPS - {'职业'})}|职业(?!技术|学院|中)"
    rf"|(?<![协仁平])[{''.join(sorted(SOFT_STOPS))}](?![{HAN}]{{0,2}}[县旗]|[{HAN}]{{1,2}}区|(?<=和)[美睦平顺信康谐泰瑞济])|[0-9{CHINESE}半多余][年月日天周岁号]余?[前后]?"
    rf"|(?:今|昨|前|当|次)[日天晚晨年])"
)
PLACE = re.compile(any_of(words("places", "provinces") | words("places", "cities") | words("places", "counties")))
NAME_CHAR = re.compile(rf"[{HAN}A-Za-z0-9（）()·&]*$")
EMPLOYER_LABEL = re.compile(
    r"(?:工[ ]{0,3}作[ ]{0,3}单[ ]{0,3}位(?:及地址|名称|[/、]地址|[/、]学校|或学校)?|单位名称|单位地址|单[ ]{0,4}位"
    r"|就职单位|就业单位|服务单位|所在单位|所在学校|就读学校|学校|托幼机构|工作场所|用人单位|就职于"
    r"|任职于|供职于|就读于|受雇于)(?:[（(][^）)\n]{1,8}[）)])?[ \t]{0,3}[:：]?[ \t]{0,3}"
)
FIELD = re.compile(r"[^\s，。；;、,:：\n]{2,40}")
NOT_VALUE = re.compile(
    r"(?:无|不详|未|略|同上|退休|务农|自由|个体|无业|农民|学生|职业|电话|地址|邮编|联系|暂|/|-|家|在家|mg"
    r"|mmol|g/|U/|IU|cm|mm|kg|10\^|%|[0-9.]+(?:mg|g|U|IU|/|mmol))"
)

NAMED = words("places", "named_ends") | words("places", "region_ends")
NUMBERED_END = words("places", "numbered_ends")
NOT_INSIDE = (
    "医院|卫生院|就诊|住院|入院|出院|门诊|患者|病房|病区|检查|治疗|因|诊断|手术|科|家属|电话|职业|民族"
    "|身份|婚|工作|务农|打工|人[，。]|联系|邮编|邮政|单位|户口|性别|年龄|入住|公司|大学(?![路街城新])|学院(?![路街巷胡新])|出生|长大"
    "|久居|生活|居住|否认|无疫|疫区|疫水|接触|旅居|返|籍|于|"
    "[的了吗么哪那这您你我好有没很怎什治看病症炎痛去想能说做次]|几天|组织|镇[静痛咳定吐惊痉]|小学|中学(?!路)|幼儿"
)
PIECE = f"(?:(?!{NOT_INSIDE})[{HAN}A-Za-z0-9#\\-—－~·])"
COUNT = (
    f"第?(?:[甲乙丙丁附]?[0-9A-Za-z]{{1,5}}|[{CHINESE}甲乙丙丁东西南北中]{{1,4}})(?:[-—－#][0-9A-Za-z]{{1,5}}){{0,3}}"
)
TAIL = re.compile(
    rf"(?:[ ]?\n?(?:{COUNT}(?:{any_of(NUMBERED_END)})(?![织胺别间合性])|{PIECE}{{1,10}}?(?:{any_of(NAMED)})(?![症性域民区])"
    rf"|{PIECE}{{2,8}}?(?=[0-9]{{1,4}}(?:号|栋|幢|座|#|-[0-9]|弄))))*"
    rf"(?:[ ]?[0-9A-Za-z]{{1,5}}(?:[-—－#][0-9A-Za-z]{{1,5}}){{0,3}}(?:号|室|栋|楼|户)?(?![0-9A-Za-z.岁年月日%℃/]))?"
)
REST = re.compile(
    rf"[ ]?{PIECE}{{2,10}}?(?=[，。；,;、\n（(]|[ ]{{0,2}}(?:$|由|与|为|至|附近|的|电话|邮))|(?:小组|政府大院|大院)"
)
LEVEL = re.compile(any_of(NAMED | NUMBERED_END))


def _tail_end(text: str, start: int) -> int:
    """End of the levels behind a region, with a last word that is no level (翡翠城, 政府大院)."""
    tail = TAIL.match(text, start)
    end = tail.end() if tail else start
    if end > start and (rest := REST.match(text, end)):
        return rest.end()
    return end


ADDRESS_LABEL = re.compile(
    r"(?:现[ ]?住[ ]?址?|家[ ]?庭[ ]?住[ ]?址|家[ ]?庭[ ]?地[ ]?址|户[ ]?籍[ ]?地?[ ]?址?|户口所在地"
    r"|户口地址|户籍所在地|住[ ]{0,4}址|联系地址|通讯地址|通信地址|邮寄地址|地[ ]{0,4}址|籍[ ]{0,4}贯|出["
    r" ]{0,2}生[ ]{0,2}地|居住地|常住地|现居地|现居住地|住所|发病地点|事发地点|接诊地点|工作地点|常住地址"
    r"|现居|家住|现住在?|居住于|居住在|久居于?|久居|长居|暂住|租住于?|定居于?|生于|出生于|出生并长大于"
    r"|祖籍|原籍|来自于?|户籍|老家在?|住(?=[^院])于?在?|address|Address)"
    r"(?:[（(][^）)\n]{1,10}[）)])?[ \t]{0,3}[:：]?[ \t]{0,3}"
)
REGION = re.compile(
    rf"(?:(?:中国)?(?:{any_of(words('places', 'provinces'))})(?:省|市|自治区|壮族自治区|回族自治区"
    rf"|维吾尔自治区|特别行政区)?|(?:{any_of(words('places', 'cities') | words('places', 'counties'))})(?:"
    rf"市|地区|盟|州|县|区|[{HAN}]{{0,6}}自治[州县])?){{1,3}}"
)
STREET = re.compile(
    rf"[0-9A-Za-z{CHINESE}][0-9A-Za-z{CHINESE}]{{0,4}}(?:号院|号楼|号(?=[0-9一-十{HAN}]{{0,8}}(?:栋|幢|座"
    rf"|单元|室|楼|院|附))|栋|幢|弄|组(?![别间合织胺])|社(?![区会]))"
)
ROAD = re.compile(
    rf"(?:路|街|大道|巷|弄|胡同|道|里|段|村|屯|庄)[ ]?(?:[0-9]{{1,5}}|[{CHINESE}]{{1,4}})[ ]?(?:号|弄|组"
    rf"|社|队|巷|支路)"
)
TOWN = re.compile(
    r"(?:县(?<=[^\s第]县)(?![城级医里])|镇(?!静|痛|咳|定|吐|惊|痉|心|肝|潜|江)|乡(?![村镇卫])|街道(?!口)"
    r"|村(?<![农乡渔本该山].)(?![民庄落医卫里])|小区(?!域)|花园|新村|家属院)"
)
UNIT_END = re.compile(r"[号栋幢座室户楼层组社队弄村镇乡县区市路街道巷里院苑园府城厦场园寓]$")


@functools.cache
def _ends(kind: str) -> re.Pattern[str]:
    if kind == "hospital":
        return re.compile(
            f"(?:{any_of(words('places', 'hospital_ends'))})(?:(?:[东西南北新老本]|[{HAN}]{{2,3}})院区"
            f"|[{CHINESE}东西南北]?分院(?!校))?"
        )
    return re.compile(any_of(words("places", "employer_ends")))


def hospitals(text: str) -> Iterator[Span]:
    """Hospitals in full and by their short names, with the numbered ward of another hospital behind them."""
    for match in _ends("hospital").finditer(text):
        start = _name_start(text, match.start())
        core = text[start : match.start()]
        if (
            core
            and not _generic(core)
            and not VERB.search(core)
            and (MARK.search(core) or 2 <= len(core) <= 8 and not ILL.search(core))
        ):
            yield Span(start, match.end(), "hospital", "suffix")
    yield from _short(text)
    yield from (Span(m.start(), m.end(), "hospital", "short") for m in BARE_NUMBERED.finditer(text))
    for match in NUMBERED.finditer(text):
        if head := NUMBERED_HEAD.search(text, max(0, match.start() - 7), match.start()):
            yield Span(head.start(), match.end(), "hospital", "short")


def _short(text: str) -> Iterator[Span]:
    """北大一院, 常州妇幼, 省人民, 301医院."""
    for first in SHORT_FIRST.finditer(text):
        if match := SHORT.match(text, first.start()):
            yield Span(match.start(), match.end(), "hospital", "short")
    for match in SHORT_END.finditer(text):
        head = SHORT_HEAD.search(text[max(0, match.start() - 6) : match.start()])
        if head or text[match.start()].isdigit():
            yield Span(match.start() - (len(head.group()) if head else 0), match.end(), "hospital", "short")


VERB = re.compile(r"上$|按照|告知|参考|等待|咨询|预约|确认|许多|很多|不同|报告|立即|省三甲|治|人流|排名")
ILL = re.compile(
    r"上$|按照|告知|参考|等待|咨询|预约|确认|许多|很多|不同|报告|家里|下面|外面|确保|大型|立即|细心|统一"
    r"|继续|病$|症$|癫痫$|炎$|癌$|痤疮|白癜风|性病|失眠|腋臭|生殖|整形|三甲|二甲|二级|三级|一级|公立"
    r"|私立|正规|专科|专业|权威|最|级别"
)


def _generic(core: str) -> bool:
    """Whether only ordinary words stand before the suffix (上级, 当地某, 三级甲等综合)."""
    return not _generic_words().sub("", core)


@functools.cache
def _generic_words() -> re.Pattern[str]:
    return re.compile(f"^(?:{any_of(GENERIC)})+$")


# What may stand before a known place inside one name: 鼓楼区 before 龙泉, 中国建设银行 before 上海.
HEAD = re.compile(
    rf"(?:(?:中国人民)?(?:武警|武装警察部队|解放军)[第0-9]{{0,4}}|(?:中国|中华|国家|中[铁建石国])[{HAN}]{{1,8}}|(?<![{HAN}])[{HAN}]{{2,8}}(?:银行|公司|集团|保险|证券|大学|学院)|(?:(?!{any_of(words('places', 'before_a_name'))})[{HAN}]){{1,4}}[省市区县州盟旗镇乡])\Z"
)


def _name_start(text: str, end: int, width: int = 24) -> int:
    """Where the name that runs up to `end` begins: at a lexicon place, or behind the last stop word of its run."""
    run = NAME_CHAR.search(text, max(0, end - width), end)
    start = run.start() if run else end
    window = text[start:end]
    for bracket in ")）":
        if window.rfind(bracket) > window.rfind("(（"["）".find(bracket)]) and not re.search(r"[（(]", window):
            start += window.rfind(bracket) + 1
            window = text[start:end]
    place = PLACE.search(window)
    if place and len(window) - place.start() >= 2 and not STOP_BEFORE.match(window[place.end() :]):
        head = HEAD.search(window, 0, place.start())
        return start + (head.start() if head else place.start())
    stop = STOP_BEFORE.match(window)
    start += stop.end() if stop else 0
    while start < end and text[start] in "（()）0123456789.·的了":
        start += 1
    return start


def employers(text: str) -> Iterator[Span]:
    """Companies, schools, offices by their last word, or whatever stands in the field 工作单位."""
    for match in EMPLOYER_LABEL.finditer(text):
        value = FIELD.match(text, match.end())
        labelled = (
            match.group()[-1] in ":："
            or match.group().rstrip()[-1:] in ":：于"
            or len(match.group().replace(" ", "")) > 3
        )
        if value and labelled and not NOT_VALUE.match(value.group()) and len(value.group()) >= 3:
            yield Span(value.start(), _cut(value), "employer", "label")
    yield from _by_work(text)
    for match in _ends("employer").finditer(text):
        end = match.end()
        start = _name_start(text, match.start())
        core = text[start : match.start()]
        short = len(match.group()) == 1 or match.group() in (
            "物业",
            "矿业",
            "药业",
            "车站",
            "银行",
            "集团",
            "大学",
            "学院",
            "小学",
            "中学",
        )
        if _generic(core) or len(core) < (2 if short or len(match.group()) == 2 else 1) or SCHOOLING.match(text, end):
            continue
        if match.group() in WEAK and not (
            MARK.search(core)
            or _at_work(text, start, end)
            or match.group() in ("厂", "学院", "公司", "集团")
            and 3 <= len(core) <= 8
        ):
            continue
        if len(core) > 12 and not MARK.search(core):
            continue
        yield Span(start, end, "employer", "suffix")


ORG = "公司厂店局处所部行社校院站场园馆会队学心技团市关矿坊厅铺城库港"
BY_WORK = re.compile(
    rf"(?:(?<=在)|(?<=供职于)|(?<=就职于)|(?<=任职于)|(?<=受雇于)|(?<=就读于))(?P<a>[{HAN}A-Za-z0-9（）()]{{2,18}}?[{ORG}])(?:工地)?(?:上班|工作|打工|任职|务工|教书|任教|上学|读书|当|做)"
    rf"|(?:(?<=系)|(?<=[，。；：:\n]为)|(?<=前为)|(?<=现为)|(?<=任)|(?<=原)|(?<=是))(?P<b>[{HAN}A-Za-z0-9（）()]{{2,18}}?[{ORG}])的?(?:退休)?(?:职工|员工|工人|会计|保安|业务员|干部|教师|老师|司机|保洁|厨师|职员|工程师|经理|科员|学生|护士|出纳|技术员|质检员|操作工|车工|焊工)"
)
NO_WORK = re.compile(
    "家|外地|本地|当地|农|某|其他|各|该|工地|办公|车间|学校|厂里|公司|工厂|夜市|本院|我院|医院|门诊|病|医"
)


def _by_work(text: str) -> Iterator[Span]:
    """在…上班, 系…职工: the words around it say that it is an employer."""
    if "工" not in text and "上班" not in text and "职" not in text:
        return
    for match in BY_WORK.finditer(text):
        group = "a" if match["a"] else "b"
        value = match[group]
        if not NO_WORK.match(value) and not _generic(value[:-1]) and (len(value) > 3 or PLACE.match(value)):
            yield Span(match.start(group), match.end(group), "employer", "work")


def _at_work(text: str, start: int, end: int) -> bool:
    """在…上班, 就职于…, 系…职工."""
    return bool(
        re.search(
            "(?:就职|任职|供职|受雇|毕业|就读|退休)于?在?$|(?:为|系|是)$|单位[:：]?$", text[max(0, start - 5) : start]
        )
        or re.match("(?:上班|工作|打工|职工|员工|工人|教师|任职|退休|就读|学生|任教|从事)", text[end : end + 4])
    )


SCHOOLING = re.compile(
    r"方案|标准|分[型级期]|评分|量表|文化|学历|毕业|生(?!活)|本科|程度|教育|肄业|在读|[一二三四五六]?年级|老师|附属"
    r"|第[一二三四五六七八九十]|医院|血|细胞|牌|生产|商|家|[男女]|期间|时"
)


def _cut(value: re.Match[str]) -> int:
    """A field value ends before the next label that follows without a gap."""
    label = re.search(r"(?:电话|邮编|地址|职业|联系|住址|职务|性别|民族)", value.group())
    return value.start() + label.start() if label and label.start() >= 2 else value.end()


def addresses(text: str) -> Iterator[Span]:
    """Labelled addresses, region names with what follows, and streets or villages without a region."""
    for match in ADDRESS_LABEL.finditer(text):
        if end := _address_end(text, match.end(), match.group()):
            yield Span(match.end(), end, "address", "label")
    for match in _regions(text):
        end = _tail_end(text, match.end())
        if end > match.end() or match.group()[-1] in "市县州盟区" and len(match.group()) > 2:
            if (end - match.start() > 3) and not text.startswith(
                ("医院", "大学", "人民医院", "标准", "株", "卫生", "病毒", "方言"), end
            ):
                yield Span(match.start(), end, "address", "region")
    for pattern in (ROAD, STREET, TOWN):
        for match in pattern.finditer(text):
            yield from _structured(text, match)


def _regions(text: str) -> Iterator[re.Match[str]]:
    done = 0
    for trigger in PLACE.finditer(text):
        if trigger.start() >= done and (match := REGION.match(text, trigger.start())):
            done = match.end()
            yield match


def _address_end(text: str, start: int, label: str) -> int | None:
    """End of an address behind its label: a place with its tail, or a field that looks like one."""
    colon = label.rstrip()[-1:] in ":："
    region = REGION.match(text, start)
    end = _tail_end(text, region.end() if region else start)
    if region and end <= region.end():
        end = region.end()
    shaped = region or UNIT_END.search(text[start:end]) or LEVEL.search(text[start:end])
    if end - start >= 2 and shaped and (colon or region or end - start >= 4):
        return end
    if (
        colon
        and (value := FIELD.match(text, start))
        and not NOT_VALUE.match(value.group())
        and not BAD_FIELD.search(value.group())
    ):
        return _cut(value) if len(value.group()) >= 2 else None
    return None


def _structured(text: str, match: re.Match[str]) -> Iterator[Span]:
    """A street, building or village: read back to its start, on to its end; two levels are asked for."""
    start = _address_start(text, match)
    end = _tail_end(text, match.end())
    body = text[start:end]
    levels = len(LEVEL.findall(body))
    if levels >= 2 and len(body) >= 5 and match.start() - start >= 1 and not CLINICAL.search(body):
        yield Span(start, end, "address", "structure")


CLINICAL = re.compile(
    r"病|胸|腹|肺|心|脑|肝|肾|骨|肌|脉|肠|胃|膀胱|尿|淋巴|颌|颈|额|枕|治疗组|对照|实验组|分组|两组|检查"
    r"|手术|护理|第.组|每组|各组|剂|针|椎|穴|区域|门诊|抢救|产房|监护"
)


BAD_FIELD = re.compile("[的了吗么哪这您你我很怎]|病|炎|痛")


def _address_start(text: str, match: re.Match[str]) -> int:
    run = re.compile(rf"[{HAN}A-Za-z0-9]*$").search(text, max(0, match.start() - 16), match.start())
    start = run.start() if run else match.start()
    window = text[start : match.start()]
    place = PLACE.search(window)
    if place:
        return start + place.start()
    stop = re.match(
        r".*(?:住址|地址|现住|家住|居住于|居住|来自|位于|户籍|籍贯|前往|返回|患者|家属|住于|住在|职业|民族|在"
        r"|于|到|至|从|为|是|由|住|赴|系|岁|族|农民|者|其|日)",
        window,
    )
    return start + (stop.end() if stop else 0)
