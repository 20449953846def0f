"""The machine of a measurement: its processor, its load, and how fast it multiplies matrices.

python -m bench.machine          # one JSON object
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIZES = (512, 1024, 2048)
SECONDS = 1.0  # of products for each size and type


def describe() -> dict[str, Any]:
    """Processor, cores, governor, clock in MHz where Linux tells, memory in bytes."""
    facts = _proc("/proc/cpuinfo")
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": facts.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "mhz": facts.get("cpu MHz"),
        "governor": governor.read_text().strip() if governor.is_file() else "not told (a virtual machine)",
        "bf16": "avx512_bf16" in facts.get("flags", ""),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
    }


def load() -> float:
    """Runnable processes, mean of the last minute."""
    return round(os.getloadavg()[0], 2)


def _proc(path: str) -> dict[str, str]:
    """The first value of each key of a file of `key : value` lines."""
    found: dict[str, str] = {}
    if Path(path).is_file():
        for line in Path(path).read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found


def matmul_peak(threads: int) -> dict[str, float]:
    """GFLOP/s of square products, the best of SIZES, by type; measured in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-m", "bench.machine"], capture_output=True, text=True, env=environment)
    done.check_returncode()
    return dict(json.loads(done.stdout))


def _measure() -> dict[str, float]:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    return {
        str(dtype).removeprefix("torch."): max(_gflops(torch, n, dtype) for n in SIZES)
        for dtype in (torch.float32, torch.bfloat16)
    }


def _gflops(torch: Any, n: int, dtype: Any) -> float:
    a, b = (torch.randn(n, n, dtype=torch.float32).to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        a @ b
        count += 1
    return round(2 * n**3 * count / (time.perf_counter() - start) / 1e9, 1)


if __name__ == "__main__":
    print(json.dumps(_measure()))
