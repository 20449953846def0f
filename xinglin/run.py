"""A run: its recipe, its folder, its log.

    OUT/01-pretrain/manifest.json   written last: its presence means the stage is complete
    OUT/01-pretrain/metrics.jsonl   one line per step
    OUT/scores.jsonl                one line per (checkpoint, evaluation, metric)

`load_recipe` reads a YAML recipe, applies its `tiny:` section and `--set` values, and checks every key.
`Stage` is the folder one stage writes. `seed_for` makes randomness a function of where one is, so that nothing about it
need be saved. Logs hold numbers, row ids and reasons, never record text.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from xinglin import __version__
from xinglin.config import STAGES, Recipe, StageConfig
from xinglin.records import InputError

# In a checkout the recipes stand beside the package; an installed wheel carries them inside.
RECIPES = next(p for p in (Path(__file__).parent / "recipes", Path(__file__).parents[1] / "recipes") if p.is_dir())
TEXT_KEYS = frozenset({"text", "prompt", "answer", "content", "messages"})


def seed_for(*parts: object) -> int:
    """A 63-bit seed from what names the place: `seed_for(run_seed, "ppo", step)`. The same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1


# --- recipes ---------------------------------------------------------------------------------------------------------


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe, given by name or by path. Raises `InputError` with the names there are."""
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise InputError(f"recipe {name!r} is neither a file nor one of: {', '.join(recipe_names())}")


def load_recipe(name: str, *, scale: str = "full", settings: list[str] | None = None) -> Recipe:
    """The checked recipe. `scale="tiny"` applies its `tiny:` section; `settings` are `stage.key=value` strings.

    Raises `InputError` for an unknown key (with the nearest name and the line), a wrong value, unsafe YAML.
    """
    path = recipe_path(name)
    text = path.read_text(encoding="utf-8")
    try:
        tree = yaml.safe_load(text)
        lines = _key_lines(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: not a plain YAML recipe: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("stages"), dict):
        raise InputError(f"{path}: a recipe is a mapping with `name:` and `stages:`")
    tiny = tree.pop("tiny", None) or {}
    if scale == "tiny":
        if not tiny:
            raise InputError(f"{path}: the recipe has no `tiny:` section; run it with --scale full")
        tree = _merge(tree, tiny)
    for setting in settings or []:
        _apply_setting(tree, setting)
    return _build_recipe(tree, path, lines)


def _build_recipe(tree: dict[str, Any], path: Path, lines: dict[tuple[str, ...], int]) -> Recipe:
    stages: dict[str, StageConfig] = {}
    known = ["base", *tree["stages"]]
    for name, values in tree["stages"].items():
        values = dict(values or {})
        kind = values.setdefault("stage", name)
        if kind not in STAGES:
            raise InputError(f"{_where(path, lines, ('stages', name))}: {_unknown('stage', kind, list(STAGES))}")
        try:
            stages[name] = STAGES[kind](**values)
        except ValidationError as error:
            raise InputError(_explain(error, STAGES[kind], path, lines, ("stages", name))) from None
        parent = values.get("from")
        if parent is not None and parent not in known[: known.index(name)]:
            raise InputError(
                f"{_where(path, lines, ('stages', name, 'from'))}: stage {name!r} starts from {parent!r}, "
                f"which is no earlier stage; earlier: {', '.join(known[: known.index(name)])}"
            )
    try:
        return Recipe(**{**tree, "stages": {}}).model_copy(update={"stages": stages})
    except ValidationError as error:
        raise InputError(_explain(error, Recipe, path, lines, ())) from None


def _apply_setting(tree: dict[str, Any], setting: str) -> None:
    """Put `stage.key=value` into the tree; the value is read as YAML."""
    target, equals, value = setting.partition("=")
    keys = target.split(".")
    if not equals or len(keys) < 2:
        raise InputError(f"--set {setting!r} has not the form stage.key=value, e.g. --set sft.lr=1e-4")
    node = tree if keys[0] == "base" else tree["stages"]
    if keys[0] != "base" and keys[0] not in node:
        raise InputError(f"--set {setting!r}: {_unknown('stage', keys[0], ['base', *node])}")
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise InputError(f"--set {setting!r}: {key} is a value, not a section")
    node[keys[-1]] = _scalar(value)


def _scalar(text: str) -> Any:
    """YAML 1.1 reads `1e-4` as text; a number that Python reads as a number is one."""
    value = yaml.safe_load(text)
    with contextlib.suppress(ValueError, TypeError):
        return float(value) if isinstance(value, str) else value
    return value


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _key_lines(node: yaml.Node | None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """Line of each key. A key of the `tiny:` section goes by its full name unless the recipe itself has it."""
    lines: dict[tuple[str, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            lines[here] = key.start_mark.line + 1
            lines.update(_key_lines(value, here))
    return lines


def _where(path: Path, lines: dict[tuple[str, ...], int], keys: tuple[str, ...]) -> str:
    for candidate in (("tiny", *keys), keys):
        if candidate in lines:
            return f"{path}:{lines[candidate]}"
    return str(path)


def _unknown(what: str, name: object, allowed: list[str]) -> str:
    near = difflib.get_close_matches(str(name), allowed, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {str(name)!r}; {hint}allowed: {', '.join(allowed)}"


def _explain(
    error: ValidationError, model: type, path: Path, lines: dict[tuple[str, ...], int], keys: tuple[str, ...]
) -> str:
    """All problems of one section in one line, each with its line in the file."""
    problems = []
    for item in error.errors():
        place = tuple(str(part) for part in item["loc"])
        where = _where(path, lines, (*keys, *place))
        name = ".".join((*keys[1:], *place)) or "recipe"
        if item["type"] == "extra_forbidden":
            fields = _fields_at(model, place[:-1])
            problems.append(f"{where}: {_unknown('key', name, fields)}")
        elif item["type"] == "missing":
            problems.append(f"{where}: {name} is missing; it must be written")
        else:
            problems.append(f"{where}: {name} is {item['input']!r}: {item['msg'].lower()}")
    return "; ".join(problems)


def _fields_at(model: Any, place: tuple[str, ...]) -> list[str]:
    for part in place:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    fields = getattr(model, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


# --- the folder of a stage -------------------------------------------------------------------------------------------


class Stage:
    """The folder one stage writes, with its log and its progress."""

    def __init__(self, directory: Path, name: str, *, quiet: bool = False) -> None:
        self.dir = directory
        self.name = name
        self.quiet = quiet
        self.started = time.time()
        directory.mkdir(parents=True, exist_ok=True)

    def log(self, **metrics: Any) -> None:
        """One line of metrics.jsonl. Numbers, ids and reasons; a key that would hold text is refused."""
        assert not TEXT_KEYS & metrics.keys(), "record text does not go into a log"
        with (self.dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics, ensure_ascii=False) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the log lines after `step`: a resumed stage writes them again."""
        path = self.dir / "metrics.jsonl"
        if path.is_file():
            kept = [line for line in path.read_text("utf-8").splitlines() if json.loads(line).get("step", 0) <= step]
            write_text(path, "".join(line + "\n" for line in kept))

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Any]:
        """A bar with the time left; yields `advance(count=1, note="")`."""
        if self.quiet:
            yield lambda count=1, note="": None
            return
        with _bar() as bar:
            task = bar.add_task(f"{self.name}: {what}", total=total, note="")

            def advance(count: int = 1, note: str = "") -> None:
                bar.update(task, advance=count, note=note)

            yield advance

    @property
    def complete(self) -> bool:
        return (self.dir / "manifest.json").is_file()

    def manifest(self) -> dict[str, Any]:
        """What the finished stage says of itself."""
        return json.loads((self.dir / "manifest.json").read_text("utf-8"))

    def finish(self, *, config: dict[str, Any], inputs: dict[str, str], key: str, **facts: Any) -> None:
        """Write manifest.json, last and at once."""
        body = {
            "stage": self.name,
            "key": key,
            "config": config,
            "inputs": inputs,
            "seconds": round(time.time() - self.started, 1),
            "versions": versions(),
            "outputs": {str(p.relative_to(self.dir)): file_hash(p) for p in sorted(self.dir.rglob("*")) if p.is_file()},
            **facts,
        }
        write_text(self.dir / "manifest.json", json.dumps(body, ensure_ascii=False, indent=1))


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def prepare_output(directory: Path, *, free_bytes: int = 0) -> None:
    """Make the run's folder. Refuses one that holds something else, cannot be written, or lies on a full disk."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: is a file; --out names a folder")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "run.json").is_file():
        raise InputError(f"{directory}: not empty and no run of ours; give --out a new or empty folder")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".write-probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{directory}: cannot write there ({error.strerror}); give --out another folder") from None
    free = shutil.disk_usage(directory).free
    if free < free_bytes:
        raise InputError(
            f"{directory}: {free >> 20} MB free, the run needs about {free_bytes >> 20} MB; free some space"
        )


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file, so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage_key(config: StageConfig, inputs: dict[str, str]) -> str:
    """Names a stage by what it depends on: the same key means the same result, and the stage can be skipped."""
    body = json.dumps([config.model_dump(mode="json"), inputs, __version__], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """What a number was made with."""
    packages = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy")
    found = {name: metadata.version(name) for name in packages}
    return {"xinglin": __version__, "code": _commit(), "python": platform.python_version(), **found}


def _commit() -> str:
    try:
        here = Path(__file__).resolve().parents[1]
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)
