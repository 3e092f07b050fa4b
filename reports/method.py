"""With what a run was made: parameters of every row, keys of every artifact, names of every metric."""

from __future__ import annotations

import json
from dataclasses import dataclass

from leakbench.bench.records import CellRecord, RunRecord
from leakbench.reports.summary import label_of
from leakbench.reports.vocabulary import STATUSES, Metric, describe, in_full


@dataclass(frozen=True)
class Row:
    """A row of the grid with its parameters as text."""

    kind: str
    label: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Artifact:
    """Where in the store a cell's artifact lies."""

    cell: str
    role: str
    key: str


@dataclass(frozen=True)
class Judge:
    """A judge, its accuracies written out."""

    name: str
    dataset: str
    accuracy: str
    corrupted: str
    summary: str


@dataclass(frozen=True)
class Synthetic:
    """A synthetic set, its numbers written out."""

    key: str
    dataset: str
    model: str
    seed: int
    count: str
    agreement: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Method:
    """What the last two parts of the page list."""

    rows: tuple[Row, ...]
    judges: tuple[Judge, ...]
    synthetic: tuple[Synthetic, ...]
    metrics: tuple[Metric, ...]
    artifacts: tuple[Artifact, ...]
    seeds: str
    statuses: str
    checks: str
    """statuses of the cells that repeat another as a check; empty where there are none"""
    grid: str


def collect(record: RunRecord) -> Method:
    """Everything in the order of the record, nothing twice."""
    grid, checks = ([cell for cell in record.cells if bool(cell.of) == check] for check in (False, True))
    names = dict.fromkeys(value.metric for cell in grid for value in cell.values)
    accuracy = describe("accuracy")
    seeds = sorted({cell.seed for cell in record.cells})
    return Method(
        rows=tuple(_rows(grid)),
        judges=tuple(
            Judge(
                judge.name,
                judge.dataset,
                in_full(accuracy, judge.accuracy),
                in_full(accuracy, judge.corrupted),
                judge.summary,
            )
            for judge in record.judges
        ),
        synthetic=tuple(
            Synthetic(
                found.key,
                found.dataset,
                found.model,
                found.seed,
                f"{found.count:,}",
                f"{found.teacher_agreement:.3f}",
                _texts(found.params),
            )
            for found in record.synthetic
        ),
        metrics=tuple(describe(name) for name in names),
        artifacts=tuple(_artifacts(record.cells)),
        seeds=", ".join(str(seed) for seed in seeds) or "–",
        statuses=_statuses(grid),
        checks=_statuses(checks) if checks else "",
        grid=json.dumps(record.grid, indent=2, ensure_ascii=False, default=str),
    )


def _rows(cells: list[CellRecord]) -> list[Row]:
    rows = [Row("defence", cell.defense, _texts(cell.defense_params)) for cell in cells if cell.defense]
    rows += [Row("attack", cell.attack, _of_attack(cell)) for cell in cells if cell.defense and cell.attack]
    # A cell that never ran may know no parameters; that says nothing where another one does.
    known = {(row.kind, row.label) for row in rows if row.parameters}
    return [row for row in dict.fromkeys(rows) if row.parameters or (row.kind, row.label) not in known]


def _of_attack(cell: CellRecord) -> tuple[tuple[str, str], ...]:
    """Its parameters, and what else it was given."""
    return _texts(cell.attack_params) + ((("public images", cell.public),) if cell.public else ())


def _texts(parameters: dict[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value if isinstance(value, str) else json.dumps(value)) for key, value in parameters.items())


def _artifacts(cells: list[CellRecord]) -> list[Artifact]:
    found: dict[tuple[str, str], Artifact] = {}
    for cell in cells:
        for role, key in cell.artifacts.items():
            # A shared artifact (the ANN, a victim) stands once, at the first cell that names it.
            found.setdefault((role, key), Artifact(f"{label_of(cell)}, seed {cell.seed}", role, key))
    return list(found.values())


def _statuses(cells: list[CellRecord]) -> str:
    counts = {status: sum(cell.status == status for cell in cells) for status in STATUSES}
    return ", ".join(f"{count} {STATUSES[status]}" for status, count in counts.items() if count or status == "ok")
