"""The kinds of identifier that are looked for, and the span that marks one.

    KINDS              names of all kinds
    KIND[name]         one line of description, whether the number carries a checksum, the recall group
    Span               where an identifier stands in a text, its kind and the rule that found it

The kinds follow the 18 classes of HIPAA Safe Harbor (45 CFR 164.514(b)(2)) and what Chinese records add: GB 11643 ids,
residence permits, insurance and record numbers, villages and groups, employers. Groups: `number` is asked for with
recall 99.9 %, `person` and `date` with 99 %, `place` with 98 %, `other` without a figure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    description: str
    checksum: bool
    group: str


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters start to end (end exclusive) of the original text. `rule` tells why; it never holds text."""

    start: int
    end: int
    kind: str
    rule: str


_TABLE = (
    Kind("name", "姓名：患者、亲属、医护人员的姓名或其姓氏", False, "person"),
    Kind("id_card", "居民身份证号 18 位或 15 位，校验位错误的也算", True, "number"),
    Kind("phone", "手机号", False, "number"),
    Kind("landline", "座机、传真、400/800 号码", False, "number"),
    Kind("email", "电子邮箱", False, "number"),
    Kind("bank_card", "银行卡号或账号", True, "number"),
    Kind("mrn", "病历号、住院号、门诊号、就诊卡号、医嘱号等院内编号", False, "number"),
    Kind("bed", "床号", False, "other"),
    Kind("specimen", "标本号、条码号、病理号、检验号", False, "other"),
    Kind("imaging", "影像号、检查号、CT/MR/超声/内镜编号", False, "other"),
    Kind("insurance", "医保号、社保卡号、参保号、保单号", False, "other"),
    Kind("passport", "护照号", False, "other"),
    Kind("travel_permit", "港澳台居住证（81/82/83 开头）、港澳台通行证", True, "other"),
    Kind("military", "军官证、士兵证、警官证号", False, "other"),
    Kind("foreign_permit", "外国人永久居留身份证号", True, "other"),
    Kind("wechat_qq", "微信号、QQ 号", False, "other"),
    Kind("plate", "机动车号牌，含新能源", False, "other"),
    Kind("address", "地址：省市以下至村、组、栋、室", False, "place"),
    Kind("employer", "工作单位、学校、村委会", False, "place"),
    Kind("hospital", "医院及其简称、外院科室病区", False, "place"),
    Kind("date", "日期，任何写法", False, "date"),
    Kind("age_over_89", "90 岁及以上的年龄，只标数字", False, "other"),
    Kind("url", "网址", False, "other"),
    Kind("ip", "IP 地址、MAC 地址", False, "other"),
    Kind("licence", "执业证号、资格证号、驾驶证号、其他证件号", False, "other"),
    Kind("number", "无标签的长数字串，可能是编号", False, "other"),
)
KIND: dict[str, Kind] = {kind.name: kind for kind in _TABLE}
KINDS: tuple[str, ...] = tuple(KIND)
