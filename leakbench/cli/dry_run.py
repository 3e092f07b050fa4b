"""What ``leakbench run`` says before it computes anything: how long it may take, and how well that is known."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from leakbench.cli.terminal import echo, echo_table, wrapped
from leakbench.session.eta import spoken

if TYPE_CHECKING:
    from leakbench.bench.costs import CostTable, RunEstimate
    from leakbench.bench.grid import GridConfig
    from leakbench.cells import Cell
    from leakbench.runtime.workspace import Settings

_WHOLE = "a cell of which only a part is in the store is counted as if nothing of it were there"
_SPELLED = 5
"""data sets or plugins that are named at most, where costs are unknown"""
_MUCH = 0.1
"""share of extrapolated work that is worth a word"""


def dry_run(grid: GridConfig, settings: Settings, jobs: int | None) -> None:
    """Print what a run would compute and what it would take."""
    from leakbench.bench.jobs import jobs_of
    from leakbench.bench.stored import stored_jobs
    from leakbench.bench.suites import cells_of

    cells = cells_of(grid)
    estimate, table, workers = _estimated(cells, settings, jobs, stored_jobs(jobs_of(cells), settings))
    if not estimate.jobs:
        echo(f"{len(cells)} cells, all of them in the store: there is nothing to compute", bold=True)
        return
    rest = "what the others take at most" if estimate.stored else "the estimate"
    echo(f"{len(cells)} cells, {estimate.stored or 'none'} of them in the store, nothing computed: {rest}", bold=True)
    echo_table(
        ["", "number", "each", "total", "memory"],
        [
            [
                group.title,
                str(len(group.jobs)),
                _time(group.seconds / known) if known else "unknown",
                _time(group.seconds) if known else "unknown",
                _memory(max(job.memory for job in group.jobs)) if known else "unknown",
            ]
            for group in estimate.groups
            for known in [len(group.jobs) - group.unknown]
        ],
    )
    for line in [_total(estimate, workers), _WHOLE, *_missing(estimate), *_known(estimate, table, settings)]:
        for part in wrapped(line):
            echo(part)


def say_if_long(cells: Sequence[Cell], settings: Settings, jobs: int | None) -> None:
    """One line of a run that takes longer than half an hour."""
    from leakbench.bench.costs import SAID_ABOVE
    from leakbench.bench.jobs import jobs_of
    from leakbench.bench.stored import stored_jobs

    estimate, _, workers = _estimated(cells, settings, jobs)
    if estimate.wall(workers) > SAID_ABOVE:  # a look into the store takes a while: only where it matters
        estimate, _, workers = _estimated(cells, settings, jobs, stored_jobs(jobs_of(cells), settings))
    if estimate.wall(workers) <= SAID_ABOVE:
        return
    there = f" beside the {estimate.stored} of {len(cells)} cells that are in the store" if estimate.stored else ""
    echo(f"leakbench: {_total(estimate, workers)}{there} (see --dry-run)", err=True)


def _estimated(
    cells: Sequence[Cell], settings: Settings, jobs: int | None, stored: Container[int] = frozenset()
) -> tuple[RunEstimate, CostTable, int]:
    from pathlib import Path

    from leakbench.bench.costs import estimate, read_costs
    from leakbench.bench.executors import worker_count

    table = read_costs()
    workers = worker_count(cells, settings, jobs)
    return estimate(cells, Path(settings.data) if settings.data else None, table, stored), table, workers


def _total(estimate: RunEstimate, workers: int) -> str:
    alone = f"about {_time(estimate.seconds)} on one thread"
    more = f", {_time(estimate.wall(workers))} at best with {workers} workers" if workers > 1 else ""
    peak = "at least" if estimate.extrapolated > _MUCH else "about"
    return f"{alone}{more}, {peak} {_memory(estimate.memory)} of memory a worker"


def _missing(estimate: RunEstimate) -> list[str]:
    unknown = [group for group in estimate.groups if group.unknown]
    if not unknown:
        return []
    named = ", ".join(f"{group.unknown} of {group.title}" for group in unknown[:_SPELLED])
    more = f", and {sum(group.unknown for group in unknown[_SPELLED:])} more" if len(unknown) > _SPELLED else ""
    lines = [f"not counted, no measured cost: {named}{more}"]
    if estimate.missing:
        lines.append(f"not available, and not downloaded for an estimate: {', '.join(estimate.missing[:_SPELLED])}")
    return lines


def _known(estimate: RunEstimate, table: CostTable, settings: Settings) -> list[str]:
    share = f"{table.within_twice:.0%} of its rows are estimated within a factor of 2 from other sizes"
    lines = [f"measured on one thread of {table.machine} (LeakBench {table.version}, {table.date}): {share}"]
    lines.append("processor time: where cores are shared with other work, a run takes longer")
    if estimate.extrapolated > _MUCH:
        far = "an extrapolation: that work is more than four times what was measured"
        lines.append(f"{estimate.extrapolated:.0%} of the time is {far}")
    if not settings.device.startswith("cpu"):
        lines.append(f"nothing was measured on {settings.device}: these are a processor's times")
    return lines


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else spoken(seconds)


def _memory(mib: float) -> str:
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"
