"""`xinglin data mix`: sources in stated shares, split by patient, with their licences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from xinglin.cli.data.dedup import EngineName, Json, Workers, new_folder, one_of

MIX_EXAMPLES = (
    "Examples:  xinglin data mix mix.yaml --out mixed   |   xinglin data mix mix.yaml --out mixed --tokenizer M"
)


def mix_command(
    mixture: Annotated[Path, typer.Argument(help="A YAML file: general_share, sources with files and ratios.")],
    out: Annotated[Path, typer.Option(help="A new folder: train.jsonl, valid.jsonl, manifest.json.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="A folder with tokenizer.json: sizes in tokens instead of characters.")
    ] = None,
    acknowledge_research_only: Annotated[
        bool, typer.Option("--acknowledge-research-only", help="Let a model from research-only sources be exported.")
    ] = False,
    engine: EngineName = "local",
    workers: Workers = 1,
    json_: Json = False,
) -> None:
    """Mix sources by tokens or rows, split them by patient, and carry their licences."""
    from xinglin.data.mix import mix

    one_of("--engine", engine, ("local", "ray"))
    new_folder(out)
    manifest = mix(
        mixture,
        out,
        tokenizer=tokenizer,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
        acknowledge=acknowledge_research_only,
    )
    if json_:
        print(json.dumps({**manifest, "accepted": sum(manifest["rows"].values()), "rejected": {}}, ensure_ascii=False))
    else:
        _print(manifest, out)


def _print(manifest: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    unit = manifest["unit"]
    table = Table("source", "rows", f"{unit} there", f"{unit} written", "share", "epochs", "licence")
    for name, one in manifest["sources"].items():
        words = manifest["provenance"][name]
        licence = words["licence"] + (", research only" if words["research_only"] else "")
        epochs = f"{one['epochs']:.2f}" + (" (upsampled)" if one["upsampled"] else "")
        numbers = (str(one["rows"]), str(one["units"]), str(one["units_written"]), f"{100 * one['share']:.1f} %")
        table.add_row(escape(name), *numbers, epochs, escape(licence))
    console = Console(stderr=True)
    console.print(table)
    console.print(f"general share: {100 * manifest['general_share']:.1f} %", highlight=False)
    for split, kinds in manifest["histograms"].items():
        for kind, counts in kinds.items():
            bins = ", ".join(f"{b} {n}" for b, n in counts.items() if n and (b[0].isdigit()))
            console.print(
                f"{split}: {counts['rows']} rows, median {counts['median']:g} {kind}; {bins}", highlight=False
            )
    if manifest["research_only"] and not manifest["acknowledge_research_only"]:
        names = ", ".join(manifest["research_only"])
        console.print(escape(f"research only: {names}; an export of what is trained on this will ask for consent"))
    console.print(escape(f"{out}: {manifest['rows']['train']} train, {manifest['rows']['valid']} valid"))
