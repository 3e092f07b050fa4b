"""What a grid says of membership: an attack's row is valid or not, and a defence leaks or nothing is concluded.

An attack must succeed on a network that memorises its training images (M1) and on none that was never trained
(M2). That an average over all images is at chance is no evidence of privacy, so no verdict here says "resists".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leakbench.contracts import MembershipAttack
from leakbench.leakage.controls import OVERFITTED, UNTRAINED
from leakbench.leakage.kind import Evidence, GateRule, index_line
from leakbench.leakage.seed_group import Declarations, SeedGroup, seed_group
from leakbench.metrics.estimate import Estimate
from leakbench.records import AttackRow, CellRecord, Gate, Index, Validity, Verdict

HEADLINE = "membership_auc"
P = "membership_p"
ALPHA = 0.01
"""level of a test, over all attacks that were tried"""
CHANCE = 0.5
INDEX = "twice the AUC less one, cut to 0 to 1"
GATES = (
    GateRule(
        "M1",
        "The attack must succeed on the overfitted network, which memorises its training images: the reference for "
        "what this attack can find; else it is invalid.",
        voids_leaks=True,
    ),
    GateRule(
        "M2",
        "It must find nothing on the untrained network, which has no members; else it is invalid.",
        voids_leaks=True,
    ),
)


def conclude(cells: Sequence[CellRecord], declared: Declarations) -> Evidence:
    """Rows and verdicts of every data set and model."""
    rows: list[AttackRow] = []
    verdicts: list[Verdict] = []
    for dataset, model in dict.fromkeys((cell.dataset, cell.model) for cell in cells):
        here = [cell for cell in cells if (cell.dataset, cell.model) == (dataset, model)]
        group = _Group(here, declared)
        group_rows = group.rows()
        rows += group_rows
        verdicts += [_verdict(dataset, model, label, group, group_rows) for label in group.in_question]
    return Evidence(rows=rows, verdicts=verdicts)


@dataclass(frozen=True)
class _Group:
    cells: Sequence[CellRecord]
    declared: Declarations

    @property
    def attacked(self) -> list[CellRecord]:
        return [cell for cell in self.cells if cell.attack and not cell.of]

    @property
    def in_question(self) -> list[str]:
        return list(dict.fromkeys(cell.defense for cell in self.attacked if not cell.control))

    def seed_group(self, defense: str, attack: str) -> SeedGroup:
        cells = (c for c in self.attacked if (c.defense, c.attack) == (defense, attack))
        return seed_group(cells, self.declared)

    def control(self, plugin: str, attack: str) -> SeedGroup:
        """The attack on the control that this plugin makes; empty where it was not run."""
        label = next((c.defense for c in self.attacked if c.defense_name == plugin), "")
        return self.seed_group(label, attack)

    def rows(self) -> list[AttackRow]:
        pairs = dict.fromkeys((cell.defense, cell.attack) for cell in self.attacked)
        return [row for defense, attack in pairs if (row := self._row(defense, attack)) is not None]

    def _row(self, defense: str, attack: str) -> AttackRow | None:
        seeds = self.seed_group(defense, attack)
        area = seeds.estimate(HEADLINE)
        if area is None:
            return None
        gates = [_works(self.control(OVERFITTED, attack)), _silent(self.control(UNTRAINED, attack))]
        failed = [gate for gate in gates if gate.passed is False]
        tried = sum(self.seed_group(defense, name).estimate(HEADLINE) is not None for name in self._attacks(defense))
        p = seeds.combined_p(P)
        leaks = p is not None and _above_chance(area, p * tried) and not failed
        validity: Validity = "invalid" if failed else "valid"
        reason = "; ".join(f"{gate.name}: {gate.reason}" for gate in failed)
        return AttackRow(
            leakage=MembershipAttack.leakage,
            dataset=seeds.cells[0].dataset,
            model=seeds.cells[0].model,
            defense=defense,
            attack=attack,
            control=seeds.cells[0].control,
            validity=validity,
            reason=reason or ("distinguishes members from non-members" if leaks else "fails no gate; not significant"),
            leaks=leaks,
            p=p,
            gates=gates,
            indices=[index_of(area)],
            queries=seeds.mean("queries") or 0.0,
            gradient_steps=seeds.mean("gradient_steps") or 0.0,
            seconds=seeds.mean("seconds") or 0.0,
        )

    def _attacks(self, defense: str) -> list[str]:
        return list(dict.fromkeys(cell.attack for cell in self.attacked if cell.defense == defense))


def index_of(area: Estimate) -> Index:
    """From an area under the ROC curve to an index: 0 at chance, 1 where every member scores above every other."""
    value, low, high = (_clipped(2 * x - 1) for x in (area.value, area.low, area.high))
    return Index(metric=HEADLINE, value=value, low=low, high=high, n=area.n, null="chance")


def _clipped(x: float) -> float | None:
    return None if math.isnan(x) else min(1.0, max(0.0, x))


def _works(control: SeedGroup) -> Gate:
    """M1: members of a network that memorises them are found, or the attack's failures mean nothing."""
    area, p = control.estimate(HEADLINE), control.combined_p(P)
    if area is None or p is None:
        return Gate(name="M1", passed=None, reason="the overfitted network was not attacked")
    return Gate(name="M1", passed=_above_chance(area, p), reason=f"{_text(area, p)} on an overfitted network")


def _silent(control: SeedGroup) -> Gate:
    """M2: a network that was never trained has no members; what is found there is a flaw of the test."""
    area, p = control.estimate(HEADLINE), control.combined_p(P)
    if area is None or p is None:
        return Gate(name="M2", passed=None, reason="no untrained network was attacked")
    return Gate(name="M2", passed=not _above_chance(area, p), reason=f"{_text(area, p)} on an untrained network")


def _above_chance(area: Estimate, p: float) -> bool:
    return p < ALPHA and area.value > CHANCE


def _text(area: Estimate, p: float) -> str:
    return f"AUC {area.value:.3f}, p {'< 0.0001' if p < 0.0001 else f'= {p:.4f}'}"


def _verdict(dataset: str, model: str, defense: str, group: _Group, rows: Sequence[AttackRow]) -> Verdict:
    """The worst case over the valid attacks on a defence."""
    tried = [row for row in rows if row.defense == defense]
    valid = [row for row in tried if row.validity == "valid"]
    leaking = [row for row in valid if row.leaks]
    worst = max(leaking or valid, key=lambda row: row.indices[0].value or 0.0, default=None)
    if worst is not None and leaking:
        area = group.seed_group(defense, worst.attack).estimate(HEADLINE)
        reason = (
            f"{worst.attack} distinguishes members from non-members: AUC {area.value:.3f}" if area else worst.attack
        )
        reason += (
            f" ({CHANCE:g} is chance), index {index_line(worst.indices[0])}; {len(leaking)} of {len(tried)} attacks do."
        )
    elif worst is not None:
        reason = (
            f"{', '.join(row.attack for row in valid)}: no membership leak found on average. That is no evidence of "
            "privacy: individual images may still be identifiable"
        )
    else:
        reason = "no valid attack: " + "; ".join(f"{row.attack}: {row.validity} ({row.reason})" for row in tried)
        reason = reason if tried else "no attack on it gave scores"
    return Verdict(
        leakage=MembershipAttack.leakage,
        dataset=dataset,
        model=model,
        defense=defense,
        outcome="leaks" if leaking else "inconclusive",
        attack=worst.attack if worst else "",
        index=worst.indices[0] if worst else None,
        reason=reason,
    )
