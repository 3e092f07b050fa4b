"""The table of docs/attacks.md from a run's folder: every attack on every network, over all seeds.

leakbench run --defense datafree --defense privatesnn --attack all --attack auto --seeds 3 --out runs/attacks
python benchmarks/attack_table.py runs/attacks
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from leakbench.leakage.inversion.index import Place, place_of
from leakbench.records import CellRecord, RunRecord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of one data set and model")
    record = RunRecord.model_validate_json((parser.parse_args().run / "results.json").read_bytes())
    cells = [cell for cell in record.cells if not cell.of]
    order = ("ann", "han2020")
    defenses = sorted(
        {c.defense: None for c in cells if c.defense},
        key=lambda d: (order.index(d) if d in order else 2, d == "random"),
    )
    seeds = len({cell.seed for cell in cells})
    print(f"{record.datasets[0].name}, {seeds} network{'s' * (seeds > 1)}, {record.command}")
    print()
    print("| attack | on | judges | KES | victim | seconds | gradient steps | queries |")
    print("|---|---|---|---|---|---|---|---|")
    for attack in {c.attack: None for c in cells if c.attack and c.defense}:
        for number, defense in enumerate(defenses):
            own = [c for c in cells if (c.defense, c.attack) == (defense, attack)]
            print(f"| {f'`{attack}`' if not number else ''} | {defense} | {_row(own)} |")


def _row(cells: list[CellRecord]) -> str:
    place = place_of(cells)
    if not place:
        return f"{cells[0].status}: {cells[0].reason} | | | | |"
    sizes = [f"{place.mean(name) or 0:,.0f}" for name in ("gradient_steps", "queries")]
    seconds = f"{place.mean('seconds') or 0:.1f}"
    return " | ".join(
        [*(_shown(place, name) for name in ("judge_accuracy", "kes", "victim_confidence")), seconds, *sizes]
    )


def _shown(place: Place, metric: str) -> str:
    """A share with its interval, cut to [0, 1]; without one where there is a single value, or all seeds agree."""
    found = place.estimate(metric)
    if found is None:
        return ""
    low, high = max(0.0, found.low), min(1.0, found.high)
    return f"{found.value:.2f}" if math.isnan(found.low) else f"{found.value:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
