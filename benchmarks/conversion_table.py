"""Writes docs/results/conversions.md from a run of the paper's suite: accuracy over T, and private images read.

leakbench run --suite paper --dataset digits --preset quick --seeds 3 --out runs/paper-digits
python benchmarks/conversion_table.py runs/paper-digits
"""

from __future__ import annotations

import math
import re

import result_page

from leakbench.leakage.seed_group import Declarations, seed_group
from leakbench.records import CellRecord, RunRecord


def main() -> None:
    folder, record = result_page.read_run(__doc__)
    data = record.datasets[0]
    declared = {metric.name: metric for metric in record.metrics}
    seeds = len({cell.seed for cell in record.cells})
    result_page.write(
        "conversions.md",
        "Every method, measured",
        f"{data.name}, {data.test_images:,} test images, {seeds} trained network{'s' if seeds > 1 else ''}, 95 % "
        "intervals. [Every method](../conversions.md) says what each of them is.",
        result_page.of_run(record, folder, f"python benchmarks/conversion_table.py {folder}"),
        "## Accuracy over T",
        "The second column is the accuracy of the ANN that is reconverted from the spiking network (from that of the "
        "shortest T, where each T is a network).",
        _accuracy([cell for cell in record.cells if cell.defense and not cell.attack and cell.timesteps], declared),
        "## Private images",
        "At the preset's number of time steps. What the methods leak is [ranked](ranking-digits.md).",
        _images_read(record, declared),
    )


def _accuracy(cells: list[CellRecord], declared: Declarations) -> str:
    methods: dict[tuple[str, ...], dict[tuple[int, int], CellRecord]] = {}
    for cell in cells:
        # a suite has the same network in several of its grids: once a seed and T
        methods.setdefault(_method(cell), {}).setdefault((cell.seed, cell.timesteps or 0), cell)
    swept = [list(found.values()) for found in methods.values() if len({steps for _, steps in found}) > 1]
    steps = sorted({cell.timesteps or 0 for found in swept for cell in found})
    rows = [
        [
            f"`{re.sub(r',T=[0-9]+|.T=[0-9]+.$', '', found[0].defense)}`",
            _shown(_shortest(found), "reconverted_accuracy", declared),
            *(_shown([cell for cell in found if cell.timesteps == one], "accuracy", declared) for one in steps),
        ]
        for found in swept
    ]
    return result_page.table(["method", "reconverted ANN", *(f"T = {one}" for one in steps)], rows)


def _shortest(found: list[CellRecord]) -> list[CellRecord]:
    """Of every seed at the shortest T."""
    least = min(cell.timesteps or 0 for cell in found)
    return [cell for cell in found if (cell.timesteps or 0) == least]


def _method(cell: CellRecord) -> tuple[str, ...]:
    return cell.dataset, cell.model, cell.defense_name, str(cell.defense_params)


def _images_read(record: RunRecord, declared: Declarations) -> str:
    rows = []
    for verdict in record.verdicts:
        where = (verdict.dataset, verdict.model, verdict.defense)
        cells = [c for c in record.cells if (c.dataset, c.model, c.defense) == where and not c.attack]
        images_read = seed_group(cells, declared).mean("training_images_read")
        if images_read is None:
            values = [f"{cells[0].status}: {cells[0].reason}", "", ""]
        else:
            values = [f"{images_read:,.0f}", str(cells[0].timesteps or "an ANN"), _shown(cells, "accuracy", declared)]
        rows.append([f"`{verdict.defense}`", verdict.model, *values])
    return result_page.table(["method", "network", "training images read", "T", "accuracy"], rows)


def _shown(cells: list[CellRecord], metric: str, declared: Declarations) -> str:
    estimate = seed_group(cells, declared).estimate(metric) if cells else None
    if estimate is None:
        return cells[0].status if cells and cells[0].status != "ok" else ""
    return _text(estimate.value, estimate.low, estimate.high)


def _text(value: float, low: float | None, high: float | None) -> str:
    if low is None or high is None or math.isnan(low):
        return f"{value:.3f}"
    return f"{value:.3f} [{max(0.0, low):.3f}, {min(1.0, high):.3f}]"


if __name__ == "__main__":
    main()
