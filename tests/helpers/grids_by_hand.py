"""A small grid written by hand, controls and anchors included, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from by_hand import cell, declared, voted

from leakbench import registry
from leakbench.leakage.inversion.gates import AGREEMENT
from leakbench.leakage.inversion.verdict import conclude
from leakbench.leakage.kind import Evidence
from leakbench.records import AttackRow, CellRecord, Verdict

NEEDS = {"inversion": "WEIGHTS", "direct": "WEIGHTS", "search": "SCORES", "guess": "LABELS"}
CONTROLS = {"ann": None, "han2020": 8, "random": 8}
WORKS, FAILS = 0.0001, 0.5
"""p-values on either side of every level"""
HIGH = [0.6, 0.7, 0.8, 0.7, 0.6, 0.8, 0.7, 0.9, 0.7, 0.5]


def anchors(noise: float = 0.1, real: float = 1.0, **where: Any) -> list[CellRecord]:
    """Noise and real images, and a fresh draw of each."""
    return [
        cell("", name, {"judge_accuracy": share, "kes": share}, control=True, of=of, **where)
        for anchor, share in (("noise", noise), ("real", real))
        for name, of in ((anchor, ""), (f"{anchor} (fresh draw)", anchor))
    ]


def row(label: str, timesteps: int | None = 8, accuracy: float = 0.9, **where: Any) -> CellRecord:
    """A defence's own cell."""
    name = label.partition("[")[0]
    fixed: dict[str, Any] = {"defense_name": name, "control": name in CONTROLS, "timesteps": timesteps}
    return cell(label, "", overall={"accuracy": accuracy, "ann_accuracy": 0.9}, **(fixed | where))


def attacked(
    label: str,
    attack: str,
    share: Any = 0.1,
    p: float | None = FAILS,
    confidence: float = 0.99,
    agreement: float | None = None,
    **where: Any,
) -> CellRecord:
    """An attack on it, of whose images the judges name such a share right; ``agreement``: of its student, if any."""
    name = label.partition("[")[0]
    overall = {
        "p_value": p,
        "victim_confidence": confidence,
        "gradient_steps": 1500.0,
        "queries": 40.0,
        "seconds": 2.5,
        AGREEMENT: agreement,
    }
    known = {metric: value for metric, value in overall.items() if value is not None}
    fixed: dict[str, Any] = {"defense_name": name, "control": name in CONTROLS}
    return cell(label, attack, {"judge_accuracy": share}, known, **({"votes": voted(share)} | fixed | where))


def controls(
    attack: str = "inversion", han: Any = (0.8, WORKS), random: Any = (0.1, FAILS), **where: Any
) -> list[CellRecord]:
    """An attack on the controls: it works on what protects nothing, and draws nothing out of what knows nothing."""
    return [
        attacked("ann", attack, 0.8, WORKS, **where),
        attacked("han2020", attack, *han, **where),
        attacked("random", attack, *random, **where),
    ]


def rows(*labels: str, **where: Any) -> list[CellRecord]:
    return [
        *(row(name, steps, **where) for name, steps in CONTROLS.items()),
        *(row(label, **where) for label in labels),
    ]


BASE = [*anchors(), *rows("mine")]


AUTO, *OTHERS = QUOTED = registry.together("attack", "auto")
STUDENT = "distilled"


def agreement_of(attack: str) -> float | None:
    """Of a student, so much that no decoys are to be feared."""
    return 0.97 if attack == STUDENT else None


def study(*cells: CellRecord, seeds: int = 4) -> list[CellRecord]:
    """The cells, on each of so many networks."""
    return [one.model_copy(update={"seed": seed}) for one in cells for seed in range(seeds)]


def resisting(*attacks: str) -> list[CellRecord]:
    """A grid of one network whose attacks, the recommended among them, work on the controls and find nothing here."""
    cells = [*BASE]
    for name in (*QUOTED, *attacks):
        cells += [*controls(name), attacked("mine", name, 0.1, agreement=agreement_of(name))]
    return cells


def concluded(cells: Sequence[CellRecord]) -> Evidence:
    return conclude(cells, NEEDS, declared())


def told(*cells: CellRecord, of: str = "mine") -> Verdict:
    (verdict,) = [verdict for verdict in concluded(cells).verdicts if verdict.defense == of]
    assert verdict.reason and len(verdict.reason.splitlines()) == 1
    return verdict


def row_of(evidence: Evidence, defense: str, attack: str = "inversion") -> AttackRow:
    (found,) = [one for one in evidence.rows if (one.defense, one.attack) == (defense, attack)]
    return found
