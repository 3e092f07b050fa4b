"""Why the command line asks OpenMP for passive waiting: training alone and beside a busy process, each way.

    python benchmarks/openmp.py

The policy is read when torch is imported, so each measurement is a process of its own; they are interleaved.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys

TRAIN = """
import time, torch
from leakbench.bench.executors import tune_process
from leakbench.contracts import InputRange
from leakbench.models.storage import build_ann
from leakbench.models.training import Recipe, train
tune_process()
g = torch.Generator().manual_seed(0)
ann = build_ann("vgg5", (1, 28, 28), 10, InputRange(0, 1), g)
x = torch.randint(0, 256, (64 * 30, 1, 28, 28), dtype=torch.uint8)
y = torch.randint(0, 10, (64 * 30,))
start = time.perf_counter()
train(ann, x, y, Recipe(1, 64, lr=1e-3, crop=1), g, torch.device("cpu"), "benchmark")
print(time.perf_counter() - start)
"""


def measure(policy: str) -> float:
    environment = {**os.environ, "OMP_WAIT_POLICY": policy}
    return float(subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, check=True).stdout)


def spin() -> None:
    while True:
        pass


def main() -> None:
    for beside in (False, True):
        busy = multiprocessing.Process(target=spin, daemon=True)
        if beside:
            busy.start()
        times: dict[str, list[float]] = {"ACTIVE": [], "PASSIVE": []}
        for _ in range(3):
            for policy, seconds in times.items():
                seconds.append(measure(policy))
        if beside:
            busy.kill()
        active, passive = (statistics.median(times[policy]) for policy in ("ACTIVE", "PASSIVE"))
        where = "beside a busy process" if beside else "alone"
        print(f"{where}: active {active:.2f} s, passive {passive:.2f} s, ratio {active / passive:.2f}")


if __name__ == "__main__":
    main()
