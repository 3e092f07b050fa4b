"""How often intervals of attacks on members hold .5 where nothing is to be found: what the records of runs say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from leakbench.contracts import MembershipAttack
from leakbench.leakage.controls import UNTRAINED
from leakbench.leakage.membership.verdict import CHANCE, HEADLINE, PLACEBO
from leakbench.records import CellRecord, RunRecord, Value

NEGATIVE = {"members against members": (PLACEBO, True), "untrained networks": (HEADLINE, False)}
"""controls of which the AUC is .5: the metric, and whether of every network or of untrained ones alone"""


@dataclass
class Held:
    """How many 95 % intervals of an AUC hold .5 where nothing is to be found."""

    held: int = 0
    intervals: int = 0

    def __str__(self) -> str:
        return f"{self.held:,} of {self.intervals:,}" if self.intervals else "–"

    def count(self, value: Value) -> None:
        """A value with an interval counts."""
        if value.low is not None and value.high is not None:
            self.held += value.low <= CHANCE <= value.high
            self.intervals += 1


def negative_controls(records: Iterable[RunRecord]) -> dict[str, dict[str, Held]]:
    """:data:`NEGATIVE` -> attack -> how many of its intervals hold .5; a cell that several runs have counts once."""
    found: dict[str, dict[str, Held]] = {name: {} for name in NEGATIVE}
    seen = set()
    for record in records:
        for cell in record.cells:
            if cell.leakage != MembershipAttack.leakage or cell.of or (measured := _measured(cell)) in seen:
                continue
            seen.add(measured)
            for value in cell.values:
                for name, (metric, everywhere) in NEGATIVE.items():
                    if value.metric == metric and (everywhere or cell.defense_name == UNTRAINED):
                        found[name].setdefault(cell.attack, Held()).count(value)
    return found


def _measured(cell: CellRecord) -> tuple[object, ...]:
    """What the cell measures: the same attack on the same network, which another machine makes anew and measures
    otherwise."""
    made = str(sorted(cell.defense_params.items())), str(sorted(cell.attack_params.items()))
    network = cell.dataset, cell.model, cell.preset, cell.defense_name, cell.defense_version, cell.timesteps, cell.seed
    found = tuple(value.value for value in cell.values if value.metric in {metric for metric, _ in NEGATIVE.values()})
    return *network, cell.attack, cell.attack_version, *made, *found
