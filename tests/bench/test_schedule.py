"""The order in which the jobs of a run begin, whatever computes them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from planned_cells import planned
from tiny_runs import Quiet

from leakbench.bench.executors import Result
from leakbench.bench.jobs import Job, jobs_of
from leakbench.bench.pipeline import CellOutcome, Task
from leakbench.bench.recording import Done
from leakbench.bench.runner import _compute
from leakbench.cells import AttackCell, Cell, PreparationCell, ReferenceCell


@dataclass
class Fake:
    """Computes nothing; of what runs, any may end next."""

    jobs: list[Job]
    slots: int
    draw: random.Random = field(default_factory=random.Random)
    fails: Callable[[Job], bool] = lambda _job: False
    running: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)

    @property
    def free(self) -> int:
        return self.slots - len(self.running)

    def start(self, number: int, task: Task, cell: Cell) -> None:
        job = self.jobs[number]
        assert self.free and (job.task, job.cell) == (task, cell)
        assert self.ended.issuperset(job.after), "before what it builds on"
        self.running.append(number)
        self.begun.append(number)

    def wait(self) -> tuple[int, Result]:
        could = [
            number
            for number, job in enumerate(self.jobs)
            if number not in self.begun and number not in self.ended and self.ended.issuperset(job.after)
        ]
        assert not could or not self.free, "a worker is idle while there is work"
        number = self.running.pop(self.draw.randrange(len(self.running)))
        self.ended.add(number)
        if self.fails(self.jobs[number]):
            return number, Result(CellOutcome(), "failed", f"job {number}")
        return number, Result(CellOutcome())

    def close(self) -> None:
        return None


class Watching(Quiet):
    """Tells the executor of jobs that end without having run."""

    def __init__(self, executor: Fake) -> None:
        super().__init__()
        self.executor = executor

    def ended(self, number: int, result: Result, /) -> None:
        super().ended(number, result)
        self.executor.ended.add(number)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    """Two data sets, attacks with public images and with reference networks, networks that know nothing."""
    return planned(dataset=["digits", "mnist"], attack=["direct", "generative_prior", "lira"], seeds=3)


def computed(cells: list[Cell], fake: Fake) -> dict[int, Done]:
    done: dict[int, Done] = {}
    _compute(fake, cells, done, Watching(fake))
    return done


@pytest.mark.parametrize("slots", [1, 2, 7, 10_000])
def test_nothing_begins_before_what_it_builds_on_and_nobody_idles(cells: list[Cell], slots: int) -> None:
    fake = Fake(jobs_of(cells), slots, random.Random(slots))
    done = computed(cells, fake)
    assert sorted(fake.begun) == list(range(len(fake.jobs)))
    assert [done[number].cell for number in range(len(cells))] == cells


def test_what_is_independent_runs_beside_each_other(cells: list[Cell]) -> None:
    fake = Fake(jobs_of(cells), 10_000)
    first: list[int] = []
    end = fake.wait

    def wait() -> tuple[int, Result]:
        first.extend(fake.running if not first else [])
        return end()

    fake.wait = wait  # type: ignore[method-assign]
    computed(cells, fake)
    kinds = {
        (job.task, type(job.cell) is ReferenceCell, isinstance(job.cell, PreparationCell) and job.cell.part)
        for job in (fake.jobs[number] for number in first)
    }
    assert kinds == {
        ("ann", False, False),
        ("ann", True, False),  # those of reference networks
        ("prepare", False, "outliers"),  # what evaluation models are trained with
        ("prepare", False, ""),  # nothing to prepare for attacks on members
    }


def test_what_can_not_be_built_fails_what_needs_it_and_nothing_else(cells: list[Cell]) -> None:
    fake = Fake(jobs_of(cells), 3, random.Random(0), lambda job: job.task == "ann" and job.cell.seed == 1)
    done = computed(cells, fake)
    broken = {number for number, one in done.items() if one.result.status != "ok"}
    networks = [number for number, cell in enumerate(cells) if cell.seed == 1 and cell.type != "anchor"]
    assert sorted(broken) == networks
    assert {done[number].result.reason.partition(" ")[0] for number in broken} == {"job"}
    begun = {fake.jobs[number].title for number in fake.begun if fake.jobs[number].cell.seed == 1}
    assert not any(" x " in title for title in begun)


def test_where_what_goes_ahead_fails_the_others_try_themselves(cells: list[Cell]) -> None:
    leader = next(job for job in jobs_of(cells) if isinstance(job.cell, AttackCell) and job.cell.public)
    fake = Fake(jobs_of(cells), 2, random.Random(0), lambda job: job.title == leader.title)
    done = computed(cells, fake)
    assert [one.cell.title for one in done.values() if one.result.status != "ok"] == [leader.title]
    assert len(fake.begun) == len(fake.jobs)
