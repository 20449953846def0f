"""Peers as processes: an environment for each under .bench, and one run of a worker in it.

Nothing of a peer is a dependency of the project. A peer that cannot be installed or does not run is `Missing`, with the
reason, and stands in the result under its name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".bench"
WORKERS = Path(__file__).with_name("workers")
TIMEOUT = 7200  # seconds
UNSLOTH = "2026.10.9"
TRAINERS = ["torch<=2.13.0", "peft", "accelerate"]
ENVIRONMENTS: dict[str, list[list[str]]] = {
    "trl": [["torch<=2.13.0"], ["trl==1.16.0", "transformers>=5.17,<6", "datasets", *TRAINERS]],
    # Unsloth's own requirements name GPU packages (xformers, torchvision for CUDA): these are what its CPU path imports
    "unsloth": [
        ["torch<=2.13.0"],
        ["transformers==5.17.0", "trl==1.15.0", "datasets>=4.6,<5", "bitsandbytes", "triton", *TRAINERS]
        + ["sentencepiece", "protobuf", "tyro", "hf_transfer", "diffusers", "typer", "json5", "nest-asyncio"]
        + ["structlog", "psutil", "wheel", "packaging", "pillow", "msgspec", "cut_cross_entropy", "torchao"],
        ["--no-deps", f"unsloth=={UNSLOTH}", f"unsloth_zoo=={UNSLOTH}"],
    ],
    "llama": [["gguf>=0.17", "safetensors", "numpy<3", "llama-cpp-python"]],
}
WORKER_OF = {
    "xinglin": ("xinglin_worker.py", None),
    "trl": ("trl_worker.py", "trl"),
    "unsloth": ("trl_worker.py", "unsloth"),
    "generate": ("generate_worker.py", "trl"),
    "llama.cpp": ("llama_worker.py", "llama"),
}


class Missing(Exception):
    """A peer that is not there or did not run; the message is the reason."""


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, installed there if need be. Raises `Missing`."""
    environment = WORKER_OF[peer][1]
    if environment is None:
        return Path(sys.executable)
    home = HOME / environment
    if not (home / "complete").is_file():
        _install(home, ENVIRONMENTS[environment])
    return home / "bin" / "python"


def _install(home: Path, steps: list[list[str]]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home.parent / ".gitignore").write_text("*\n", "utf-8")
    print(f"bench: setting up {home}", file=sys.stderr, flush=True)
    log = home / "install.log"
    commands = [[sys.executable, "-m", "venv", "--clear", str(home)]]
    commands += [[str(home / "bin/python"), "-m", "pip", "install", "-q", *step] for step in steps]
    lines = ""
    for command in commands:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines += done.stdout
        if done.returncode:
            home.mkdir(parents=True, exist_ok=True)
            log.write_text(lines, "utf-8")
            raise Missing(f"not installed: {_last_line(lines)} (see {log.relative_to(ROOT)})")
    log.write_text(lines, "utf-8")
    (home / "complete").touch()


def run_worker(peer: str, job: dict[str, Any]) -> dict[str, Any]:
    """One measurement in a fresh process. Raises `Missing` with the last line of its log where it fails."""
    python = python_of(peer)
    logs = HOME / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{job['task']}-{peer}-{job['mode']}.log"
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=HOME))
    try:
        (scratch / "job.json").write_text(json.dumps({**job, "peer": peer, "scratch": str(scratch)}), "utf-8")
        files = [WORKERS / WORKER_OF[peer][0], scratch / "job.json", scratch / "result.json"]
        command = [str(python), *map(str, files)]
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(
                command, stdout=file, stderr=file, env=_environment(peer, job, scratch), cwd=scratch, timeout=TIMEOUT
            ).returncode
        if code:
            raise Missing(f"{job['task']} ended with {code}: {_last_line(log.read_text('utf-8', 'replace'))}")
        return dict(json.loads((scratch / "result.json").read_text("utf-8")))
    except subprocess.TimeoutExpired:
        raise Missing(f"{job['task']} took longer than {TIMEOUT} s") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _environment(peer: str, job: dict[str, Any], scratch: Path) -> dict[str, str]:
    """All cores for everyone, no network, no cache of an earlier run."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    threads = str(job["threads"])
    return kept | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HOME": str(scratch / "hf"),
        "HF_DATASETS_CACHE": str(scratch / "datasets"),
        **({"PYTHONPATH": str(ROOT)} if peer == "xinglin" else {}),
    }


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
