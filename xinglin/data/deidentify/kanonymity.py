"""k-anonymity over chosen fields: nobody in the output stands in a group of fewer than k patients.

    plan = anonymise(rows, patients, ("性别", "年龄", "科室"), k=5)     -> levels, the new values, rows withheld

Datafly (Sweeney 1998): while more than `max_withheld` of the rows stand in small groups, the field with the most
distinct values goes up one step of its ladder; what is then still small is withheld. Ladders: an age to bands of 5, 10,
20 years; a date to month, quarter, year; anything goes to "*" last. A group counts patients, not notes. GB/T 42460-2023
works the same measure in annex D; k >= 20 for public release, k >= 5 for controlled release (our targets, trust.md D7).

It speaks of structured fields only: what free text says of age or ward is not in the table.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xinglin.records import InputError

Row = tuple[str, ...]
AGE = re.compile(r"(\d{1,3})\s*岁?")
DATE = re.compile(r"(\d{4})[-/.年](\d{1,2})(?:[-/.月](\d{1,2})日?)?(?:[T\s].*)?")
OLDEST = re.compile(r"90\s*(?:\+|岁以上)")


@dataclass(frozen=True, slots=True)
class Anonymised:
    """`rows[i]` is the new row i, or None where it is withheld. `steps` names what each field became."""

    rows: list[Row | None]
    steps: dict[str, str]
    withheld: int
    withheld_patients: int
    smallest: int
    groups: int


def anonymise(
    rows: Sequence[Row], patients: Sequence[str], names: Sequence[str], k: int, max_withheld: float = 0.05
) -> Anonymised:
    """Raise fields until at most `max_withheld` of the rows are in groups under `k` patients; withhold those."""
    if k < 2 or not names:
        raise InputError(f"--k {k} over {len(names)} fields: give k of at least 2 and at least one field in --quasi")
    ladders = [_ladder([row[place] for row in rows]) for place in range(len(names))]
    levels = [0] * len(names)
    while True:
        raised = _raise(rows, ladders, levels)
        small = small_groups(raised, patients, k)
        highest = [place for place in range(len(names)) if levels[place] + 1 < len(ladders[place])]
        if len(small) <= max_withheld * len(rows) or not highest:
            break
        widest = max(highest, key=lambda place: (len({row[place] for row in raised}), -place))
        levels[widest] += 1
    kept = [None if number in small else row for number, row in enumerate(raised)]
    return _summary(kept, patients, {name: ladders[i][levels[i]][0] for i, name in enumerate(names)})


def small_groups(rows: Sequence[Row], patients: Sequence[str], k: int) -> set[int]:
    """Numbers of the rows that stand in groups of fewer than `k` patients."""
    members = _groups(rows, patients)
    return {number for number, row in enumerate(rows) if len(members[row]) < k}


def _groups(rows: Sequence[Row], patients: Sequence[str]) -> dict[Row, set[str]]:
    members: dict[Row, set[str]] = defaultdict(set)
    for row, patient in zip(rows, patients, strict=True):
        members[row].add(patient)
    return members


def _summary(kept: list[Row | None], patients: Sequence[str], steps: dict[str, str]) -> Anonymised:
    left = [(row, patient) for row, patient in zip(kept, patients, strict=True) if row is not None]
    members = _groups([row for row, _ in left], [patient for _, patient in left])
    return Anonymised(
        rows=kept,
        steps=steps,
        withheld=len(kept) - len(left),
        withheld_patients=len(set(patients) - {patient for _, patient in left}),
        smallest=min(map(len, members.values()), default=0),
        groups=len(members),
    )


# --- ladders ---------------------------------------------------------------------------------------------------------

Step = tuple[str, Callable[[str], str]]


def _raise(rows: Sequence[Row], ladders: Sequence[Sequence[Step]], levels: Sequence[int]) -> list[Row]:
    tables = []
    for place, (ladder, level) in enumerate(zip(ladders, levels, strict=True)):
        step = ladder[level][1]
        tables.append({value: step(value) for value in {row[place] for row in rows}})
    return [tuple(table[value] for table, value in zip(tables, row, strict=True)) for row in rows]


def _ladder(values: Sequence[str]) -> list[Step]:
    """By what most of the values look like."""
    filled = [value for value in set(values) if value]
    exact: Step = ("exact", lambda value: value)
    gone: Step = ("*", lambda value: "*")
    if filled and sum(bool(AGE.fullmatch(value) or OLDEST.fullmatch(value)) for value in filled) > 0.9 * len(filled):
        return [exact, *((f"{width} years", _band(width)) for width in (5, 10, 20)), gone]
    if filled and sum(bool(DATE.fullmatch(value)) for value in filled) > 0.9 * len(filled):
        return [exact, ("month", _date("month")), ("quarter", _date("quarter")), ("year", _date("year")), gone]
    return [exact, gone]


def _band(width: int) -> Callable[[str], str]:
    def band(value: str) -> str:
        match = AGE.fullmatch(value)
        if not match:
            return "90+" if OLDEST.fullmatch(value) else "*"
        first = int(match[1]) // width * width
        return f"{first}-{first + width - 1}" if first + width - 1 < 90 else f"{first}+"

    return band


def _date(unit: str) -> Callable[[str], str]:
    def cut(value: str) -> str:
        match = DATE.fullmatch(value)
        if not match:
            return "*"
        year, month = match[1], int(match[2])
        return {"month": f"{year}-{month:02d}", "quarter": f"{year}Q{(month + 2) // 3}", "year": year}[unit]

    return cut
