"""Writes docs/results/attacks.md from a run's folder: every attack on every network, over all seeds.

leakbench run --defense datafree,privatesnn --attack all,auto --out runs/attacks
python benchmarks/attack_table.py runs/attacks
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import result_page

from leakbench.leakage.inversion.index import Place, place_of
from leakbench.records import CellRecord, RunRecord

FIRST, LAST = ("ann", "han2020"), "random"
HEADING = ("attack", "on", "judge accuracy", "KES", "victim", "gradient steps", "queries")
SHARES = ("judge_accuracy", "kes", "victim_confidence")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of one data set and model")
    run = parser.parse_args().run
    record = RunRecord.model_validate_json((run / "results.json").read_bytes())
    cells = [cell for cell in record.cells if not cell.of]
    defenses = sorted(
        dict.fromkeys(cell.defense for cell in cells if cell.defense),
        key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name == LAST),
    )
    rows = []
    for attack in dict.fromkeys(cell.attack for cell in cells if cell.attack and cell.defense):
        for number, defense in enumerate(defenses):
            here = [cell for cell in cells if (cell.defense, cell.attack) == (defense, attack)]
            rows.append([f"`{attack}`" if not number else "", defense, *_row(here)])
    seeds = len({cell.seed for cell in cells})
    images = next(value.n for cell in cells if cell.attack for value in cell.values if value.metric == SHARES[0])
    result_page.write(
        "attacks.md",
        "Every attack on every network, measured",
        f"{record.datasets[0].name}, {cells[-1].model}, {seeds} trained network{'s' if seeds > 1 else ''}, {images} "
        "images an attack and network, T = "
        f"{max(cell.timesteps or 0 for cell in cells)}. Shares have 95 % intervals, cut to [0, 1]; steps and "
        "queries are means. [The attacks](../attacks.md) says how to read the columns.",
        result_page.of_run(record, "runs/attacks", "python benchmarks/attack_table.py runs/attacks"),
        result_page.table(HEADING, rows),
    )


def _row(cells: list[CellRecord]) -> list[str]:
    place = place_of(cells)
    if not place:
        return [f"{cells[0].status}: {cells[0].reason}", *[""] * (len(HEADING) - 3)]
    costs = [f"{place.mean(name) or 0:,.0f}" for name in ("gradient_steps", "queries")]
    return [*(_shown(place, name) for name in SHARES), *costs]


def _shown(place: Place, metric: str) -> str:
    """A share with its interval, cut to [0, 1]; without one where there is a single value, or all seeds agree."""
    estimate = place.estimate(metric)
    if estimate is None:
        return ""
    low, high = max(0.0, estimate.low), min(1.0, estimate.high)
    return f"{estimate.value:.2f}" if math.isnan(estimate.low) else f"{estimate.value:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
