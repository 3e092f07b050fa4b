"""Where cells are computed: what a task's end is called, and how many workers there are."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from planned_cells import rows
from tiny_runs import Warm, copied

from leakbench.bench import executors
from leakbench.bench.executors import InProcess, LocalProcesses, Result, executor_for, run_task
from leakbench.bench.grid import make_config
from leakbench.bench.pipeline import CellOutcome
from leakbench.bench.plan import plan
from leakbench.cells import Cell
from leakbench.errors import NoSignal, NotApplicable, NumericalError, PluginError, UsageError
from leakbench.runtime.workspace import Settings


@pytest.fixture
def settings(warm: Warm, tmp_path: Path) -> Settings:
    return Settings(cache=str(copied(warm.cache, tmp_path / "cache")))


def cells_of(warm: Warm, **options: Any) -> list[Cell]:
    return plan(make_config(warm.tiny.options(**options)))


def silent(_what: str, _done: int, _total: int) -> None:
    return None


class Stub:
    """A pipeline that does one thing."""

    def __init__(self, act: Any) -> None:
        self.act = act
        self.workspace = SimpleNamespace(store=SimpleNamespace(built=0), device="cpu")

    def perform(self, _task: str, _cell: Cell) -> CellOutcome:
        if isinstance(self.act, BaseException):
            raise self.act
        logging.getLogger("leakbench").warning("beware of %s", "this")
        return CellOutcome()


def ended(act: Any) -> Result:
    return run_task(Stub(act), "compute", None)  # type: ignore[arg-type]  # the stub looks at no cell


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (NotApplicable("no batch norm"), "not-applicable", "no batch norm"),
        (NoSignal("zero gradients"), "no-signal", "zero gradients"),
        (NumericalError("NaN in a layer"), "failed", "NaN in a layer"),
        (PluginError("two\nlines"), "failed", "two"),
        (ValueError("mine\nin two lines"), "failed", "ValueError: mine"),
        (KeyError("lost"), "failed", "KeyError: 'lost'"),
        (AssertionError(), "failed", "AssertionError"),
        (RecursionError("too deep"), "failed", "RecursionError: too deep"),
        (ValueError("x" * 5_000_000), "failed", f"ValueError: {'x' * 1000}..."),
        (MemoryError(), "failed", "MemoryError"),
        (Wordless(), "failed", "Wordless: (its message can't be shown)"),
    ],
)
def test_whatever_is_raised_ends_in_the_result(error: Exception, status: str, reason: str) -> None:
    result = ended(error)
    assert result.status == status
    assert result.reason.rstrip(": ").startswith(reason)
    assert len(result.reason.splitlines()) == 1
    assert (type(error).__name__ in result.traceback) == (status == "failed")
    assert len(result.traceback) < 30_000
    assert result.outcome == CellOutcome()


def test_a_process_whose_device_answers_no_more_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "device_answers", lambda _: False)
    assert not ended(RuntimeError("CUDA error: device-side assert triggered")).usable
    assert ended(None).usable  # what succeeded needs no question, which would wait for the device


def test_an_interrupt_is_no_result() -> None:
    with pytest.raises(KeyboardInterrupt):
        ended(KeyboardInterrupt())


def test_warnings_of_a_cell_are_its_own() -> None:
    assert ended(None).warnings == ("beware of this",)
    assert ended(None).warnings == ("beware of this",)
    assert ended(ValueError()).warnings == ()


@pytest.mark.slow
def test_in_process_takes_one_task_at_a_time(warm: Warm, settings: Settings) -> None:
    cells = rows(cells_of(warm))
    executor = InProcess(settings, silent)
    for number, cell in enumerate(cells):
        assert executor.free == 1
        executor.start(number, "compute", cell)
        assert executor.free == 0
        assert (executor.wait()[0], executor.free) == (number, 1)


# --- how many ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "memory", "cells", "device", "jobs", "workers"),
    [
        (4, 64, 20, "cpu", None, 4),
        (4, 64, 3, "cpu", None, 3),  # no more than there are cells
        (8, 5, 20, "cpu", None, 2),  # of 2 GiB each
        (8, 1, 20, "cpu", None, 1),  # one at least
        (8, 64, 20, "cuda", None, 1),
        (2, 64, 20, "cpu", 3, 3),  # as was asked for
        (1, 1, 1, "cpu", 4, 4),
    ],
)
def test_as_many_workers_as_pay(
    monkeypatch: pytest.MonkeyPatch, warm: Warm, cores: int, memory: int, cells: int, device: str, jobs: int | None,
    workers: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(executors, "available_cores", lambda: cores)
    monkeypatch.setattr(executors, "available_memory", lambda: memory << 30)
    grid = cells_of(warm)[:1] * cells
    executor = executor_for(grid, Settings("cache", device=device), jobs, silent)
    assert isinstance(executor, LocalProcesses)
    assert executor.free == executor.jobs == workers
    assert not multiprocessing.active_children()  # nobody is started before there is something to do


@pytest.mark.parametrize("jobs", [0, -1, 9, 10**9])
def test_more_workers_than_help_are_refused(monkeypatch: pytest.MonkeyPatch, warm: Warm, jobs: int) -> None:
    monkeypatch.setattr(executors, "available_cores", lambda: 2)
    with pytest.raises(UsageError, match=rf"^--jobs must be 1 to 8 \(2 cores are available\), got {jobs}$"):
        executor_for(cells_of(warm), Settings("cache"), jobs, silent)
