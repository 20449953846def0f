"""Reads a run folder as it lies there. A missing or broken file becomes a sentence in `problems`, no exception."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class StageFolder:
    """One stage of the recipe. `status` is done, unfinished or not run; `rounds` are logs of best_of_n's rounds."""

    name: str
    kind: str
    config: dict[str, Any]
    path: Path | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return "done" if self.manifest else "unfinished" if self.path else "not run"


@dataclass(frozen=True, slots=True)
class RunFolder:
    out: Path
    facts: dict[str, Any]
    """run.json"""
    recipe: dict[str, Any]
    stages: list[StageFolder]
    scores: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    results: dict[str, list[dict[str, Any]]]
    """The evaluate stage's file of each checkpoint."""
    problems: list[str]

    def of_kind(self, *kinds: str) -> list[StageFolder]:
        return [stage for stage in self.stages if stage.kind in kinds]

    @property
    def data(self) -> StageFolder | None:
        return next(iter(self.of_kind("data")), None)


def read_run(out: Path) -> RunFolder:
    problems: list[str] = []
    recipe = _mapping(out / "recipe.json", problems)
    stages = _stages(out, recipe, problems)
    return RunFolder(
        out=out,
        facts=_mapping(out / "run.json", problems),
        recipe=recipe,
        stages=stages,
        scores=_lines(out / "scores.jsonl", problems),
        comparisons=_lines(out / "comparisons.jsonl", problems),
        results=_results(stages, problems),
        problems=problems,
    )


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is a mapping: what other versions wrote may be anything."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """The value where it is a list."""
    return value if isinstance(value, list) else []


def _stages(out: Path, recipe: dict[str, Any], problems: list[str]) -> list[StageFolder]:
    """What the recipe names, in its order, and after it folders that it does not name."""
    found = {path.name.partition("-")[2]: path for path in sorted(out.glob("[0-9][0-9]-*")) if path.is_dir()}
    configs: dict[str, Any] = {"data": {}}
    base = mapping(recipe.get("base"))
    if base and not base.get("path"):
        configs["base"] = base
    configs |= mapping(recipe.get("stages"))
    names = [*configs, *(name for name in found if name not in configs)]
    return [_stage(name, mapping(configs.get(name)), found.get(name), problems) for name in names]


def _stage(name: str, config: dict[str, Any], path: Path | None, problems: list[str]) -> StageFolder:
    kind = str(config.get("stage") or name)
    if path is None:
        return StageFolder(name, kind, config)
    manifest = _mapping(path / "manifest.json", problems)
    rounds = {part.name: _lines(part / "metrics.jsonl", problems) for part in sorted(path.glob("round-*"))}
    return StageFolder(
        name,
        str(manifest.get("kind") or kind),
        mapping(manifest.get("config")) or config,
        path,
        manifest,
        _lines(path / "metrics.jsonl", problems),
        _mapping(path / "diagnostics.json", problems),
        rounds,
    )


def _results(stages: list[StageFolder], problems: list[str]) -> dict[str, list[dict[str, Any]]]:
    """<checkpoint>.json of the evaluate stages."""
    found: dict[str, list[dict[str, Any]]] = {}
    for stage in stages:
        if stage.kind != "evaluate" or stage.path is None:
            continue
        wanted = listing(stage.config.get("checkpoints"))
        others = [path.stem for path in sorted(stage.path.glob("*.json")) if path.stem != "manifest"]
        for name in dict.fromkeys([*map(str, wanted), *others]):
            body = _json(stage.path / f"{name}.json", problems)
            if isinstance(body, list):
                found[name] = [item for item in body if isinstance(item, dict)]
    return found


def _json(path: Path, problems: list[str]) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        problems.append(f"{path.parent.name}/{path.name}：不是完整的 JSON，未读入")
        return None


def _mapping(path: Path, problems: list[str]) -> dict[str, Any]:
    return mapping(_json(path, problems))


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The objects of a JSONL file. A killed run may leave half a line: it is counted."""
    if not path.is_file():
        return []
    found, broken = [], 0
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            body = json.loads(line) if line.strip() else None
        except ValueError:
            broken += 1
            continue
        if isinstance(body, dict):
            found.append(body)
    if broken:
        problems.append(f"{path.parent.name}/{path.name}：{broken} 行不是完整的 JSON，未读入")
    return found
