"""`xinglin data deidentify`: notes without identifiers, a report to sign, a measurement, a patient withdrawn."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xinglin.records import InputError, Note, read_records

if TYPE_CHECKING:
    from xinglin.data.deidentify.pipeline import Read, Settings

DEIDENTIFY_EXAMPLES = (
    "Examples:  xinglin data deidentify notes.jsonl --out clean --sample 300   |   "
    "xinglin data deidentify 门诊.xlsx --columns columns.yaml --out clean --quasi sex,age,department --k 5   |   "
    "xinglin data deidentify --measure labelled.jsonl   |   xinglin data deidentify --withdraw 0012345 --out clean"
)
DEFAULT_KEY = Path("~/.config/xinglin/deidentify.key")


def deidentify_command(
    notes: Annotated[
        list[str] | None, typer.Argument(help="Files of note records; or exports, with --columns.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder: notes.jsonl, report.html, manifest.json.")] = None,
    key: Annotated[Path, typer.Option(help="The secret; made on first use, kept apart from --out.")] = DEFAULT_KEY,
    columns: Annotated[
        Path | None, typer.Option(help="YAML `roles: {column: role}`, or the confirmed mapping of an export.")
    ] = None,
    quasi: Annotated[str, typer.Option(help="Fields for k-anonymity, with commas: 性别,年龄,科室")] = "",
    k: Annotated[int, typer.Option(min=2, help="At least k patients in a group: 5 controlled, 20 public.")] = 5,
    max_withheld: Annotated[
        float, typer.Option(min=0, max=1, help="Share of notes withheld before generalising.")
    ] = 0.05,
    measure: Annotated[Path | None, typer.Option(help="Notes with labelled `entities`: recall and precision.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Draw this many notes for reading, on the key's side.")] = 0,
    withdraw: Annotated[str | None, typer.Option(help="Take this patient out of the folder --out.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of a table.")] = False,
) -> None:
    """Replace every identifier by a stand-in, read the result again, and write it with a report. No network."""
    if withdraw is not None:
        _withdraw(withdraw, out, key, bool(notes), json_)
        return
    if not notes and measure is None:
        raise InputError(
            "give files of notes and --out, or --measure LABELLED.jsonl, or --withdraw PATIENT; see --help"
        )
    if notes and out is None:
        raise InputError("--out is missing: give a new folder for notes.jsonl, report.html and manifest.json")
    read, refused = _reader(notes or [], columns)
    settings = _settings(columns, quasi, k, max_withheld, workers)
    measurement = _measure(measure, settings.roles) if measure else None
    if not notes:
        print(json.dumps(measurement, ensure_ascii=False)) if json_ else _print_measurement(measurement or {})
        return
    assert out is not None
    manifest = _publish(read, out, key, settings, measurement, sample, refused)
    print(json.dumps(manifest, ensure_ascii=False)) if json_ else _print_published(manifest, out)


def _settings(columns: Path | None, quasi: str, k: int, max_withheld: float, workers: int) -> Settings:
    from xinglin.data.deidentify.columns import load_roles
    from xinglin.data.deidentify.pipeline import Settings

    roles = {} if columns is None or _is_mapping(columns) else load_roles(columns)
    names = tuple(name.strip() for name in quasi.replace("，", ",").split(",") if name.strip())
    return Settings(roles, names, k if names else 0, max_withheld, workers)


def _is_mapping(columns: Path) -> bool:
    """A file of `xinglin data notes --propose`, which says how an export is read."""
    return columns.is_file() and any(
        line.startswith("confirmed:") for line in columns.read_text("utf-8", errors="replace").splitlines()
    )


def _reader(sources: list[str], columns: Path | None) -> tuple[Read, Callable[[], Mapping[str, int]]]:
    """What reads all sources anew each time, and what tells the rows that gave no note."""
    if columns is not None and _is_mapping(columns):
        from xinglin.data.notes import read_notes

        imports = [read_notes(source, columns) for source in sources]
        refused = lambda: sum((Counter(one.rejected) for one in imports), Counter())  # noqa: E731
        return (lambda: (note for one in imports for note in one)), refused
    if other := [source for source in sources if not source.endswith((".jsonl", ".json"))]:
        raise InputError(
            f"{other[0]}: not note records (.jsonl); for an export give --columns FILE, "
            "which `xinglin data notes SOURCE --propose FILE` proposes"
        )
    if absent := [source for source in sources if not Path(source).is_file()]:
        raise InputError(f"{absent[0]}: no such file; give JSONL of note records")
    return (lambda: (note for source in sources for note in read_records(Path(source), Note))), dict


def _measure(path: Path, roles: Mapping[str, str]) -> dict[str, Any]:
    from xinglin.data.deidentify.measure import measure
    from xinglin.data.deidentify.scan import marker

    gold = list(read_records(path, Note))
    return {"file": path.name, **measure(gold, marker(gold, roles)).summary()}


def _publish(
    read: Read, out: Path, key: Path, settings: Settings, measurement: dict[str, Any] | None, sample: int,
    refused: Callable[[], Mapping[str, int]],
) -> dict[str, Any]:  # fmt: skip
    from xinglin.data.deidentify.pipeline import Leak
    from xinglin.data.deidentify.publish import publish

    try:
        with _progress() as advance:
            return publish(
                read, out, key, settings, measurement=measurement, sample=sample, refused=refused, advance=advance
            )
    except Leak as error:
        print(f"xinglin: {out}: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def _withdraw(patient: str, out: Path | None, key: Path, with_notes: bool, json_: bool) -> None:
    from xinglin.data.deidentify.publish import withdraw

    if out is None or with_notes:
        raise InputError("--withdraw takes --out (the published folder) and --key, and no notes")
    manifest = withdraw(out, patient, key)
    done = manifest["withdrawn"][-1]
    if json_:
        print(json.dumps(manifest, ensure_ascii=False))
    elif done["notes"]:
        print(f"{out}: {done['notes']} notes removed, {done['notes_of_small_groups']} more withheld for k-anonymity")
    else:
        print(f"{out}: holds no note of this patient; later runs under this key will leave the patient out")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed} notes"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks = {step: bar.add_task(step, total=None, start=False) for step in ("read", "find", "write")}

        def advance(step: str, count: int) -> None:
            bar.start_task(tasks[step])
            bar.update(tasks[step], advance=count)

        yield advance


# --- tables ----------------------------------------------------------------------------------------------------------


def _print_published(manifest: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    table = Table("identifier", "replaced")
    for kind, count in manifest["kinds"].items():
        table.add_row(kind, str(count))
    console.print(table)
    rejected = ", ".join(f"{reason} {count}" for reason, count in manifest["rejected"].items()) or "none"
    problems = ", ".join(f"{name}s {count}" for name, count in manifest["problems"].items()) or "none"
    console.print(f"read {manifest['read']}, accepted {manifest['accepted']}, rejected: {rejected}", highlight=False)
    console.print(f"masked dates: {problems}; lists and sample: {manifest['private']}", highlight=False)
    if manifest["measurement"]:
        _print_measurement(manifest["measurement"])
    console.print(f"{out / 'report.html'}: to be signed by the privacy officer", highlight=False, markup=False)


def _print_measurement(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{summary['notes']} labelled notes" + (" (SYNTHETIC)" if summary["synthetic"] else "")
    table = Table("kind", "labelled", "covered recall", "95 %", "strict", "partly", "missed", "precision", title=title)
    for kind, line in [("all", summary["total"]), *summary["kinds"].items()]:
        recall, strict, precision = line["recall"], line["strict_recall"], line["precision"]
        span = f"{recall['low']:.2%} – {recall['high']:.2%}" if recall else ""
        values = [f"{one['value']:.2%}" if one else "" for one in (recall, strict, precision)]
        counts = [str(line["labelled"]), str(line["partly"]), str(line["missed"])]
        table.add_row(kind, counts[0], values[0], span, values[1], counts[1], counts[2], values[2])
    Console(stderr=True).print(table)
