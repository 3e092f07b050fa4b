"""What a run may take, in words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from leakbench.bench import costs, runner
from leakbench.bench.costs import RunEstimate
from leakbench.bench.jobs import jobs_of
from leakbench.bench.speed import Speed, Speeds
from leakbench.bench.stored import stored_jobs
from leakbench.bench.work import Sizes
from leakbench.cells import BaseCell, Cell
from leakbench.errors import printable
from leakbench.leakage import compared_kind
from leakbench.runtime.workspace import Settings, Workspace
from leakbench.session.eta import spoken

_TIMED_ABOVE = costs.SAID_ABOVE / 20
"""seconds that a run takes on a slow machine, from which on it is estimated for this one"""
MUCH = 0.1
"""share of extrapolated work that is worth a word"""


def estimated(
    cells: Sequence[Cell],
    settings: Settings,
    stored: frozenset[int] = frozenset(),
    speeds: Callable[[BaseCell], Speed | None] | None = None,
) -> RunEstimate:
    """The estimate, with how fast this machine trains the cells' networks in their precision if not otherwise said.

    On a terminal it says meanwhile that it times them.
    """
    if settings.judges:  # nobody trains them
        preparing = {number: job.cell for number, job in enumerate(jobs_of(cells)) if job.task == "prepare"}
        stored |= {n for n, cell in preparing.items() if getattr(cell, "leakage", "") == compared_kind().name}
    sizes = Sizes(Path(settings.data) if settings.data else None)
    if speeds is not None:
        return costs.estimate(cells, sizes, costs.read_costs(), speeds, stored)
    with Console(stderr=True, emoji=False).status("timing the networks of the run"):
        measured = Speeds(sizes, cells[0].precision)  # all cells of a run have one precision
        return costs.estimate(cells, sizes, costs.read_costs(), measured, stored)


def check_weights(cells: Sequence[Cell], settings: Settings) -> None:
    """Raises UsageError where a file of weights is a wrong one, as far as data sets are at hand to tell by."""
    if settings.judges or any(cell.checkpoint is not None for cell in cells):  # what is checked against data sets
        data = Sizes(Path(settings.data) if settings.data else None).data
        cells = [cell for cell in cells if data(cell.dataset) is not None]
    with TemporaryDirectory() as empty:  # opening a store makes its folders
        here = replace(settings, cache=empty, local_cache=None, device="cpu")
        runner.check_weights(Workspace(here, lambda *_: None), cells)


def say_if_long(cells: Sequence[Cell], settings: Settings, workers: int) -> tuple[float | None, ...]:
    """One line, on the error stream, of a run that takes longer than half an hour. Returns what each job may take
    (:attr:`RunEstimate.told`)."""
    slowest = costs.read_costs().slowest
    expected = estimated(cells, settings, speeds=lambda _: slowest)
    if expected.wall(workers) > _TIMED_ABOVE:  # what takes some seconds itself: only where they are few beside the run
        expected = estimated(cells, settings, stored_jobs(jobs_of(cells), settings))
    if expected.wall(workers) <= costs.SAID_ABOVE:
        return expected.told
    there = f" beside the {expected.stored} of {len(cells)} cells that are in the store" if expected.stored else ""
    line = f"leakbench: {total_text(expected, workers)}{there} (see --dry-run)"
    print(printable(line), file=sys.stderr, flush=True)
    return expected.told


def total_text(expected: RunEstimate, workers: int) -> str:
    """Time and memory of all of it."""
    alone = f"about {time_text(expected.seconds)} on one thread"
    more = f", {time_text(expected.wall(workers))} at best with {workers} workers" if workers > 1 else ""
    peak = "at least" if expected.extrapolated > MUCH else "about"
    return f"{alone}{more}, {peak} {memory_text(expected.memory)} of memory a worker"


def time_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else spoken(seconds)


def memory_text(mib: float) -> str:
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"
