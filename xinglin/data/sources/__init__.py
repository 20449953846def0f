"""Public data in: one file or a folder of unknown making becomes records, and every row of it is accounted for.

    detect(path)          encoding, line ends and container, from the content
    import_file(path)     iterate the records; afterwards read = accepted + rejected, with reasons and schemas
    import_folder(folder) the same for every file of a folder, by path
    inspect(path)         a summary that can be printed as JSON
    judged_preferences    preferences from several models' dialogues and a judge's scores

containers.py and readers.py open files, schemas.py chooses by row, dialogues.py, choices.py, spans.py and books.py
build the records, fields.py cleans texts and roles.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xinglin.data.provenance import Provenance, licence_of
from xinglin.data.sources import schemas
from xinglin.data.sources.choices import judged_preferences
from xinglin.data.sources.containers import Container, detect
from xinglin.data.sources.fields import Rejected, Row
from xinglin.data.sources.readers import Broken, rows
from xinglin.records import NAMES, InputError, Record, record_id

__all__ = [
    "Container",
    "Import",
    "Rejection",
    "detect",
    "import_file",
    "import_folder",
    "inspect",
    "judged_preferences",
]

MAX_REJECTIONS = 100_000
NOT_DATA = ("license", "licence", "copying", "note", "notice", "readme", "citation", "changelog")
CODE_SUFFIXES = {".py", ".sh", ".md", ".png", ".jpg", ".jpeg", ".svg", ".html", ".yaml", ".yml", ".toml", ".lock"}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refused row: its number and the reason, never its text."""

    row: int
    reason: str


@dataclass
class Import:
    """The records of one file. Iterate it; then read the counts. Iterating again starts from nothing.

    `read` counts rows (an item of a list, a line, a CSV record, a section of a book, a sentence of tagged characters);
    `accepted + sum(rejected.values()) == read` at the end. A row may give several records, and several rows of a
    grouped schema (word lists, labelled answers) may give one, so `records` is counted apart. `flags` sums what was
    changed or noticed in accepted rows. `rejections` keeps the first 100,000. `error` and `skipped` are set by
    `import_folder` for files that cannot be read or are not data.
    """

    path: Path
    container: Container | None
    source: str
    provenance: Provenance
    schema: str | None = None
    max_bad: int = 0
    skipped: str = ""
    error: str = ""
    read: int = 0
    accepted: int = 0
    records: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    schemas: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)
    _answers: bool | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[Record]:
        if self.container is None:
            return
        self.read = self.accepted = self.records = 0
        self.rejected, self.schemas, self.kinds, self.flags, self.rejections = {}, {}, {}, {}, []
        waiting: dict[str, list[Row]] = {}
        bad = 0
        for number, value in rows(self.container):
            self.read += 1
            if isinstance(value, Broken):
                bad += value.reason == "broken_json"
                if bad > self.max_bad:
                    raise InputError(f"{self.path}:{number}: not JSON; repair the line, or allow {bad} with --max-bad")
                self._reject(number, value.reason)
                continue
            row = Row(self.path, number, value)
            name = self.schema or schemas.schema_of(value)
            name = "answer_labels" if name == "question_pair" and self._holds_answers else name
            self.schemas[name or "unknown"] = self.schemas.get(name or "unknown", 0) + 1
            if name in schemas.GROUPED:
                self._wait(name, row, waiting)
            else:
                yield from self._convert(name, row)
        for name, group in waiting.items():
            yield from self._convert_group(name, group)

    def summary(self) -> dict[str, Any]:
        """The counts as JSON-able values."""
        return {
            "read": self.read,
            "accepted": self.accepted,
            "records": self.records,
            "rejected": dict(sorted(self.rejected.items(), key=lambda item: -item[1])),
            "schemas": self.schemas,
            "kinds": self.kinds,
            "flags": self.flags,
            **({"skipped": self.skipped} if self.skipped else {}),
            **({"error": self.error} if self.error else {}),
        }

    def _wait(self, name: str, row: Row, waiting: dict[str, list[Row]]) -> None:
        try:
            waiting.setdefault(name, []).append(schemas.group_row(name, row))
        except Rejected as refused:
            self._reject(row.number, refused.reason)

    def _convert(self, name: str, row: Row) -> Iterator[Record]:
        try:
            if not name:
                raise Rejected(f"unknown_schema: {_keys(row.value)}")
            found = schemas.convert(name, row)
        except Rejected as refused:
            self._reject(row.number, refused.reason)
            return
        except InputError:
            self._reject(row.number, "record_is_not_valid")
            return
        self._accept(row)
        for part, record in enumerate(found):
            yield self._finish(record, row, name, part)

    def _convert_group(self, name: str, group: list[Row]) -> Iterator[Record]:
        for row, result in schemas.GROUPED[name][1](group):
            if isinstance(result, Rejected):
                self._reject(row.number, result.reason)
                continue
            self._accept(row)
            if result is not None:
                yield self._finish(result, row, name, 0)

    def _accept(self, row: Row) -> None:
        self.accepted += 1
        for flag, count in row.flags.items():
            self.flags[flag] = self.flags.get(flag, 0) + count

    def _reject(self, number: int, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        if len(self.rejections) < MAX_REJECTIONS:
            self.rejections.append(Rejection(number, reason))

    def _finish(self, record: Record, row: Row, name: str, part: int) -> Record:
        """Id, source and lineage. Records of ours keep the id and the source they have."""
        self.records += 1
        kind = NAMES[type(record)]
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if name == "record" and record.id:
            return record
        meta: dict[str, Any] = {"file": self._file, "row": row.number, "schema": name, **record.meta}
        if row.flags:
            meta["flags"] = dict(row.flags)
        if self.provenance.research_only:
            meta["research_only"] = True
        new_id = record_id(self.source, self._file, row.number, part, repr(record))
        return dataclasses.replace(record, id=new_id, source=self.source, meta=meta)

    @functools.cached_property
    def _file(self) -> str:
        """The file's name inside its data set: several folders of a set may hold a dev.txt."""
        path = self.path.resolve()
        return path.relative_to(_data_set(path.parent)).as_posix()

    @property
    def _holds_answers(self) -> bool:
        """Label and two texts: question pairs, or a question with an answer? Answers are long, or their questions
        come again and again. Told once a file, from its first 200 rows."""
        if self._answers is None:
            assert self.container is not None
            head = [value for (_, value), _ in zip(rows(self.container), range(200), strict=False)]
            cells = [value for value in head if isinstance(value, list) and len(value) == 3]
            lengths = sorted(len(value[2]) for value in cells)
            self._answers = bool(lengths) and lengths[len(lengths) // 2] >= 45
        return self._answers


def import_file(
    path: Path,
    *,
    schema: str | None = None,
    encoding: str | None = None,
    max_bad: int = 0,
    source: str | None = None,
) -> Import:
    """The import of one file. `schema` takes the choice out of the rows' hands, `max_bad` allows that many broken JSON
    lines, `source` names the data set (default: the folder's name). Raises `InputError` for what cannot be read."""
    path = Path(path)
    if schema is not None and schema not in schemas.NAMES:
        raise InputError(f"schema {schema!r} is not one of {', '.join(schemas.NAMES)}")
    container = detect(path, encoding)
    return Import(path, container, source or _data_set(path.resolve().parent).name, licence_of(path), schema, max_bad)


def import_folder(folder: Path, *, max_bad: int = 0, source: str | None = None) -> dict[Path, Import]:
    """An import for every file under `folder`, by path. Files that are not data carry `skipped`, files that cannot be
    read carry `error`; both give no record. Iterate each import to fill its counts."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of data files")
    found: dict[Path, Import] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = source or _data_set(path.resolve().parent).name
        empty = Import(path, None, name, licence_of(path), skipped=_not_data(path, folder))
        if not empty.skipped:
            try:
                empty = import_file(path, max_bad=max_bad, source=source)
            except InputError as error:
                empty.error = str(error)
        found[path] = empty
    return found


def inspect(path: Path, *, schema: str | None = None, encoding: str | None = None) -> dict[str, Any]:
    """What a file is and what importing it would give, without record text."""
    job = import_file(path, schema=schema, encoding=encoding, max_bad=1_000_000)
    assert job.container is not None
    keys: Counter[str] = Counter()
    for _, value in rows(job.container):
        if isinstance(value, dict):
            keys.update(str(key) for key in value if key != "_key")
        elif isinstance(value, list):
            keys[f"{len(value)} columns without names"] += 1
    for _ in job:
        pass
    container = dataclasses.asdict(job.container)
    return {
        "path": str(job.path),
        "encoding": container["encoding"],
        "line_ends": container["line_ends"],
        "container": container["kind"],
        "bytes": container["num_bytes"],
        "columns": list(container["header"] or ()),
        "keys": dict(keys.most_common(40)),
        **job.summary(),
        "bad_rows": [dataclasses.asdict(rejection) for rejection in job.rejections[:10]],
        "provenance": dataclasses.asdict(job.provenance),
    }


@functools.lru_cache(maxsize=64)
def _data_set(folder: Path) -> Path:
    """The nearest folder that holds a licence or a note is the data set; else the folder of the file."""
    for above in (folder, *folder.parents[:3]):
        if any(_is_notice(other) for other in above.glob("*") if other.is_file()):
            return above
    return folder


def _is_notice(path: Path) -> bool:
    stem = path.stem.lower()
    return stem in NOT_DATA or stem.startswith(("license", "licence"))


def _not_data(path: Path, folder: Path) -> str:
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return "not data: a link that leaves the folder"
    if path.name.startswith("."):
        return "not data: hidden file"
    if _is_notice(path):
        return "not data: licence or note"
    return f"not data: {path.suffix} file" if path.suffix.lower() in CODE_SUFFIXES else ""


def _keys(value: Any) -> str:
    """The row's field names, for the reason of its refusal."""
    if isinstance(value, dict):
        names = [str(key)[:24] for key in value][:8]
        return "keys " + ", ".join(names) + (", ..." if len(value) > 8 else "")
    return f"{len(value)} columns" if isinstance(value, list) else type(value).__name__
