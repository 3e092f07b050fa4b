"""Many tiny cells through Ray, some of which kill their worker: what scheduling costs and what the driver keeps.

    python benchmarks/ray_scale.py

The attack answers at random which of 60 images a network was trained on. Everything else is that of any run: planning,
actors, the store, metrics, the record. The run's process is measured alone, too, with results that come at once. Writes
docs/results/ray-scale.md.
"""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import result_page
import typer
from PIL import Image
from safetensors.torch import save_file

from leakbench.bench.backends import MakeExecutor, backend_named
from leakbench.bench.executors import InProcess, Result, executor_for
from leakbench.bench.grid import GridConfig, make_config
from leakbench.bench.jobs import Job
from leakbench.bench.pipeline import Task
from leakbench.bench.plan import plan
from leakbench.bench.runner import run_grid
from leakbench.cells import Cell
from leakbench.models.storage import build_ann
from leakbench.records import CellRecord, RunRecord
from leakbench.runtime.process import available_cores, fixed_threads, tune_process
from leakbench.runtime.workspace import Settings

TINY = '''
"""An attack that computes next to nothing, and of some numbers kills its process the first time."""

import os
import signal
from pathlib import Path

import torch
from pydantic import Field

from leakbench.contracts import Access, MembershipAttack, Params


class TinyParams(Params):
    number: int = Field(0, ge=0, description="which of many")


class Tiny(MembershipAttack[TinyParams]):
    """Random scores."""

    name = "tiny"
    needs = Access.LABELS
    Params = TinyParams

    def run(self, victim, images, labels, context):
        mark = Path(__file__).parent / f"dies-{self.params.number}-{context.seed() % 1_000_003}"
        every = Path(__file__).parent / "every"
        if every.exists() and self.params.number % int(every.read_text()) == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.rand(len(images), generator=context.generator)
'''
SEEDS = 10
AGAIN = 10
"""variants of the attack that are computed again, undisturbed"""
IN_FLIGHT = 64
"""jobs that are begun before the first ends, where results come at once"""


def memory() -> float:
    """MiB of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Watch:
    """What a run's process takes while cells end."""

    samples: Sequence[int]
    cells: int = 0
    total: int = 0
    seconds: float = 0.0
    """that workers were at tasks"""
    memory: dict[int, float] = field(default_factory=dict)
    """cells that have ended -> MiB of the run's process"""
    jobs: Sequence[Job] = ()
    begun: float = 0.0
    last: float = 0.0
    processor: float = 0.0
    """seconds of the run's process, from the first job to the last"""

    def plan(self, jobs: Sequence[Job], /) -> None:
        self.jobs, self.begun, self.processor = jobs, time.perf_counter(), time.process_time()
        self.total = sum(job.is_cell for job in jobs)

    def started(self, _number: int, /) -> None:
        return None

    def ended(self, number: int, result: Result, /) -> None:
        self.seconds += result.seconds
        self.cells += self.jobs[number].is_cell
        if self.cells in self.samples and self.jobs[number].is_cell:
            self.memory[self.cells] = memory()
            print(f"{self.cells} cells after {time.perf_counter() - self.begun:.0f} s, {memory():.0f} MiB", flush=True)
        if self.cells == self.total:
            self.last, self.processor = time.perf_counter(), time.process_time() - self.processor

    def stage(self, _what: str, _done: int, _total: int, /) -> None:
        return None


class Replay:
    """Results that come at once: copies of one that was computed, for each kind of job."""

    def __init__(self, settings: Settings) -> None:
        self._computing = InProcess(settings, lambda _what, _done, _total: None)
        self._results: dict[tuple[Task, str], bytes] = {}
        self._started: deque[tuple[int, Task, Cell]] = deque()

    @property
    def free(self) -> int:
        return IN_FLIGHT - len(self._started)

    def start(self, number: int, task: Task, cell: Cell) -> None:
        self._started.append((number, task, cell))

    def wait(self) -> tuple[int, Result]:
        number, task, cell = self._started.popleft()
        if (task, cell.type) not in self._results:
            self._computing.start(number, task, cell)
            self._results[task, cell.type] = pickle.dumps(self._computing.wait()[1])
        result: Result = pickle.loads(self._results[task, cell.type])  # noqa: S301 - from here
        return number, result

    def close(self) -> None:
        self._computing.close()


@dataclass(frozen=True)
class Bench:
    """A folder with what the grids are of."""

    folder: Path
    images: Path
    weights: Path
    attack: Path

    @classmethod
    def inside(cls, folder: Path) -> Bench:
        """Make its files."""
        draw = np.random.default_rng(0)
        made = cls(folder, folder / "images", folder / "weights.safetensors", folder / "tiny.py")
        for name in "abc":
            (made.images / name).mkdir(parents=True)
            for number in range(20):
                pixels = draw.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(made.images / name / f"{number}.png")
        network = build_ann("vgg4", (1, 8, 8), 3, (0.0, 1.0))
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, made.weights)
        made.attack.write_text(TINY, encoding="utf-8")
        return made

    def config(self, numbers: Sequence[int]) -> GridConfig:
        """One network, these variants of the attack, SEEDS seeds."""
        return make_config({
            "defense": ["ann"], "attack": [f"{self.attack}:Tiny"], "dataset": [f"folder:{self.images}"],
            "model": ["vgg4"], "preset": "quick", "ann": str(self.weights), "controls": False, "seeds": SEEDS,
            "set": {"tiny.number": list(numbers)},
        })  # fmt: skip

    def run(self, name: str, numbers: Sequence[int], executor: MakeExecutor, device: str, jobs: int) -> Ran:
        """A grid with a store of its own."""
        config = self.config(numbers)
        cells = plan(config)
        watch = Watch([len(cells) // 10, len(cells)])
        settings = Settings(str(self.folder / f"{name}-store"), device=device)
        start = time.perf_counter()
        record = run_grid(config, settings, self.folder / name, jobs, "", watch, cells=cells, executor=executor)
        if reasons := {cell.reason for cell in record.cells if cell.status != "ok"}:
            raise SystemExit(f"{name}: a cell failed: {'; '.join(reasons)}")
        size = (self.folder / name / "results.json").stat().st_size / 2**20
        return Ran(record, watch, watch.begun - start, time.perf_counter() - watch.last, size)


@dataclass(frozen=True)
class Ran:
    """A run, and what it took."""

    record: RunRecord
    watch: Watch
    before: float
    """seconds until the first job"""
    after: float
    """seconds from the last job to the record"""
    size: float
    """MiB of the record"""

    def lines(self, workers: int | None) -> dict[str, str]:
        """What -> how much; ``workers`` None: none was used."""
        watch, cells = self.watch, len(self.record.cells)
        wall = watch.last - watch.begun
        (first, few), (_, every) = watch.memory.items()
        more = 1024 * (every - few) / (cells - first)
        times = {
            "from the first job to the last": f"{wall:.0f} s",
            "of a worker at a cell": f"{1000 * watch.seconds / cells:.0f} ms",
            "of a worker between two cells": f"{1000 * (wall * (workers or 1) - watch.seconds) / cells:.0f} ms",
        }
        return {
            "cells": f"{cells:,}",
            "workers": str(workers or "none"),
            **(times if workers else {}),
            "processor time of the run's process, a cell": f"{1000 * watch.processor / cells:.2f} ms",
            "memory of the run's process": f"{few:.0f} MiB after {first:,} cells, {every:.0f} MiB after all",
            "more for each cell": f"{more:.0f} KiB",
            "before the first job": f"{self.before:.1f} s",
            "from the last job to the record": f"{self.after:.1f} s",
            "record": f"{self.size:.1f} MiB",
        }


def values(cells: Sequence[CellRecord]) -> dict[tuple[Any, ...], float]:
    """All but the seconds."""
    return {
        (cell.seed, cell.defense, cell.attack, value.metric): value.value
        for cell in cells
        for value in cell.values
        if value.metric != "seconds"
    }


def alone(cells: int) -> dict[str, str]:
    """What the run's process takes where results come at once, in a process that did nothing else before."""
    quiet()
    with tempfile.TemporaryDirectory() as folder, fixed_threads(1):
        bench = Bench.inside(Path(folder))
        numbers = range(1, cells // SEEDS + 1)
        return bench.run("alone", numbers, lambda _cells, settings, *_: Replay(settings), "cpu", 1).lines(None)


def quiet() -> None:
    """Set up a process that computes; that 60 images are too few for some metrics is no news."""
    logging.getLogger("leakbench").addHandler(logging.NullHandler())
    tune_process()


def main(
    cells: Annotated[int, typer.Option(help="through Ray")] = 10_000,
    deaths: Annotated[int, typer.Option(help="of workers, at a cell each: a multiple of 10")] = 200,
    replayed: Annotated[int, typer.Option(help="cells whose results come at once")] = 10_000,
    jobs: Annotated[int, typer.Option(help="workers")] = 2,
) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        at_once = other.submit(alone, replayed).result()
    quiet()
    with tempfile.TemporaryDirectory() as there, fixed_threads(1):
        bench = Bench.inside(Path(there))
        every = bench.folder / "every"
        every.write_text(str(max(1, cells // max(deaths, 1))))
        numbers = range(1, cells // SEEDS + 1)
        with backend_named("ray", None, "cpu") as backend:
            ray = bench.run("ray", numbers, backend.executor, backend.device, jobs)
        died = len(list(bench.folder.glob("dies-*")))
        every.unlink()
        some = numbers[:: max(1, len(numbers) // AGAIN)]
        calm = bench.run("calm", some, executor_for, "cpu", 1)
        expected = values(calm.record.cells)
        if not expected.items() <= values(ray.record.cells).items():
            raise SystemExit("numbers differ")
        load = os.getloadavg()[2]
    lines = [at_once, ray.lines(jobs)]
    names = dict.fromkeys(name for each in lines for name in each)
    options = {"cells": (cells, 10_000), "deaths": (deaths, 200), "replayed": (replayed, 10_000), "jobs": (jobs, 2)}
    given = "".join(f" --{name} {one}" for name, (one, default) in options.items() if one != default)
    result_page.write(
        "ray-scale.md",
        "Many cells on Ray",
        "Grids of tiny cells, an attack on members that answers at random: with results that come at once, which is "
        "the work of the run's process alone, and on [Ray](../many-machines.md), where workers are killed at a cell.",
        result_page.of_now(f"python benchmarks/ray_scale.py{given}"),
        result_page.table(
            ["", "results at once", "Ray"], [[name, *(each.get(name, "") for each in lines)] for name in names]
        ),
        f"{died} workers were killed at a cell, and no cell failed. {len(expected):,} values of "
        f"{len(calm.record.cells)} of the cells on Ray were computed again in a worker process that nothing disturbed: "
        "they are the same. Between two cells are the times in which a worker waits for its next one or is started "
        "anew. The run's process keeps the values of every cell for the record. Times on the clock are of a busy "
        f"machine: {load:.1f} processes wanted one of its {available_cores()} cores.",
    )


if __name__ == "__main__":
    typer.run(main)
