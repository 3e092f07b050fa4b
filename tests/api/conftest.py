"""Fixtures of the Python interface's tests: records written by hand in place of what a run computes, and a real run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from api_samples import Computed, write
from bench_fixtures import apart, warm

from leakbench.bench.backends import MakeExecutor
from leakbench.bench.grid import GridConfig
from leakbench.bench.runner import Reporter
from leakbench.cells import Cell
from leakbench.records import RunRecord
from leakbench.runtime.workspace import Settings

__all__ = ["apart", "computed", "warm"]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunRecord], list[Computed]]:
    """From now on runs compute nothing, and the record is what comes out of them; what they were asked for."""

    def instead(record: RunRecord) -> list[Computed]:
        asked: list[Computed] = []

        def run(
            grid: GridConfig,
            cells: Sequence[Cell],
            settings: Settings,
            folder: Path,
            jobs: int | None,
            command: str,
            _reporter: Reporter,
            _executor: MakeExecutor,
        ) -> RunRecord:
            asked.append(Computed(grid, list(cells), settings, folder, jobs, command))
            write(folder, record)
            return record

        monkeypatch.setattr("leakbench.session.run.run", run)
        # classes of these tests are planned with here, where their modules are
        monkeypatch.setattr("leakbench.runtime.plugins.what_is_lacking", lambda: "nothing is computed")
        return asked

    return instead
