"""Imports fall: records config < recipe run metrics models objectives < data rollout annotate export report < train
evals serve chat plan < stages cli.

Units on one floor do not import each other, but for those in BESIDE. The check reads every import statement, also those
inside functions.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "xinglin"
FLOORS = [
    {"records", "config"},
    {"recipe", "run", "metrics", "models", "objectives"},
    {"data", "rollout", "annotate", "export", "report"},
    {"train", "evals", "serve", "chat", "plan"},
    {"stages", "cli", "__main__"},
]
FLOOR = {unit: number for number, units in enumerate(FLOORS) for unit in units}
BESIDE = {("models", "objectives"), ("models", "run"), ("config", "records"), ("cli", "stages"), ("__main__", "cli")}
FREE_OF_TORCH = {"data", "metrics", "records", "recipe", "run", "config"}
BATCHES = "data/batches.py"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def found() -> list[tuple[str, str, int, str]]:
    """(file, its unit, line, imported name) of the whole tree."""
    rows = []
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        unit = file.split("/")[0].removesuffix(".py")
        rows += [(file, unit, line, name) for line, name in imports(path) if unit != "__init__"]
    return rows


def unit_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "xinglin" and len(parts) > 1 and parts[1] in FLOOR else None


def test_every_unit_has_a_floor() -> None:
    units = {path.stem if path.is_file() else path.name for path in ROOT.iterdir() if path.suffix in ("", ".py")}
    assert units - {"__init__", "__pycache__", "recipes"} <= FLOOR.keys()


def test_imports_fall() -> None:
    wrong = []
    for file, unit, line, name in found():
        target = unit_of(name)
        if target and target != unit and FLOOR[target] >= FLOOR[unit] and (unit, target) not in BESIDE:
            wrong.append(f"{file}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_ground_is_free_of_torch() -> None:
    wrong = [
        f"{file}:{line} imports {name}"
        for file, unit, line, name in found()
        if unit in FREE_OF_TORCH and file != BATCHES and name.split(".")[0] in ("torch", "transformers", "peft")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_batches_of_data_knows_models() -> None:
    wrong = [f"{file}:{line}" for file, unit, line, name in found() if unit == "data" and unit_of(name) == "models"]
    assert {place.split(":")[0] for place in wrong} <= {BATCHES}


def test_objectives_import_torch_alone() -> None:
    names = {name.split(".")[0] for _, unit, _, name in found() if unit == "objectives"}
    assert names <= {"torch", "xinglin", "__future__", "collections", "math", "typing", "dataclasses"}


@pytest.mark.parametrize("start", ["run", "metrics", "data.sources", "data.ward.build"])
def test_torch_is_not_loaded_by_the_way_either(start: str) -> None:
    code = f"import sys, xinglin.{start}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
