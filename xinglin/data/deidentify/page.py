"""The report that a privacy officer signs, and the sheet on which the sample is read. One file each, offline,
printable.

    report(manifest)  -> HTML          sheet(notes) -> HTML          bounds(300) -> [(0, 0.00994), (1, ...), ...]

The report is made of the manifest alone, so that it can be made again; it holds counts and no text of a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from xinglin.data.deidentify.columns import DATES, KEPT, sensitivity
from xinglin.data.deidentify.kinds import KIND
from xinglin.data.deidentify.measure import upper_bound
from xinglin.records import Note

KEPT_ON_PURPOSE = (
    "疾病、症状、药物、剂量、检验值、ICD 编码、以人名命名的病名和药名（帕金森、安定 …）",
    "性别；90 岁以下的年龄；科室名称（本院）；“入院第 3 天”一类的相对时间；时刻（几点几分）",
    "日期之间的间隔（每位患者整体平移同样的天数）；身份证替代值中的性别位与五年出生段",
    "姓名的字数与姓氏类型（单姓、复姓、民族姓名）；地址的层级（市、区、村、号 …）；机构的类别",
)


def bounds(notes: int) -> list[tuple[int, float]]:
    """(leaks found, the most that then leaks with 95 % confidence) for a sample of `notes`."""
    return [(leaks, upper_bound(leaks, notes)) for leaks in (0, 1, 2, 3, 5) if leaks <= notes] if notes else []


def report(manifest: dict[str, Any]) -> str:
    columns = [
        {"name": name, "level": sensitivity(entry["role"]), "treatment": treatment(entry["role"]), **entry}
        for name, entry in manifest["columns"].items()
    ]
    return _environment().get_template("report.html.jinja").render(
        m=manifest, columns=columns, kind_words={name: kind.description for name, kind in KIND.items()},
        kept=KEPT_ON_PURPOSE, grade=_grade(manifest),
    )  # fmt: skip


def sheet(notes: Sequence[Note]) -> str:
    return _environment().get_template("sheet.html.jinja").render(notes=notes, bounds=bounds(len(notes)))


def treatment(role: str) -> str:
    if role == "text":
        return "查找并替换"
    if role in KEPT:
        return "保留（仍查已知值）" if role != "keep" else "按设置保留（仍查已知值）"
    if role in DATES:
        return "按患者平移"
    return {"drop": "清空", "age": "90 岁及以上记为 90+", "age_over_89": "90 岁及以上记为 90+"}.get(role, "替代值")


def _grade(manifest: dict[str, Any]) -> str:
    """Our proposal. The grades are quoted from secondary sources (needs a check against GB/T 42460-2023)."""
    if manifest["kanonymity"]:
        k = manifest["kanonymity"]["k"]
        return f"2 级：直接标识符已替换；所选字段达到 k={k}，但自由文本中的准标识符没有量化评估，故不建议主张 3 级"
    return "2 级：直接标识符已替换；准标识符没有做 k-匿名，重标识风险没有量化"


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["percent"] = lambda value, digits=2: f"{100 * value:.{digits}f} %"
    return found
