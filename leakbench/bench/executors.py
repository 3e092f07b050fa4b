"""Where cells are computed: in worker processes on this machine or in this very process, behind one interface."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, Protocol

from leakbench import registry
from leakbench.bench.pipeline import CellOutcome, Pipeline, Task
from leakbench.cells import AttackCell, Cell, JobCell
from leakbench.contracts import Progress
from leakbench.data import base_name
from leakbench.errors import NoSignal, NotApplicable, UsageError, described, traceback_text
from leakbench.models import Architecture
from leakbench.records import Status
from leakbench.runtime.plugins import isolating
from leakbench.runtime.process import (
    available_cores,
    available_memory,
    device_answers,
    fixed_threads,
    tune_process,
)
from leakbench.runtime.workspace import Settings

log = logging.getLogger("leakbench")

WORKER_MEMORY = 2 << 30
"""bytes that a worker is planned to take"""
_MOST_A_CORE = 4
"""workers a core that may be asked for; with more than one they wait for each other"""
_FAREWELL = 5.0
"""seconds that a worker whose pipe is closed has to end by itself"""
_WATCH_EVERY = 0.5
"""seconds between two looks of a worker at whether its parent is still there"""
_PROGRESS_EVERY = 0.1
"""seconds between two words of a worker about its stage"""


@dataclass(frozen=True)
class Result:
    """How a task ended."""

    outcome: CellOutcome
    status: Status = "ok"
    reason: str = ""
    traceback: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    """that it took; 0 where all of it was in the store"""
    usable: bool = True
    """whether its process can go on; else the next task gets another"""


class Executor(Protocol):
    """Runs tasks that don't depend on each other. Whoever uses it starts no more than ``free`` says, and closes it."""

    @property
    def free(self) -> int:
        """How many tasks can be started now."""
        ...

    def start(self, number: int, task: Task, cell: JobCell) -> None:
        """Begin a task; its result comes under ``number``."""
        ...

    def wait(self) -> tuple[int, Result]:
        """The number and result of the next task that has ended; blocks until there is one."""
        ...

    def close(self) -> None:
        """Stop everything, at once."""
        ...


def run_task(pipeline: Pipeline, task: Task, cell: JobCell) -> Result:
    """The result of a task; whatever a plugin raises ends in the result and not in the caller.

    All of it on one thread, unless a stage says otherwise: see :func:`leakbench.runtime.process.fixed_threads`.
    """
    start, built = time.monotonic(), pipeline.workspace.store.built
    result = _performed(pipeline, task, cell)
    if result.status != "ok":
        result = replace(result, usable=device_answers(str(pipeline.workspace.device)))
    return replace(result, seconds=time.monotonic() - start) if pipeline.workspace.store.built > built else result


def _performed(pipeline: Pipeline, task: Task, cell: JobCell) -> Result:
    collector = _Warnings()
    log.addHandler(collector)
    try:
        with fixed_threads(1):
            outcome = pipeline.perform(task, cell)
        return Result(outcome, warnings=tuple(collector.lines))
    except NotApplicable as error:
        return Result(CellOutcome(), "not-applicable", described(error), warnings=tuple(collector.lines))
    except NoSignal as error:
        return Result(CellOutcome(), "no-signal", described(error), warnings=tuple(collector.lines))
    except Exception as error:  # a plugin's own mistake must not stop the grid
        return Result(CellOutcome(), "failed", described(error), traceback_text(), tuple(collector.lines))
    finally:
        log.removeHandler(collector)


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class InProcess:
    """One task after the other in this process: for tests, and for plugins that only this process knows."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._pipeline = Pipeline(settings, progress)
        self._started: tuple[int, Task, JobCell] | None = None

    @property
    def free(self) -> int:
        return 0 if self._started else 1

    def start(self, number: int, task: Task, cell: JobCell) -> None:
        self._started = number, task, cell

    def wait(self) -> tuple[int, Result]:
        assert self._started is not None
        (number, task, cell), self._started = self._started, None
        return number, run_task(self._pipeline, task, cell)

    def close(self) -> None:
        self._started = None


@dataclass
class _Worker:
    """A worker process and what it is doing."""

    process: SpawnProcess
    pipe: Connection
    work: tuple[int, Task, JobCell] | None = None


@dataclass
class LocalProcesses:
    """Several worker processes on this machine that share the store, one thread each.

    Two that need the same artifact don't make it twice: the store's lock lets one wait for the other. A worker that
    dies (os._exit, a segmentation fault) takes the task that it was at along and nothing else; one that was killed,
    as where memory runs out, may have been the victim of another, and its task is tried once more with no other beside
    it. Workers end when this process does, however it ends.
    """

    settings: Settings
    jobs: int
    progress: Progress
    _workers: list[_Worker] = field(default_factory=list)
    _alone: list[tuple[int, Task, JobCell]] = field(default_factory=list)
    """tasks to be tried again, one at a time"""
    _tried: set[int] = field(default_factory=set)

    @property
    def free(self) -> int:
        busy = [worker.work[0] for worker in self._workers if worker.work is not None]
        return 0 if self._tried.intersection(busy) else max(0, self.jobs - len(busy) - len(self._alone))

    def start(self, number: int, task: Task, cell: JobCell) -> None:
        work = number, task, cell
        while (idle := next((worker for worker in self._workers if worker.work is None), None)) is not None:
            if idle.process.exitcode is None and self._handed(idle, work):
                return
            # it died after its last task, as by a thread that a plugin left: no fault of this one
            self._removed(idle)
        self._handed(self._new_worker(), work)  # where it has died, too, wait() finds out

    def _handed(self, worker: _Worker, work: tuple[int, Task, JobCell]) -> bool:
        """Whether the worker could be given the task."""
        worker.work = work
        try:
            worker.pipe.send_bytes(pickle.dumps(work))
        except OSError:
            return False
        return True

    def wait(self) -> tuple[int, Result]:
        while True:
            busy = [worker for worker in self._workers if worker.work is not None]
            if not busy:
                self.start(*self._alone.pop(0))
                continue
            ready = wait([worker.pipe for worker in busy])
            for position, worker in enumerate(busy):
                if worker.pipe not in ready:
                    continue
                assert worker.work is not None
                try:
                    # of a process of ours; the plugin in it has this user's rights anyway
                    message: Any = pickle.loads(worker.pipe.recv_bytes())  # noqa: S301
                except (EOFError, OSError):
                    ended = self._buried(worker)
                    if ended is not None:
                        return ended
                    continue
                if isinstance(message, Result):
                    number, worker.work = worker.work[0], None
                    for line in message.warnings:
                        log.warning("%s", line)
                    return number, message
                if position == 0:  # what one of them is at is enough to see that it goes on
                    self.progress(*message)

    def _buried(self, worker: _Worker) -> tuple[int, Result] | None:
        """What is said of the task of a worker that died; None where it is tried again."""
        assert worker.work is not None
        work = worker.work
        by_itself = _has_ended(worker.process, _FAREWELL)
        self._removed(worker)
        if not by_itself:  # it lives without a pipe, as where a plugin closed it, or a plugin's thread goes on
            return work[0], Result(CellOutcome(), "failed", "its worker process closed its pipe and did not end")
        code = worker.process.exitcode or 0
        killed = code == -signal.SIGKILL
        if killed and work[0] not in self._tried:
            self._tried.add(work[0])
            self._alone.append(work)
            return None
        if killed:
            how = "was killed twice (out of memory?)"
        elif code < 0:
            known = {one.value: one.name for one in signal.Signals}  # real-time signals have no names
            how = f"ended by {known.get(-code, f'signal {-code}')}"
        else:
            how = f"ended with status {code} before its result was there (os._exit?)"
        return work[0], Result(CellOutcome(), "failed", f"its worker process {how}")

    def _removed(self, worker: _Worker) -> None:
        self._workers = [other for other in self._workers if other is not worker]
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers, self._alone = [], []

    def _new_worker(self) -> _Worker:
        # spawn: a forked copy of a process that runs torch threads may hang
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, os.getpid(), self.settings, registry.registrations()))
        with _without_main():
            process.start()
        theirs.close()  # so that its death closes the pipe
        self._workers.append(_Worker(process, pipe))
        return self._workers[-1]


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A process that is started here doesn't begin by running the user's script or notebook again: nothing of it is
    needed there (:func:`registry.registrations`), and what calls a run without asking for its ``__name__`` would go
    round in circles."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(
    pipe: Connection, parent: int, settings: Settings, registered: Sequence[tuple[registry.Kind, str, str]]
) -> None:
    """The life of a worker process: task after task, until the pipe is closed or its parent is gone."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # Ctrl-C goes to the whole group of processes; the parent ends its workers itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # what plugins print is not what the command prints
    os.dup2(2, 1)
    for kind, name, target in registered:
        registry.register(kind, name, target)
    tune_process()
    shown = 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > _PROGRESS_EVERY:
            shown = now
            pipe.send_bytes(pickle.dumps((what, done, total)))

    pipeline = Pipeline(settings, progress)
    this_process = os.getpid()
    # a process that a plugin forks would answer a second time, and would hold the pipe open after our death
    os.register_at_fork(after_in_child=pipe.close)
    with isolating(settings.isolation):
        while True:
            try:
                _, task, cell = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our own parent
            except EOFError:
                return
            result = run_task(pipeline, task, cell)
            if os.getpid() != this_process:
                os._exit(1)
            pipe.send_bytes(pickle.dumps(result))
            if not result.usable:
                return


def _end_with(parent: int) -> None:
    """Ends this process when it has another parent: its own has ended. Asks for no file, which a plugin might close."""
    while os.getppid() == parent:
        time.sleep(_WATCH_EVERY)
    os._exit(1)


def _has_ended(process: SpawnProcess, within: float) -> bool:
    """Whether a process ends within so many seconds; join() waits on a file that a plugin might close."""
    late = time.monotonic() + within
    while process.exitcode is None and time.monotonic() < late:
        time.sleep(0.01)
    return process.exitcode is not None


def executor_for(cells: Sequence[Cell], settings: Settings, jobs: int | None, progress: Progress) -> Executor:
    """What computes a grid: worker processes, ``jobs`` of them, or as many as pay where it is None.

    Plugins that only this process knows (classes of a notebook) are run in it. UsageError as of :func:`worker_count`.
    """
    count = worker_count(cells, settings, jobs)
    if not all(registry.everywhere(kind, target) for kind, target in plugins_of(cells)):
        return InProcess(settings, progress)
    return LocalProcesses(settings, count, progress)


def plugins_of(cells: Sequence[Cell]) -> set[tuple[registry.Kind, str]]:
    """Kind and name of every plugin that takes part in computing cells, data sets and models among them."""
    targets: set[tuple[registry.Kind, str]] = {
        (kind, variant.target) for cell in cells for kind, variant in cell.variants
    }
    targets |= {("model", Architecture.parse(cell.model).model) for cell in cells}
    sources = {name for cell in cells for name in (cell.dataset, cell.public if isinstance(cell, AttackCell) else "")}
    return targets | {("dataset", base_name(name)) for name in sources}


def worker_count(cells: Sequence[Cell], settings: Settings, jobs: int | None) -> int:
    """``jobs``, or as many workers as pay: one a core, as far as memory reaches, and one on a GPU, which they would
    only take turns on. UsageError for many more jobs than there are cores.
    """
    cores = available_cores()
    if jobs is not None and not 1 <= jobs <= _MOST_A_CORE * cores:
        raise UsageError(f"--jobs must be 1 to {_MOST_A_CORE * cores} ({cores} cores are available), got {jobs}")
    paying = 1 if settings.device.startswith("cuda") else min(cores, len(cells), available_memory() // WORKER_MEMORY)
    return jobs or max(1, paying)
