"""Where cells are computed: what a cell's end is called, threads, and processes that die or are interrupted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from tiny_runs import OURS, Warm, copied

from leakbench.bench import executors
from leakbench.bench.executors import (
    InProcess,
    LocalProcesses,
    Result,
    available_cores,
    checked_threads,
    run_cell,
    tune_process,
)
from leakbench.bench.grid import Cell, make_config, plan
from leakbench.bench.pipeline import Outcome, Settings
from leakbench.errors import NotApplicable, NumericalError, PluginError, UsageError
from leakbench.snn import SpikingNetwork

DIES = """
import os
from leakbench.contracts import Defense, Params

class Dies(Defense[Params]):
    \"\"\"Takes its whole process with it, as running out of memory does.\"\"\"

    name = "dies"

    def protect(self, ann, data, context):
        os._exit(9)
"""


@pytest.fixture
def settings(warm: Warm, tmp_path: Path) -> Settings:
    return Settings(cache=str(copied(warm.cache, tmp_path / "cache")))


def cells_of(warm: Warm, **options: Any) -> list[Cell]:
    return plan(make_config(warm.tiny.options(**options)))


class Stub:
    """A workshop that does one thing."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def compute(self, _cell: Cell) -> Outcome:
        if isinstance(self.act, BaseException):
            raise self.act
        logging.getLogger("leakbench").warning("beware of %s", "this")
        return Outcome()


def ended(act: Any) -> Result:
    return run_cell(Stub(act), "compute", None)  # type: ignore[arg-type]  # the stub looks at no cell


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (NotApplicable("no batch norm"), "not-applicable", "no batch norm"),
        (NumericalError("NaN in a layer"), "failed", "NaN in a layer"),
        (PluginError("two\nlines"), "failed", "two"),
        (ValueError("mine\nin two lines"), "failed", "ValueError: mine"),
        (KeyError("lost"), "failed", "KeyError: 'lost'"),
        (AssertionError(), "failed", "AssertionError"),
        (RecursionError("too deep"), "failed", "RecursionError: too deep"),
        (MemoryError(), "failed", "MemoryError"),
    ],
)
def test_whatever_is_raised_ends_in_the_result(error: Exception, status: str, reason: str) -> None:
    result = ended(error)
    assert result.status == status
    assert result.reason.rstrip(": ").startswith(reason)
    assert len(result.reason.splitlines()) == 1
    assert (type(error).__name__ in result.traceback) == (status == "failed")
    assert result.outcome == Outcome()


def test_an_interrupt_is_no_result() -> None:
    with pytest.raises(KeyboardInterrupt):
        ended(KeyboardInterrupt())


def test_warnings_of_a_cell_are_its_own() -> None:
    assert ended(None).warnings == ("beware of this",)
    assert ended(None).warnings == ("beware of this",)
    assert ended(ValueError()).warnings == ()


def test_in_process_goes_cell_by_cell_and_announces_each(warm: Warm, settings: Settings) -> None:
    cells = [cell for cell in cells_of(warm) if cell.attack is None]
    seen = list(InProcess(settings, lambda _what, _done, _total: None).map("compute", cells))
    assert [(index, result is None) for index, result in seen] == [
        (index, start) for index in range(len(cells)) for start in (True, False)
    ]
    assert {result.status for _, result in seen if result} == {"ok"}


def test_nothing_to_do_starts_no_process(settings: Settings) -> None:
    assert list(LocalProcesses(settings, 2, 2).map("compute", [])) == []
    assert not multiprocessing.active_children()


# --- threads -----------------------------------------------------------------------------------------------------


def test_a_run_takes_the_threads_that_torch_would_and_no_more_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "available_cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert checked_threads(None) == 3
    assert [checked_threads(asked) for asked in (1, 3, 4)] == [1, 3, 4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert checked_threads(None) == 4


@pytest.mark.parametrize("asked", [5, 0, -1])
def test_threads_that_there_are_no_cores_for_are_refused(monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    monkeypatch.setattr(executors, "available_cores", lambda: 4)
    with pytest.raises(UsageError, match=f"^--threads must be 1 to 4, the cores that .*, got {asked}$"):
        checked_threads(asked)
    monkeypatch.setattr(executors, "available_cores", lambda: 1)
    with pytest.raises(UsageError, match=f"^--threads must be 1, the core that .*, got {asked}$"):
        checked_threads(asked)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that can take cores away")
def test_cores_are_those_that_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cores() == len(before)


def threads_now() -> set[int]:
    """Of torch and of every pool in this process: one number, where nothing is forgotten."""
    return {torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())}


def test_a_tuned_process_has_that_many_threads_everywhere() -> None:
    assert {pool["user_api"] for pool in threadpool_info()} == {"blas", "openmp"}
    with threadpool_limits():  # gives the pools back
        for threads in (3, 1, 2):
            tune_process(threads)
            assert threads_now() == {threads}
        tune_process()
        assert threads_now() == {2}
    assert float(torch.tensor(1e-40) * 1) == 0


def test_a_worker_has_its_share_and_nothing_beyond(settings: Settings) -> None:
    """In a process of its own, as a worker is started, with more threads and jobs than there are cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, executors._start_worker, (settings, 3, 5)) as pool:
        assert pool.submit(threads_now).result() == {3}
        assert pool.submit(getattr, SpikingNetwork, "memory_budget").result() == SpikingNetwork.memory_budget // 5


class Recorded:
    """Takes the place of a pool of processes: remembers how it was to be started, then says that it broke."""

    started: tuple[tuple[int, int], ...] = ()
    """(processes, threads of each)"""

    def __init__(self, processes: int, _context: Any, _start: Any, given: tuple[Settings, int, int]) -> None:
        _, threads, jobs = given
        assert processes == jobs
        Recorded.started += ((processes, threads),)
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("threads", "jobs", "cells", "processes", "each"),
    [
        (8, 2, 6, 2, 4),
        (7, 3, 6, 3, 2),
        (2, 2, 6, 2, 1),
        (1, 3, 6, 3, 1),  # one each, whatever was asked
        (8, 4, 2, 2, 4),  # the processes that there is no cell for leave their threads to the others
        (6, 4, 1, 1, 6),
    ],
)
def test_processes_share_the_threads(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    jobs: int,
    cells: int,
    processes: int,
    each: int,
) -> None:
    monkeypatch.setattr(executors, "ProcessPoolExecutor", Recorded)
    monkeypatch.setattr(Recorded, "started", ())
    with pytest.raises(KeyboardInterrupt):
        list(LocalProcesses(settings, jobs, threads).map("compute", [None] * cells))  # type: ignore[list-item]
    assert Recorded.started == ((processes, each),)


# --- processes that die or are interrupted -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_cell_that_kills_its_process_fails_alone(warm: Warm, settings: Settings, tmp_path: Path) -> None:
    """The others were asked for too, and running again would meet the same death: they are computed all the same."""
    (tmp_path / "dies.py").write_text(DIES, encoding="utf-8")
    cells = cells_of(warm, defense=[f"{tmp_path}/dies.py:Dies", OURS])
    names = ["dies", "ann", OURS]  # in the order in which they are started
    rows = {cell.defense.name: cell for cell in cells if cell.attack is None and cell.defense}
    alone = [rows[name] for name in names]
    ends = {names[i]: r for i, r in LocalProcesses(settings, 2, 2).map("compute", alone) if r}
    assert {name: result.status for name, result in ends.items()} == {
        "dies": "failed",
        "ann": "ok",
        OURS: "ok",
    }
    assert "process ended" in ends["dies"].reason


def test_an_interrupt_ends_the_workers_at_once(
    warm: Warm, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells at a closed gate would never end: leaving must not wait for them."""
    monkeypatch.setenv("LEAKBENCH_TEST_GATE", str(tmp_path))
    gated = f"{warm.tiny.gated}:Gated"
    cells = cells_of(warm, attack=[gated], images_per_class=3, set={f"{OURS}.images": ["16"]})
    attacks = [cell for cell in cells if cell.attack is not None]

    workers: list[Any] = []

    def interrupted(_futures: Any) -> Iterator[Any]:
        while not (tmp_path / "reached").exists():
            time.sleep(0.01)
        workers.extend(multiprocessing.active_children())
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(executors, "as_completed", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(LocalProcesses(settings, 2, 2).map("compute", attacks))
        # not join: the pool's own thread may collect the same process at the same moment
        late = time.monotonic() + 10
        while any(worker.is_alive() for worker in workers) and time.monotonic() < late:
            time.sleep(0.01)
        left = [worker for worker in workers if worker.is_alive()]
    finally:
        (tmp_path / "open").touch()  # a failure must not become a hang: this process waits for its workers
    assert workers
    assert not left
