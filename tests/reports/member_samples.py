"""Records of attacks on members, built by hand."""

from __future__ import annotations

from typing import Any

from by_hand import declared
from report_samples import cell, record
from suite_samples import alone

from leakbench.leakage.membership.verdict import conclude
from leakbench.records import CellRecord, RunRecord, Value


def attacked(label: str, area: float, attack: str = "a", p: float = 1e-6, **given: Any) -> CellRecord:
    """An attack on members; it finds three times as many at 1 % FPR as its AUC is above chance."""
    found = max(0.01, 3 * (area - 0.5))
    values = [
        Value(metric="membership_auc", value=area, low=area - 0.03, high=area + 0.03, n=356),
        Value(metric="membership_p", value=p),
        Value(metric="membership_tpr_at_1pct_fpr", value=found, low=found / 2, high=min(1.0, 2 * found), n=178),
        Value(metric="audited_epsilon", value=2 * (area - 0.5), n=356),
    ]
    return cell(label, attack, leakage="membership", values=values, **given)


def members(*cells: CellRecord, attacks: tuple[str, ...] = ("a",)) -> RunRecord:
    """The run of them, its controls as they should be."""
    controls = [
        attacked(name, area, attack, p, control=True)
        for attack in attacks
        for name, area, p in (("overfitted", 0.9, 1e-9), ("random", 0.5, 0.5), ("unseen", 0.5, 0.5))
    ]
    every = [*cells, *controls]
    evidence = conclude([one for one in every if one.attack], declared())
    return record(every, rows=evidence.rows, verdicts=evidence.verdicts)


def over_timesteps(name: str, *areas: float, attack: str = "a") -> list[CellRecord]:
    """The defence at T = 8, 16, ..., attacked at each."""
    found = []
    for number, area in enumerate(areas):
        steps, label = 8 * 2**number, f"{name}[T={8 * 2**number}]"
        found += alone(label, 0.9, steps, defense_name=name)
        found.append(attacked(label, area, attack, timesteps=steps, defense_name=name))
    return found
