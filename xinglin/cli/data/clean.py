"""`xinglin data clean`: records mended or set aside, each with a counted reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from xinglin.records import InputError, to_json

if TYPE_CHECKING:
    from xinglin.data.clean import Dropped, Kept, Survey, Tally
    from xinglin.data.clean.ask import Chat, Reply

CLEAN_EXAMPLES = (
    "Examples:  xinglin data clean records.jsonl --out cleaned   |   xinglin data clean records.jsonl --out cleaned "
    "--off quarantine --check-url http://127.0.0.1:8000/v1 --check-model qwen"
)
CACHE = "asked.jsonl"
RecordT = TypeVar("RecordT")
Out = Annotated[Path, typer.Option(help="A new folder.")]
KeyEnv = Annotated[str | None, typer.Option(help="Environment variable that holds the server's key.")]
PriceIn = Annotated[float, typer.Option(min=0, help="Price of a million tokens of prompts.")]
PriceOut = Annotated[float, typer.Option(min=0, help="Price of a million tokens of replies.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of a table.")]


def clean_command(
    records: Annotated[Path, typer.Argument(help="Documents, conversations, preferences or questions, JSONL.")],
    out: Out,
    rules: Annotated[Path | None, typer.Option(help="YAML with settings of the rules.")] = None,
    off: Annotated[list[str] | None, typer.Option(help="A rule that shall not run; repeat for more.")] = None,
    check_url: Annotated[
        str | None, typer.Option(help="OpenAI-style address of a model that checks what is kept.")
    ] = None,
    check_model: Annotated[str, typer.Option(help="That model's name.")] = "",
    key_env: KeyEnv = None,
    price_in: PriceIn = 0.0,
    price_out: PriceOut = 0.0,
    json_: Json = False,
) -> None:
    """Mend or set aside every record; DIR gets records.jsonl, rejected.jsonl, tails.txt and report.json.

    Nothing leaves this machine unless --check-url is given. Run the same command again to go on after a stop.
    """
    from xinglin.data.clean import RULES, Known, clean, read_settings, survey_records
    from xinglin.data.clean.check import PROMPT, VERSION, check
    from xinglin.records import read_any
    from xinglin.run import file_hash

    settings = read_settings(rules, tuple(off or ()), tuple(RULES))
    asker = asker_for(check_url, check_model, key_env, PROMPT, VERSION, out)
    open_folder(out)
    known = Known(settings, survey_records(shown(read_any(records), "counting"), settings))
    outcomes = clean(shown(read_any(records), "cleaning"), known)
    tally = _write(check(outcomes, asker) if asker else outcomes, out)
    if not tally.read:
        raise InputError(f"{records}: holds 0 records; give a JSONL file of records (see `xinglin data import --help`)")
    report = {
        **tally.summary(),
        "input": {"name": records.name, "sha256": file_hash(records)},
        "settings": settings.model_dump(),
        "survey": _survey_facts(known.survey),
        **({"check": asker.cost(price_in, price_out)} if asker else {}),
    }
    _write_lines(out / "tails.txt", sorted(known.survey.tails))
    _write_lines(
        out / "report.json", [json.dumps(report, ensure_ascii=False, indent=2)]
    )  # last: its presence is the end
    print(json.dumps(report, ensure_ascii=False)) if json_ else _print(tally, report)


def open_folder(out: Path) -> None:
    """A new folder, or one in which an earlier run was stopped: it holds a cache or half-written files alone."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a new folder as --out")
    if out.is_dir() and any(path.name != CACHE and path.suffix != ".partial" for path in out.iterdir()):
        raise InputError(f"{out}: already there and not empty; give another --out, or remove it first")
    out.mkdir(parents=True, exist_ok=True)


def asker_for(url: str | None, model: str, key_env: str | None, prompt: str, version: str, out: Path) -> Any:
    """An `Asker` over HTTP whose replies are remembered in the output folder; None without an address."""
    from xinglin.data.clean.ask import Asker

    if not url:
        return None
    if not model:
        raise InputError("an address is given without a model; name the model as the server knows it")
    open_folder(out)
    return Asker(chat_over(url, model, key_env), model=model, prompt=prompt, version=version, cache=out / CACHE)


def chat_over(url: str, model: str, key_env: str | None = None, max_tokens: int = 1024) -> Chat:
    """The chat callable that data's askers take. A fault that lasts over its retries is None: the record stays
    unjudged; a wrong address or key is an `InputError`."""
    from xinglin.data.clean.ask import Reply
    from xinglin.rollout.url import ContextFull, Fault, Server, read_reply, usage

    server = Server(url, api_key_env=key_env)

    def chat(messages: list[dict[str, str]], attempt: int) -> Reply | None:
        # greedy first; a retry must differ, or a deterministic model repeats what could not be read
        decoding = {"temperature": 0.3 if attempt else 0.0, "seed": attempt, "max_tokens": max_tokens}
        try:
            reply = server.post("chat/completions", {"model": model, "messages": messages, **decoding}, retries=1)
            text, finished = read_reply(server, reply)
        except (Fault, ContextFull):
            return None
        tokens = usage(reply)
        return Reply(text, tokens["prompt_tokens"], tokens["completion_tokens"], finished)

    return chat


def shown(records: Iterator[RecordT], what: str) -> Iterator[RecordT]:
    """The records, with a count on stderr where somebody looks."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description} {task.completed} records"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(records, description=what)


def _write(outcomes: Iterator[Kept | Dropped], out: Path) -> Tally:
    """Both files through temporary ones, in one pass."""
    from xinglin.data.clean import Kept, Tally, with_reason

    tally = Tally()
    paths = [out / "records.jsonl", out / "rejected.jsonl"]
    partial = [path.with_name(path.name + ".partial") for path in paths]
    with partial[0].open("w", encoding="utf-8", newline="\n") as kept, partial[1].open("w", encoding="utf-8") as rest:
        for outcome in outcomes:
            tally.add(outcome)
            if isinstance(outcome, Kept):
                kept.write(to_json(outcome.record) + "\n")
            else:
                rest.write(to_json(with_reason(outcome)) + "\n")
    for path, temporary in zip(paths, partial, strict=True):
        temporary.replace(path)
    return tally


def _write_lines(path: Path, lines: list[str]) -> None:
    from xinglin.run import write_text

    write_text(path, "".join(line + "\n" for line in lines))


def _survey_facts(found: Survey) -> dict[str, Any]:
    """The survey without words: boilerplate is listed in tails.txt, for people to read and to reuse."""
    tails = hashlib.sha256("\n".join(sorted(found.tails)).encode()).hexdigest()[:12]
    facts = {**asdict(found), "quarantined": sorted(found.quarantined), "pile_ups": sorted(found.pile_ups)}
    return {**facts, "tails": {"count": len(found.tails), "hash": tails}}


def _print(tally: Tally, report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "why", "records")
    table.add_row("read", "", str(tally.read))
    table.add_row("accepted", "", str(tally.accepted))
    for what, counts in (("rejected", tally.rejected), ("changed", tally.changed)):
        for name, count in counts.most_common():
            table.add_row(what, name, str(count))
    for name in report["survey"]["quarantined"]:
        table.add_row("quarantined", name, f"{report['survey']['sources'][name]['share']:.1%} rewritten")
    if "check" in report:
        table.add_row("model", "calls, ungraded, cost", "{calls}, {ungraded}, {cost}".format(**report["check"]))
    Console(stderr=True).print(table)
