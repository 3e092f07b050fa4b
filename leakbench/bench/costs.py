"""What a run costs, before anything is computed: hours and memory, from a table of measured costs.

The table, costs.json, is written by ``benchmarks/costs.py``. The seconds of a stage are a weighted sum of its sizes
(:attr:`leakbench.bench.work.Part.sizes`), with weights >= 0 that were fitted to all measured rows of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from leakbench.bench.jobs import Job, jobs_of
from leakbench.bench.work import Part, Sizes, chosen_parts
from leakbench.cells import AttackCell, Cell

SAID_ABOVE = 1800.0
"""seconds from which on a run says beforehand how long it may take"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Part):
    """A measured stage of a job."""

    stage: str
    dataset: str
    model: str
    timesteps: int
    sizes: tuple[float, float, float, float, float]
    seconds: float
    """of one thread's processor time"""
    memory: float
    """peak of the process in the job, MiB"""


class CostTable(_Part):
    """Measured costs, and what was made of them."""

    command: str
    date: str
    version: str
    machine: str
    shares: dict[str, dict[str, tuple[str, ...]]]
    """plugin -> name of what it shares with others -> the parameters that this depends on"""
    weights: dict[str, tuple[float, float, float, float, float]]
    """stage -> seconds for each unit of its sizes"""
    within_twice: float
    """share of the rows whose seconds the others' weights give within a factor of 2"""
    rows: tuple[Row, ...]

    def seconds(self, part: Part) -> float | None:
        """What a part takes on one thread; None where its stage was not measured."""
        weights = self.weights.get(part.stage)
        return sum(w * size for w, size in zip(weights, part.sizes, strict=True)) if weights is not None else None

    def memory(self, part: Part) -> float | None:
        """Peak memory in MiB of the measured row of the stage whose work is nearest; None where there is none."""
        same = [row for row in self.rows if row.stage == part.stage]
        work = sum(part.sizes)
        return min(same, key=lambda row: _apart(sum(row.sizes), work)).memory if same else None

    @property
    def largest(self) -> float:
        """The most work of all rows of a network."""
        return max((sum(row.sizes[1:]) for row in self.rows), default=0.0)


def _apart(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


@dataclass(frozen=True)
class Group:
    """Jobs of a kind: a line of the estimate."""

    title: str
    jobs: int
    seconds: float
    """of those whose costs are known"""
    memory: float
    unknown: int


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes where nothing of it is in the store."""

    groups: tuple[Group, ...]
    chain: float
    """seconds of the longest chain of jobs that wait for each other"""
    table: CostTable

    @property
    def seconds(self) -> float:
        """Of all jobs whose costs are known, one after the other on one thread."""
        return sum(group.seconds for group in self.groups)

    @property
    def unknown(self) -> tuple[Group, ...]:
        """The groups with jobs whose costs are not known."""
        return tuple(group for group in self.groups if group.unknown)

    @property
    def memory(self) -> float:
        """Peak memory of a worker, MiB."""
        return max((group.memory for group in self.groups), default=0.0)

    def wall(self, workers: int) -> float:
        """Seconds at best with so many workers."""
        return max(self.seconds / workers, self.chain)


def read_costs() -> CostTable:
    """The table of measured costs."""
    return CostTable.model_validate_json(files("leakbench.bench").joinpath("costs.json").read_bytes())


def estimate(cells: Sequence[Cell], data: Path | None, table: CostTable) -> RunEstimate:
    """What the cells of a run and all they build on take. Data sets that are not in ``data`` are not downloaded: what
    is computed on them is unknown.
    """
    jobs = jobs_of(cells)
    ends: list[float] = []
    grouped: dict[str, list[tuple[float, float, bool]]] = {}
    for job, parts in zip(jobs, chosen_parts(jobs, Sizes(data), table.shares), strict=True):
        taken = [table.seconds(part) for part in parts or ()]
        known = [seconds for seconds in taken if seconds is not None]
        memory = max((table.memory(part) or 0.0 for part in parts or ()), default=0.0)
        unknown = parts is None or len(known) < len(taken)
        grouped.setdefault(_title(job), []).append((sum(known), memory, unknown))
        ends.append(sum(known) + max((ends[before] for before in job.after), default=0.0))
    groups = tuple(
        Group(title, len(of), sum(s for s, _, _ in of), max(m for _, m, _ in of), sum(u for _, _, u in of))
        for title, of in grouped.items()
    )
    return RunEstimate(groups, max(ends, default=0.0), table)


def _title(job: Job) -> str:
    cell = job.cell
    if job.task == "ann":
        return "training of ANNs"
    if job.task == "prepare":
        return "evaluation models"
    if isinstance(cell, AttackCell):
        return f"attack {cell.attack.label}"
    return f"defence {cell.defense.label}" if hasattr(cell, "defense") else "anchors"
