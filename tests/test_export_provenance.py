"""Data for research only stop an export until that is acknowledged, however they came into the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save
from typer.testing import CliRunner

from xinglin.cli import app
from xinglin.export import export, provenance_of
from xinglin.records import Conversation, InputError, Message, write_records

OPEN = {"licence": "Apache-2.0", "research_only": False}
CLOSED = {"licence": "CC BY-NC 4.0", "research_only": True}


def manifest(folder: Path, **body: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(body), "utf-8")


def run_folder(root: Path, licences: dict[str, dict[str, Any]]) -> Path:
    """A run with a data stage and one model."""
    (root / "run").mkdir()
    (root / "run/run.json").write_text("{}", "utf-8")
    manifest(root / "run/00-data", kind="data", inputs={}, licences=licences)
    manifest(root / "run/02-sft", kind="sft", inputs={"data": "abc", "base": "def"})
    return save(root / "run/02-sft/model")


def alone(root: Path, data: Path) -> Path:
    """A model of one stage outside a recipe."""
    manifest(root / "sft", kind="sft", inputs={str(data): "hash", str(root / "no-such-base"): "hash"})
    return save(root / "sft/model")


def talks(path: Path, **meta: Any) -> Path:
    messages = (Message("user", "咳嗽怎么办？"), Message("assistant", "多喝水。"))
    write_records(path, [Conversation(f"t{n}", messages, "forum", meta if n else {}) for n in range(3)])
    return path


def test_a_run_on_research_only_data_is_not_exported_unasked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = run_folder(tmp_path, {"open-set": OPEN, "closed-set": CLOSED})
    with pytest.raises(InputError, match=r"research only \(closed-set\).*--acknowledge-research-only"):
        export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "trained on open-set: Apache-2.0\n" in capfd.readouterr().err
    facts = export(model, tmp_path / "out", acknowledge=True)
    assert facts["research_only"] == ["closed-set"]
    written = json.loads((tmp_path / "out/provenance.json").read_text("utf-8"))
    assert written["licences"]["closed-set"]["licence"] == "CC BY-NC 4.0" and written["research_only"] == ["closed-set"]
    assert "trained on closed-set: CC BY-NC 4.0, for research only" in capfd.readouterr().err


def test_open_data_need_no_word(tmp_path: Path) -> None:
    assert export(run_folder(tmp_path, {"open-set": OPEN}), tmp_path / "out")["research_only"] == []


def test_rows_that_carry_it_bind_their_source(tmp_path: Path) -> None:
    model = alone(tmp_path, talks(tmp_path / "rows/train.jsonl", licence="CC BY-NC 4.0", research_only=True))
    assert provenance_of(model)["forum"]["research_only"] is True
    with pytest.raises(InputError, match="research only"):
        export(model, tmp_path / "out")


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_mixture_that_was_acknowledged_needs_no_second_word(tmp_path: Path, acknowledged: bool) -> None:
    data = talks(tmp_path / "mixed/train.jsonl")
    body = {"general_share": 0.1, "provenance": {"closed": CLOSED}, "acknowledge_research_only": acknowledged}
    manifest(tmp_path / "mixed", **body)
    model = alone(tmp_path, data)
    if acknowledged:
        assert export(model, tmp_path / "out")["research_only"] == ["closed"]
    else:
        with pytest.raises(InputError, match="research only"):
            export(model, tmp_path / "out")


def test_what_a_model_started_from_counts(tmp_path: Path) -> None:
    first = alone(tmp_path / "a", talks(tmp_path / "rows.jsonl", licence="CC BY-NC 4.0", research_only=True))
    manifest(tmp_path / "b/dpo", kind="dpo", inputs={str(first): "hash", str(tmp_path / "gone.jsonl"): "hash"})
    assert "forum" in provenance_of(save(tmp_path / "b/dpo/model"))


def test_a_model_without_a_history_is_exported_and_said_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(save(tmp_path / "model"), tmp_path / "out")
    assert "no manifest beside the model names its data" in capfd.readouterr().err


def test_the_command_takes_the_word(tmp_path: Path) -> None:
    model = run_folder(tmp_path, {"closed-set": CLOSED})
    words = ["export", str(model), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, InputError) and len(str(refused.exception).splitlines()) == 1
    assert CliRunner().invoke(app, [*words, "--acknowledge-research-only"]).exit_code == 0
