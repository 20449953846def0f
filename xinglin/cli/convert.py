"""`xinglin convert`: a base published as remote code becomes a plain transformers folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

CONVERT_EXAMPLES = (
    "Examples:  xinglin convert Qwen-14B --out qwen-14b   |   xinglin convert Baichuan2-7B-Base --out b2 --allow-bin"
)


def convert_command(
    source: Annotated[Path, typer.Argument(help="The model's folder as it was published, on disk.")],
    out: Annotated[Path, typer.Option(help="Where the converted model goes.")],
    allow_bin: Annotated[
        bool, typer.Option("--allow-bin", help="Read tensors (and nothing else) out of pickled .bin weights.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Convert first-generation Qwen or Baichuan 7B to a native shape, without running any of their code."""
    from rich.console import Console
    from rich.progress import Progress

    from xinglin.models.convert import convert

    with Progress(console=Console(stderr=True), disable=quiet or json_) as progress:
        suffix = "safetensors" if any(source.glob("*.safetensors")) else "bin"
        size = sum(path.stat().st_size for path in source.glob(f"*.{suffix}"))
        task = progress.add_task("write, then read back", total=2 * size)
        facts = convert(source, out, allow_bin=allow_bin, advance=lambda done: progress.advance(task, done))
    if json_:
        print(json.dumps({"out": str(out), **facts}))
        return
    print(
        f"{out}: {facts['from']} -> {facts['to']}, {facts['parameters'] / 1e9:.2f} G parameters in {facts['dtype']}, "
        f"{facts['tensors']} tensors read back equal, {facts['vocabulary']} tokens known, {facts['max_tokens']} a text"
    )
