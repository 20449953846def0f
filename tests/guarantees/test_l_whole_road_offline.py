"""Guarantee l: the whole road, from the ward's records to a chat reply, runs on a CPU with sockets blocked.

Every command is a process of its own in which `connect`, in any of its forms, raises.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "tiny_recipe.yaml"
OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("a socket was asked to connect")
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
socket.create_connection = socket.getaddrinfo = refuse
if sys.argv[1] == "--probe":
    import urllib.request
    urllib.request.urlopen("http://127.0.0.1:9/")
from xinglin.cli import main
main()
"""
STAGES = [
    "data",
    "base",
    "pretrain",
    "sft",
    "sample",
    "score",
    "reward",
    "ppo",
    "dpo",
    "best_of_n",
    "evaluate",
    "export",
]


def offline(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", OFFLINE, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road") / "run"
    done = offline("run", RECIPE, "--out", folder, "--quiet")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"report: {folder / 'report.html'}" in done.stderr
    return folder


def test_the_block_blocks() -> None:
    done = offline("--probe")
    assert done.returncode == 1 and "a socket was asked to connect" in done.stderr


def test_every_stage_is_complete(out: Path) -> None:
    for number, name in enumerate(STAGES):
        manifest = json.loads((out / f"{number:02d}-{name}/manifest.json").read_text("utf-8"))
        assert manifest["stage"] == name and manifest["synthetic"] is True and manifest["outputs"]
    assert not list(out.rglob("checkpoints")) and not list(out.rglob("*.partial"))


def test_training_and_scores_are_on_record(out: Path) -> None:
    for name, lines in {"02-pretrain": 3, "03-sft": 3, "06-reward": 3, "07-ppo": 3, "08-dpo": 3}.items():
        log = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text("utf-8").splitlines()]
        assert len([line for line in log if "loss" in line]) == lines, name
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text("utf-8").splitlines()]
    assert {line["checkpoint"] for line in scores} == {"base", "sft", "ppo", "dpo", "best_of_n", "reward"}


def test_the_report_is_one_file_that_asks_for_nothing(out: Path) -> None:
    page = (out / "report.html").read_text("utf-8")
    assert "SYNTHETIC" in page.upper() and "<svg" in page
    for asks in ('src="http', "src='http", "url(http", "@import", "<link", "<script src"):
        assert asks not in page


def test_a_chat_reply(out: Path) -> None:
    done = offline("chat", out / "11-export/model", "--once", "高血压首选什么药？", "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("\n") and "SYNTHETIC" in done.stderr and "不能代替医生" in done.stderr
