"""The documents keep step with the code: every setting, schema, reason and evaluation is named, every example is read,
every command line shown parses. No command is run."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic.fields import FieldInfo

from xinglin import config
from xinglin.cli import app
from xinglin.config import STAGES, Config
from xinglin.data.sources import import_file, schemas
from xinglin.data.ward.build import WardConfig
from xinglin.evals.battery import EVALUATIONS
from xinglin.recipe import load_recipe, recipe_path, stage_config
from xinglin.records import TYPES, from_json

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SECTIONS = [c for c in vars(config).values() if isinstance(c, type) and issubclass(c, Config) and c is not Config]
SHELL_WORDS = {"source"}


def fences(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text("utf-8")) if kind == language]


def lines_shown() -> list[Any]:
    """Every line of every bash block, continued lines joined."""
    found = []
    for page in PAGES:
        for text in fences(page, "bash"):
            lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
            found += [pytest.param(line, id=f"{page.name}: {' '.join(line.split())[:60]}") for line in lines]
    return found


def mentioned() -> set[str]:
    """`xinglin ...` inside sentences."""
    texts = (FENCE.sub("", page.read_text("utf-8")) for page in PAGES)
    return {words for text in texts for words in re.findall(r"`(xinglin [^`]+)`", text)}


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command of these words and its arguments; a group where the words end early."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, f"{words[0]!r} is none of {', '.join(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


# --- commands --------------------------------------------------------------------------------------------------------


def test_there_are_commands_to_check() -> None:
    assert len(lines_shown()) > 40 and len(mentioned()) > 5


@pytest.mark.parametrize("line", lines_shown())
def test_a_command_line_parses(line: str) -> None:
    tool, *words = shlex.split(line, comments=True)
    if tool == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        assert words and set(words) <= set(targets)
    elif Path(tool).name == "xinglin":
        command, arguments = resolve(words)
        given = command.make_context(command.name, list(arguments)).params
        check_values(command.name, given)
    else:
        assert tool in SHELL_WORDS


def check_values(verb: str, given: dict[str, Any]) -> None:
    """Recipes exist and settings are among those of their stage."""
    settings = [str(setting) for setting in given.get("settings") or ()]
    kind = verb.replace("-", "_")
    if verb == "run" and not str(given["recipe"]).endswith(".yaml"):  # a file is the reader's own
        load_recipe(str(given["recipe"]), scale=given["scale"] or "full", settings=settings)
    elif verb in ("show", "copy"):
        recipe_path(str(given["name"]))
    elif kind in STAGES:
        by_command = {"evaluate": ["checkpoints=[a]"], "sft": [] if given.get("general") else ["general_share=0"]}
        stage_config(kind, [*by_command.get(kind, []), *settings])


@pytest.mark.parametrize("words", sorted(mentioned()))
def test_a_command_named_in_a_sentence_exists(words: str) -> None:
    command, rest = resolve(re.sub(r"\.\.\.|[|&].*", "", words).split()[1:])
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options | {"--help"}


# --- settings --------------------------------------------------------------------------------------------------------


def table_of(page: Path, name: str) -> dict[str, tuple[str, str]]:
    """Key -> (default, meaning) of the section under the heading ### `name`."""
    _, _, rest = page.read_text("utf-8").partition(f"\n### `{name}`\n")
    rows = re.findall(r"^\| `([\w]+)` \| `?(.*?)`? \| (.*) \|$", rest.partition("\n### ")[0], re.M)
    return {key: (default, meaning) for key, default, meaning in rows}


def own_fields(section: type[Config]) -> Iterator[tuple[str, FieldInfo]]:
    """What a class adds to those above it; `stage` is told once."""
    for name in vars(section).get("__annotations__", {}):
        if name != "stage" or section is config.StageConfig:
            yield section.model_fields[name].alias or name, section.model_fields[name]


def default_shown(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Config):
        value = value.model_dump(exclude_defaults=True)
    return json.dumps(value)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_setting_is_told_with_its_default(section: type[Config]) -> None:
    told = table_of(ROOT / "docs/recipes.md", section.__name__)
    fields = dict(own_fields(section))
    assert told.keys() == fields.keys()
    for name, field in fields.items():
        default, meaning = told[name]
        assert default == default_shown(field), name
        options = [option for option in get_args(field.annotation) if isinstance(option, str)]
        assert all(f"`{option}`" in meaning for option in options), name


def test_every_key_of_the_ward_is_told_with_its_default() -> None:
    told = {key: default for key, (default, _) in table_of(ROOT / "docs/recipes.md", "WardConfig").items()}
    assert told == {field.name: json.dumps(field.default) for field in dataclasses.fields(WardConfig)}


@pytest.mark.parametrize("scale", ["full", "tiny"])
def test_the_recipe_shown_is_one(tmp_path: Path, scale: str) -> None:
    (text,) = fences(ROOT / "docs/recipes.md", "yaml")
    path = tmp_path / "small.yaml"
    path.write_text(text, "utf-8")
    assert load_recipe(str(path), scale=scale).name == "small"


# --- data and evaluations --------------------------------------------------------------------------------------------


def test_every_record_has_an_example_that_is_read() -> None:
    shown = [from_json(json.dumps(json.loads(text))) for text in fences(ROOT / "docs/data.md", "json")]
    assert {type(record) for record in shown} == set(TYPES.values())


@pytest.mark.parametrize("language", ["csv", "jsonl"])
def test_the_shapes_shown_are_imported(tmp_path: Path, language: str) -> None:
    (text,) = fences(ROOT / "docs/data.md", language)
    path = tmp_path / f"shown.{language}"
    path.write_text(text, "utf-8")
    job = import_file(path)
    assert len(list(job)) == job.read == job.accepted > 1


def test_every_schema_is_named() -> None:
    text = (ROOT / "docs/data.md").read_text("utf-8")
    assert [name for name in schemas.NAMES if f"| `{name}` |" not in text] == []


def test_every_reason_for_a_rejection_is_named() -> None:
    text = (ROOT / "docs/data.md").read_text("utf-8")
    code = "".join(path.read_text("utf-8") for path in (ROOT / "xinglin/data/sources").glob("*.py"))
    calls = re.findall(r"(?:Rejected|Broken)\(([^\n]*)", code)
    reasons = {word for call in calls for word in re.findall(r'"([a-z0-9]+(?:_[a-z0-9]+)+)"', call)}
    reasons -= {"empty_turns"}  # a flag that chooses between two reasons
    assert len(reasons) > 30 and [reason for reason in sorted(reasons) if f"`{reason}`" not in text] == []


def test_every_evaluation_is_told() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/evaluation.md").read_text("utf-8"), re.M)
    told = {name for heading in headings for name in heading.split(", ")}
    modules = {
        path.stem for path in (ROOT / "xinglin/evals").glob("*.py") if '"""Evaluation: ' in path.read_text("utf-8")
    }
    assert {*EVALUATIONS, *modules} <= told


# --- README ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_guarantees_told_are_the_tests_there_are(page: Path) -> None:
    told = re.findall(r"^\| ([a-r]) \| .* \| `(\w+\.py)` \|$", page.read_text("utf-8"), re.M)
    there = sorted(path.name for path in (ROOT / "tests/guarantees").glob("test_*.py"))
    assert sorted(name for _, name in told) == there
    assert all(name.startswith(f"test_{letter}_") for letter, name in told)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).is_file()] == []


def test_the_model_folders_shown_are_those_of_the_run() -> None:
    stages = ["data", "base", *(name for name in load_recipe("quickstart").stages if name != "data")]
    folders = {f"{number:02d}-{name}" for number, name in enumerate(stages)}
    text = "".join(page.read_text("utf-8") for page in PAGES)
    shown = set(re.findall(r"runs/quickstart-ward/([^/`\s]+)/model", text))
    assert shown and shown <= folders


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = (fences(page, "bash") for page in READMES)
    assert english == chinese
