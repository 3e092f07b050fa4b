"""``leakbench run --dry-run``: how long a run may take, and how well that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakbench import registry
from leakbench.cli.terminal import echo, echo_table, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakbench.bench.costs import Group, RunEstimate
    from leakbench.cells import Cell
    from leakbench.runtime.workspace import Settings

_WHOLE = "a cell of which only a part is in the store is counted as if nothing of it were there"
_SPELLED = 5
"""data sets or plugins that are named at most, where costs are unknown"""
_SETTINGS = 3
"""of a plugin that have lines of their own; more, as in a sweep, have one together"""


def print_estimate(cells: Sequence[Cell], settings: Settings, workers: int) -> None:
    """Print what a run would compute and what it would take. UsageError where it would not begin."""
    from leakbench.bench.jobs import jobs_of
    from leakbench.bench.stored import stored_jobs
    from leakbench.data import base_name
    from leakbench.session.estimate import check_weights, estimated, memory_text, time_text, total_text

    check_weights(cells, settings)
    for name in dict.fromkeys(base_name(cell.dataset) for cell in cells):
        if ".py:" in name:
            registry.load("dataset", name)  # it is not called: it may download
    for line in _networks(cells):
        echo(line)
    estimate = estimated(cells, settings, stored_jobs(jobs_of(cells), settings))
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
                time_text(group.seconds / known) if known else "unknown",
                time_text(group.seconds) if known else "unknown",
                memory_text(max(job.memory for job in group.jobs)) if known else "unknown",
            ]
            for group in _by_plugin(estimate.groups)
            for known in [len(group.jobs) - group.unknown]
        ],
    )
    total = total_text(estimate, workers) if estimate.seconds else "how long it takes is unknown"
    for line in [total, _WHOLE, *_missing(estimate), *(_known(estimate, settings) if estimate.seconds else [])]:
        for part in wrapped(line):
            echo(part)


def _networks(cells: Iterable[Cell]) -> list[str]:
    """A line for each data set and model of the grid, with every T and the preset."""
    from leakbench.cells import UtilityCell

    timesteps: dict[tuple[str, str, str], set[int]] = {}
    for cell in cells:
        if isinstance(cell, UtilityCell):
            place = cell.dataset_label, cell.model_label, cell.preset
            timesteps.setdefault(place, set()).update([cell.timesteps] if cell.timesteps else [])
    lines = []
    for (dataset, model, preset), steps in timesteps.items():
        simulated = f"T = {', '.join(map(str, sorted(steps)))}, " if steps else ""
        lines.append(f"{dataset}, {model}, {simulated}preset {preset}")
    return lines


def _by_plugin(groups: Iterable[Group]) -> list[Group]:
    """Lines of the table: where a plugin has many settings, their mean and sum."""
    from leakbench.bench.costs import Group

    settings: dict[str, list[Group]] = {}
    for group in groups:
        settings.setdefault(group.title.partition("[")[0], []).append(group)
    lines = []
    for title, each in settings.items():
        together = Group(f"{title}, {len(each)} settings", tuple(job for group in each for job in group.jobs))
        lines += [together] if len(each) > _SETTINGS else each
    return lines


def _missing(estimate: RunEstimate) -> list[str]:
    unknown = [group for group in estimate.groups if group.unknown]
    if not unknown:
        return []
    named = ", ".join(f"{group.unknown} of {group.title}" for group in unknown[:_SPELLED])
    more = f", and {sum(group.unknown for group in unknown[_SPELLED:])} more" if len(unknown) > _SPELLED else ""
    lines = [f"not counted, no measured cost: {named}{more}"]
    if estimate.missing:
        functions = [name for name in estimate.missing if ".py:" in name]
        absent = [name for name in estimate.missing if name not in functions]
        for names, why in ((absent, "not available, and not downloaded"), (functions, "functions, and not called")):
            if names:
                lines.append(f"{why} for an estimate: {', '.join(names[:_SPELLED])}")
    return lines


def _known(estimate: RunEstimate, settings: Settings) -> list[str]:
    from leakbench.bench.costs import read_costs
    from leakbench.session.estimate import MUCH

    table = read_costs()
    share = f"{table.within_twice:.0%} of its rows are estimated within a factor of 2 from other sizes"
    lines = [
        f"measured on one thread of {' and '.join(table.machines)} (LeakBench {table.version}, {table.date}): {share}"
    ]
    scaled = "scaled by how fast this processor trains the run's networks in its precision"
    lines.append(f"{scaled}; where cores are shared with other work, a run takes longer")
    if estimate.extrapolated > MUCH:
        far = "an extrapolation: that work is more than four times what was measured"
        lines.append(f"{estimate.extrapolated:.0%} of the time is {far}")
    if not settings.device.startswith("cpu"):
        lines.append(f"nothing was measured on {settings.device}: these are a processor's times")
    return lines
