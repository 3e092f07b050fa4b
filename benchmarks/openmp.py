"""Why the command line tells OpenMP's threads how to wait: training alone and beside a busy process, each way.

    python benchmarks/openmp.py

What OpenMP reads when torch is imported can't be changed later, so each measurement is a process of its own; they are
interleaved, and medians are printed. Images of 8x8 are hundreds of small operations a step, of 28x28 few large ones.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys

TRAIN = """
import sys, time, torch
from leakbench.runtime.process import tune_process
from leakbench.contracts import InputRange
from leakbench.models.storage import build_ann
from leakbench.models.training import Recipe, train
tune_process()
model, side, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
g = torch.Generator().manual_seed(0)
ann = build_ann(model, (1, side, side), 10, InputRange(0, 1), g)
x = torch.randint(0, 256, (64 * steps, 1, side, side), dtype=torch.uint8)
y = torch.randint(0, 10, (64 * steps,))
start = time.perf_counter()
train(ann, x, y, Recipe(steps, 64, lr=1e-3), g, torch.device("cpu"), "benchmark")
print(time.perf_counter() - start)
"""
WORK = {"8x8": ("vgg4", "8", "300"), "28x28": ("vgg5", "28", "30")}
WAYS = {
    "spins": {"OMP_WAIT_POLICY": "ACTIVE"},
    "sleeps": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "spins briefly": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"},
}


def measure(work: str, way: str) -> float:
    command = [sys.executable, "-c", TRAIN, *WORK[work]]
    environment = {**os.environ, **WAYS[way]}
    return float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def spin() -> None:
    while True:
        pass


def main() -> None:
    for work in WORK:
        for beside in (False, True):
            busy = multiprocessing.Process(target=spin, daemon=True)
            if beside:
                busy.start()
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(3):
                for way, seconds in times.items():
                    seconds.append(measure(work, way))
            if beside:
                busy.kill()
            medians = {way: statistics.median(seconds) for way, seconds in times.items()}
            where = "beside a busy process" if beside else "alone"
            best = min(medians.values())
            print(f"{work} {where}: " + ", ".join(f"{w} {s:.2f} s ({s / best:.1f}x)" for w, s in medians.items()))


if __name__ == "__main__":
    main()
