"""The command line: `xinglin VERB`. Heavy imports stand inside the verbs, so that --help answers at once.

xinglin run RECIPE        a whole run            xinglin data ...       records in, looked at, cleaned
xinglin sft, dpo, ...     one stage              xinglin recipe ...     list, show, copy
xinglin chat MODEL        talk to a model        xinglin doctor         what this machine can run
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from xinglin.cli import annotate, convert, data, doctor, stages

app = typer.Typer(
    help="杏林 Xinglin: Chinese medical language models, from a hospital's notes to a served model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
recipe_app = typer.Typer(help="List, show and copy recipes.", no_args_is_help=True)
app.add_typer(data.app, name="data")
app.add_typer(annotate.app, name="annotate")
app.add_typer(recipe_app, name="recipe")
stages.add_to(app)
app.command("doctor", epilog=doctor.DOCTOR_EXAMPLES)(doctor.doctor_command)
app.command("convert", epilog=convert.CONVERT_EXAMPLES)(convert.convert_command)

Settings = Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one value.")]


@app.command(
    epilog="Examples:  xinglin run quickstart   |   xinglin run ivygpt --scale tiny --data ward --out runs/ivy"
)
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or a YAML file.")],
    scale: Annotated[str, typer.Option(help="full, or tiny: the recipe's own small counts and embedded model.")] = "",
    data: Annotated[
        str,
        typer.Option(
            help="ward: the embedded teaching ward. public: a folder of public sets. notes: a hospital's notes, "
            "de-identified and made into instructions; synthetic ones without --data-dir."
        ),
    ] = "ward",
    data_dir: Annotated[
        Path | None, typer.Option(help="The folder of --data public; the notes of --data notes (JSONL or an export).")
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="For --data notes: an export's confirmed mapping, or `roles:` of the fields.")
    ] = None,
    key: Annotated[
        Path, typer.Option(help="For --data notes: the secret of the de-identification, apart from --out.")
    ] = Path("~/.config/xinglin/deidentify.key"),
    out: Annotated[Path | None, typer.Option(help="The run's folder [default: runs/RECIPE-DATA-SCALE].")] = None,
    settings: Settings = None,
    only: Annotated[str | None, typer.Option(help="Run this one stage; the others must be complete.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan, tokens and memory; run nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Run a recipe: every stage that is not complete yet, then the report. Run again to go on after a stop."""
    from xinglin.recipe import load_recipe, recipe_path
    from xinglin.records import InputError
    from xinglin.run import say

    if scale not in ("", "full", "tiny") or data not in ("ward", "public", "notes"):
        raise InputError(f"--scale {scale!r} --data {data!r}: allowed are full or tiny, and ward, public or notes")
    if columns and data != "notes":
        raise InputError(f"--columns {columns}: goes with --data notes alone")
    chosen = load_recipe(recipe, scale=scale or "full", settings=settings)
    folder = out or Path("runs") / "-".join(filter(None, (recipe_path(recipe).stem, data, scale)))
    if dry_run:
        from xinglin.plan import print_plan

        print_plan(chosen, data)
        return
    from xinglin.stages import RunOptions, run_recipe

    report, model = run_recipe(chosen, RunOptions(folder, data, data_dir, only, quiet, scale or "full", columns, key))
    say(f"report: {report}")
    if model:
        say(f"chat:   xinglin chat {model}")


@app.command(epilog="Examples:  xinglin chat runs/demo/03-sft/model   |   echo 高血压首选什么药 | xinglin chat MODEL")
def chat(
    model: Annotated[str, typer.Argument(help="A model folder, or the address of an OpenAI-style server.")],
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: int = 0,
    once: Annotated[str | None, typer.Option(help="Answer this one question and leave.")] = None,
    name: Annotated[str, typer.Option(help="The model's name at the server.")] = "default",
) -> None:
    """Talk to a model: multi-turn, streaming. /clear, /undo, /system, /exit."""
    from xinglin.chat import chat as talk
    from xinglin.rollout.generator import Decoding

    decoding = Decoding(max_new_tokens=max_new_tokens, temperature=temperature)
    key = "XINGLIN_API_KEY" if "XINGLIN_API_KEY" in os.environ else None
    talk(model, system=system, decoding=decoding, seed=seed, once=once, model=name, api_key_env=key)


@app.command(epilog="Example:  xinglin report runs/quickstart-ward")
def report(out: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Write a run's report again."""
    from xinglin.records import InputError
    from xinglin.report import write_report

    if not (out / "run.json").is_file():
        raise InputError(f"{out}: no run of ours (run.json is missing); give the --out folder of `xinglin run`")
    print(write_report(out))


@app.command(epilog="Example:  xinglin export runs/dpo/model --out merged-model")
def export(
    model: Annotated[Path, typer.Argument(help="A model folder, whole or adapter.")],
    out: Annotated[Path, typer.Option(help="Where the merged model goes.")],
    acknowledge_research_only: Annotated[
        bool, typer.Option("--acknowledge-research-only", help="Export although data are for research only.")
    ] = False,
) -> None:
    """Merge an adapter into its base and prove by reload that the merged model says the same."""
    from xinglin.export import export as export_model

    facts = export_model(model, out, acknowledge=acknowledge_research_only)
    print(f"{out}: merged; largest difference of a log-probability {facts['largest_difference']:.2g}")


@recipe_app.command("list", epilog="Example:  xinglin recipe list")
def recipe_list() -> None:
    """Names and titles."""
    from xinglin.recipe import load_recipe, recipe_names

    for name in recipe_names():
        print(f"{name:<14} {load_recipe(name).title}")


@recipe_app.command("show", epilog="Example:  xinglin recipe show ivygpt")
def recipe_show(name: Annotated[str, typer.Argument(help="A recipe's name or a YAML file.")]) -> None:
    """Print the YAML."""
    from xinglin.recipe import recipe_path

    print(recipe_path(name).read_text("utf-8"), end="")


@recipe_app.command("copy", epilog="Example:  xinglin recipe copy ivygpt mine.yaml   (then: xinglin run mine.yaml)")
def recipe_copy(
    name: Annotated[str, typer.Argument(help="A recipe's name or a YAML file.")],
    to: Annotated[Path, typer.Argument(help="The new file.")],
) -> None:
    """Copy a recipe to change it."""
    from xinglin.recipe import recipe_path
    from xinglin.records import InputError
    from xinglin.run import write_text

    if to.exists():
        raise InputError(f"{to}: exists already; give a new file name")
    write_text(to, recipe_path(name).read_text("utf-8"))


def _among_ranks() -> contextlib.AbstractContextManager[None]:
    """With the other processes, where torchrun started several."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return contextlib.nullcontext()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or a rank that ends is lamented by all others at length
    from xinglin.train.ranks import joined

    return joined()


def main() -> None:
    """A user's mistake is one line and exit code 2; never a traceback."""
    from xinglin.records import InputError

    try:
        with _among_ranks():
            app()
    except InputError as error:
        print(f"xinglin: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
    except Exception as error:
        if "No space left on device" not in str(error):  # safetensors says it with an error of its own
            raise
        told = "no space left on the disk; free some, or give --out on another disk, and run again"
        print(f"xinglin: {told}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
