"""`xinglin data inspect` and `xinglin data import`: what a file is, and its rows as records."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from xinglin.records import NAMES, InputError, to_json

if TYPE_CHECKING:
    from xinglin.data.sources import Import

INSPECT_EXAMPLES = "Examples:  xinglin data inspect questions.csv   |   xinglin data inspect public/ --json"
IMPORT_EXAMPLES = (
    "Examples:  xinglin data import toyhom.csv --out toyhom.jsonl  |  xinglin data import public/ --out records"
)
KIND_FILES = {
    **{"document": "documents", "conversation": "conversations", "preference": "preferences", "rollout": "rollouts"},
    **{"question": "questions", "exam_question": "exam_questions", "entity_text": "entity_texts", "note": "notes"},
}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of a table.")]
Schema = Annotated[str | None, typer.Option(help="Read every row in this schema instead of choosing row by row.")]
Encoding = Annotated[str | None, typer.Option(help="utf-8 or gb18030; detected when left out.")]


def inspect_command(
    path: Annotated[Path, typer.Argument(help="A file, or a folder of data files.")],
    schema: Schema = None,
    encoding: Encoding = None,
    json_: Json = False,
) -> None:
    """Say what a file is and what importing it would give. Shows no record text, writes nothing."""
    from xinglin.data.sources import import_folder, inspect

    _known(schema, encoding)
    jobs = import_folder(path) if path.is_dir() else {path: None}
    found: list[dict[str, Any]] = []
    for file, job in jobs.items():
        if job is not None and job.skipped:
            continue
        try:
            found.append(inspect(file, schema=schema, encoding=encoding))
        except InputError as error:
            if job is None:
                raise
            found.append({"path": str(file), "error": str(error)})
    if json_:
        print(json.dumps({"files": found} if path.is_dir() else found[0], ensure_ascii=False))
    else:
        _print_inspected(found)
    _fail_for([str(one["error"]) for one in found if "error" in one], listed=json_)


def import_command(
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders that are read with all below them.")],
    out: Annotated[Path, typer.Option(help="A new .jsonl file, or a new folder: one file for each kind of record.")],
    schema: Schema = None,
    encoding: Encoding = None,
    max_bad: Annotated[int, typer.Option(min=0, help="Broken JSON lines allowed in a file.")] = 0,
    source: Annotated[str | None, typer.Option(help="Name of the data set; default: its folder's name.")] = None,
    json_: Json = False,
) -> None:
    """Turn files of any known public format into records (JSONL) and account for every row."""
    _known(schema, encoding)
    _refuse_existing(out)
    jobs = dict(_jobs(paths, schema, encoding, max_bad, source))
    written = _write(jobs, out)
    summary = _summary(jobs, written)
    if json_:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        _print_imported(jobs, written)
    _fail_for([job.error for job in jobs.values() if job.error], listed=json_)
    if not written:
        reasons = ", ".join(f"{name} ({count})" for name, count in list(summary["rejected"].items())[:3])
        raise InputError(
            f"0 records from {summary['read']} rows, nothing was written; rejected as: {reasons or 'none'}"
        )


def _known(schema: str | None, encoding: str | None) -> None:
    from xinglin.data.sources import containers, schemas

    if schema is not None and schema not in schemas.NAMES:
        raise InputError(f"--schema {schema!r} is not one of {', '.join(schemas.NAMES)}")
    if encoding is not None and encoding.lower() not in containers.ENCODINGS:
        raise InputError(f"--encoding {encoding!r} is not one of {', '.join(containers.ENCODINGS)}")


def _refuse_existing(out: Path) -> None:
    if out.is_dir() and out.suffix == ".jsonl":
        raise InputError(f"{out}: is a folder; --out that ends in .jsonl is a file: give another name")
    if out.is_file() and out.suffix != ".jsonl":
        raise InputError(f"{out}: is a file; give a file that ends in .jsonl, or a folder")
    if any(out.iterdir()) if out.is_dir() else out.exists() and out.stat().st_size:
        raise InputError(f"{out}: already there and not empty; give another --out, or remove it first")


# --- import ----------------------------------------------------------------------------------------------------------


def _jobs(
    paths: list[Path], schema: str | None, encoding: str | None, max_bad: int, source: str | None
) -> Iterator[tuple[Path, Import]]:
    """An import for every file, in the order given. One that cannot be read carries its error."""
    from xinglin.data.sources import import_folder

    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"{missing[0]}: no such file or folder; give files or folders of data")
    for path in paths:
        if not path.is_dir():
            yield path, _job(path, schema, encoding, max_bad, source)
            continue
        for file, job in import_folder(path, max_bad=max_bad, source=source).items():
            plain = job.skipped or (schema is None and encoding is None)
            yield file, job if plain else _job(file, schema, encoding, max_bad, source)


def _job(path: Path, schema: str | None, encoding: str | None, max_bad: int, source: str | None) -> Import:
    from xinglin.data.provenance import licence_of
    from xinglin.data.sources import Import, import_file

    try:
        return import_file(path, schema=schema, encoding=encoding, max_bad=max_bad, source=source)
    except InputError as error:
        return Import(path, None, source or "", licence_of(path), error=str(error))


def _write(jobs: dict[Path, Import], out: Path) -> dict[Path, int]:
    """Write all records through temporary files. Returns the count of each file that was written."""
    one = out.suffix == ".jsonl"
    (out.parent if one else out).mkdir(parents=True, exist_ok=True)
    files: dict[Path, TextIO] = {}
    counts: Counter[Path] = Counter()
    try:
        for job in jobs.values():
            if not job.error and not job.skipped:
                counts.update(_write_one(job, out, files))
    except BaseException:
        for path in files:
            _partial(path).unlink(missing_ok=True)
        raise
    finally:
        for file in files.values():
            file.close()
    for path in files:
        _partial(path).replace(path) if counts[path] else _partial(path).unlink()
    return {path: counts[path] for path in files if counts[path]}


def _write_one(job: Import, out: Path, files: dict[Path, TextIO]) -> Counter[Path]:
    """The records of one input file; what it wrote is taken back when it breaks half-way."""
    before = {path: file.tell() for path, file in files.items()}
    counts: Counter[Path] = Counter()
    try:
        for record in job:
            path = out if out.suffix == ".jsonl" else out / f"{KIND_FILES[NAMES[type(record)]]}.jsonl"
            if path not in files:
                files[path] = _partial(path).open("w", encoding="utf-8", newline="\n")
            files[path].write(to_json(record) + "\n")
            counts[path] += 1
    except InputError as error:
        job.error = str(error)
        for path, file in files.items():
            file.seek(before.get(path, 0))
            file.truncate()
        return Counter()
    return counts


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _summary(jobs: dict[Path, Import], written: dict[Path, int]) -> dict[str, Any]:
    """One object: the sums over the files that were imported, then each file. A file with an error gave nothing."""
    good = [job for job in jobs.values() if not job.error and not job.skipped]
    sums: dict[str, Counter[str]] = {name: Counter() for name in ("rejected", "schemas", "kinds")}
    for job in good:
        for name, total in sums.items():
            total.update(getattr(job, name))
    return {
        "read": sum(job.read for job in good),
        "accepted": sum(job.accepted for job in good),
        **{name: dict(total.most_common()) for name, total in sums.items()},
        "files": {str(path): {"error": job.error} if job.error else job.summary() for path, job in jobs.items()},
        "licences": {job.source: dataclasses.asdict(job.provenance) for job in good},
        "written": {str(path): count for path, count in written.items()},
    }


def _fail_for(errors: list[str], listed: bool) -> None:
    """After everything else: the unreadable files, one line each, then exit code 2."""
    if len(errors) > 1 and listed:
        for error in errors:
            print(error, file=sys.stderr)
    if errors:
        more = f"{len(errors)} files could not be read, the others were; the first: " if len(errors) > 1 else ""
        raise InputError(f"{more}{errors[0]}")


# --- tables ----------------------------------------------------------------------------------------------------------


def _print_imported(jobs: dict[Path, Import], written: dict[Path, int]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(stderr=True)
    table = Table("file", "read", "accepted", "rejected", "reasons", "licence")
    for path, job in jobs.items():
        words = job.error or job.skipped or "\n".join(f"{name} {count}" for name, count in job.rejected.items())
        licence = job.provenance.licence or "not stated"
        licence += ", research only" if job.provenance.research_only else ""
        numbers = ["", "", ""] if job.error or job.skipped else [job.read, job.accepted, sum(job.rejected.values())]
        table.add_row(escape(str(path)), *map(str, numbers), escape(words), licence if not job.skipped else "")
    console.print(table)
    for path, count in written.items():
        console.print(f"{escape(str(path))}: {count} records", highlight=False)


def _print_inspected(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for one in found:
        table = Table("field", "value", title=escape(str(one["path"])), title_justify="left", show_header=False)
        for name, value in one.items():
            if name not in ("path", "bad_rows") and value not in ({}, [], ""):
                words = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
                table.add_row(name, escape(words))
        if bad := one.get("bad_rows"):
            table.add_row("first bad rows", escape(", ".join(f"{item['row']} {item['reason']}" for item in bad)))
        console.print(table)
