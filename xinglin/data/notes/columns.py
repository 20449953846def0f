"""Which column of a hospital's export holds what: proposed from the names and a few values, confirmed by a person.

guess_columns(table)        a proposal, not confirmed
write_columns(path, cols)   as commented YAML; the user corrects it and sets `confirmed: true`
load_columns(path)          the file again, every key checked
check_columns(cols, table)  all mapped columns are there, or the nearest names are told
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from xinglin.data.notes.tables import Table, as_text
from xinglin.records import InputError

SAMPLE = 200
# Identifier kinds first, in the order in which a column's name is tried: 联系人电话 is a phone, 家属姓名 a relative.
ROLES: dict[str, tuple[str, ...]] = {
    "drop": ("密码", "password", "签名图片"),
    "id_card": ("身份证", "证件号", "公民身份", "id_card", "idcard", "id_no"),
    "phone": ("电话", "手机", "联系方式", "phone", "mobile", "tel"),
    "email": ("邮箱", "email", "e-mail"),
    "wechat_qq": ("微信", "qq", "wechat"),
    "bank_card": ("银行卡", "银行账", "bank"),
    "insurance": ("医保", "社保", "insurance"),
    "passport": ("护照", "passport"),
    "military": ("军官证", "士兵证"),
    "plate": ("车牌", "号牌"),
    "specimen": ("标本号", "条码", "病理号"),
    "imaging": ("影像号", "检查号"),
    "address": ("住址", "地址", "户口", "籍贯", "出生地", "邮编", "address"),
    "employer": ("单位", "employer", "company"),
    "sex": ("性别", "sex", "gender"),
    "ethnicity": ("民族",),
    "occupation": ("职业",),
    "marital_status": ("婚姻", "婚育状况"),
    "age": ("年龄", "age"),
    "birth_date": ("出生", "生日", "birth"),
    "date": ("日期", "时间", "date", "time"),
    "relative": ("联系人", "家属", "监护人", "亲属", "relative", "contact"),
    "doctor": (
        "医生",
        "医师",
        "大夫",
        "护士",
        "主刀",
        "术者",
        "doctor",
        "physician",
        "nurse",
        "operator",
        "签名",
        "审核",
    ),
    "department": ("科室", "科别", "病区", "department", "ward"),
    "bed": ("床号", "床位", "bed"),
    "hospital": ("医院", "机构", "院区", "hospital"),
    "name": ("姓名", "患者名", "病人名", "曾用名", "name"),
    "mrn": ("住院号", "门诊号", "病历号", "病案号", "就诊卡", "登记号", "mrn", "卡号"),
    "icd10": ("icd",),
}
PATIENT = (
    *("患者id", "病人id", "患者编号", "病人编号", "patient_id", "patientid", "empi", "患者主索引", "患者标识"),
    *("登记号", "病案号", "住院号", "病历号", "门诊号", "就诊卡号", "mrn", "pid"),
)
NOTE_ID = (
    "病历id",
    "文书id",
    "文书编号",
    "记录id",
    "记录编号",
    "note_id",
    "noteid",
    "医嘱号",
    "报告编号",
    "报告号",
    "id",
)
KIND = ("文书类型", "文书名称", "病历类型", "记录类型", "类型", "kind", "note_type", "type", "模板名称")
DATE = (
    "记录日期",
    "记录时间",
    "就诊日期",
    "就诊时间",
    "书写时间",
    "创建时间",
    "报告日期",
    "医嘱时间",
    "note_date",
    "visit_date",
)
TEXT = (
    *(
        "主诉",
        "现病史",
        "既往史",
        "个人史",
        "婚育史",
        "月经史",
        "家族史",
        "过敏史",
        "体格检查",
        "查体",
        "专科检查",
        "辅助检查",
    ),
    *(
        "诊断",
        "诊疗",
        "处理",
        "治疗",
        "医嘱",
        "病程",
        "所见",
        "结论",
        "印象",
        "小结",
        "病历",
        "内容",
        "正文",
        "文书",
        "病史",
    ),
    *(
        "检查结果",
        "检验结果",
        "入院情况",
        "出院情况",
        "报告",
        "建议",
        "text",
        "content",
        "note",
        "complaint",
        "history",
    ),
    *("diagnosis", "orders", "exam", "findings", "impression", "plan"),
)
ID_CARD = re.compile(r"\d{17}[\dXx]|\d{15}")
PHONE = re.compile(r"(?:\+?86[- ]?)?1[3-9]\d{9}")


@dataclass(frozen=True, slots=True)
class Columns:
    """What each column of an export holds. `fields` gives every other column its role: an identifier kind that seeds
    the search in the text (name, id_card, phone ...), another word of ROLES, `other` or `drop`. `id_width` is the
    number of characters of a patient's number where that is fixed, 0 where it is not."""

    patient_id: str
    text: tuple[str, ...]
    id: str = ""
    kind: str = ""
    default_kind: str = ""
    date: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    id_width: int = 0
    sheet: str = ""
    sql: str = ""
    file_name: str = ""
    header_lines: tuple[str, ...] = ()
    confirmed: bool = False

    def named(self) -> dict[str, str]:
        """Column -> the key of the file that names it."""
        single = {name: key for key in ("patient_id", "id", "kind", "date") if (name := getattr(self, key))}
        return {**dict.fromkeys(self.fields, "fields"), **dict.fromkeys(self.text, "text"), **single}

    def role(self, column: str) -> str:
        return self.fields.get(column, "mrn" if column in (self.patient_id, self.id) else "other")


COMMENTS = {
    "confirmed": "Proposed by reading the names and a few values. Check every line, then write true.",
    "patient_id": "The column that is the same for all notes of one patient.",
    "id": 'The column that numbers the notes, or "". A number that comes twice is refused.',
    "kind": 'The column that tells outpatient, admission, progress, discharge, examination and orders apart, or "".',
    "default_kind": "The kind of the notes where no column tells it.",
    "date": 'The day of the note, or "".',
    "text": "The note's text: one column, or several that are joined with their names as titles.",
    "fields": (
        "All other columns and what they hold. Identifiers (name, relative, doctor, id_card, phone, email, wechat_qq, "
        "bank_card,\n# insurance, passport, military, plate, specimen, imaging, address, employer, hospital, bed, mrn, "
        "date, birth_date)\n# are searched for in the text.\n# other: kept as it is. drop: not read. Columns that are "
        "not listed are not read."
    ),
    "id_width": "Characters of a patient's number where all have as many (a shorter one lost zeros in Excel), or 0.",
    "sheet": 'Excel: the sheet to read. "" is the first visible one.',
    "sql": "SQL: the name of a table, or a SELECT.",
    "file_name": "Folder: what the files' names say, e.g. {住院号}_{文书类型}; words in braces become columns.",
    "header_lines": "Folder: words before a colon in a file's first 40 lines, e.g. [姓名, 住院号]; these are columns.",
}
ALWAYS = ("confirmed", "patient_id", "id", "kind", "date")


# --- proposing -------------------------------------------------------------------------------------------------------


def guess_columns(table: Table, sheet: str = "", sql: str = "") -> Columns:
    """A proposal from the names of the columns and the first 200 rows; `patient_id` is "" where no name fits. Raises
    `InputError` where no column can be the text; it names the columns there are."""
    rows = [row for _, row in itertools.islice(table.sample(), SAMPLE) if isinstance(row, dict)]
    values = {name: [text for row in rows if (text := as_text(row.get(name)).strip())] for name in table.names}
    left = list(table.names)
    patient = _take(left, PATIENT) or ""
    note_id = _take(left, NOTE_ID, whole=True) or ""
    kind = _take(left, KIND, whole=True) or ""
    date = _take(left, DATE) or ""
    texts = [name for name in left if _is_text(name, values[name])]
    if not texts:
        raise InputError(
            f"{table.place}: no column looks like a note's text; found: {', '.join(table.names[:30])}; write the "
            "columns file by hand (see `xinglin data notes --help`)"
        )
    return Columns(
        patient_id=patient,
        text=tuple(texts),
        id=note_id,
        kind=kind,
        default_kind=kind_of(Path(table.place).stem if not sql else sql) if not kind else "",
        date=date,
        fields={name: _role(name, values[name]) for name in left if name not in texts},
        id_width=_width(values.get(patient, [])),
        sheet=sheet or table.sheet,
        sql=sql,
        file_name=table.file_name,
        header_lines=table.header_lines,
    )


def _take(left: list[str], words: tuple[str, ...], whole: bool = False) -> str | None:
    """Remove and return the column that fits the first word; the very word before one that holds it."""
    for word in words:
        found = [name for name in left if _plain(name) == word]
        found += [name for name in left if word in _plain(name)] if not whole else []
        if found:
            left.remove(found[0])
            return found[0]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s（）()【】\[\]:：*]", "", name).lower()


def _is_text(name: str, values: list[str]) -> bool:
    """Named like a part of a note, or long: and no identifier by name."""
    if _named_role(name) and not _plain(name).endswith(TEXT):
        return False
    long = values and sum(map(len, values)) / len(values) > 40
    return bool(long) or any(word in _plain(name) for word in TEXT)


def _named_role(name: str) -> str:
    plain = _plain(name)
    if plain.endswith(("编码", "代码", "code")):
        return "other"
    return next((role for role, words in ROLES.items() if any(word in plain for word in words)), "")


def _role(name: str, values: list[str]) -> str:
    """What the values are, where they say it plainly; else what the name says."""
    for role, pattern in (("id_card", ID_CARD), ("phone", PHONE)):
        if values and sum(pattern.fullmatch(value) is not None for value in values) > len(values) / 2:
            return role
    return _named_role(name) or "other"


def _width(values: list[str]) -> int:
    """The length that four of five patient numbers of six digits or more share, else 0."""
    lengths = [len(value) for value in values if value.isdigit()]
    most = max(set(lengths), key=lengths.count, default=0)
    return most if most >= 6 and lengths.count(most) >= 0.8 * len(values) else 0


KINDS = {
    "outpatient": ("门诊", "急诊", "outpatient", "clinic"),
    "discharge": ("出院", "discharge"),
    "admission": ("入院", "admission"),
    "orders": ("医嘱", "处方", "order", "prescription"),
    "examination": ("检查", "检验", "报告", "影像", "超声", "病理", "化验", "exam", "lab", "radiology", "report"),
    "progress": ("病程", "查房", "progress", "术后", "会诊"),
}


def kind_of(words: str) -> str:
    """One of the six kinds for a title such as 首次病程记录; the words themselves where it is none of them."""
    plain = _plain(words)
    return next((kind for kind, signs in KINDS.items() if any(sign in plain for sign in signs)), "")


# --- the file --------------------------------------------------------------------------------------------------------


def write_columns(path: Path, columns: Columns) -> None:
    """Write the proposal with a comment for each key, through a temporary file. Refuses to overwrite."""
    if path.exists():
        raise InputError(f"{path}: exists already; give another name, or remove it first")
    lines = ["# What the columns of the export hold.\n"]
    for key in [key for key in COMMENTS if getattr(columns, key) or key in ALWAYS]:
        lines.append(f"# {COMMENTS[key]}\n{key}:{_yaml(getattr(columns, key))}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("\n".join(lines), encoding="utf-8")
    partial.replace(path)


def _yaml(value: Any) -> str:
    """JSON scalars are YAML too, and need no rules for quoting."""
    if isinstance(value, dict):
        return "".join(f"\n  {_scalar(key)}: {item}" for key, item in value.items())
    if isinstance(value, tuple):
        return "".join(f"\n  - {_scalar(item)}" for item in value)
    return f" {_scalar(value)}"


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def load_columns(path: Path) -> Columns:
    """The mapping of a file, confirmed or not. Raises `InputError` that names the key for what is not allowed."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; `xinglin data notes SOURCE --propose {path.name}` writes one")
    if path.stat().st_size > 2**20:
        raise InputError(f"{path}: over 1 MiB; a columns file has some lines")
    try:
        body = yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{path}:{mark.line + 1 if mark else 1}: not YAML in UTF-8; repair the line") from None
    if not isinstance(body, dict):
        raise InputError(f"{path}: holds no keys; `xinglin data notes SOURCE --propose FILE` writes such a file")
    return _checked(path, body)


def _checked(path: Path, body: dict[Any, Any]) -> Columns:
    known = {item.name: item for item in dataclasses.fields(Columns)}
    for key in body:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"{path}: unknown key {key!r}; {hint}allowed: {', '.join(known)}")
    for key in ("patient_id", "text"):
        if not body.get(key):
            raise InputError(f"{path}: {key} is empty; name the column that holds it")
    values = {key: _typed(path, key, value) for key, value in body.items() if value is not None}
    return Columns(**values)


def _typed(path: Path, key: str, value: Any) -> Any:
    if key in ("text", "header_lines"):
        value = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        right = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        wanted = "a list of column names"
    elif key == "fields":
        right = isinstance(value, dict) and all(isinstance(item, str) for pair in value.items() for item in pair)
        wanted = "column names, each with its role"
        wrong = [role for role in value.values() if role not in {*ROLES, "other"}] if right else []
        if wrong:
            raise InputError(f"{path}: fields: {wrong[0]!r} is no role; allowed: {', '.join(ROLES)}, other")
    elif key == "confirmed":
        right, wanted = isinstance(value, bool), "true or false"
    elif key == "id_width":
        right, wanted = type(value) is int and value >= 0, "a number, 0 or more"
    else:
        right, wanted = isinstance(value, str), "text; put it in quotes"
    if not right:
        raise InputError(f"{path}: {key} is {type(value).__name__}; allowed: {wanted}")
    return value


def check_columns(columns: Columns, table: Table) -> None:
    """Every mapped column is there. Raises `InputError` with the nearest names for the first that is not."""
    for name, key in columns.named().items():
        if name in table.names or columns.fields.get(name) == "drop":
            continue
        inside = [other for other in table.names if name in other or other in name]
        near = list(dict.fromkeys([*inside, *difflib.get_close_matches(name, table.names, 3, 0.4)]))[:3]
        hint = f"nearest: {', '.join(near)}" if near else f"found: {', '.join(table.names[:12])}"
        raise InputError(f"{table.place}: no column {name!r} ({key}); {hint}; correct the columns file")
