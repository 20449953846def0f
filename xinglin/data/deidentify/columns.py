"""What a structured field holds, and so what becomes of it.

    role_of("患者姓名", roles)    "name"
    load_roles(path)             `roles: {姓名: name, 备注: text}` of a --columns file

A field without a known role is `text`: it goes through the finder like the note itself. `keep` leaves a field as it is,
`drop` empties it. The roles of xinglin/data/notes (name, doctor, birth_date, name_2 ...) are understood as they are.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from xinglin.data.deidentify.kinds import KINDS
from xinglin.records import InputError

PEOPLE = ("name", "doctor", "relative")
DATES = ("date", "birth_date")
KEPT = ("keep", "sex", "age_unit", "department", "ethnicity", "occupation", "marital_status", "icd10")
ROLES = (*KINDS, "doctor", "relative", "birth_date", "age", *KEPT, "text", "other", "drop")
NAMES = {
    "name": r"(?:患者|病人|就诊人)?(?:姓名|名字|名)|曾用名|(?:patient_?|full_?)?name",
    "doctor": r".*(?:医生|医师|大夫|护士|护师|术者|主刀|主任|麻醉师|记录[人者]|书写[人者]|签名|审核人?)(?:姓名|签名)?"
    r"|doctor|physician|nurse|operator",
    "relative": r"(?:紧急)?(?:联系人|家属|监护人|亲属|配偶|陪护人?)(?:姓名)?|relative|contact|guardian",
    "id_card": r".*身份证件?(?:号码?)?|证件号码?|id_?card(?:_?no)?|id_?no|id_?number",
    "phone": r".*(?:电话|手机)(?:号码?)?|.*联系方式|(?:tele|mobile_?)?phone(?:_?no)?|mobile|tel",
    "email": r".*(?:邮箱|邮件地址)|e-?mail",
    "bank_card": r".*银行卡?(?:号|账号)码?|.*银行账户?|bank_?(?:card|account)",
    "mrn": r".*(?:住院|门诊|病历|病案|就诊卡?|登记|医嘱|诊疗卡?)(?:编?号码?|id)|患者(?:编?号|id)"
    r"|mrn|visit_?(?:no|id)|note_id|patient_?(?:id|no)",
    "insurance": r".*(?:医保|社保|参保|保险)(?:卡|证|单)?(?:编?号码?)?|insurance(?:_?no)?",
    "specimen": r".*(?:标本|条码|病理|检验)编?号",
    "imaging": r".*(?:影像|检查|CT|MR|超声|内镜)编?号",
    "passport": r"护照(?:号码?)?|passport(?:_?no)?",
    "military": r"(?:军官|士兵|警官)证(?:号码?)?",
    "wechat_qq": r"(?:微信|QQ)号?|wechat|qq",
    "plate": r"车牌号?码?|号牌",
    "address": r".*(?:住址|地址|户口|户籍|籍贯|出生地|邮编)(?:所在地)?|address|zip(?:code)?",
    "employer": r"(?:工作|就读)?(?:单位|学校)(?:名称|及地址)?|employer|company",
    "hospital": r"(?:就诊|转诊|外院)?(?:医院|医疗机构|机构|院区)(?:名称)?|hospital(?:_name)?",
    "bed": r"床(?:号|位号?)|bed(?:_?no)?",
    "birth_date": r"出生(?:日期|年月日?|时间)?|生日|(?:date_of_)?birth(?:_?date|day)?|dob",
    "date": r".*(?:日期|时间)|.*(?:_|^)(?:date|time|datetime)",
    "age": r"(?:患者)?年龄(?:[（(]岁[)）])?|age",
    "sex": r"(?:患者)?性别|sex|gender",
    "department": r".*(?:科室|科别|病区)(?:名称)?|department|dept",
    "ethnicity": r"民族|ethnicity",
    "occupation": r"职业|occupation",
    "marital_status": r"婚姻(?:状况)?|marital_status",
    "icd10": r".*ICD.*",
}
_PATTERNS = {role: re.compile(pattern, re.I) for role, pattern in NAMES.items()}


def role_of(column: str, roles: Mapping[str, str]) -> str:
    """The role of a field: as the file says, or by its name, or `text`."""
    return roles[column] if column in roles else _guess(column)


@functools.lru_cache(maxsize=4096)
def _guess(column: str) -> str:
    bare = re.sub(r"_\d+$", "", re.sub(r"\s", "", column))
    if bare in ROLES:
        return "text" if bare == "other" else bare
    return next((role for role, pattern in _PATTERNS.items() if pattern.fullmatch(bare)), "text")


def kind_of(column: str, roles: Mapping[str, str]) -> str:
    """The kind of identifier that a field holds: doctors and relatives are names."""
    role = role_of(column, roles)
    return "name" if role in PEOPLE else role


def load_roles(path: Path) -> dict[str, str]:
    """The `roles:` section of a YAML file. Raises `InputError` with the nearest role where one is unknown."""
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except OSError:
        raise InputError(f"--columns {path}: no such file; give YAML with `roles: {{column: role}}`") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputError(f"--columns {path}: no plain YAML; give `roles: {{column: role}}`") from None
    found = tree.get("roles") if isinstance(tree, dict) else None
    if not isinstance(found, dict):
        raise InputError(f"--columns {path}: has no section `roles:`; give `roles: {{column: role}}`")
    for column, role in found.items():
        if role not in ROLES:
            near = difflib.get_close_matches(str(role), ROLES, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"--columns {path}: {column}: role {role!r} is unknown; {hint}allowed: {', '.join(ROLES)}")
    return {str(column): "text" if role == "other" else role for column, role in found.items()}


def sensitivity(role: str) -> str:
    """A proposal for the GB/T 39725-2020 view of a field; the officer decides (needs a privacy officer's review)."""
    if role in ("text",):
        return "4（自由文本，可能含任何内容）"
    if role in KINDS or role in PEOPLE or role == "birth_date":
        return "4（个人身份标识）" if role not in ("date", "hospital", "bed") else "3（可能间接识别）"
    return "3（准标识符）" if role in ("age", "sex", "ethnicity", "occupation", "marital_status", "department") else "2"
