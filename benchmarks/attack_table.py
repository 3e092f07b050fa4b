"""Writes docs/results/attacks.md from a run's folder: every attack on classes, on every network, over all seeds.

A=reconversion,direct,inversion,analog_twin,surrogate_zoo,spsa,extraction,decrypt,generative_prior,evolution,label_only
leakbench run -d privatesnn -a $A,auto --dataset digits --seeds 3 --null-networks 0 --out runs/attacks
python benchmarks/attack_table.py runs/attacks
"""

from __future__ import annotations

import math

import result_page

from leakbench.contracts import Attack
from leakbench.leakage.controls import ANN, UNPROTECTED, UNTRAINED
from leakbench.leakage.seed_group import Declarations, SeedGroup, seed_group
from leakbench.records import CellRecord

FIRST, LAST = (ANN, UNPROTECTED), UNTRAINED
HEADING = ("attack", "on", "judge accuracy", "KES", "victim", "gradient steps", "queries")
SHARES = ("judge_accuracy", "kes", "victim_confidence")


def main() -> None:
    folder, record = result_page.read_run(__doc__)
    model = next(cell.model for cell in record.cells if cell.model)
    cells = [
        cell
        for cell in record.cells
        if not cell.of and cell.leakage == Attack.leakage and cell.model == model and cell.defense
    ]
    defenses = sorted(
        dict.fromkeys(cell.defense for cell in cells),
        key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name == LAST),
    )
    declared = {metric.name: metric for metric in record.metrics}
    rows = []
    for attack in dict.fromkeys(cell.attack for cell in cells):
        for number, defense in enumerate(defenses):
            here = [cell for cell in cells if (cell.defense, cell.attack) == (defense, attack)]
            if any(cell.status != "not-applicable" for cell in here):
                rows.append([f"`{attack}`" if not number else "", f"`{defense}`", *_row(here, declared)])
    seeds = len({cell.seed for cell in cells})
    images = next(value.n for cell in cells for value in cell.values if value.metric == SHARES[0])
    result_page.write(
        "attacks.md",
        "Attacks on networks, measured",
        f"{record.datasets[0].name}, {model}, {seeds} trained network{'s' if seeds > 1 else ''}, {images} "
        "images an attack and network. Shares have 95 % intervals, cut to [0, 1]; steps and queries are means. "
        "[The attacks](../attacks.md) says how to read the columns.",
        result_page.of_run(record, folder, f"python benchmarks/attack_table.py {folder}"),
        result_page.table(HEADING, rows),
    )


def _row(cells: list[CellRecord], declared: Declarations) -> list[str]:
    group = seed_group(cells, declared)
    if not group:
        return [f"{cells[0].status}: {cells[0].reason}", *[""] * (len(HEADING) - 3)]
    costs = [f"{group.mean(name) or 0:,.0f}" for name in ("gradient_steps", "queries")]
    return [*(_shown(group, name) for name in SHARES), *costs]


def _shown(group: SeedGroup, metric: str) -> str:
    """A share with its interval, cut to [0, 1]; without one where there is a single value, or all seeds agree."""
    estimate = group.estimate(metric)
    if estimate is None:
        return ""
    low, high = max(0.0, estimate.low), min(1.0, estimate.high)
    return f"{estimate.value:.2f}" if math.isnan(estimate.low) else f"{estimate.value:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
