"""Cells of the tiny run, computed with plugins in processes of their own or in the test's: no evaluation model is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tiny_runs import Tiny

from leakbench.bench.executors import Result, run_task
from leakbench.bench.grid import make_config
from leakbench.bench.pipeline import CellOutcome, Pipeline
from leakbench.bench.plan import plan
from leakbench.bench.stages.attack import Attacked, attacked
from leakbench.bench.stages.victim import BuiltVictim, built_victim
from leakbench.cells import AttackCell, Cell, UtilityCell
from leakbench.contracts import Progress
from leakbench.leakage import leakage_kind
from leakbench.runtime.plugins import Isolation, isolating, isolation_of
from leakbench.runtime.workspace import Settings, Workspace


@contextmanager
def here(isolated: bool, *hidden: Path) -> Iterator[Isolation]:
    """As a run of the command line has it."""
    with isolation_of(isolated, list(hidden), "cpu") as isolation, isolating(isolation):
        yield isolation


def cells(tiny: Tiny, **options: Any) -> list[Cell]:
    """Without controls, checks and anchors."""
    grid = make_config(tiny.options(controls=False, images_per_class=1, **{"set": None, **options}))
    return [cell for cell in plan(grid) if type(cell) in (UtilityCell, AttackCell)]


def silent(_what: str, _done: int, _total: int) -> None:
    return None


def built(tiny: Tiny, cache: Path, defense: str, progress: Progress = silent, **options: Any) -> BuiltVictim:
    (cell,) = cells(tiny, defense=[defense], attack=["none"], **options)
    assert isinstance(cell, UtilityCell)
    return built_victim(Workspace(Settings(cache=str(cache)), progress), cell)


def attack(
    tiny: Tiny, cache: Path, name: str, defense: str = "ann", progress: Progress = silent, **options: Any
) -> Attacked:
    cell = next(c for c in cells(tiny, defense=[defense], attack=[name], **options) if type(c) is AttackCell)
    workspace = Workspace(Settings(cache=str(cache)), progress)
    return attacked(workspace, cell, built_victim(workspace, cell), leakage_kind(cell.leakage))


class Computing(Pipeline):
    """Of attacks the outcome alone, so that no evaluation model is needed."""

    def _leakage(self, cell: AttackCell) -> CellOutcome:
        outcome = attacked(self.workspace, cell, built_victim(self.workspace, cell), leakage_kind(cell.leakage))
        return CellOutcome(findings=outcome.findings)


def results(tiny: Tiny, cache: Path, attacks: Sequence[str], **options: Any) -> dict[str, Result]:
    """Attack -> how its cell ended, as a run records it."""
    pipeline = Computing(Settings(cache=str(cache)), silent)
    asked = cells(tiny, **{"defense": ["ann"], "attack": list(attacks), **options})
    return {cell.attack.name: run_task(pipeline, "compute", cell) for cell in asked if isinstance(cell, AttackCell)}
