"""Cells on a Ray cluster: an actor a worker, which keeps its pipeline; results come back as values and keys.

Ray is asked for processes and for who is alive. Which task is next, and that one is tried again whose worker was lost,
is decided here: a worker takes a task when it is free, and the store keeps what the lost one had made.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import secrets
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

import leakbench
from leakbench.bench.executors import WORKER_MEMORY, Executor, Result
from leakbench.bench.pipeline import CellOutcome, Task
from leakbench.bench.ray_actors import Actor, Board
from leakbench.bench.remote_worker import Setup
from leakbench.cells import Cell, JobCell
from leakbench.contracts import Progress
from leakbench.errors import LeakBenchError, StoreError, UsageError, described
from leakbench.runtime.store import Store
from leakbench.runtime.workspace import Settings

log = logging.getLogger("leakbench")

TRIES = 3
"""of a task whose worker is lost, and of workers in a row that are lost before they are set up"""
_REACHED = 10.0
"""seconds within which an address has to answer"""
_LOOK_EVERY = 0.5
"""seconds between two looks at what the workers are at"""
_FAREWELL = 5.0
"""seconds that free workers have to remove their temporary files"""
_OBJECTS = 128 << 20
"""bytes for Ray's objects, where a cluster is started here: results are some KB"""
_DEVICES = ("auto", "cpu", "cuda")


@contextmanager
def connected(address: str | None, device: str) -> Iterator[RayCluster]:
    """The cluster at ``address`` (HOST:PORT, or auto for the one that this machine is part of). None is that of
    $RAY_ADDRESS, else the one that this process is connected to, else one on this machine alone, which ends with the
    context.

    ``device`` is auto (GPUs, where the cluster has any), cpu or cuda. UsageError where the cluster can't be reached,
    has another version of Ray or Python, or no such device.
    """
    if device not in _DEVICES:
        raise UsageError(f"--device {device}: with --executor ray it must be {', '.join(_DEVICES[:-1])} or cuda")
    address = address or os.environ.get("RAY_ADDRESS") or None
    if ray.is_initialized() and address is None:
        yield RayCluster.connected(device)
        return
    with _unsearched():
        _start(address)
    try:
        yield RayCluster.connected(device)
    finally:
        ray.shutdown()


@contextmanager
def _unsearched() -> Iterator[None]:
    """Keeps the current folder from the workers' modules, where this process takes none from it either.

    Ray has workers search the folder it is started in, before all others: there a folder named as a package, as in a
    clone of LeakBench itself, would be taken for the package.
    """
    here = Path.cwd()
    taken = here in {Path(entry).absolute() for entry in sys.path}
    with contextlib.nullcontext() if taken else contextlib.chdir(here.anchor):
        yield


def _start(address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # what actors print stays in Ray's files of logs: it is not what the command prints
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        ray.init("local", include_dashboard=False, object_store_memory=_OBJECTS, **quiet)
        return
    _check_answers(address)
    try:
        ray.init(address, **quiet)
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        message = " ".join(str(error).split())
        if address == "auto" and isinstance(error, ConnectionError):
            raise UsageError("--address auto: no Ray runs on this machine: start it with ray start") from None
        if "mismatch" in message.lower():
            raise UsageError(f"--address {address}: {message}") from None
        raise UsageError(f"--address {address}: can't connect to Ray there: {message}") from None


def _check_answers(address: str) -> None:
    """UsageError where nothing listens at HOST:PORT: Ray would try for a minute and end the process."""
    if address in ("auto", "local"):
        return
    if "://" in address:
        raise UsageError(
            f"--address {address}: Ray's client can't be used: run the command on a machine of the cluster, "
            "with --address auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--address must be HOST:PORT, as ray start --head prints it, or auto, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"--address {address}: nothing answers there ({why}): start Ray with ray start --head"
        ) from None


@dataclass(frozen=True)
class RayCluster:
    """The cluster that this process is connected to."""

    device: str

    @classmethod
    def connected(cls, device: str) -> RayCluster:
        """With the device that its workers get."""
        gpus = ray.cluster_resources().get("GPU", 0)
        if device == "cuda" and gpus < 1:
            raise UsageError("--device cuda: the Ray cluster has no GPU: cpu always is there")
        return cls("cuda" if gpus >= 1 and device != "cpu" else "cpu")

    def workers(self, cells: Sequence[Cell], settings: Settings, jobs: int | None) -> int:
        """One a GPU or a core, as far as memory reaches and there are cells."""
        if jobs is not None and jobs < 1:
            raise UsageError(f"--jobs must be at least 1, got {jobs}")
        there = ray.cluster_resources()
        if settings.device == "cuda":
            paying = int(there.get("GPU", 0))
        else:
            paying = min(int(there.get("CPU", 0)), int(there.get("memory", 0) // WORKER_MEMORY))
        return jobs or max(1, min(paying, len(cells)))

    def executor(self, cells: Sequence[Cell], settings: Settings, jobs: int | None, progress: Progress) -> Executor:
        """Actors, of which the first is set up when this returns. UsageError, StoreError or PluginError, in one line,
        where it can't be."""
        made = RayActors(cells, settings, self.workers(cells, settings, jobs), progress)
        try:
            made.set_up_first()
        except BaseException:
            made.close()
            raise
        return made


@dataclass
class _Worker:
    """An actor, and the one call that it was sent last."""

    actor: Any
    call: Any = None
    ready: bool = False
    work: tuple[int, Task, JobCell] | None = None


@dataclass
class _Tries:
    """How often workers were lost at a task."""

    lost: dict[int, int] = field(default_factory=dict)

    def again(self, number: int) -> bool:
        """Whether a task whose worker was lost is tried again."""
        self.lost[number] = self.lost.get(number, 0) + 1
        return self.lost[number] < TRIES


def gpus_each(jobs: int, gpus: float) -> float:
    """What each of so many workers takes of a cluster's GPUs: one, or the same share of one where they are more.

    Small networks leave most of a GPU idle, and metrics much of a worker's time without one.
    """
    return 1 / math.ceil(jobs / max(1, int(gpus)))


class RayActors:
    """Up to ``jobs`` actors on a core each, and a GPU or a share of one (:func:`gpus_each`), with one store.

    A task whose worker is lost (killed, out of memory, its machine gone) is tried again by another, three times in all.
    """

    def __init__(self, cells: Sequence[Cell], settings: Settings, jobs: int, progress: Progress) -> None:
        self.jobs, self.progress = jobs, progress
        self._mark = Store(Path(settings.cache)).root.absolute() / "locks" / f"driver-{secrets.token_hex(8)}.part"
        self._setup = pickle.dumps(Setup.of_run(cells, settings, self._mark.name))
        gpus = gpus_each(jobs, ray.cluster_resources().get("GPU", 0)) if settings.device == "cuda" else 0
        # lost workers are replaced here, where what they were at is known
        self._actors = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(Actor)
        self._board = ray.remote(num_cpus=0)(Board).remote()
        self._said: Any = None
        self._workers: list[_Worker] = []
        self._queue: deque[tuple[int, Task, JobCell]] = deque()
        self._tries = _Tries()
        self._lost_unready = 0

    @property
    def free(self) -> int:
        return self.jobs - len(self._queue) - sum(worker.work is not None for worker in self._workers)

    def start(self, number: int, task: Task, cell: JobCell) -> None:
        self._queue.append((number, task, cell))
        self._send()

    def wait(self) -> tuple[int, Result]:
        while True:
            self._send()
            ended = self._next()
            if ended is not None:
                for line in ended[1].warnings:
                    log.warning("%s", line)
                return ended

    def set_up_first(self) -> None:
        """Wait until there is a worker; a LeakBenchError where it can't be one."""
        while not any(worker.ready for worker in self._workers):
            self.progress("waiting for a worker of the Ray cluster", 0, 1)
            if not self._workers:
                self._new_worker()
            self._next()

    def close(self) -> None:
        free = [worker.actor.leave.remote() for worker in self._workers if worker.ready and worker.work is None]
        with contextlib.suppress(RayError):
            ray.wait(free, num_returns=len(free), timeout=_FAREWELL) if free else None
        for actor in (*(worker.actor for worker in self._workers), self._board):
            with contextlib.suppress(RayError):
                ray.kill(actor)
        self._workers = []
        self._queue.clear()
        self._mark.unlink(missing_ok=True)

    def _send(self) -> None:
        """Hand what waits to workers that are free, and have as many workers as there is work for."""
        for worker in self._workers:
            if self._queue and worker.ready and worker.work is None:
                worker.work = self._queue.popleft()
                worker.call = worker.actor.run.remote(*worker.work[1:])
        coming = sum(not worker.ready for worker in self._workers)
        for _ in range(min(len(self._queue) - coming, self.jobs - len(self._workers))):
            self._new_worker()

    def _new_worker(self) -> None:
        try:
            self._mark.touch()  # again: who empties the cache meanwhile removes it
        except OSError as error:
            raise StoreError(f"can't write to the cache at {str(self._mark.parent)!r}: {error.strerror}") from None
        actor = self._actors.remote()
        call = actor.set_up.remote(leakbench.__version__, self._setup, self._board)
        self._workers.append(_Worker(actor, call))

    def _next(self) -> tuple[int, Result] | None:
        """The next task that has ended, if one does within a moment."""
        calls = {worker.call: worker for worker in self._workers if worker.call is not None}
        answered, _ = ray.wait(list(calls), num_returns=1, timeout=_LOOK_EVERY)
        if not answered:
            self._look()
            return None
        worker = calls[answered[0]]
        worker.call = None
        try:
            answer = ray.get(answered[0])
        except RayTaskError as error:
            if worker.work is None:
                raise UsageError(f"a worker of the Ray cluster can't be set up: {described(error.cause)}") from None
            answer = Result(CellOutcome(), "failed", described(error.cause), error.traceback_str)
        except RayError as error:
            return self._lost(worker, error)
        if worker.work is None:
            if answer:
                raise UsageError(answer)
            worker.ready, self._lost_unready = True, 0
            return None
        (number, *_), worker.work = worker.work, None
        if not answer.usable:
            self._end(worker)
        return number, answer

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        with contextlib.suppress(RayError):
            ray.kill(worker.actor)

    def _lost(self, worker: _Worker, error: RayError) -> tuple[int, Result] | None:
        """How a task ends whose worker is gone; None where it is tried again."""
        self._end(worker)  # one that merely can't be reached would go on beside the next
        if worker.work is None:
            self._lost_unready += 1
            if self._lost_unready >= TRIES:
                raise UsageError(f"workers of the Ray cluster end before they begin: {_reason(error)}")
            return None
        if self._tries.again(worker.work[0]):
            self._queue.appendleft(worker.work)
            return None
        ended = f"{TRIES} worker processes ended before its result was there (killed, out of memory, os._exit?)"
        return worker.work[0], Result(CellOutcome(), "failed", ended)

    def _look(self) -> None:
        """Tell the progress what a worker has said, as soon as it is here."""
        try:
            if self._said is None:
                self._said = self._board.last.remote()
            elif ray.wait([self._said], timeout=0)[0]:
                last, self._said = ray.get(self._said), None
                if last is not None:
                    self.progress(*last)
        except RayError:  # the board is lost: a run goes on without
            self._said = None


def _reason(error: RayError) -> str:
    """Ray's many lines in one; of a worker without LeakBench, what to install there."""
    text = str(error)
    if "ModuleNotFoundError" in text and "leakbench" in text:
        return f"LeakBench is not installed there: pip install 'leakbench[ray]=={leakbench.__version__}'"
    return described(LeakBenchError(" ".join(text.split())))
