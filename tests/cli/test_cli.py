"""`python -m xinglin ...` as a person meets it: quick help, and for a mistake one line, exit 2, nothing written."""

from __future__ import annotations

import errno
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import typer
from tiny_stages import conversations

from xinglin.cli import app, main
from xinglin.records import write_records

HEAVY = ("torch", "transformers", "numpy", "peft", "bitsandbytes", "matplotlib", "safetensors")


def xinglin(*arguments: str | Path, cwd: Path | None = None, python: tuple[str, ...] = ()):
    command = [sys.executable, *python, "-m", "xinglin", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=environment)


def refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    """One line on stderr, exit code 2, no traceback."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stdout == "" and "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("xinglin: "), done.stderr
    for text in says:
        assert text in lines[0], lines[0]


def cpu_seconds(*arguments: str) -> float:
    before = os.times()
    assert xinglin(*arguments).returncode == 0
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


# --- help ------------------------------------------------------------------------------------------------------------


def test_help_answers_at_once() -> None:
    assert statistics.median(cpu_seconds("--help") for _ in range(3)) < 0.5


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("sft", "--help"), ("data", "--help")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    done = xinglin(*arguments, python=("-X", "importtime"))
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "typer" in loaded
    assert not loaded & set(HEAVY)


def test_every_verb_of_the_contract_is_there() -> None:
    shown = xinglin("--help").stdout
    verbs = "run pretrain sft reward dpo ppo grpo best-of-n sample score evaluate chat export report data recipe doctor"
    assert all(f" {verb} " in shown for verb in verbs.split())


def test_recipes_are_listed_shown_and_copied(tmp_path: Path) -> None:
    listed = xinglin("recipe", "list").stdout
    assert all(name in listed for name in ("chimed-gpt", "iimedgpt", "ivygpt", "quickstart"))
    shown = xinglin("recipe", "show", "ivygpt").stdout
    assert xinglin("recipe", "copy", "ivygpt", tmp_path / "mine.yaml").returncode == 0
    assert (tmp_path / "mine.yaml").read_text("utf-8") == shown
    refused(xinglin("recipe", "copy", "ivygpt", tmp_path / "mine.yaml"), "mine.yaml: exists already; give a new file")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = xinglin("run", "iimedgpt", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "sft" in done.stdout and list(tmp_path.iterdir()) == []


def test_every_verb_shows_an_example() -> None:
    def verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        for part, below in getattr(command, "commands", {}).items():
            yield from verbs(below, f"{name} {part}")
        if not hasattr(command, "commands"):
            yield name, command

    found = dict(verbs(typer.main.get_command(app), "xinglin"))
    assert len(found) > 30 and "xinglin recipe copy" in found
    assert [name for name, verb in found.items() if f"{name} " not in (verb.epilog or "") + " "] == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("of ours")])
def test_a_full_disk_is_the_users_and_no_other_fault_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("xinglin.cli.app", fail)
    with pytest.raises(SystemExit if isinstance(error, OSError) else RuntimeError) as told:
        main()
    if isinstance(error, OSError):
        assert told.value.code == 2
        assert capsys.readouterr().err == (
            "xinglin: no space left on the disk; free some, or give --out on another disk, and run again\n"
        )


# --- mistakes in what is asked for -----------------------------------------------------------------------------------


def broken_recipe(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(body, "utf-8")
    return path


def test_mistakes_before_a_run(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    known = "chimed-gpt, iimedgpt, ivygpt, label-noise, preferences-compare, quickstart, rank-augmentation"
    refused(xinglin("run", "ivygtp", cwd=work), "recipe 'ivygtp' is neither a file nor one of: ", known)
    body = "name: x\nbase: {tiny: {}}\nstages:\n  sft: {general_share: 0, learning_rate: 1}\n"
    path = broken_recipe(tmp_path, body)
    refused(xinglin("run", path, cwd=work), "mine.yaml:4: unknown key 'sft.learning_rate'; ", "lr")
    refused(xinglin("run", "quickstart", "--set", "sft.lrr=1", cwd=work), "sft.lrr=1", "did you mean 'lr'?")
    refused(xinglin("run", "quickstart", "--scale", "big", cwd=work), "--scale 'big'", "allowed are full or tiny")
    refused(xinglin("run", "quickstart", "--data", "public", cwd=work), "--data public needs --data-dir DIR")
    assert list(work.iterdir()) == []


def test_a_recipe_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "gbk.yaml").write_bytes("name: 杏林\nstages: {}\n".encode("gb18030"))
    refused(xinglin("run", tmp_path / "gbk.yaml", cwd=tmp_path), "gbk.yaml: byte 6 is not UTF-8; save the recipe as")
    assert [path.name for path in tmp_path.iterdir()] == ["gbk.yaml"]


# --- mistakes in files -----------------------------------------------------------------------------------------------


def test_missing_files(tmp_path: Path) -> None:
    write_records(tmp_path / "in/talks.jsonl", conversations(2))
    inside, out = tmp_path / "in", tmp_path / "out"
    for command in (
        ("sft", "--model", inside / "nowhere", "--data", inside / "talks.jsonl", "--out", out),
        ("sft", "--model", inside, "--data", inside / "nowhere.jsonl", "--out", out),
        ("dpo", "--model", inside, "--data", inside / "talks.jsonl", "--valid", inside / "nowhere", "--out", out),
    ):
        refused(xinglin(*command), "nowhere", ": no such file or folder")
    refused(xinglin("data", "import", inside / "nowhere.csv", "--out", out), "nowhere.csv", "no such file")
    refused(xinglin("export", inside / "nowhere", "--out", out), "nowhere: no such model folder")
    refused(xinglin("report", inside), "in: no run of ours (run.json is missing)")
    refused(xinglin("sft", "--model", inside, "--data", inside, "--out", out, "--set", "lrr=1"), "did you mean 'lr'?")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_broken_line_and_a_wrong_encoding(tmp_path: Path) -> None:
    body = '{"instruction": "头痛怎么办？", "output": "休息。"}\n'
    (tmp_path / "broken.jsonl").write_text(body + '{"instruction": \n' + body, "utf-8")
    done = xinglin("data", "import", tmp_path / "broken.jsonl", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "broken.jsonl:2: not JSON" in done.stderr and "头痛" not in done.stderr
    (tmp_path / "bytes.jsonl").write_bytes(body.encode() + b'{"instruction": "\xff\xfe\x81", "output": "a"}\n')
    done = xinglin("data", "import", tmp_path / "bytes.jsonl", "--out", tmp_path / "out.jsonl", "--encoding", "utf-8")
    assert (
        done.returncode == 2 and "Traceback" not in done.stderr and "bytes.jsonl: byte 78 is not utf-8" in done.stderr
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl", "bytes.jsonl"]


def test_a_stage_stops_at_a_broken_record_and_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    model, data, out = tiny_models.save(tmp_path / "model"), tmp_path / "talks.jsonl", tmp_path / "out"
    write_records(data, conversations(6))
    good = data.read_text("utf-8")
    data.write_text(good.replace('"messages"', '"massages"', 1), "utf-8")
    command = ("sft", "--model", model, "--data", data, "--out", out, "--set", "max_steps=1", "--set", "batch_size=2")
    done = xinglin(*command)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"xinglin: {data}:1: ") and "massages" in done.stderr
    assert {path.name for path in out.iterdir()} <= {".lock", "key"}  # no model, no log, no manifest
    data.write_text(good, "utf-8")
    done = xinglin(*command)
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["kind"] == "sft" and manifest["config"]["general_share"] == 0
    assert "is complete already" in xinglin(*command).stderr
