"""What a comparison writes: comparison.json. Its page and tables derive from this alone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from leakbench.leakage import compared_kind
from leakbench.metrics.accuracy import AccuracyDrop
from leakbench.metrics.metric import Declaration
from leakbench.records import Environment, Index, Record, Validity, Value, VerdictOutcome

COMPARISON_SCHEMA = 5
LEVEL = 0.05
"""of the adjusted p below which a difference is significant"""
ENERGY = "energy_ratio_int32"
DROP = AccuracyDrop.name
Quantity = Literal["leakage", "area", "accuracy", "energy_ratio_int32"]
Relation = Literal["less", "more", "not distinguishable", "not tested"]


class ComparedRun(Record):
    """A run that took part."""

    name: str = Field(description="the run's folder, made unique among those compared")
    created: str
    leakbench: str
    command: str
    complete: bool
    protocol: str = Field("", description="that the run follows; empty where it follows none")
    seeds: list[int]
    environments: list[Environment]


class ComparedAttack(Record):
    """What one attack got out of one defence, all seeds together."""

    attack: str = Field(description="label, one for each attack with its settings")
    plugin: str = Field(description="the attack's own name")
    access: str
    status: str = Field("ok", description="of its cells: failed where one of them failed")
    reason: str = Field("", description="why the status is not ok or the row not valid")
    validity: Validity | None = Field(None, description="None where no cell was evaluated")
    unchecked: list[str] = Field([], description="gates that could not be checked")
    leaks: bool = False
    index: Index | None = None
    limited: list[Index] = Field([], description="indices that a limit is checked on: of members single images' too")
    queries: float | None = None
    gradient_steps: float | None = None
    seconds: float | None = None


class ComparedThreat(Record):
    """What attackers with so much access got out of one defence."""

    access: str
    attack: str = Field(description="the worst case over the attacks that need no more, as labelled here")
    index: Index


class ComparedLeakage(Record):
    """What the attacks after one kind of leak got out of one defence, all seeds together."""

    leakage: str = Field(description="the kind of leak")
    outcome: VerdictOutcome | None = Field(description="None where nothing was attacked")
    reason: str
    attacks: list[ComparedAttack]
    comparable: bool = Field(True, description="whether nothing is known to leak more than what the attacks show")


class ComparedDefense(Record):
    """One defence of one run."""

    label: str = Field(description="unique in the comparison: says what tells it from others of the same name")
    runs: list[str] = Field(description="several where they hold the very same networks and images")
    dataset: str
    model: str
    defense: str = Field(description="its label in its run")
    plugin: str
    params: dict[str, Any]
    version: int | None
    source: str
    preset: str
    protocol: str = Field("", description="that its run follows, of several all")
    timesteps: int | None
    seeds: list[int]
    failed: list[int] = Field([], description="seeds at which it could not be built or measured")
    images: list[int] = Field([], description="of each class, that attacks made")
    anns: dict[int, str] = Field(description="seed -> key of the ANN that it was built from")
    values: list[Value] = Field(description="accuracy, energy and cost of the defence itself, over seeds")
    outcome: VerdictOutcome | None = Field(description="None where nothing was attacked")
    reason: str
    attack: str = Field("", description="the worst case")
    index: Index | None = Field(None, description="of the worst case")
    threats: list[ComparedThreat] = Field([], description="by rising access, where anything was run with so little")
    attacks: list[ComparedAttack]
    other_leakage: list[ComparedLeakage] = Field([], description="of the kinds of leak that it is not compared in")
    rank: tuple[int, int] | None = Field(None, description="first and last rank that it may have, 1 leaks least")
    area: Value | None = Field(
        None, description="under the index over the attacker's log cost, as a share of the whole: 0 to 1"
    )
    area_rank: tuple[int, int] | None = Field(None, description="the same as the rank, by the area")
    unranked: str = Field("", description="why it has no rank")

    def value(self, metric: str) -> Value | None:
        """One of its values by name."""
        return next((value for value in self.values if value.metric == metric), None)

    @property
    def leakage(self) -> dict[str, ComparedLeakage]:
        """By kind of leak, of every kind that attacks on it were after."""
        compared = ComparedLeakage(
            leakage=compared_kind().name, outcome=self.outcome, reason=self.reason, attacks=self.attacks
        )
        attacked = [compared] if self.outcome or self.attacks else []
        return {one.leakage: one for one in (*attacked, *self.other_leakage)}


class Pair(Record):
    """How much more of something the first defence has than the second."""

    dataset: str
    first: str
    second: str
    quantity: Quantity
    attack: str = Field("", description="the attack whose leakage is compared; empty for the worst case")
    value: float | None = None
    low: float | None = Field(None, description="of this difference's own 95 % interval")
    high: float | None = None
    p: float | None = None
    adjusted: float | None = Field(None, description="p, corrected for the number of pairs (Holm)")
    paired: bool = False
    relation: Relation = "not tested"
    basis: str = Field(description="what the difference rests on, or why there is none")
    marks: list[str] = Field([], description="why the two should not be compared (--anyway)")


class Setting(Record):
    """Something that is not the same everywhere."""

    name: str
    values: dict[str, str] = Field(description="run or label -> value")


class Comparison(Record):
    """Defences side by side, as written to comparison.json."""

    schema_version: int = COMPARISON_SCHEMA
    leakbench: str
    created: str = Field(description="of the newest run: ISO 8601, UTC")
    runs: list[ComparedRun]
    metrics: list[Declaration] = Field([], description="what the runs say of their metrics, the newest run first asked")
    defenses: list[ComparedDefense] = Field(description="by data set, those that leak least first, unranked ones last")
    attacks: dict[str, dict[str, Any]] = Field(description="label of an attack -> its settings")
    pairs: list[Pair]
    differs: list[Setting]
    obstacles: list[str] = Field(description="why the runs should not be compared (--anyway)")

    def datasets(self) -> list[str]:
        """In the order of the defences."""
        return list(dict.fromkeys(one.dataset for one in self.defenses))
