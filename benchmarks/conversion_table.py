"""The tables of docs/conversions.md from runs' folders: accuracy over T, and what each method leaks.

leakbench run --dataset fashion-mnist --attack none --timesteps 8,16,32,64,128,500 --no-controls \\
    --defense diehl2015,rueckauer2017,sengupta2019,... --out runs/conversions
python benchmarks/conversion_table.py runs/conversions
leakbench run --suite paper --out runs/paper
python benchmarks/conversion_table.py --leakage runs/paper
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from leakbench.leakage.inversion.index import place_of
from leakbench.metrics.estimate import Estimate
from leakbench.records import CellRecord, RunRecord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="folders of runs of one data set and model")
    parser.add_argument("--leakage", action="store_true", help="training images read and worst case, a line a method")
    given = parser.parse_args()
    records = [RunRecord.model_validate_json((run / "results.json").read_bytes()) for run in given.run]
    for record in records:
        print(f"{record.datasets[0].name}: {record.command}\n")
    if given.leakage:
        _leakage(records)
    else:
        _accuracy([cell for record in records for cell in record.cells if cell.defense and not cell.attack])


def _accuracy(cells: list[CellRecord]) -> None:
    steps = sorted({cell.timesteps for cell in cells if cell.timesteps is not None})
    print(f"| method | its ANN read out | {' | '.join(f'T = {t}' for t in steps)} |")
    print("|---" * (len(steps) + 2) + "|")
    for method in dict.fromkeys(map(_method, cells)):
        # a suite has the same network in several of its grids: once a seed and T
        own = list({(cell.seed, cell.timesteps): cell for cell in cells if _method(cell) == method}.values())
        label = own[0].defense.partition("[T=")[0].replace(",T=", " T=")
        at = [_shown([cell for cell in own if cell.timesteps == t], "accuracy") for t in steps]
        print(f"| `{label}` | {_shown(own[:1], 'reconverted_accuracy')} | {' | '.join(at)} |")


def _method(cell: CellRecord) -> tuple[str, ...]:
    return cell.dataset, cell.model, cell.defense_name, str(cell.defense_params)


def _leakage(records: list[RunRecord]) -> None:
    print("| method | network | training images read | accuracy | worst attack | leakage index | verdict |")
    print("|---|---|---|---|---|---|---|")
    for record in records:
        for verdict in record.verdicts:
            where = (verdict.dataset, verdict.model, verdict.defense)
            own = [c for c in record.cells if (c.dataset, c.model, c.defense) == where and not c.attack]
            index = verdict.index
            said = "–" if index is None or index.value is None else _text(index.value, index.low, index.high)
            read = place_of(own).mean("training_images_read")
            if read is None:
                print(f"| `{verdict.defense}` | {verdict.model} | {own[0].status}: {own[0].reason} | | | | |")
                continue
            cells = [verdict.model, f"{read:,.0f}", _shown(own, "accuracy"), verdict.attack or "–", said]
            print(f"| `{verdict.defense}` | {' | '.join(cells)} | {verdict.outcome} |")


def _shown(cells: list[CellRecord], metric: str) -> str:
    found: Estimate | None = place_of(cells).estimate(metric) if cells else None
    if found is None:
        return cells[0].status if cells else ""
    return _text(found.value, found.low, found.high)


def _text(value: float, low: float | None, high: float | None) -> str:
    if low is None or high is None or math.isnan(low):
        return f"{value:.3f}"
    return f"{value:.3f} [{max(0.0, low):.3f}, {min(1.0, high):.3f}]"


if __name__ == "__main__":
    main()
