"""What isolation costs: one attack's file on the digits, in the process of the run and in a process of its own.

    python benchmarks/isolation.py --cache CACHE

Runs take turns, each of them from a store of its own that holds the network alone, on one thread. Images must be the
same to the last bit. Processor time is counted beside the clock's: it is the same on a busy machine, or nearly. Writes
docs/results/isolation.md.
"""

from __future__ import annotations

import contextlib
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import shutil
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import result_page
import torch
import typer
from torch import Tensor

from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.bench.stages.attack import attacked
from leakbench.bench.stages.victim import built_victim
from leakbench.cells import AttackCell
from leakbench.leakage import leakage_kind
from leakbench.runtime.plugins import Isolation, isolating, isolation_of, load_plugin
from leakbench.runtime.process import available_cores, fixed_threads, tune_process
from leakbench.runtime.workspace import Settings, Workspace

THEIRS = '''
"""The attack direct as a third party's file."""

from leakbench.attacks.direct import Direct


class Theirs(Direct):
    """Gradients through the spiking network."""

    name = "theirs"
'''
TRIED = 20
"""steps from which is told how many take a given time"""


class Taken(NamedTuple):
    """Seconds that a cell's attack took."""

    clock: float
    processor: float
    """of this process and of the plugin's"""


def processor_time() -> float:
    """Seconds of this process, of those that it started, and of theirs: all that have not been forgotten since."""
    ticks, waiting = 0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):  # it has ended meanwhile, and counts for its parent
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Bench:
    """The attack's file, and a store that holds the network."""

    target: str
    store: Path

    def cell(self, iterations: int) -> AttackCell:
        """Digits, preset quick; the attack ends after so many steps and not before."""
        settings = {"theirs.iterations": [str(iterations)], "theirs.patience": ["1000000"]}
        options = {"defense": ["han2020"], "attack": [self.target], "preset": "quick", "controls": False}
        cells = plan(make_config({**options, "set": settings}))
        return next(cell for cell in cells if type(cell) is AttackCell)

    def run(self, iterations: int, isolated: bool) -> tuple[Taken, Tensor]:
        """What a cell's attack takes, and its images."""
        with (
            tempfile.TemporaryDirectory() as folder,
            nullcontext() if isolated else isolating(Isolation()),
        ):
            cache = shutil.copytree(self.store, Path(folder, "cache"))
            workspace, cell = Workspace(Settings(str(cache)), lambda *_: None), self.cell(iterations)
            victim = built_victim(workspace, cell)
            start = Taken(time.perf_counter(), processor_time())
            outcome = attacked(workspace, cell, victim, leakage_kind(cell.leakage))
            taken = Taken(time.perf_counter() - start.clock, processor_time() - start.processor)
            return taken, outcome.artifact.tensors["images"]

    def compared(self, seconds: float, repeats: int) -> list[str]:
        """A line of the table, of an attack that takes about so much processor time."""
        few, more = (min(self.run(n, isolated=False)[0].processor for _ in range(2)) for n in (1, 1 + TRIED))
        iterations = max(1, 1 + round(TRIED * (seconds - few) / (more - few)))
        pairs = []
        for number in range(repeats):
            taken: dict[bool, Taken] = {}
            images: dict[bool, Tensor] = {}
            for isolated in (False, True) if number % 2 else (True, False):
                taken[isolated], images[isolated] = self.run(iterations, isolated)
            if not torch.equal(images[False], images[True]):
                raise SystemExit("an isolated attack made other images")
            pairs.append((taken[False], taken[True]))
            print(f"{iterations} steps: {taken[False]}, isolated {taken[True]}", flush=True)
        line = [str(iterations)]
        for times in ([(here[n], there[n]) for here, there in pairs] for n in (1, 0)):
            here, there = (median(column) for column in zip(*times, strict=True))
            ratios = [there / here for here, there in times]
            line += [f"{here:.2f} s", f"{there:.2f} s"]
            line.append(f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})")
        return line


def main(
    cache: Annotated[Path, typer.Option(help="keeps the network")],
    seconds: Annotated[list[float] | None, typer.Option(help="of processor, of an attack; default: 1 and 5")] = None,
    repeats: int = 5,
) -> None:
    tune_process()
    with tempfile.TemporaryDirectory() as folder, fixed_threads(1):
        file = Path(folder, "theirs.py")
        file.write_text(THEIRS, encoding="utf-8")
        bench = Bench(f"{file}:Theirs", cache)
        cell = bench.cell(1)
        built_victim(Workspace(Settings(str(cache)), lambda *_: None), cell)
        with isolation_of(True, [cache], "cpu") as isolation, isolating(isolation):
            if isolation.reason:
                raise SystemExit(f"this system can't isolate: {isolation.reason}")
            start = time.perf_counter()
            load_plugin("attack", bench.target)
            begun = time.perf_counter() - start
            for isolated in (False, True):  # kernels are compiled, modules imported
                bench.run(1, isolated)
            rows = [bench.compared(one, repeats) for one in seconds or [1.0, 5.0]]
            load = os.getloadavg()[1]
    result_page.write(
        "isolation.md",
        "What isolation costs",
        "Time of an attack's cell in the process of the run and [isolated](../isolation.md): the attack `direct` as a "
        "third party's file, on the conversion `han2020` of the digits, preset quick, on one thread. Images are the "
        "same to the last bit.",
        result_page.of_now("python benchmarks/isolation.py --cache CACHE"),
        result_page.table(
            [
                "steps",
                "processor time, not isolated",
                "isolated",
                "ratio",
                "clock, not isolated",
                "isolated",
                "ratio",
            ],
            rows,
        ),
        f"Medians of {repeats} runs that took turns, and of the ratios of runs one after the other; in brackets the "
        "smallest and the largest ratio. Processor time is that of the run's process and of the plugin's. The clock's "
        f"depends on what else the machine does: {load:.1f} processes wanted one of its {available_cores()} cores, the "
        "measured one among them. The first plugin of a worker waits for its process to import PyTorch, once: "
        f"{begun:.1f} s.",
    )


if __name__ == "__main__":
    typer.run(main)
