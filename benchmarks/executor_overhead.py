"""One grid in the process of the run, on worker processes and on Ray: whether values are the same, and what each takes.

    python benchmarks/executor_overhead.py

The digits, preset standard, from an empty store, one worker of one thread; every way in a process of its own, one
after the other in each round. Writes docs/results/executors.md.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import result_page
import typer

from leakbench.bench.backends import MakeExecutor, backend_named
from leakbench.bench.executors import InProcess, Result, executor_for
from leakbench.bench.grid import make_config
from leakbench.bench.jobs import Job
from leakbench.bench.runner import run_grid
from leakbench.records import RunRecord
from leakbench.runtime.process import available_cores, fixed_threads, tune_process
from leakbench.runtime.workspace import Settings

GRID = {"defense": "han2020", "attack": ["reconversion", "direct"], "preset": "standard"}
IN_PROCESS = "in the run's process"
WAYS = (IN_PROCESS, "local", "ray")
"""one worker each"""


class Silent:
    """Reports nothing."""

    def plan(self, _jobs: Sequence[Job], /) -> None:
        return None

    def started(self, _number: int, /) -> None:
        return None

    def ended(self, _number: int, _result: Result, /) -> None:
        return None

    def stage(self, _what: str, _done: int, _total: int, /) -> None:
        return None


@dataclass(frozen=True)
class Took:
    """A run, and what it took."""

    values: dict[tuple[Any, ...], tuple[Any, ...]]
    cells: int
    wall: float
    """seconds, the start of workers and of Ray included, that of Python and torch in the run's process not"""
    processor: float
    """seconds of this process and of those that it waited for"""


def values(record: RunRecord) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """All but the seconds."""
    return {
        (cell.defense, cell.attack, cell.of, value.metric): (value.value, value.low, value.high, value.n)
        for cell in record.cells
        for value in cell.values
        if value.metric != "seconds"
    }


def measured(way: str) -> Took:
    """A run from an empty store, in a process that did nothing else before."""
    tune_process()
    with tempfile.TemporaryDirectory() as there, fixed_threads(1), ExitStack() as opened:
        start, before = time.perf_counter(), _processor()
        executor: MakeExecutor = executor_for
        if way == IN_PROCESS:
            executor = lambda _cells, settings, _jobs, progress: InProcess(settings, progress)  # noqa: E731
        elif way.startswith("ray"):
            executor = opened.enter_context(backend_named("ray", None, "cpu")).executor
        folder = Path(there)
        settings = Settings(str(folder / "store"), device="cpu")
        record = run_grid(make_config(GRID), settings, folder / "run", 1, "", Silent(), executor=executor)
        opened.close()
        if failed := [cell.reason for cell in record.cells if cell.status != "ok"]:
            raise SystemExit(f"{way}: a cell failed: {failed[0]}")
        return Took(values(record), len(record.cells), time.perf_counter() - start, _processor() - before)


def _processor() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def main(rounds: Annotated[int, typer.Option(help="of all ways")] = 3) -> None:
    took: dict[str, list[Took]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            with ProcessPoolExecutor(1, get_context("spawn")) as other:
                took[way].append(other.submit(measured, way).result())
            print(f"round {number + 1}, {way}: {took[way][-1].wall:.0f} s", flush=True)
    load = os.getloadavg()[2]
    expected = took[IN_PROCESS][0].values
    same = all(run.values == expected for runs in took.values() for run in runs)
    rows = [
        [
            way,
            f"{median(run.wall for run in runs):.0f} s",
            _ratio([run.wall / here.wall for run, here in zip(runs, took[IN_PROCESS], strict=True)]),
            # Ray's processes are no children of the run's
            "" if way.startswith("ray") else f"{median(run.processor for run in runs):.0f} s",
        ]
        for way, runs in took.items()
    ]
    words = " ".join(f"--{name} {','.join(each) if isinstance(each, list) else each}" for name, each in GRID.items())
    result_page.write(
        "executors.md",
        "What executors cost",
        f"`leakbench run {words}` from an empty store: {took[IN_PROCESS][0].cells} cells of the digits, by one worker "
        "of one thread, by each of the ways to [compute it](../many-machines.md).",
        result_page.of_now(f"python benchmarks/executor_overhead.py{'' if rounds == 3 else f' --rounds {rounds}'}"),
        result_page.table(
            ["computed", "on the clock", "ratio to the first", "processor time"],
            rows,
        ),
        f"All {len(expected):,} values of every run are the same." if same else "**Values differ.**",
        f"Medians of {rounds} rounds, in each of which every way took its turn; ratios are of runs of one round, with "
        "the lowest and the highest. The start of workers and of Ray is included, that of Python and of PyTorch in the "
        f"run's process is not. The machine was busy: {load:.1f} processes wanted one of its {available_cores()} "
        "cores.",
    )


def _ratio(ratios: list[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


if __name__ == "__main__":
    typer.run(main)
