"""A hospital's notes in: an export of unknown making becomes `Note`s once its columns are confirmed.

    propose_columns(source)        which column holds what: a proposal, to be confirmed in a file
    write_columns, load_columns    that file
    read_notes(source, columns)    iterate the notes; afterwards read = accepted + rejected, with reasons
    group_by_patient(notes, dir)   all notes of one patient together, in bounded memory

tables.py opens files, folders.py folders, sql.py databases; columns.py maps, damage.py finds what Excel broke,
patients.py groups. Everything streams: one row is in memory, and one patient when grouped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xinglin.data.notes.columns import (
    Columns,
    check_columns,
    guess_columns,
    kind_of,
    load_columns,
    write_columns,
)
from xinglin.data.notes.damage import ID_ROLES, IdCheck, date_of_serial
from xinglin.data.notes.patients import group_by_patient
from xinglin.data.notes.tables import Table, as_text, open_table
from xinglin.data.sources.readers import Broken
from xinglin.records import InputError, Note

__all__ = [
    "Columns",
    "NoteImport",
    "Rejection",
    "group_by_patient",
    "load_columns",
    "propose_columns",
    "read_notes",
    "write_columns",
]

MAX_REJECTIONS = 100_000
MAX_IDS = 4_000_000  # note ids remembered to find doubles, about 300 MB
ABSENT = {"", "nan", "none", "null", "n/a", "无", "-", "/"}
# A text with one of these is damaged: half characters, private use (a font's own signs), control characters.
UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff]")
DATES = ("date", "birth_date")


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refused row: its number (of the file for a folder) and the reason, never its text."""

    row: int
    reason: str


class _Refused(Exception):
    """This row gives no note."""


@dataclass
class NoteImport:
    """The notes of one source. Iterate it; then read the counts. Iterating again starts from nothing.

    `accepted + sum(rejected.values()) == read` at the end. `flags` counts what was changed or left out:
    date_serials, formulas, merged_cells_filled ... `not_read` names the columns that the columns file does not list.

    `Note.fields` has the role of a column as key (name, id_card, phone, birth_date ...; `name_2` for the second of a
    role) or, for role `other`, the column's own name. `Note.id` is source and row number, because the hospital's number
    is an identifier; that one is in fields as `note_id`.
    """

    source: str
    columns: Columns
    table: Table
    max_bad: int = 0
    read: int = 0
    accepted: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)
    rejections: list[Rejection] = field(default_factory=list)

    @property
    def not_read(self) -> list[str]:
        return [name for name in self.table.names if name not in self.columns.named()]

    def __iter__(self) -> Iterator[Note]:
        self.read = self.accepted = 0
        self.rejected, self.kinds, self.flags, self.rejections = {}, {}, Counter(), []
        keys = _field_keys(self.columns)
        in_database = self.table.kind.endswith((" table", " query"))
        damaged = IdCheck(self.table.place, self.columns.id_width, exact=in_database)
        seen: set[int] = set()
        for number, row in self.table.rows(self.flags):
            self.read += 1
            try:
                note = self._note(number, row, keys, damaged, seen)
            except _Refused as refused:
                self._reject(number, str(refused))
                continue
            self.accepted += 1
            self.kinds[note.kind] = self.kinds.get(note.kind, 0) + 1
            yield note
        if not self.read:
            raise InputError(f"{self.table.place}: 0 records; there is a header and nothing below it")

    def summary(self) -> dict[str, Any]:
        """The counts as JSON-able values."""
        return {
            "read": self.read,
            "accepted": self.accepted,
            "rejected": dict(sorted(self.rejected.items(), key=lambda item: -item[1])),
            "kinds": self.kinds,
            "flags": {name: count for name, count in self.flags.items() if count},
            "container": self.table.kind,
            "columns_not_read": self.not_read,
            "rejected_rows": [[one.row, one.reason] for one in self.rejections[:20]],
        }

    def _note(self, number: int, row: Any, keys: dict[str, str], damaged: IdCheck, seen: set[int]) -> Note:
        if not isinstance(row, dict):
            raise _Refused(self._broken(number, row))
        cells = self._cells(number, row, damaged)
        patient = cells.get(self.columns.patient_id, "")
        if not patient:
            raise _Refused("no_patient_id")
        text = self._text(cells)
        if not text:
            raise _Refused("empty_text")
        self._once(cells.get(self.columns.id, ""), seen)
        fields = {key: cells[name] for name, key in keys.items() if cells.get(name)}
        return Note(
            id=f"{self.source}-{number:07d}",
            patient_id=patient,
            kind=self._kind(cells),
            text=text,
            fields=fields,
            source=self.source,
            meta={"row": number},
        )

    def _broken(self, number: int, row: Any) -> str:
        reason = row.reason if isinstance(row, Broken) else "not_an_object"
        if reason == "id_damaged_by_excel":
            raise InputError(
                f"{self.table.place}:{number}: IDs were damaged by Excel (1.1E+17 in place of digits); nothing is "
                "guessed: export the column as text from the source system"
            )
        if reason == "broken_json" and self.rejected.get(reason, 0) >= self.max_bad:
            more = self.max_bad + 1
            raise InputError(f"{self.table.place}:{number}: not JSON; repair the line, or allow {more} with --max-bad")
        return reason

    def _cells(self, number: int, row: dict[str, Any], damaged: IdCheck) -> dict[str, str]:
        """The mapped columns as text, with ids checked and date serials turned into dates."""
        cells = {}
        for name in self.columns.named():
            value = row.get(name)
            text = as_text(value).replace("\r\n", "\n").replace("\r", "\n").strip()
            if bad := UNSAFE.search(text):
                raise _Refused(f"damaged_text_U+{ord(bad[0]):04X}")
            role = self.columns.role(name)
            patient = name == self.columns.patient_id
            if patient or role in ID_ROLES:
                damaged(number, name, value, text, role, patient)
            if (role in DATES or name == self.columns.date) and (date := date_of_serial(text)):
                self.flags["date_serials"] += 1
                text = date
            cells[name] = "" if text.lower() in ABSENT and name not in self.columns.text else text
        return cells

    def _text(self, cells: dict[str, str]) -> str:
        """One column as it stands, several joined with their names as titles."""
        if len(self.columns.text) == 1:
            return cells.get(self.columns.text[0], "")
        parts = [(name, cells.get(name, "")) for name in self.columns.text]
        return "\n".join(f"{name}：{text}" for name, text in parts if text)

    def _kind(self, cells: dict[str, str]) -> str:
        words = cells.get(self.columns.kind, "")
        return kind_of(words) or words or self.columns.default_kind or "note"

    def _once(self, note_id: str, seen: set[int]) -> None:
        if not note_id:
            return
        if hash(note_id) in seen:
            raise _Refused("duplicate_note_id")
        if len(seen) < MAX_IDS:
            seen.add(hash(note_id))
        else:
            self.flags["note_ids_not_checked"] += 1

    def _reject(self, number: int, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        if len(self.rejections) < MAX_REJECTIONS:
            self.rejections.append(Rejection(number, reason))


def _field_keys(columns: Columns) -> dict[str, str]:
    """Column -> key in `Note.fields`: its role, numbered from the second on, or its own name."""
    keys: dict[str, str] = {}
    single = {columns.patient_id: "mrn", columns.id: "note_id", columns.date: "visit_date"}
    for name, role in {**columns.fields, **{name: role for name, role in single.items() if name}}.items():
        if role == "drop":
            continue
        key = name if role == "other" else role
        number = 2
        while key in keys.values():
            key, number = f"{name if role == 'other' else role}_{number}", number + 1
        keys[name] = key
    return keys


def read_notes(
    source: Path | str,
    columns: Columns | Path | str,
    *,
    name: str | None = None,
    encoding: str | None = None,
    max_bad: int = 0,
) -> NoteImport:
    """The notes of a file, a folder or a database URL, through a confirmed mapping (`Columns` or its YAML file).

    `name` names the source in ids (default: the file's or folder's name), `max_bad` allows that many broken JSON lines.
    Raises `InputError` when the mapping is not confirmed or names columns that are not there, and while iterating when
    ids were damaged by Excel or the file ends inside a record.
    """
    if not isinstance(columns, Columns):
        path, columns = columns, load_columns(Path(columns))
        if not columns.confirmed:
            raise InputError(f"{path}: confirmed is false; check which column holds what, then set confirmed: true")
    elif not columns.confirmed:
        raise InputError("the columns are not confirmed; check which column holds what, then set confirmed: true")
    table = open_table(
        source,
        sheet=columns.sheet,
        sql=columns.sql,
        file_name=columns.file_name,
        header_lines=columns.header_lines,
        encoding=encoding,
    )
    check_columns(columns, table)
    return NoteImport(name or _name(source, columns), columns, table, max_bad)


def propose_columns(
    source: Path | str, *, sheet: str = "", sql: str = "", file_name: str = "", encoding: str | None = None
) -> Columns:
    """Which column holds what, from names and the first 200 rows; `confirmed` is False. Raises `InputError`."""
    return guess_columns(open_table(source, sheet=sheet, sql=sql, file_name=file_name, encoding=encoding), sheet, sql)


def _name(source: Path | str, columns: Columns) -> str:
    if "://" in str(source):
        return columns.sql if re.fullmatch(r"[\w.]+", columns.sql) else "query"
    return Path(source).resolve().name.split(".")[0]
