"""A run from its grid to its report."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from leakbench.bench import runner
from leakbench.bench.backends import MakeExecutor
from leakbench.bench.departures import departures
from leakbench.bench.grid import SIZES, GridConfig, grid_digest, make_config
from leakbench.bench.protocols import protocol_named
from leakbench.bench.run_folder import records_in
from leakbench.bench.suites import cells_of
from leakbench.cells import Cell, NullCell
from leakbench.data import base_name, default_data_folder
from leakbench.data.dataset import FLIPS
from leakbench.data.folder import PREFIX
from leakbench.errors import UsageError
from leakbench.leakage import leakage_kinds
from leakbench.paths import default_cache, default_local_cache
from leakbench.records import RunRecord
from leakbench.reports import write_report
from leakbench.runtime.plugins import NOT_ISOLATED, how_it_runs, isolating, isolation_of
from leakbench.runtime.process import fixed_threads, has_bfloat16, tune_process
from leakbench.runtime.workspace import Settings

log = logging.getLogger("leakbench")
NO_BFLOAT16 = "this processor has no instructions for bfloat16: networks take 2 to 16 times as long as in float32"


def grid_of(options: Mapping[str, Any], protocol: str | None = None) -> tuple[GridConfig, list[str]]:
    """The grid of ``options``, the others as the ``protocol`` of that name has them, and what drops its name.

    Raises UsageError for wrong options, UnknownName for a protocol that there is not.
    """
    followed = protocol_named(protocol) if protocol else None
    grid = make_config(options if followed is None else {**followed.options, **options})
    if options.get("null_networks"):  # a protocol's may be too many for what else was changed
        _check_null_networks(grid)
    if followed is None:
        return grid, []
    lost = f"the numbers will not bear the name of {followed.name}"
    return grid, [f"{lost}: {departure}" for departure in departures(followed, grid, {})]


def _check_null_networks(grid: GridConfig) -> None:
    """Raises UsageError where no attack would be run on the null networks that were asked for."""
    asked = f"--null-networks {grid.null_networks}"
    seeds = min(kind.nulls_from for kind in leakage_kinds() if kind.nulls)
    if not grid.controls:
        raise UsageError(f"{asked} and --no-controls: null networks are controls: leave one of them out")
    if grid.seeds < seeds:
        raise UsageError(f"{asked}: null networks are compared with from --seeds {seeds} on, not with {grid.seeds}")
    if not any(isinstance(cell, NullCell) for cell in cells_of(grid)):
        raise UsageError(f"{asked}: no attack of this run is run on any: leave it out")


def default_folder(grid: GridConfig) -> Path:
    """Where a run goes for which no folder is named: runs/DATASET-DEFENSES-HASH."""
    protecting = (grid.suite,) if grid.suite else (Path(name).name.partition(":")[0] for name in grid.defense)
    name = "-".join([Path(grid.dataset[0]).name.replace(":", "-"), *protecting])
    return Path("runs") / f"{name[:60]}-{grid_digest(grid)}"


def settings_of(
    cache: Path | None,
    local_cache: Path | None,
    data: Path | None,
    inception: Path | None,
    features: Path | None,
    device: str,
    grid: GridConfig,
) -> Settings:
    """Where a run of a grid computes and keeps things; None is the default. ``device`` is what its backend has.

    Sets this process up as one that computes (:func:`tune_process`).
    """
    tune_process()
    precision = grid.precision or SIZES[grid.preset].precision
    if precision == "bfloat16" and device == "cpu" and has_bfloat16() is False:
        log.warning(NO_BFLOAT16)
    local_cache = local_cache or default_local_cache()
    return Settings(
        cache=str(cache or default_cache()),
        local_cache=None if local_cache is None else str(local_cache),
        data=None if data is None else str(data),
        device=device,
        inception=None if inception is None else str(inception),
        features=None if features is None else str(features),
        judges=grid.judges,
        precision=precision,
    )


@contextmanager
def isolated(
    wanted: bool, grid: GridConfig, settings: Settings, folder: Path, secret: Sequence[Path] = ()
) -> Iterator[Settings]:
    """The settings of a run whose third parties' plugins are isolated, where that is wanted and the system can: what
    loads them must be inside. Neither data, store and results nor ``secret`` files nor what the grid names can be read
    by them."""
    named = [grid.ann, *(_source(name) for name in (*grid.dataset, grid.public or ""))]
    weights = settings.inception, settings.features, settings.judges
    stores = settings.cache, settings.local_cache
    hidden = [*stores, settings.data or default_data_folder(), *weights, folder, *named, *secret]
    with isolation_of(wanted, hidden, settings.device) as isolation, isolating(isolation):
        yield replace(settings, isolation=isolation)


def not_isolated(cells: Sequence[Cell]) -> dict[str, str]:
    """Third parties' attacks and defences that run in this process -> why."""
    targets = {(kind, one.name, one.target) for cell in cells for kind, one in cell.variants if kind != "metric"}
    ran = {name: how_it_runs(kind, target) for kind, name, target in sorted(targets)}
    return {name: how for name, how in ran.items() if how.startswith(NOT_ISOLATED)}


def _source(dataset: str) -> str | None:
    """The path of the images that a data set names, if it does; not that of code."""
    text = base_name(dataset).removeprefix(PREFIX).removesuffix(FLIPS)
    # os.path.exists takes names that no file can have
    return text if ".py:" not in text and (os.sep in text or os.path.exists(text)) else None  # noqa: PTH110


def run(
    grid: GridConfig,
    cells: Sequence[Cell],
    settings: Settings,
    folder: Path,
    jobs: int | None,
    command: str,
    reporter: runner.Reporter,
    executor: MakeExecutor | None = None,
) -> RunRecord:
    """Compute the cells of a grid on one thread a process, and write record, pictures, report and tables into
    ``folder``.

    An interrupt (KeyboardInterrupt) writes what is there and is raised again. ``command`` stands in the record as what
    started the run, ``executor`` as of :func:`leakbench.bench.runner.run_grid`.
    """
    with fixed_threads(1):
        try:
            record = runner.run_grid(grid, settings, folder, jobs, command, reporter, cells, executor)
        except KeyboardInterrupt:
            if written := records_in(folder):
                write_report(folder, written[0])
            raise
        write_report(folder, records_in(folder)[0])
    return record
