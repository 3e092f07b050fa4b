"""Where cells are computed: in this process, or in several on this machine, behind one small interface."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from threadpoolctl import threadpool_limits

from leakbench.bench.grid import Cell
from leakbench.bench.pipeline import Outcome, Settings, Workshop
from leakbench.bench.records import Status
from leakbench.contracts import Progress
from leakbench.errors import LeakBenchError, NoSignal, NotApplicable, UsageError
from leakbench.snn import SpikingNetwork

Task = Literal["prepare", "compute"]


@dataclass(frozen=True)
class Result:
    """How a cell ended."""

    outcome: Outcome
    status: Status = "ok"
    reason: str = ""
    traceback: str = ""
    warnings: tuple[str, ...] = ()


class Executor(Protocol):
    """Runs cells that don't depend on each other, in any order."""

    def map(self, task: Task, cells: Sequence[Cell]) -> Iterator[tuple[int, Result | None]]:
        """(index, None) when a cell is started (where that is known), (index, result) when it has ended."""
        ...


def run_cell(workshop: Workshop, task: Task, cell: Cell) -> Result:
    """A cell's result; whatever a plugin raises ends in the result and not in the caller."""
    collector = _Warnings()
    log = logging.getLogger("leakbench")
    log.addHandler(collector)
    try:
        outcome = workshop.prepare(cell) if task == "prepare" else workshop.compute(cell)
        return Result(outcome, warnings=tuple(collector.lines))
    except NotApplicable as error:
        return Result(Outcome(), "not-applicable", _line(error), warnings=tuple(collector.lines))
    except NoSignal as error:
        return Result(Outcome(), "no-signal", _line(error), warnings=tuple(collector.lines))
    except LeakBenchError as error:
        return Result(Outcome(), "failed", _line(error), traceback.format_exc(), tuple(collector.lines))
    except Exception as error:  # a plugin's own mistake must not stop the grid
        reason = f"{type(error).__name__}: {_line(error)}"
        return Result(Outcome(), "failed", reason, traceback.format_exc(), tuple(collector.lines))
    finally:
        log.removeHandler(collector)


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class InProcess:
    """One cell after the other in this process, with progress inside each cell."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._workshop = Workshop(settings, progress)

    def map(self, task: Task, cells: Sequence[Cell]) -> Iterator[tuple[int, Result | None]]:
        for index, cell in enumerate(cells):
            yield index, None
            yield index, run_cell(self._workshop, task, cell)


class LocalProcesses:
    """Several processes on this machine, which share ``threads``, the memory budget and the store.

    Two that need the same artifact don't make it twice: the store's lock lets one wait for the other.
    """

    def __init__(self, settings: Settings, jobs: int, threads: int) -> None:
        self._settings = settings
        self._jobs = jobs
        self._threads = threads

    def map(self, task: Task, cells: Sequence[Cell]) -> Iterator[tuple[int, Result | None]]:
        broken: list[int] = []
        for index, result in self._pool(task, dict(enumerate(cells)), self._jobs):
            if result is None:
                broken.append(index)
            else:
                yield index, result
        # A process that died takes its pool along. Each cell that was lost runs again in one of its own, so that the
        # one to blame fails alone.
        for index in broken:
            for _, result in self._pool(task, {index: cells[index]}, 1):
                reason = "its worker process ended (out of memory?): run again, finished cells are kept"
                yield index, result or Result(Outcome(), "failed", reason)

    def _pool(self, task: Task, cells: Mapping[int, Cell], jobs: int) -> Iterator[tuple[int, Result | None]]:
        """(index, result), or (index, None) for a cell whose pool broke."""
        if not cells:
            return
        # no more processes than cells: of fewer, each has more threads and more memory
        jobs = min(jobs, len(cells))
        threads = max(1, self._threads // jobs)
        # spawn: a forked copy of a process that runs torch threads may hang
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, _start_worker, (self._settings, threads, jobs)) as pool:
            futures = {pool.submit(_work, task, cell): index for index, cell in cells.items()}
            try:
                for future in as_completed(futures):
                    try:
                        yield futures[future], future.result()
                    except BrokenProcessPool:
                        yield futures[future], None
            except BaseException:
                workers = list((pool._processes or {}).values())
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in workers:
                    worker.terminate()
                raise


_worker: Workshop | None = None
"""this worker process's own: set once by _start_worker, None everywhere else"""


def _start_worker(settings: Settings, threads: int, jobs: int) -> None:
    global _worker
    SpikingNetwork.memory_budget //= jobs
    tune_process(threads)
    _worker = Workshop(settings, lambda _what, _done, _total: None)


def _work(task: Task, cell: Cell) -> Result:
    assert _worker is not None
    return run_cell(_worker, task, cell)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def checked_threads(asked: int | None) -> int:
    """How many threads a run may take in all.

    None is as many as torch takes by itself: all cores that this process may use, or what OMP_NUM_THREADS says.
    UsageError where there are not so many cores: more threads than cores wait for each other.
    """
    cores = available_cores()
    if asked is None:
        return min(cores, torch.get_num_threads())
    if not 1 <= asked <= cores:
        at_hand = f"1 to {cores}, the cores" if cores > 1 else "1, the core"
        raise UsageError(f"--threads must be {at_hand} that this process may use, got {asked}")
    return asked


def tune_process(threads: int | None = None) -> None:
    """Set a process that LeakBench owns up for large tensors; never called by importing the library.

    ``threads`` are torch's own and those of the pools behind numpy, scipy and scikit-learn: each would otherwise take
    all cores, also in one process of several.

    glibc gives every large tensor fresh pages and takes them back when it is freed: page faults then cost more than
    the arithmetic (1.5-2x on training). Keeping freed memory in the process avoids them.

    Numbers below 1e-38 count as 0: a network that weight decay has taken a third of its weights to such numbers took
    several times as long to train and to ask.
    """
    torch.set_flush_denormal(True)  # of this thread, and of the threads that it starts
    if threads is not None:
        torch.set_num_threads(threads)
        threadpool_limits(threads)  # not left again: no `with`
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            m_trim_threshold, m_mmap_threshold = -1, -3
            libc.mallopt(m_mmap_threshold, 1 << 30)
            libc.mallopt(m_trim_threshold, 2**31 - 1)
