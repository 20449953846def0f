"""Near duplicates side by side: ours, datasketch and rensa on the same text, recall and precision beside the speed.

    python -m bench.dedup --data ../shared/data/public [--mb 9] [--rounds 3] [--million] [--json FILE]

Text: answers and questions of the public sets, with edited copies planted; the similarity of each planted pair is
counted with Python sets of character 5-grams. All read the same rows from memory in one process each (one thread), in
turns, and say which rows are alike at 0.8. Peers get a virtual environment of their own under .bench/.
    documented   the peer's README: MinHash of 128 permutations, LSH at the threshold, character 5-grams (a README's
                 `text.split()` would make one shingle of a Chinese text)
    best         the same with candidates verified by the true Jaccard similarity, as ours are
Speed is UTF-8 bytes over processor time, after a first call on 20 rows (imports, tables). The rows are normal forms
already, so that all see the same characters. `growth` is time at 1x ... 10x the text; `million` a million short rows.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
import venv
from pathlib import Path
from statistics import median
from typing import Any

NEAR = 0.8
ENVIRONMENT = Path(__file__).resolve().parents[1] / ".bench" / "dedup"
PEERS = ("datasketch", "rensa")


def shingles(text: str) -> set[str]:
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}


def jaccard(left: str, right: str) -> float:
    a, b = shingles(left), shingles(right)
    return len(a & b) / len(a | b)


# --- the contestants: rows -> pairs that are alike -------------------------------------------------------------------


def ours(texts: list[str], verify: bool) -> list[tuple[int, int]]:
    from xinglin.data.dedup import find_duplicates

    kept = find_duplicates(texts, near=NEAR).kept.tolist()
    return [(other, row) for row, other in enumerate(kept) if other != row]


def datasketch(texts: list[str], verify: bool) -> list[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH

    index, pairs = MinHashLSH(threshold=NEAR, num_perm=128), []
    for row, text in enumerate(texts):
        sketch = MinHash(num_perm=128)
        sketch.update_batch([gram.encode() for gram in shingles(text)])
        pairs += [(other, row) for other in index.query(sketch)]
        index.insert(row, sketch)
    return _verified(texts, pairs) if verify else pairs


def rensa(texts: list[str], verify: bool) -> list[tuple[int, int]]:
    from rensa import RMinHash, RMinHashLSH

    index, pairs = RMinHashLSH(threshold=NEAR, num_perm=128, num_bands=16), []
    for row, text in enumerate(texts):
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update(list(shingles(text)))
        pairs += [(other, row) for other in index.query(sketch)]
        index.insert(row, sketch)
    return _verified(texts, pairs) if verify else pairs


def _verified(texts: list[str], pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in pairs if jaccard(texts[a], texts[b]) >= NEAR]


# --- one measurement, in a process of its own ------------------------------------------------------------------------


def child(peer: str, mode: str, file: Path) -> None:
    texts = json.loads(file.read_text("utf-8"))
    find = {"ours": ours, "datasketch": datasketch, "rensa": rensa}[peer]
    find(texts[:20], mode == "best")  # imports and tables
    start = time.process_time()
    pairs = find(texts, mode == "best")
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"seconds": seconds, "peak_memory": peak, "pairs": pairs}))


def measure(peer: str, mode: str, file: Path) -> dict[str, Any]:
    python = sys.executable if peer == "ours" else str(ENVIRONMENT / "bin/python")
    command = [python, str(Path(__file__).resolve()), "--child", peer, mode, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} ({mode}) failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def set_up_peers() -> dict[str, str]:
    """The peers' environment, made once; their versions."""
    python = ENVIRONMENT / "bin/python"
    if not (ENVIRONMENT / "installed").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PEERS], check=True)
        (ENVIRONMENT / "installed").touch()
    code = f"from importlib.metadata import version; import json; print(json.dumps({{n: version(n) for n in {PEERS}}}))"
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


# --- the text --------------------------------------------------------------------------------------------------------


def public_texts(folder: Path, size: float) -> list[str]:
    """Normal forms of the records of a folder, `size` MB of them."""
    from xinglin.data.sources import import_folder
    from xinglin.data.texts import answer_of, normal, question_of

    texts, total = [], 0
    for job in import_folder(folder).values():
        for record in () if job.error or job.skipped else job:
            text = normal(question_of(record) + answer_of(record))
            if len(text) >= 20:
                texts.append(text)
                total += len(text.encode())
    random.Random(0).shuffle(texts)
    return texts[: max(100, round(len(texts) * min(1, size * 1e6 / max(total, 1))))]


def plant(texts: list[str], rng: random.Random) -> tuple[list[str], list[tuple[int, int]]]:
    """Edited copies of every tenth text behind the others; the pairs at the threshold or above."""
    pool, rows, pairs = "".join(texts), list(texts), []
    for row in range(0, len(texts), 10):
        rate = rng.choice([0.005, 0.01, 0.02, 0.03, 0.06])
        copy = "".join(rng.choice(pool) if rng.random() < rate else char for char in texts[row])
        if jaccard(texts[row], copy) >= NEAR:
            pairs.append((row, len(rows)))
        rows.append(copy)
    return rows, pairs


def quality(texts: list[str], planted: list[tuple[int, int]], found: list[list[int]]) -> dict[str, float]:
    """Recall over planted pairs (in one group), precision over the pairs that were said."""
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    for a, b in found:
        x, y = sorted((root(a), root(b)))
        parent[y] = x
    recall = sum(root(a) == root(b) for a, b in planted) / max(len(planted), 1)
    sample = random.Random(0).sample(found, min(2000, len(found)))
    right = sum(jaccard(texts[a], texts[b]) >= NEAR for a, b in sample)
    return {"recall": round(recall, 4), "precision": round(right / max(len(sample), 1), 4), "planted": len(planted)}


# --- the table -------------------------------------------------------------------------------------------------------


def growth(texts: list[str], folder: Path) -> list[dict[str, float]]:
    """Ours at 1x, 2x, 5x and 10x the text; the copies are made different by shifting every character."""
    rows = []
    for times in (1, 2, 5, 10):
        grown = ["".join(chr(ord(char) + shift) for char in text) for shift in range(times) for text in texts]
        (folder / "grown.json").write_text(json.dumps(grown), "utf-8")
        result = measure("ours", "best", folder / "grown.json")
        rows.append({"times": times, "rows": len(grown), **{k: result[k] for k in ("seconds", "peak_memory")}})
    return rows


def million(texts: list[str], folder: Path, count: int) -> dict[str, float]:
    """A million rows of 12 to 40 characters cut out of the text."""
    rng, pool = random.Random(0), "".join(texts)
    starts = (rng.randrange(len(pool) - 40) for _ in range(count))
    short = [pool[start : start + rng.randrange(12, 41)] for start in starts]
    (folder / "short.json").write_text(json.dumps(short), "utf-8")
    result = measure("ours", "best", folder / "short.json")
    return {"rows": count, **{name: result[name] for name in ("seconds", "peak_memory")}}


def bench(options: argparse.Namespace) -> dict[str, Any]:
    from xinglin.run import versions

    known = {"ours": versions()["code"], **set_up_peers()}
    texts, planted = plant(public_texts(options.data, options.mb), random.Random(0))
    size = sum(len(text.encode()) for text in texts) / 1e6
    file = ENVIRONMENT / "rows.json"
    file.write_text(json.dumps(texts), "utf-8")
    contestants = [("ours", "documented"), *((peer, mode) for peer in PEERS for mode in ("documented", "best"))]
    results: dict[tuple[str, str], list[dict[str, Any]]] = {one: [] for one in contestants}
    for _ in range(options.rounds):
        for one in contestants:
            results[one].append(measure(*one, file))
    rows = []
    for (peer, mode), runs in results.items():
        speeds = [size / run["seconds"] for run in runs]
        rows.append(
            {"peer": peer, "mode": mode, "value": round(median(speeds), 2), "unit": "MB/s"}
            | {"spread": round(max(speeds) - min(speeds), 2), "peak_memory": max(run["peak_memory"] for run in runs)}
            | {"versions": known[peer], **quality(texts, planted, runs[0]["pairs"])}
        )
    body: dict[str, Any] = {"task": "dedup", "mb": round(size, 2), "texts": len(texts), "near": NEAR, "rows": rows}
    body["growth"] = growth(texts, ENVIRONMENT)
    if options.million:
        body["million"] = million(texts, ENVIRONMENT, 1_000_000)
    return body


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/public"))
    parser.add_argument("--mb", type=float, default=9, help="size of the text, without the planted copies")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    body = bench(options)
    for row in body["rows"]:
        speed = f"{row['value']:8.2f} MB/s +- {row['spread']:.2f}"
        print(
            f"{row['peer']:<11}{row['mode']:<11}{speed}  recall {row['recall']:.3f}  precision {row['precision']:.3f}"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(body, ensure_ascii=False, indent=1), "utf-8")


if __name__ == "__main__":
    main()
