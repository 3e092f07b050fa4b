"""What a run costs, before anything is computed: hours and memory, from a table of measured costs.

The table, costs.json, is written by ``benchmarks/costs.py``. The seconds of a stage are a weighted sum of its sizes
(:attr:`leakbench.bench.work.Part.sizes`) times what a machine takes for a unit of them where it trains the network
(:func:`leakbench.bench.speed.measured_speed`), with weights >= 0 that were fitted to all measured rows of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from leakbench.bench.jobs import Job, jobs_of
from leakbench.bench.speed import Speed
from leakbench.bench.work import Part, Sizes, chosen_parts
from leakbench.cells import AttackCell, BaseCell, Cell, CheckCell, NullCell, ReferenceCell, UtilityCell

SAID_ABOVE = 1800.0
"""seconds from which on a run says beforehand how long it may take"""
_LEAST = 0.01
"""seconds of a job that is not in the store"""
_FAR = 4
"""times the largest measured size, from which on an estimate is an extrapolation"""


PerSize = tuple[float, float, float, float, float, float, float]
"""one for each of :attr:`leakbench.bench.work.Part.sizes`"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Part):
    """A measured stage of a job."""

    stage: str
    network: int
    """what it was measured on: its number among the table's networks"""
    timesteps: int
    sizes: PerSize
    seconds: float
    """of one thread's processor time"""
    memory: float
    """peak of the process in the job, MiB"""


class Network(_Part):
    """What rows were measured on."""

    machine: str
    dataset: str
    model: str
    speed: Speed
    """in float32, as everything was measured"""


class CostTable(_Part):
    """Measured costs, and what was made of them."""

    command: str
    date: str
    version: str
    networks: tuple[Network, ...]
    shares: dict[str, dict[str, tuple[str, ...]]]
    """plugin -> name of what it shares with others -> the parameters that this depends on"""
    weights: dict[str, PerSize]
    """stage -> seconds that it takes in any case, then for each unit of its other sizes those of a training step"""
    within_twice: float
    """share of the rows that are estimated within a factor of 2 from those of other data sets, models and T"""
    rows: tuple[Row, ...]

    @property
    def slowest(self) -> Speed:
        """The slowest that was measured, of any network."""
        of = [network.speed.model_dump() for network in self.networks]
        return Speed(**{name: max(one[name] for one in of) for name in Speed.model_fields})

    @property
    def machines(self) -> tuple[str, ...]:
        """What was measured on."""
        return tuple(dict.fromkeys(network.machine for network in self.networks))

    def seconds(self, part: Part, speed: Speed) -> float | None:
        """What a part takes on one thread, with a network of such a speed; None where its stage was not measured."""
        weights = self.weights.get(part.stage)
        return None if weights is None else sum(w * x for w, x in zip(weights, speed.taken(part.sizes), strict=True))

    def memory(self, part: Part) -> float:
        """Peak memory in MiB of the measured row of the stage whose size is nearest; 0 where there is none."""
        same = [row for row in self.rows if row.stage == part.stage]
        size = sum(part.sizes)
        return min(same, key=lambda row: _apart(sum(row.sizes), size)).memory if same else 0.0

    def beyond(self, part: Part) -> bool:
        """Whether a part is more than four times as large as all that was measured of its stage."""
        largest = max((sum(row.sizes[1:]) for row in self.rows if row.stage == part.stage), default=0.0)
        return sum(part.sizes[1:]) > _FAR * largest


def _apart(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


@dataclass(frozen=True)
class JobCost:
    """What a job takes on one thread."""

    seconds: float
    """of the parts whose costs are known"""
    memory: float
    """MiB"""
    extrapolated: float
    """seconds of parts that are far larger than what was measured"""
    unknown: bool
    """whether it has parts whose costs are not known"""


@dataclass(frozen=True)
class Group:
    """Jobs of a kind: a line of the estimate."""

    title: str
    jobs: tuple[JobCost, ...]

    @property
    def seconds(self) -> float:
        """Of all of them, as far as their costs are known."""
        return sum(job.seconds for job in self.jobs)

    @property
    def unknown(self) -> int:
        """How many have parts whose costs are not known."""
        return sum(job.unknown for job in self.jobs)


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes at most: what is in the store of a job that is not there whole is counted all the same."""

    groups: tuple[Group, ...]
    """without the jobs that are in the store"""
    stored: int
    """cells that are in the store"""
    chain: float
    """seconds of the longest chain of jobs that wait for each other"""
    missing: tuple[str, ...]
    """data sets that are not at hand, or whose size only loading them would tell"""
    told: tuple[float | None, ...]
    """seconds of each job by its number: 0 where it is in the store and nowhere else, None where they are not known"""

    @property
    def jobs(self) -> tuple[JobCost, ...]:
        return tuple(job for group in self.groups for job in group.jobs)

    @property
    def seconds(self) -> float:
        """Of all jobs, one after the other on one thread, as far as their costs are known."""
        return sum(group.seconds for group in self.groups)

    @property
    def extrapolated(self) -> float:
        """Share of the seconds that are of work far larger than what was measured."""
        return sum(job.extrapolated for job in self.jobs) / self.seconds if self.seconds else 0.0

    @property
    def memory(self) -> float:
        """Peak memory of a worker, MiB."""
        return max((job.memory for job in self.jobs), default=0.0)

    def wall(self, workers: int) -> float:
        """Seconds with so many workers, at best."""
        return max(self.seconds / workers, self.chain)


def read_costs() -> CostTable:
    """The table of measured costs."""
    return CostTable.model_validate_json(files("leakbench.bench").joinpath("costs.json").read_bytes())


def estimate(
    cells: Sequence[Cell],
    sizes: Sizes,
    table: CostTable,
    speeds: Callable[[BaseCell], Speed | None],
    stored: Container[int] = frozenset(),
) -> RunEstimate:
    """What the cells of a run and all they build on take; nothing where a job's number is among the ``stored``.

    ``speeds``: of the cells' networks. What is computed with one that has none, or on a data set that is not at hand,
    is unknown.
    """
    jobs = jobs_of(cells)
    chosen = chosen_parts(jobs, sizes, table.shares)
    costs = [
        _cost(parts, table, speeds(job.cell) if parts and number not in stored else None)
        for number, (job, parts) in enumerate(zip(jobs, chosen, strict=True))
    ]
    ends: list[float] = []
    grouped: dict[str, list[JobCost]] = {}
    for number, (job, cost) in enumerate(zip(jobs, costs, strict=True)):
        begins = max((ends[before] for before in job.after), default=0.0)
        if number in stored or (job.task == "ann" and chosen[number] == []):  # weights of the user's are not trained
            ends.append(begins)
            continue
        grouped.setdefault(_title(job), []).append(cost)
        ends.append(begins + cost.seconds)
    there = sum(job.is_cell and number in stored for number, job in enumerate(jobs))
    missing = dict.fromkeys(cell.dataset_label for cell in cells if sizes.data(cell.dataset) is None)
    groups = tuple(Group(title, tuple(same)) for title, same in grouped.items())
    told = tuple(
        0.0 if n in stored else None if cost.unknown else max(cost.seconds, _LEAST) for n, cost in enumerate(costs)
    )
    return RunEstimate(groups, there, max(ends, default=0.0), tuple(missing), told)


def _cost(parts: Sequence[Part] | None, table: CostTable, speed: Speed | None) -> JobCost:
    if not parts:
        return JobCost(0.0, 0.0, 0.0, unknown=parts is None)
    if speed is None:
        return JobCost(0.0, 0.0, 0.0, unknown=True)
    seconds = [(part, table.seconds(part, speed)) for part in parts]
    known = [(part, one) for part, one in seconds if one is not None]
    return JobCost(
        sum(one for _, one in known),
        max((table.memory(part) for part, _ in known), default=0.0),
        sum(one for part, one in known if table.beyond(part)),
        unknown=len(known) < len(seconds),
    )


def _title(job: Job) -> str:
    match job.task, job.cell:
        case "ann", _:
            return "training of ANNs"
        case "prepare", _:
            return "evaluation models"
        case _, ReferenceCell():
            return "reference networks"
        case _, NullCell():
            return "attacks on networks that know nothing"
        case _, CheckCell():
            return "attacks at half effort"
        case _, AttackCell() as cell:
            return f"attack {cell.attack.label}"
        case _, UtilityCell() as cell:
            return f"defence {cell.defense.label}"
    return "noise and real images"
