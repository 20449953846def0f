"""`xinglin data dedup` and `xinglin data overlap`: what stands twice, and what stands in a test as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from xinglin.records import InputError

DEDUP_EXAMPLES = (
    "Examples:  xinglin data dedup sft.jsonl --out clean   |   xinglin data dedup a.jsonl b.jsonl --out clean "
    "--on question --near 0.7 --json"
)
OVERLAP_EXAMPLES = (
    "Examples:  xinglin data overlap train.jsonl --tests exam.jsonl valid.jsonl   |   "
    "xinglin data overlap train.jsonl --tests exam.jsonl --drop --out train-clean.jsonl"
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of a table.")]
EngineName = Annotated[str, typer.Option(help="local, or ray: Ray Data (RAY_ADDRESS names a cluster).")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that read and prepare the rows.")]


class ManyTests(TyperCommand):
    """Lets --tests take every file up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        in_tests = False
        for word in args:
            if word.startswith("-"):
                in_tests = word == "--tests"
            elif in_tests and spread[-1] != "--tests":
                spread.append("--tests")
            spread.append(word)
        return super().parse_args(ctx, spread)


def dedup_command(
    records: Annotated[list[Path], typer.Argument(help="JSONL files of records.")],
    out: Annotated[Path, typer.Option(help="A new folder: each file without duplicates, and duplicates.jsonl.")],
    on: Annotated[str, typer.Option(help="What is compared: question, answer or pair.")] = "pair",
    near: Annotated[float, typer.Option(help="Jaccard similarity of near duplicates; 0: exact ones only.")] = 0.8,
    keep: Annotated[str, typer.Option(help="Which row of a group stays: the first, or the longest.")] = "first",
    memory_mb: Annotated[int, typer.Option(min=64, help="Memory that the search may use, in MB.")] = 1024,
    engine: EngineName = "local",
    workers: Workers = 1,
    json_: Json = False,
) -> None:
    """Remove exact and near duplicates: character 5-grams, MinHash, every candidate verified."""
    from xinglin.data.dedup import KINDS, dedup_files

    one_of("--on", on, KINDS)
    one_of("--keep", keep, ("first", "longest"))
    one_of("--engine", engine, ("local", "ray"))
    new_folder(out)
    summary = dedup_files(
        records,
        out,
        on=on,  # type: ignore[arg-type]
        near=near,
        keep=keep,  # type: ignore[arg-type]
        memory_mb=memory_mb,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
    )
    if json_:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        _print_dedup(summary, out)


def overlap_command(
    train: Annotated[list[Path], typer.Argument(help="JSONL files of training records.")],
    tests: Annotated[list[Path], typer.Option(help="Test files: every file up to the next option.")],
    threshold: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of a test item's 13-grams in one training row.")
    ] = 0.3,
    drop: Annotated[bool, typer.Option("--drop", help="Write the training rows that overlap with no test.")] = False,
    out: Annotated[Path | None, typer.Option(help="The file that --drop writes.")] = None,
    json_: Json = False,
) -> None:
    """Say which test items stand in the training data, and which stand in two test files or splits."""
    from xinglin.data.overlap import drop_overlap, find_overlap

    if drop != (out is not None):
        raise InputError("--drop and --out FILE go together: give both, or neither to look only")
    found = find_overlap(train, tests, threshold=threshold)
    summary = found.summary()
    if out is not None:
        if out.exists():
            raise InputError(f"{out}: exists already; give another --out, or remove it first")
        summary |= drop_overlap(found, train, out)
    if json_:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        _print_overlap(summary, out)


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{option} {value!r} is not one of {', '.join(allowed)}")


def new_folder(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: already there and not empty; give another --out, or remove it first")


def _print_dedup(summary: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("rows", "count", title=f"duplicates on {summary['on']}", title_justify="left")
    table.add_row("read", str(summary["read"]))
    for reason, count in summary["rejected"].items():
        table.add_row(reason, str(count))
    table.add_row("kept", str(summary["accepted"]))
    for kind, count in summary["equal"].items():
        table.add_row(f"equal {kind} (beyond the first)", str(count))
    table.add_row("largest group", str(summary["largest_group"]))
    if summary["left_out"]:
        table.add_row("pairs not compared (huge buckets)", str(summary["left_out"]))
    console = Console(stderr=True)
    console.print(table)
    console.print(escape(f"{out}: {len(summary['files'])} file(s), duplicates.jsonl, manifest.json"), highlight=False)


def _print_overlap(summary: dict[str, Any], out: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("data", "test", "items", "equal", "13-grams", "overlap", "piecewise", box=None)
    for row in summary["table"]:
        share = f"{row['overlap']} ({100 * row['share']:.1f} %)"
        counts = (str(row[name]) for name in ("items", "exact", "ngram"))
        table.add_row(escape(row["data"]), escape(row["test"]), *counts, share, str(row["piecewise"]))
    console = Console(stderr=True)
    console.print(table)
    if out is not None:
        words = ", ".join(f"{reason} {count}" for reason, count in summary["rejected"].items()) or "none dropped"
        console.print(escape(f"{out}: {summary['accepted']} of {summary['read']} rows; {words}"), highlight=False)
