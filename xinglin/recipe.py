"""A recipe: the YAML file of a whole run, read, merged, overridden and checked.

`load_recipe` applies the `tiny:` section and `--set` values and checks every key; each problem names its file and line.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from xinglin.config import STAGES, Recipe, StageConfig
from xinglin.records import InputError

# In a checkout the recipes stand beside the package; an installed wheel carries them inside.
RECIPES = next(p for p in (Path(__file__).parent / "recipes", Path(__file__).parents[1] / "recipes") if p.is_dir())
Places = dict[tuple[str, ...], str]  # where each key stands: file and line, or the --set that gave it
STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


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

    Raises one `InputError` with every unknown key (with the nearest name and the line) and every wrong value.
    """
    path = recipe_path(name)
    tree, places = read_yaml(path)
    tiny = tree.pop("tiny", None) or {}
    if scale == "tiny":
        if not tiny or not isinstance(tiny, dict):
            raise InputError(f"{path}: the recipe has no `tiny:` section; run it with --scale full")
        tree = _evaluate_last(_merge(tree, tiny))
        places |= {keys[1:]: place for keys, place in places.items() if keys[0] == "tiny"}
    if not isinstance(tree.get("stages"), dict):
        raise InputError(f"{path}: a recipe is a mapping with `name:` and `stages:`")
    for setting in settings or []:
        _apply_setting(tree, setting, places)
    return _build_recipe(tree, path, places)


def stage_config(kind: str, settings: list[str]) -> StageConfig:
    """The checked settings of one stage on its own, out of `key=value` strings."""
    tree: dict[str, Any] = {"stages": {kind: {}}}
    places: Places = {}
    for setting in settings:
        _apply_setting(tree, f"{kind}.{setting}", places)
    try:
        return STAGES[kind].model_validate({"stage": kind, **tree["stages"][kind]})
    except ValidationError as error:
        raise InputError("; ".join(explain(error, STAGES[kind], Path(kind), places, ("stages", kind)))) from None


def read_yaml(path: Path) -> tuple[dict[str, Any], Places]:
    """The parsed recipe and the place of each key. Aliases are refused: nine lines of them unfold to gigabytes."""
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                where = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
                raise InputError(f"{where}: YAML alias *{event.anchor} is refused; write the values out")
        tree = yaml.safe_load(text)
        places = _key_places(yaml.compose(text, Loader=yaml.SafeLoader), path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the recipe as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply for a recipe") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = str(getattr(error, "problem", error)).splitlines()[0]
        raise InputError(f"{where}: not a plain YAML recipe: {reason}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a recipe is a mapping with `name:` and `stages:`")
    return tree, places


def _build_recipe(tree: dict[str, Any], path: Path, places: Places) -> Recipe:
    stages: dict[str, StageConfig] = {}
    problems: list[str] = []
    earlier = ["base"]
    for name, values in tree["stages"].items():
        where = _where(path, places, ("stages", str(name)))
        kind = values.get("stage", name) if isinstance(values, dict) else name
        if not isinstance(values, dict | None):
            problems.append(f"{where}: stage {name!r} is {values!r}; it must be a section of `key: value` lines")
        elif not isinstance(kind, str) or kind not in STAGES:
            problems.append(f"{where}: {_unknown('stage', kind, list(STAGES))}")
        elif name in earlier or not STAGE_NAME.fullmatch(name):
            problems.append(f"{where}: {name!r} cannot name a stage; use letters, digits, - and _, and not `base`")
        else:
            try:
                stages[name] = STAGES[kind].model_validate({"stage": kind, **(values or {})})
                problems += _wrong_parents(stages[name], name, earlier, path, places)
            except ValidationError as error:
                problems += explain(error, STAGES[kind], path, places, ("stages", name))
        earlier.append(name)
    try:
        recipe = Recipe.model_validate({**tree, "stages": {}})
    except ValidationError as error:
        problems += explain(error, Recipe, path, places, ())
    if problems:
        raise InputError("; ".join(problems))
    return recipe.model_copy(update={"stages": stages})


def _wrong_parents(config: StageConfig, name: str, earlier: list[str], path: Path, places: Places) -> Iterator[str]:
    """A stage reads from stages before it; `rule` and `length` are scorers that need none."""
    wanted = {"from": getattr(config, "from_", None)}
    wanted |= {key: getattr(config, key, None) for key in ("reward", "held_out_reward")}
    named = [(key, parent) for key, parent in wanted.items() if parent not in (None, "rule", "length")]
    listed = [(key, found) for key in ("checkpoints", "rewards", "aligned") for found in getattr(config, key, ())]
    for key, parent in [*named, *listed]:
        if parent not in earlier:
            yield (
                f"{_where(path, places, ('stages', name, key))}: {name}.{key} names {parent!r}, "
                f"which is no earlier stage; earlier: {', '.join(earlier)}"
            )


def _apply_setting(tree: dict[str, Any], setting: str, places: Places) -> None:
    """Put `stage.key=value` into the tree; the value is read as YAML."""
    target, equals, value = setting.partition("=")
    keys = target.split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise InputError(f"--set {setting!r} has not the form stage.key=value, e.g. --set sft.lr=1e-4")
    node = tree if keys[0] == "base" else tree["stages"]
    if keys[0] != "base" and keys[0] not in node:
        raise InputError(f"--set {setting!r}: {_unknown('stage', keys[0], ['base', *node])}")
    for key in keys[:-1]:
        if node.get(key) is None:  # `data:` with nothing after it is an empty section
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            raise InputError(f"--set {setting!r}: {key} is a value, not a section")
    try:
        node[keys[-1]] = _scalar(value)
    except yaml.YAMLError:
        raise InputError(f"--set {setting!r}: the value is not plain YAML; quote it") from None
    places[tuple(keys) if keys[0] == "base" else ("stages", *keys)] = f"--set {setting}"


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


def _evaluate_last(tree: dict[str, Any]) -> dict[str, Any]:
    """A stage that only the `tiny:` section has would stand behind the evaluation that reads it."""
    stages = tree.get("stages")
    if isinstance(stages, dict):
        tree["stages"] = dict(sorted(stages.items(), key=lambda item: item[0] == "evaluate"))
    return tree


def _key_places(node: yaml.Node | None, path: Path, keys: tuple[str, ...] = ()) -> Places:
    """File and line of each key. YAML would let the last of two equal keys win; here the second is an error."""
    places: Places = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*keys, str(key.value))
            place = f"{path}:{key.start_mark.line + 1}"
            if here in places:
                raise InputError(f"{place}: {'.'.join(here)} is set a second time; keep one")
            places[here] = place
            places.update(_key_places(value, path, here))
    return places


def _where(path: Path, places: Places, keys: tuple[str, ...]) -> str:
    """The place of a key, or of the nearest section around it."""
    return next((places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in places), str(path))


def _unknown(what: str, name: object, allowed: list[str]) -> str:
    near = difflib.get_close_matches(str(name).rpartition(".")[2], allowed, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {str(name)!r}; {hint}allowed: {', '.join(allowed)}"


def explain(error: ValidationError, model: type, path: Path, places: Places, keys: tuple[str, ...]) -> Iterator[str]:
    """Every problem of one section, each with its place."""
    for item in error.errors():
        place = tuple(str(part) for part in item["loc"])
        where = _where(path, places, (*keys, *place))
        name = ".".join((*keys[1:], *place)) or "recipe"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            yield f"{where}: {_unknown('key', name, _fields_at(model, place[:-1]))}"
        elif item["type"] == "missing":
            yield f"{where}: {name} is missing; it must be written"
        elif isinstance(item["input"], dict):
            yield f"{where}: {name}: {message}"
        else:
            yield f"{where}: {name} is {item['input']!r}: {message[:1].lower()}{message[1:]}"


def _fields_at(model: Any, place: tuple[str, ...]) -> list[str]:
    """The keys of a section; an optional section (`TinyModel | None`) is the model in it."""
    for part in place:
        fields = getattr(model, "model_fields", {})
        field = next((f for name, f in fields.items() if part in (name, f.alias)), None)
        choices = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((choice for choice in choices if hasattr(choice, "model_fields")), None)
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]
