"""The same work on one core, on two processes and on Ray: the same rows in the same order, the same errors."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from xinglin.data.dedup import dedup_files
from xinglin.data.spread import chunks_of, lines_of, map_chunks, map_rows
from xinglin.records import Conversation, InputError, Message, write_records


def sort_out(line, odd):
    """A row function: rows with an even number are kept, the others go aside; row 13 goes nowhere."""
    number = int(json.loads(line)["id"][1:])
    if number != 13:
        yield ("odd.jsonl" if number % 2 else "even.jsonl"), (odd + line if number % 2 else line)


def refuse(line):
    raise InputError(f"row {json.loads(line)['id']} cannot be")


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks_of, "__defaults__", (700,))
    texts = [f"第{number}位患者{'咳嗽' * (number % 7)}应该怎么办" for number in range(40)]
    for part in range(2):
        records = (
            Conversation(f"c{n}", (Message("user", texts[n]), Message("assistant", "多休息。")), "own")
            for n in range(part * 20, part * 20 + 20)
        )
        write_records(tmp_path / f"{part}.jsonl", records)
    return [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]


def test_chunks_hold_every_line_once(rows):
    chunks = chunks_of(rows)
    assert len(chunks) >= 10
    lines = [line for chunk in chunks for _, _, line in lines_of(chunk)]
    assert lines == [line for path in rows for line in path.read_text("utf-8").splitlines()]
    for chunk in chunks:
        for number, offset, line in lines_of(chunk):
            assert chunk.path.read_text("utf-8").splitlines()[number - 1] == line
            assert chunk.path.read_bytes()[offset:].startswith(line.encode())


def has_ray():
    try:
        import ray.data  # noqa: F401
    except ImportError:
        return False
    return True


NEEDS_RAY = pytest.mark.skipif(not has_ray(), reason="needs Ray Data: pip install 'xinglin[ray]'")
ENGINES = [
    pytest.param("local", 2, id="processes"),
    pytest.param("ray", 2, id="ray", marks=[pytest.mark.slow, NEEDS_RAY]),
]


@pytest.mark.parametrize(("engine", "workers"), ENGINES)
def test_every_engine_gives_what_one_core_gives(rows, tmp_path, engine, workers):
    one = map_rows(partial(sort_out, odd=""), rows, tmp_path / "one")
    assert one == {"even.jsonl": 20, "odd.jsonl": 19}
    assert map_rows(partial(sort_out, odd=""), rows, tmp_path / "many", engine=engine, workers=workers) == one
    for name in one:
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    with pytest.raises(InputError, match=r"0\.jsonl:1: row c0 cannot be"):
        map_rows(refuse, rows, tmp_path / "bad", engine=engine, workers=workers)
    assert not list((tmp_path / "bad").glob("*.jsonl"))
    dedup_files(rows, tmp_path / "d1", near=0.7)
    dedup_files(rows, tmp_path / "d2", near=0.7, engine=engine, workers=workers)
    for path in (tmp_path / "d1").iterdir():
        assert path.read_bytes() == (tmp_path / "d2" / path.name).read_bytes()


@pytest.mark.slow
@NEEDS_RAY
def test_ray_leaves_no_row_behind_and_reports_to_nobody(tmp_path):
    """In a process of its own, with a canary in the rows and a temporary folder that is searched afterwards."""
    canary = "金丝雀七四一八"
    write_records(
        tmp_path / "a.jsonl",
        [Conversation(f"c{n}", (Message("user", canary), Message("assistant", "好"))) for n in range(50)],
    )
    code = (
        "import os; from pathlib import Path\n"
        "from xinglin.data.dedup import dedup_files\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "dedup_files([folder / 'a.jsonl'], folder / 'out', engine='ray', workers=1)\n"
        "print(os.environ['RAY_USAGE_STATS_ENABLED'])\n"
    )
    before = set(Path("/tmp").iterdir())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("0") and canary not in done.stdout + done.stderr
    new = [path for path in set(Path("/tmp").iterdir()) - before if path.name.startswith(("xl", "ray"))]
    files = [file for path in new for file in path.rglob("*") if file.is_file()]
    assert not [file for file in files if canary.encode() in file.read_bytes()]


def test_an_absent_ray_names_the_extra(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'xinglin\[ray\]'"):
        list(map_chunks(lambda chunk: {}, chunks_of(rows), engine="ray"))
    with pytest.raises(InputError, match="local, ray"):
        list(map_chunks(lambda chunk: {}, chunks_of(rows), engine="spark"))
