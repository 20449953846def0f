"""`xinglin annotate VERB`: doctors judge answers on a web page; their votes are kept, settled and exported.

RUN is a folder (its annotate.db is used), a store file, or postgresql://USER@HOST/DATABASE.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xinglin.records import InputError

if TYPE_CHECKING:
    from xinglin.annotate.projects import Item, Project
    from xinglin.annotate.store import Store

app = typer.Typer(help="Doctors judge answers on a web page; votes kept, settled, exported.", no_args_is_help=True)
Run = Annotated[str, typer.Argument(metavar="RUN", help="A folder (its annotate.db), a store file, or postgresql://…")]
Which = Annotated[str, typer.Option("--project", help="A project's name or number; not needed with only one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def opened(run: str, *, create: bool = False) -> Store:
    """The store of a RUN. Raises `InputError` where there is none and `create` is off."""
    try:
        from xinglin.annotate.store import open_store
    except ModuleNotFoundError as error:
        raise InputError(f"annotation needs {error.name}: pip install 'xinglin[annotate]'") from None
    path = Path(run)
    if "://" in run:
        return open_store(run, create=create)
    if path.is_dir() or (create and path.suffix not in (".db", ".sqlite")):
        path /= "annotate.db"
    if not create and not path.is_file():
        raise InputError(f"{path}: no store; make one with `xinglin annotate create {run} NAME --guideline FILE`")
    return open_store(path, create=create)


def chosen(store: Store, which: str) -> Project:
    """The project of a name or number; the only one where none is named."""
    from xinglin.annotate.projects import list_projects

    projects = list_projects(store)
    found = [one for one in projects if which in ("", one.name, str(one.id))]
    if len(found) != 1:
        names = ", ".join(f"{one.id} {one.name}" for one in projects) or "none yet, see `xinglin annotate create`"
        raise InputError(f"--project {which!r}: give one of: {names}")
    return found[0]


@app.command("create", epilog="Example:  xinglin annotate create runs/demo 首轮 --guideline rules.md --form pair")
def create_command(
    run: Run,
    name: Annotated[str, typer.Argument(help="The project's name.")],
    guideline: Annotated[Path, typer.Option(help="A text file: what doctors judge by. Version 1.")],
    form: Annotated[str, typer.Option(help="rank, pair or scores.")] = "rank",
    rubric: Annotated[str, typer.Option(help="spf, ivygpt or overall.")] = "spf",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="votes, repeat_share, gold_share, order, ...")
    ] = None,
) -> None:
    """Make a project (and its store, where there is none)."""
    import yaml

    text = read_text(guideline)
    values: dict[str, Any] = {"form": form, "rubric": rubric}
    for one in settings or []:
        key, equals, value = one.partition("=")
        if not equals:
            raise InputError(f"--set {one!r}: write KEY=VALUE")
        values[key] = yaml.safe_load(value)
    store = opened(run, create=True)
    from xinglin.annotate.projects import create_project, settings_from

    print(f"project {create_project(store, name, text, settings_from(values))}: {name}")


def read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); give a UTF-8 text file") from None


@app.command("guideline", epilog="Example:  xinglin annotate guideline runs/demo rules2.md --requeue")
def guideline_command(
    run: Run,
    file: Annotated[Path, typer.Argument(help="The new text.")],
    which: Which = "",
    requeue: Annotated[bool, typer.Option("--requeue", help="Judge every item anew under it.")] = False,
) -> None:
    """Give a project a new guideline. Votes keep the version they were given under."""
    from xinglin.annotate.projects import revise_guideline

    store = opened(run)
    project = chosen(store, which)
    print(f"{project.name}: version {revise_guideline(store, project.id, read_text(file), requeue=requeue)}")


@app.command(
    "serve", epilog="Example:  xinglin annotate serve runs/demo   |   ... --host 0.0.0.0 --certificate c --key k"
)
def serve_command(
    run: Run,
    host: Annotated[str, typer.Option(help="The address to listen at; this machine alone unless told.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8765,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="A name browsers may call the server by; any where left out.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="For https: the certificate's file.")] = None,
    key: Annotated[Path | None, typer.Option(help="For https: the key's file.")] = None,
) -> None:
    """Serve the doctors' page. Verifies the store first; one that was changed is shown read-only."""
    store = opened(run)
    from xinglin.annotate.web import serve

    serve(store, host, port, names=names or (), certificate=certificate, key=key)


@app.command("rater", epilog="Example:  xinglin annotate rater runs/demo 王医生 --role expert --field 心内科")
def rater_command(
    run: Run,
    name: Annotated[str, typer.Argument(help="The rater's name.")],
    role: Annotated[str, typer.Option(help="annotator, expert or manager.")] = "annotator",
    field: Annotated[str, typer.Option(help="Department: its items come first.")] = "",
    locale: Annotated[str, typer.Option(help="zh or en.")] = "zh",
    invite_again: Annotated[bool, typer.Option("--invite", help="A new invitation for a rater who is there.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the rater out; votes stay.")] = False,
) -> None:
    """Add a rater and print the invitation, which is shown this once; or invite again, or take out."""
    store = opened(run)
    from xinglin.annotate.people import add_rater, invite, list_raters, remove_rater

    if invite_again or remove:
        known = {one.name: one.id for one in list_raters(store)}
        if name not in known:
            raise InputError(f"no rater {name!r}; there are: {', '.join(known) or 'none yet'}")
        if remove:
            print(f"{name}: taken out, {remove_rater(store, known[name])} open items given back")
            return
        print(invite(store, known[name]))
    else:
        print(add_rater(store, name, role, field=field, locale=locale)[1])


@app.command("import", epilog="Example:  xinglin annotate import runs/demo runs/demo/03-sample/rollouts.jsonl")
def import_command(
    run: Run,
    files: Annotated[
        list[Path], typer.Argument(help="Records (rollouts, preferences, questions), or Label Studio .json.")
    ],
    which: Which = "",
    gold: Annotated[bool, typer.Option("--gold", help="Preferences whose ranks are known: hidden checks.")] = False,
    votes: Annotated[bool, typer.Option("--votes", help="Preferences of an export, with the votes on them.")] = False,
    new_round: Annotated[bool, typer.Option("--new-round", help="The project's next round.")] = False,
    lineage: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For --new-round: model=…, labels=…")
    ] = None,
    json_: Json = False,
) -> None:
    """Add items to judge: answers of one question side by side, each question an item."""
    from xinglin.annotate.exchange import add_judged, add_round, judged_preferences
    from xinglin.annotate.projects import add_items
    from xinglin.records import Preference, read_any

    store = opened(run)
    project = chosen(store, which)
    tasks = all(file.suffix == ".json" for file in files)
    records = list(itertools.chain.from_iterable(map(_tasks if tasks else read_any, files)))
    left_out: Counter[str] = Counter()
    if tasks:
        from xinglin.annotate.label_studio import judged_of

        counts = add_judged(store, project.id, judged_of(records))
    elif votes:
        given = [one for one in records if isinstance(one, Preference)]
        counts = add_judged(store, project.id, judged_preferences(given))
    elif new_round:
        items = list(_items(records, gold, left_out))
        known = {key: value for key, _, value in (one.partition("=") for one in lineage or [])}
        number = add_round(store, project.id, items, known)
        counts = Counter({"accepted": len(items), "round": number})
    else:
        counts = add_items(store, project.id, _items(records, gold, left_out))
    rejected = {name: count for name, count in (left_out + counts).items() if name in REASONS}
    found = {"read": len(records), "accepted": counts["accepted"], "rejected": rejected}
    found |= {name: counts[name] for name in ("votes", "round") if counts[name]}
    print(json.dumps(found, ensure_ascii=False) if json_ else _line(project.name, found))


REASONS = (
    *("equal answers", "already there", "answers empty or said twice"),
    "questions with fewer than two different answers",
)


def _line(name: str, found: dict[str, Any]) -> str:
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in found.items() if value)


def _tasks(path: Path) -> list[Any]:
    """The tasks of a Label Studio export."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({type(error).__name__}); give Label Studio's JSON export") from None
    if not isinstance(found, list):
        raise InputError(f"{path}: found {type(found).__name__}; Label Studio's JSON export is a list of tasks")
    return found


def _items(records: list[Any], gold: bool, counts: Counter[str]) -> Iterator[Item]:
    from xinglin.annotate.exchange import items_from_preferences, items_from_rollouts
    from xinglin.records import NAMES, Preference, Question, Rollout

    for record in records:
        if not isinstance(record, Rollout | Preference | Question):
            raise InputError(
                f"record {record.id!r} is a {NAMES[type(record)]}; items are made of rollouts and preferences, "
                "with questions for the references"
            )
    questions = [one for one in records if isinstance(one, Question)]
    yield from items_from_rollouts((one for one in records if isinstance(one, Rollout)), questions, counts)
    preferences = (one for one in records if isinstance(one, Preference))
    yield from items_from_preferences(preferences, gold=gold, counts=counts)


@app.command(
    "export", epilog="Example:  xinglin annotate export runs/demo --out labels   (then: xinglin reward --data …)"
)
def export_command(
    run: Run,
    out: Annotated[
        Path, typer.Option(help="A new folder: records, pairs, TRL, LLaMA-Factory; or a .json file for Label Studio.")
    ],
    which: Which = "",
    number: Annotated[int | None, typer.Option("--round", help="One round alone.")] = None,
    json_: Json = False,
) -> None:
    """Write the labels in every shape, each with its votes, sides, seconds and guideline version."""
    from xinglin.annotate.exchange import export_project, judged_items
    from xinglin.annotate.label_studio import task

    store = opened(run)
    project = chosen(store, which)
    if out.suffix == ".json":
        if out.exists():
            raise InputError(f"{out}: already there; give a new file")
        from xinglin.run import write_text

        tasks = [task(judged) for judged in judged_items(store, project.id, number)]
        write_text(out, json.dumps(tasks, ensure_ascii=False, indent=1))
        print(json.dumps({"tasks": len(tasks)}) if json_ else f"{out}: {len(tasks)} tasks")
        return
    manifest = export_project(store, project.id, out, number)
    print(json.dumps(manifest, ensure_ascii=False) if json_ else _line(str(out), manifest["counts"]))


@app.command("agreement", epilog="Example:  xinglin annotate agreement runs/demo --json")
def agreement_command(run: Run, which: Which = "", json_: Json = False) -> None:
    """Progress, agreement with intervals, and raters to talk to."""
    from xinglin.annotate.manage import summary

    store = opened(run)
    found = summary(store, chosen(store, which).id)
    if json_:
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, one in found["agreement"].items():
        share = f"{one['share']:.1%} (n {one['n']}, {one['low']:.1%} to {one['high']:.1%})" if one else "undefined"
        print(f"{name:<16} {share}")
    for one in found["raters"]:
        print(f"{one['name']:<16} {sum(one['votes'].values())} votes  {', '.join(one['flags'])}")


@app.command("verify", epilog="Example:  xinglin annotate verify runs/demo")
def verify_command(run: Run, json_: Json = False) -> None:
    """Recompute the log's chain and every digest. Names each record that was changed; exit code 1 if any was."""
    from xinglin.annotate.audit import verify

    found = verify(opened(run))
    if json_:
        print(
            json.dumps({"entries": found.entries, "votes": found.votes, "head": found.head, "problems": found.problems})
        )
    else:
        print("\n".join(found.problems) or f"{found.entries} log entries, {found.votes} votes: nothing was changed")
        print(f"log head {found.head}")
    if found.problems:
        raise typer.Exit(1)


@app.command("backup", epilog="Example:  xinglin annotate backup runs/demo annotate-2026-11-20.db")
def backup_command(run: Run, path: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Copy the store while it is in use, and verify the copy."""
    from xinglin.annotate.audit import backup

    found = backup(opened(run), path)
    print(f"{path}: {found.entries} log entries, {found.votes} votes, log head {found.head}")


@app.command("restore", epilog="Example:  xinglin annotate restore annotate-2026-11-20.db runs/new/annotate.db")
def restore_command(
    path: Annotated[Path, typer.Argument(help="A backup or a dump.")],
    where: Annotated[str, typer.Argument(help="A new file, or the URL of an empty database.")],
) -> None:
    """Fill a new store from a backup, and verify it."""
    from xinglin.annotate.audit import restore

    found = restore(path, where)
    print(f"{where}: {found.entries} log entries, {found.votes} votes, log head {found.head}")
