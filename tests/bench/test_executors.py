"""Where cells are computed: what a cell's end is called, and processes that die or are interrupted."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import OURS, Warm, copied

from leakbench.bench import executors
from leakbench.bench.executors import InProcess, LocalProcesses, Result, run_cell
from leakbench.bench.grid import Cell, make_config, plan
from leakbench.bench.pipeline import Outcome, Settings
from leakbench.errors import NotApplicable, NumericalError, PluginError

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
    assert list(LocalProcesses(settings, 2).map("compute", [])) == []
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_cell_that_kills_its_process_fails_alone(warm: Warm, settings: Settings, tmp_path: Path) -> None:
    """The others were asked for too, and running again would meet the same death: they are computed all the same."""
    (tmp_path / "dies.py").write_text(DIES, encoding="utf-8")
    cells = cells_of(warm, defense=[f"{tmp_path}/dies.py:Dies", OURS])
    names = ["dies", "ann", OURS]  # in the order in which they are started
    rows = {cell.defense.name: cell for cell in cells if cell.attack is None and cell.defense}
    alone = [rows[name] for name in names]
    ends = {names[i]: r for i, r in LocalProcesses(settings, 2).map("compute", alone) if r}
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
            list(LocalProcesses(settings, 2).map("compute", attacks))
        # not join: the pool's own thread may collect the same process at the same moment
        late = time.monotonic() + 10
        while any(worker.is_alive() for worker in workers) and time.monotonic() < late:
            time.sleep(0.01)
        left = [worker for worker in workers if worker.is_alive()]
    finally:
        (tmp_path / "open").touch()  # a failure must not become a hang: this process waits for its workers
    assert workers
    assert not left
