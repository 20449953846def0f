"""`xinglin data notes`: a hospital's export becomes notes, once its columns were proposed and confirmed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xinglin.records import InputError, Note, write_records

if TYPE_CHECKING:
    from xinglin.data.notes import Columns, NoteImport

NOTES_EXAMPLES = (
    "Examples:  xinglin data notes 门诊.xlsx --propose columns.yaml   |   "
    "xinglin data notes 门诊.xlsx --columns columns.yaml --out notes.jsonl   |   "
    'xinglin data notes postgresql://reader@db/his --sql "SELECT * FROM progress_notes" --propose columns.yaml'
)


def notes_command(
    source: Annotated[str, typer.Argument(help="CSV, Excel, JSONL, a folder of .txt and .docx, or a database URL.")],
    propose: Annotated[Path | None, typer.Option(help="Write which column holds what into this new YAML file.")] = None,
    columns: Annotated[Path | None, typer.Option(help="That file, checked, with confirmed: true.")] = None,
    out: Annotated[Path | None, typer.Option(help="A new .jsonl file of notes.")] = None,
    by_patient: Annotated[bool, typer.Option("--by-patient", help="Put all notes of a patient together.")] = False,
    sheet: Annotated[str, typer.Option(help="With --propose: the sheet of the workbook.")] = "",
    sql: Annotated[str, typer.Option(help="With --propose: a table's name, or a SELECT.")] = "",
    file_name: Annotated[str, typer.Option(help="With --propose: pattern of a folder's names: {住院号}_{类型}.")] = "",
    encoding: Annotated[str | None, typer.Option(help="utf-8 or gb18030; detected when left out.")] = None,
    max_bad: Annotated[int, typer.Option(min=0, help="Broken JSON lines allowed.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of a table.")] = False,
) -> None:
    """Turn a hospital's export into notes (JSONL), every row accounted for. They are not de-identified yet."""
    from xinglin.data.notes import propose_columns, read_notes, write_columns

    if (propose is None) == (columns is None) or (columns is None) != (out is None):
        raise InputError("give --propose FILE, or --columns FILE with --out FILE; see `xinglin data notes --help`")
    if propose is not None:
        found = propose_columns(source, sheet=sheet, sql=sql, file_name=file_name, encoding=encoding)
        write_columns(propose, found)
        _print_proposed(found, propose, json_)
        return
    assert columns is not None and out is not None
    _refuse_existing(out)
    if sheet or sql or file_name:
        raise InputError("--sheet, --sql and --file-name go with --propose; then they stand in the columns file")
    job = read_notes(source, columns, encoding=encoding, max_bad=max_bad)
    written = _write(job, out, by_patient)
    summary = {**job.summary(), "written": {str(out): written}}
    print(json.dumps(summary, ensure_ascii=False)) if json_ else _print_read(summary)


def _refuse_existing(out: Path) -> None:
    if out.suffix != ".jsonl":
        raise InputError(f"{out}: --out of notes is a file that ends in .jsonl")
    if out.is_dir() or (out.exists() and out.stat().st_size):
        raise InputError(f"{out}: already there and not empty; give another --out, or remove it first")


def _write(job: NoteImport, out: Path, by_patient: bool) -> int:
    """Write the notes through a temporary file that no error leaves behind."""
    from xinglin.data.notes import group_by_patient

    shown = _shown(job)
    if by_patient:
        shown = (note for _, notes in group_by_patient(_shown(job), out.parent) for note in notes)
    try:
        return write_records(out, _some(job, shown))
    except BaseException:
        out.with_name(out.name + ".partial").unlink(missing_ok=True)
        raise


def _some(job: NoteImport, notes: Iterator[Note]) -> Iterator[Note]:
    yield from notes
    if not job.accepted:
        reasons = ", ".join(f"{name} ({count})" for name, count in list(job.summary()["rejected"].items())[:3])
        raise InputError(f"0 notes from {job.read} rows, nothing was written; rejected as: {reasons}")


def _shown(job: NoteImport) -> Iterator[Note]:
    """The notes, with a count of rows on stderr meanwhile."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    words = TextColumn("{task.completed} notes")
    with Progress(
        SpinnerColumn(), words, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        yield from progress.track(job, total=None)


def _print_proposed(found: Columns, path: Path, json_: bool) -> None:
    if json_:
        print(json.dumps({"proposed": found.named(), "roles": found.fields, "columns": str(path)}, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("column", "holds")
    for name, key in found.named().items():
        table.add_row(escape(name), found.fields[name] if key == "fields" else key)
    console = Console(stderr=True)
    console.print(table)
    console.print(f"{escape(str(path))}: check every line, then set confirmed: true", highlight=False)


def _print_read(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("field", "value", show_header=False)
    for name, value in summary.items():
        if name != "rejected_rows" and value not in ({}, []):
            pairs = [f"{key} {count}" for key, count in value.items()] if isinstance(value, dict) else value
            table.add_row(name, escape(", ".join(pairs) if isinstance(pairs, list) else str(pairs)))
    Console(stderr=True).print(table)
