"""Writes docs/results/large-grid.md: what a large grid takes on many workers, computed from measured costs.

python benchmarks/large_grid.py

Nothing of the grid is run. Its jobs and what they wait for are those of a run, the seconds of each are those of the
table of measured costs (leakbench/bench/costs.json), and workers take jobs as a run hands them out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from pathlib import Path

import result_page

from leakbench.bench.costs import CostTable, read_costs
from leakbench.bench.grid import SIZES, make_config
from leakbench.bench.jobs import Job, jobs_of
from leakbench.bench.plan import plan
from leakbench.bench.work import DataSize, Sizes, chosen_parts
from leakbench.cells import ReferenceCell

DEFENSES = (
    "diehl2015", "rueckauer2017", "sengupta2019", "han2020", "han_roy2020", "zambrano2019", "deng_gu2021", "li2021",
    "bu2022", "stbp", "tdbn", "lee2020", "zskd", "knowledge_within", "dpsgd", "datafree", "privatesnn",
)  # fmt: skip
ROUNDED = ("han2020", "sengupta2019", "privatesnn")
"""with weights of 8 bits, too: 20 rows"""
ATTACKS = (
    "reconversion", "direct", "inversion", "analog_twin", "surrogate_zoo", "spsa", "extraction", "decrypt",
    "generative_prior", "evolution", "label_only", "loss_threshold", "attack_p", "rmia", "lira",
    "threshold_membership", "noise_mia", "label_only_mia", "gradient_mia", "trajectory_mia",
)  # fmt: skip
MEASURED = {
    "digits": "digits vgg4", "fashion-mnist": "fashion-mnist vgg5", "cifar10": "colour.npz vgg9",
    "cifar100": "colour.npz vgg9",
}  # fmt: skip
"""data set -> the network of the table of costs, the same or of the same shapes, that is as fast"""
DATA = {
    "digits": DataSize((1, 8, 8), 10, 1437, 360, flips=False, input_range=(0.0, 1.0)),
    "fashion-mnist": DataSize((1, 28, 28), 10, 60_000, 10_000, flips=True, input_range=(0.0, 1.0)),
    "cifar10": DataSize((3, 32, 32), 10, 50_000, 10_000, flips=True, input_range=(0.0, 1.0)),
    "cifar100": DataSize((3, 32, 32), 100, 50_000, 10_000, flips=True, input_range=(0.0, 1.0)),
}
"""published sizes: none of them is loaded"""
SEEDS = 5
WORKERS = (1, 8, 64, 512)
FACTORS = (1, 10, 30)
"""how much faster a worker's GPU may be than a core: assumed"""


class Published(Sizes):
    """Sizes of data sets that need not be here."""

    def __init__(self) -> None:
        super().__init__(Path())

    def _data(self, name: str) -> DataSize | None:
        return DATA[name]


def wall(jobs: Sequence[Job], seconds: Sequence[float], workers: int) -> float:
    """Seconds to the end of the last job, where so many workers take jobs as a run hands them out."""
    graph = TopologicalSorter({number: job.after for number, job in enumerate(jobs)})
    graph.prepare()
    ready: list[int] = []
    running: list[tuple[float, int]] = []
    now = 0.0
    while graph.is_active():
        for number in graph.get_ready():
            heappush(ready, number)
        while ready and len(running) < workers:
            number = heappop(ready)
            heappush(running, (now + seconds[number], number))
        now, number = heappop(running)
        graph.done(number)
    return now


def chain(jobs: Sequence[Job], seconds: Sequence[float]) -> tuple[float, list[int]]:
    """Seconds of the longest chain of jobs that wait for each other, and the chain."""
    ends: list[float] = []
    for job, one in zip(jobs, seconds, strict=True):
        ends.append(one + max((ends[before] for before in job.after), default=0.0))
    number = max(range(len(jobs)), key=ends.__getitem__)
    links = [number]
    while jobs[number].after:
        number = max(jobs[number].after, key=ends.__getitem__)
        links.append(number)
    return max(ends), links[::-1]


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f}" if seconds < 36_000 else f"{seconds / 3600:,.0f}"


def kind(job: Job) -> str:
    """What a line of the table counts together."""
    if job.task == "prepare":
        return "evaluation models"
    if job.task == "ann":
        return "ANNs of references" if isinstance(job.cell, ReferenceCell) else "ANNs"
    names = {
        "reference": "reference networks",
        "anchor": "noise and real images",
        "utility": "defences",
        "attack": "attacks",
        "check": "attacks at half effort",
        "null": "attacks on networks that know nothing",
    }
    return names[job.cell.type]


def costs_of(jobs: Sequence[Job], table: CostTable) -> tuple[list[float], float, float]:
    """Seconds of each job on a core; the shares of all seconds that are far beyond what was measured, and of the jobs
    that have a part which was never measured."""
    speeds = {f"{network.dataset} {network.model}": network.speed for network in table.networks}
    seconds: list[float] = []
    far = unknown = 0.0
    for job, parts in zip(jobs, chosen_parts(jobs, Published(), table.shares), strict=True):
        assert parts is not None
        speed = speeds[MEASURED[job.cell.dataset]]
        each = [(part, table.seconds(part, speed)) for part in parts]
        seconds.append(sum(one for _, one in each if one is not None))
        far += sum(one for part, one in each if one is not None and table.beyond(part))
        unknown += any(one is None for _, one in each)
    return seconds, far / sum(seconds), unknown / len(jobs)


def main() -> None:
    table = read_costs()
    options = {
        "defense": list(DEFENSES), "attack": list(ATTACKS), "dataset": list(DATA), "seeds": SEEDS,
        "preset": "standard", "set": {f"{name}.quantize": ["none", "int8"] for name in ROUNDED},
    }  # fmt: skip
    cells = plan(make_config(options))
    jobs = jobs_of(cells)
    seconds, far, unknown = costs_of(jobs, table)
    total, (longest, links) = sum(seconds), chain(jobs, seconds)
    counted: dict[str, list[float]] = defaultdict(list)
    for job, one in zip(jobs, seconds, strict=True):
        counted[kind(job)].append(one)
    by_data = {name: sum(s for job, s in zip(jobs, seconds, strict=True) if job.cell.dataset == name) for name in DATA}
    walls = {workers: wall(jobs, seconds, workers) for workers in WORKERS}
    result_page.write(
        "large-grid.md",
        "What a large grid takes",
        f"{len(DEFENSES) + len(ROUNDED)} defences x {len(ATTACKS)} attacks x {len(DATA)} data sets x {SEEDS} seeds "
        f"with {SIZES['standard'].references} reference networks a defence and controls, preset standard: "
        f"{len(cells):,} cells, {len(jobs):,} jobs. Computed, not run.",
        result_page.of_now("python benchmarks/large_grid.py"),
        result_page.table(
            ["jobs", "number", "hours of a core", "share", "longest, hours"],
            [
                [name, f"{len(each):,}", hours(sum(each)), f"{sum(each) / total:.1%}", hours(max(each))]
                for name, each in sorted(counted.items(), key=lambda one: -sum(one[1]))
            ],
        ),
        result_page.table(["data set", "hours of a core"], [[name, hours(one)] for name, one in by_data.items()]),
        result_page.table(
            ["workers", "hours", "times as fast as one", "busy", *(f"hours, GPU of {n} cores" for n in FACTORS[1:])],
            [
                [
                    str(n),
                    hours(one),
                    f"{total / one:.1f}",
                    f"{total / one / n:.0%}",
                    *(hours(one / factor) for factor in FACTORS[1:]),
                ]
                for n, one in walls.items()
            ],
        ),
        f"All of it takes {hours(total)} hours of one core; no number of workers takes less than the {hours(longest)} "
        "hours of the longest chain:",
        "\n".join(f"- {jobs[number].title}: {hours(seconds[number])} hours" for number in links),
        "What this rests on:",
        "\n".join(
            [
                f"- Seconds of stages are those of the table of costs ({table.date}; {table.networks[0].machine}), "
                f"fitted to sizes. {table.within_twice:.0%} of its rows are told within a factor of 2 by "
                "those of others.",
                f"- {far:.0%} of the seconds are of work more than four times as large as what was measured, and "
                f"{unknown:.1%} of the jobs have a part that was not measured and count without it.",
                "- **No GPU was measured.** The last columns divide all of it by an assumed factor: a worker on a GPU "
                "that is so many times as fast as a core, in every stage. Small networks and metrics gain less.",
                "- Defences that refuse a network or a data set count as if they did not.",
                "- A worker takes no time between two jobs, reading and writing the store take none, and nothing is in "
                "the store beforehand.",
                "- Jobs begin in the order of the plan as soon as what they build on is there.",
            ]
        ),
    )


if __name__ == "__main__":
    main()
