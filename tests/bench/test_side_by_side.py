"""The harness itself: data, counting, ratios, the check of equal results. No peer is installed or run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import data, peers, scaling, side_by_side
from bench.__main__ import main, parse, quick
from bench.side_by_side import Measured, Run
from bench.tasks import OURS, TASKS
from bench.workers import protocol


def a_run(name: str, **values: Any) -> Run:
    return Run(name, replace(TASKS[name], **values), data.TINY, ["default", "best"], [OURS], 1, "logn", 1)


def a_row(peer: str, mode: str, value: float, **more: Any) -> dict[str, Any]:
    return {"peer": peer, "mode": mode, "value": value, "case": "", "void": False, **more}


def test_rows_are_a_function_of_the_seed_and_of_chinese_lengths() -> None:
    rows = list(data.sft_rows(2000, "logn", 8192))
    again = list(data.sft_rows(2000, "logn", 8192))
    lengths = np.array([len(row["prompt"]) + len(row["answer"]) for row in rows])
    ids = {token for row in rows for token in row["prompt"] + row["answer"]}
    assert rows == again
    assert 30 <= lengths.min() and lengths.max() <= 360
    assert 100 <= np.median(lengths) <= 125
    assert protocol.FIRST_FREE_ID <= min(ids) and max(ids) < 8192
    assert all(row["prompt"] and row["answer"] for row in rows)


@pytest.mark.parametrize("lengths", ["25", "200", "1000"])
def test_fixed_lengths(lengths: str) -> None:
    assert {len(row["prompt"]) + len(row["answer"]) for row in data.sft_rows(20, lengths, 512)} == {int(lengths)}


def test_pairs_have_the_sizes_the_issue_names() -> None:
    rows = list(data.pair_rows(200, 8192))
    assert {100 <= len(row["prompt"]) <= 160 for row in rows} == {True}
    assert {40 <= len(row[name]) <= 160 for row in rows for name in ("chosen", "rejected")} == {True}


def test_the_7m_shape_has_the_weights_it_says() -> None:
    # 6 x (4 x 256 x 256 + 3 x 256 x 704) and 256 x 8192
    assert data.matrix_parameters(data.SHAPE) == (4_816_896, 2_097_152)


def test_the_timed_steps_take_each_row_once() -> None:
    run = a_run("sft", batch=2, warmup=1, steps=3)
    rows = [{"prompt": [5] * n, "answer": [6]} for n in (1, 2, 3, 4, 5, 6)]
    found = {"ends": [10.0, 11.0, 12.5, 14.0], "peak_memory": 0, "versions": {}, "apart": 0.0}
    # step 0: rows 0 and 1, untimed; steps 1 to 3: rows 2 and 3, 4 and 5, 0 and 1 = all 27 tokens in 4 seconds
    assert side_by_side.timed_work(run, found, rows) == (27, 4.0)


def test_tokens_counted_by_the_worker_come_first() -> None:
    run = a_run("sft", batch=2, warmup=1, steps=2)
    found = {"ends": [1.0, 2.0, 3.0], "tokens": [100, 7, 8]}
    assert side_by_side.timed_work(run, found, [{"prompt": [5], "answer": [6]}]) == (15, 2.0)


def test_dpo_counts_the_reference_pass_and_says_the_value_without_it() -> None:
    run = a_run("dpo", batch=2, warmup=1, steps=2)
    entry = Measured("trl", "best", {}, [])
    found = {"ends": [1.0, 2.0, 3.0], "peak_memory": 5, "versions": {}, "apart": 3.0}
    side_by_side.add(run, entry, found, [{}] * 4)  # 4 pairs in 2 s, and 3 s of reference for the same 4
    assert entry.values == {"": [4 / 5]}
    assert entry.steps_only == [2.0]


def test_rollout_speed_is_the_median_call() -> None:
    entry = Measured("generate", "default", {}, [])
    cases = {"64": {"seconds": [1.0, 2.0, 4.0], "tokens": [8, 8, 8]}}
    side_by_side.add(a_run("rollout"), entry, {"cases": cases, "peak_memory": 1, "versions": {}}, [])
    assert entry.values == {"64": [4.0]}


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0005, 2.0], True),
        ([1.0, 2.0], [1.0, 2.01], False),
        ([1.0], [1.0, 2.0], False),
        ([], [], False),
    ],
)
def test_curves_agree_to_a_thousandth_at_every_step(ours: list[float], theirs: list[float], equal: bool) -> None:
    assert side_by_side.same_curve(ours, theirs)["equal"] is equal


def test_greedy_ids_must_all_be_the_same() -> None:
    assert side_by_side.same_ids([5, 6], [5, 6])["equal"]
    assert not side_by_side.same_ids([5, 6], [5, 7])["equal"]
    assert not side_by_side.same_ids([5, 6], [5])["equal"]


def test_ratios_are_over_the_documented_baseline_and_the_fastest_best() -> None:
    table = [
        a_row(OURS, "default", 40.0),
        a_row(OURS, "best", 60.0),
        a_row("trl", "default", 10.0),
        a_row("trl", "best", 15.0),
        a_row("unsloth", "default", 5.0),
        a_row("unsloth", "best", 20.0),
    ]
    assert side_by_side.ratios(a_run("sft"), table, "") == {"default": 4.0, "best": 3.0}


def test_a_void_row_is_in_no_ratio() -> None:
    table = [a_row(OURS, "default", 4.0), a_row(OURS, "best", 4.0), a_row("trl", "default", 1.0, void=True)]
    assert side_by_side.ratios(a_run("sft"), table, "") == {"default": None, "best": None}


def test_share_of_peak_follows_the_formula() -> None:
    run = a_run("sft")
    rows = [{"prompt": [5] * 6, "answer": [5] * 4}]
    layers, head = data.matrix_parameters(run.shape)
    share = side_by_side.share_of_peak(run, 100.0, {"float32": 1.0, "bfloat16": 2.0}, rows)
    assert share == pytest.approx(6 * (layers * 10 + head * 4) * 10 / 2e9)  # 10 rows a second of 10 tokens, 4 learned


def test_memory_growth_compares_the_last_quarter_with_the_second() -> None:
    growth = scaling.memory_growth([90, 10, 10, 20, 10, 10, 40, 30])
    assert (growth["early_bytes"], growth["late_bytes"], growth["growth"]) == (20, 40, 2.0)


def test_unit_rewards_have_mean_zero_and_deviation_one() -> None:
    rewards = np.array(protocol.unit_rewards([[[2, 2], [1, 2], [1, 1]]]))
    assert rewards.mean() == pytest.approx(0)
    assert rewards.std() == pytest.approx(1)
    assert protocol.unit_rewards([[[2], [4]]]) == [[0.0, 0.0]]


def test_a_peer_that_cannot_be_installed_is_missing_with_the_reason(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "HOME", tmp_path)
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    monkeypatch.setitem(peers.ENVIRONMENTS, "trl", [["--no-index", "there-is-no-such-package"]])
    with pytest.raises(peers.Missing, match="there-is-no-such-package"):
        peers.python_of("trl")
    assert not (tmp_path / "trl" / "complete").exists()


def test_a_worker_that_fails_is_missing_with_its_last_line(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "HOME", tmp_path)
    monkeypatch.setattr(peers, "WORKERS", tmp_path)
    (tmp_path / "xinglin_worker.py").write_text("raise ValueError('no such kernel')")
    with pytest.raises(peers.Missing, match="no such kernel"):
        peers.run_worker(OURS, {"task": "sft", "mode": "default", "threads": 1})
    assert not list(tmp_path.glob("run-*"))


def test_an_unknown_peer_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(["dpo", "--peers", "llama.cpp"])
    assert refused.value.code == 2
    assert "dpo has xinglin, trl" in capsys.readouterr().err


def test_every_task_names_its_baseline_among_its_peers() -> None:
    for task in TASKS.values():
        assert task.baseline in task.peers and OURS in task.peers and task.warmup >= 1
        assert set(quick(task).peers) == set(task.peers)


@pytest.mark.parametrize(
    "task",
    ["sft", "grpo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dpo", "reward", "ppo", "rollout"))],
)
def test_ours_runs_on_every_task(task: str, tmp_path: Path, monkeypatch: Any) -> None:
    """The whole road with ours alone and tiny counts: figures of no meaning, but a result of the promised form."""
    monkeypatch.setattr(side_by_side, "HOME", tmp_path)
    monkeypatch.setattr(peers, "HOME", tmp_path)
    monkeypatch.setattr(side_by_side.machine, "matmul_peak", lambda threads: {"float32": 1.0, "bfloat16": 2.0})
    main([task, "--quick", "--peers", OURS, "--modes", "default", "--threads", "1", "--json", str(tmp_path / "r.json")])
    result = json.loads((tmp_path / "r.json").read_text("utf-8"))
    row = result["rows"][0]
    assert result["missing"] == {} and row["peer"] == OURS and row["value"] > 0
    assert row["spread"][0] <= row["value"] <= row["spread"][1]
    assert row["peak_memory"] > 1e7 and row["versions"]["torch"]
    assert set(result["ratio"]) == {"default", "best"}
    assert result["command"].startswith(f"python -m bench {task}")
