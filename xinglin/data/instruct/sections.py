"""The sections of a Chinese note: what stands under 主诉, 现病史, 诊断, 出院医嘱 …, with its place in the text.

    sections_of(note)["diagnosis"]      Section(name, heading's own text, field, start, end)

Headings are found at the start of a line or sentence, numbered or in brackets; a colon must follow. A heading that is
known ends the section before it, also those whose content is nobody's business (signatures, contact data).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xinglin.records import Note

# Headings of outpatient, admission, progress and discharge notes, after 病历书写基本规范 (2010) and common exports.
HEADINGS: dict[str, tuple[str, ...]] = {
    "complaint": ("主诉",),
    "history": ("现病史", "病史", "简要病史", "入院情况", "入院时情况"),
    "past": ("既往史", "过敏史", "药物过敏史", "个人史", "婚育史", "月经史", "家族史", "既往病史"),
    "signs": ("查体", "体格检查", "体检", "专科检查", "专科情况", "体征"),
    "exams": (
        "辅助检查",
        "辅助检查回报",
        "辅检",
        "检查结果",
        "实验室检查",
        "影像学检查",
        "检验结果",
        "实验室及器械检查",
    ),
    "diagnosis": (
        "诊断",
        "初步诊断",
        "入院诊断",
        "出院诊断",
        "门诊诊断",
        "目前诊断",
        "最后诊断",
        "确定诊断",
        "临床诊断",
    ),
    "differential": ("鉴别诊断",),
    "analysis": ("分析", "病情分析", "诊断依据", "病例特点", "讨论"),
    "course": ("诊疗经过", "治疗经过", "住院经过"),
    "orders": (
        "处理",
        "处理意见",
        "医嘱",
        "诊疗计划",
        "治疗",
        "治疗方案",
        "治疗意见",
        "诊疗意见",
        "处置",
        "用药",
        "Rp",
    ),
    "discharge": ("出院医嘱", "出院带药", "出院指导", "健康教育", "健康宣教", "随访", "随诊", "注意事项", "复诊"),
    "outcome": ("出院情况", "出院时情况"),
    "other": (
        *(
            "医师签名",
            "医生签名",
            "住院医师",
            "主治医师",
            "主任医师",
            "医师",
            "医生",
            "签名",
            "记录者",
            "记录时间",
            "日期",
        ),
        *(
            "姓名",
            "性别",
            "年龄",
            "住址",
            "地址",
            "电话",
            "联系电话",
            "身份证号",
            "住院号",
            "门诊号",
            "床号",
            "科别",
            "科室",
        ),
        *("就诊日期", "入院日期", "出院日期", "病史陈述者", "可靠程度", "民族", "职业", "婚姻", "出生地", "工作单位"),
    ),
}
FIELDS = {
    **{"chief_complaint": "complaint", "present_illness": "history", "history": "past", "physical_exam": "signs"},
    **{"exam": "exams", "diagnosis": "diagnosis", "orders": "orders"},
    **{heading: name for name, headings in HEADINGS.items() if name != "other" for heading in headings},
}
_NAME_OF = {heading: name for name, headings in HEADINGS.items() for heading in headings}
_LONGEST_FIRST = "|".join(sorted(map(re.escape, _NAME_OF), key=len, reverse=True))
_HEADING = re.compile(
    rf"(?:^|(?<=[\s。；;！，,、.．)）】]))(?:[（(]?[一二三四五六七八九十\d]{{1,2}}[)）、.．]\s*)?[【\[]?({_LONGEST_FIRST})[】\]]?\s*[:：]",
    re.M,
)
# "【诊断】" may do without a colon
_BRACKETED = re.compile(rf"【({_LONGEST_FIRST})】\s*[:：]?")
# What was said to the family names persons and telephones, and teaches nothing
_FAMILY = re.compile(r"(?:(?<=[。；;，\n])|^)((?:已与|已向|已将|与|向)[^。\n]{0,6}家属)")
_PERSON = re.compile(r"(男|女)(?:性|孩|婴)?[，,、\s]{0,3}(?:年龄[:：]\s*)?(\d{1,3}\+?)\s*(岁|个?月|天)")


@dataclass(frozen=True, slots=True)
class Section:
    """`text` is `note.text[start:end]`, or the whole of the note's field that is named."""

    name: str
    text: str
    field: str
    start: int
    end: int

    def span(self, note: Note) -> dict[str, object]:
        return {"note": note.id, "section": self.name, "field": self.field, "start": self.start, "end": self.end}


def sections_of(note: Note) -> dict[str, list[Section]]:
    """Non-empty sections by name, in the order of the text; a structured field stands in where the text has none."""
    found: dict[str, list[Section]] = {}
    patterns = (_HEADING, _BRACKETED, _FAMILY)
    marks = sorted((m for pattern in patterns for m in pattern.finditer(note.text)), key=lambda mark: mark.start(1))
    marks = [mark for n, mark in enumerate(marks) if not n or mark.start(1) != marks[n - 1].start(1)]
    ends = [*(mark.start() for mark in marks[1:]), len(note.text)][: len(marks)]
    for mark, end in zip(marks, ends, strict=True):
        section = _trimmed(note.text, _NAME_OF.get(mark[1], "other"), mark.end(), end)
        if section.text and section.name != "other":
            found.setdefault(section.name, []).append(section)
    for field, text in note.fields.items():
        name = FIELDS.get(field)
        if name and name not in found and text.strip():
            found[name] = [Section(name, text, field, 0, len(text))]
    return found


def person_of(note: Note) -> Section | None:
    """Sex and age, the only words of the note's head that a question needs."""
    mark = _PERSON.search(note.text)
    if not mark:
        return None
    return Section("person", f"{mark[1]}，{mark[2]}{mark[3]}", "text", mark.start(), mark.end())


def _trimmed(text: str, name: str, start: int, end: int) -> Section:
    blank = " \t\n\r\u3000。；;，,"
    while start < end and text[start] in blank:
        start += 1
    while end > start and text[end - 1] in blank:
        end -= 1
    return Section(name, text[start:end], "text", start, end)
