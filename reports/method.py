"""With what a run was made: parameters of every row, keys of every artifact, names of every metric."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from leakbench.metrics.metric import Declaration
from leakbench.records import CellRecord, PluginInfo, RunRecord
from leakbench.reports.paper import CITATION, Beside, beside, unlike_paper
from leakbench.reports.report import Report
from leakbench.reports.summary import Group, label_of
from leakbench.reports.vocabulary import STATUSES, Vocabulary, in_full

SOURCE_DIGITS = 12
"""of a source's sha256 that tables show; the records and results.csv have all of them"""


@dataclass(frozen=True)
class Row:
    """A row of the grid with all that it was made with as text."""

    kind: str
    label: str
    parameters: tuple[tuple[str, str], ...]
    timesteps: str
    """T of a defence; empty for an attack, which runs at its victim's"""
    preset: str
    version: str
    source: str
    """sha256 of the plugin's file; empty for built-ins"""
    where: str = ""
    """data set and model, where the same label was made with something else on others"""


@dataclass(frozen=True)
class Artifact:
    """Where in the store a cell's artifact lies."""

    cell: str
    role: str
    key: str


OPEN_SET = {
    "real": "real test images, accepted and classified correctly",
    "corrupted": "the same with noise and blur",
    "noise": "noise of several spectra, accepted",
    "phases": "real images with random phases, accepted",
    "patches": "real images with shuffled patches, accepted",
    "photographs": "crops of photographs, accepted",
    "other classes": "real images of classes that were not attacked, accepted",
}
"""what the ensemble is shown -> words"""


@dataclass(frozen=True)
class Judge:
    """A judge, its accuracies written out."""

    name: str
    dataset: str
    accuracy: str
    corrupted: str
    summary: str
    open_set: tuple[tuple[str, str], ...]
    """images and the share accepted, of an ensemble that may see no class"""


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
    metrics: tuple[Declaration, ...]
    artifacts: tuple[Artifact, ...]
    seeds: str
    statuses: str
    checks: str
    """statuses of the cells that repeat another as a check; empty where there are none"""
    nulls: str
    """the same of attacks on networks that know nothing"""
    grid: str


@dataclass(frozen=True)
class Compared:
    """Numbers of one data set and model with those that the paper printed."""

    group: Group
    paper: list[Beside]
    departures: list[str]


def section(report: Report) -> dict[str, Any]:
    views = [
        Compared(group, printed, unlike_paper(group, report.record.datasets))
        for group in report.groups
        if (printed := beside(group))
    ]
    return {"views": views, "citation": CITATION, "source_digits": SOURCE_DIGITS}


def collect(record: RunRecord) -> Method:
    """Everything in the order of the record, nothing twice."""
    grid = [cell for cell in record.cells if not cell.check]
    nulls = [cell for cell in record.cells if cell.check == "null network"]
    checks = [cell for cell in record.cells if cell.check in ("half effort", "fresh draw")]
    names = dict.fromkeys(value.metric for cell in grid for value in cell.values)
    vocabulary = Vocabulary(record.metrics)
    seeds = sorted({cell.seed for cell in record.cells})
    return Method(
        rows=tuple(rows(record)),
        judges=tuple(
            Judge(
                judge.name,
                judge.dataset,
                in_full("share", judge.accuracy),
                in_full("share", judge.corrupted),
                judge.summary,
                tuple((OPEN_SET.get(one.images, one.images), in_full("share", one.share)) for one in judge.open_set),
            )
            for judge in record.judges
        ),
        synthetic=tuple(
            Synthetic(
                synthetic.key,
                synthetic.dataset,
                synthetic.model,
                synthetic.seed,
                f"{synthetic.count:,}",
                f"{synthetic.teacher_agreement:.3f}",
                _texts(synthetic.params),
            )
            for synthetic in record.synthetic
        ),
        metrics=tuple(vocabulary.describe(name) for name in names),
        artifacts=tuple(_artifacts(record.cells)),
        seeds=", ".join(str(seed) for seed in seeds) or "–",
        statuses=_statuses(grid),
        checks=_statuses(checks) if checks else "",
        nulls=_statuses(nulls) if nulls else "",
        grid=json.dumps(record.grid, indent=2, ensure_ascii=False, default=str),
    )


def rows(record: RunRecord) -> list[Row]:
    """With what each label of the grid was made, in the record's order; a label that is made alike everywhere once.
    Then the metrics, models and data sets of third parties."""
    cells = [cell for cell in record.cells if cell.defense and not cell.of]
    sides = [("defence", cell.defense, cell) for cell in cells]
    sides += [("attack", cell.attack, cell) for cell in cells if cell.attack]
    places: dict[tuple[str, str, str], list[CellRecord]] = {}
    for kind, label, cell in sides:
        places.setdefault((kind, label, f"{cell.dataset} · {cell.model}"), []).append(cell)
    places_by_row: dict[Row, list[str]] = {}
    for (kind, label, where), here in places.items():
        # what failed may not know its T or its public images
        cell = min(here, key=lambda cell: (cell.status != "ok", kind == "defence" and cell.attack != ""))
        places_by_row.setdefault(_row(kind, label, cell), []).append(where)
    several = Counter((row.kind, row.label) for row in places_by_row)
    in_cells = [
        replace(row, where="; ".join(where)) if several[row.kind, row.label] > 1 else row
        for row, where in places_by_row.items()
    ]
    return in_cells + [_plugin_row(plugin) for plugin in record.plugins if plugin.kind in _RUN_WIDE]


_RUN_WIDE = {"metric": "metric", "model": "model", "dataset": "data set"}
"""kinds of plugins that are made alike in all cells -> in words"""


def _plugin_row(plugin: PluginInfo) -> Row:
    version = "" if plugin.version is None else str(plugin.version)
    return Row(_RUN_WIDE[plugin.kind], plugin.name, _texts(plugin.params), "", "", version, plugin.source)


def _row(kind: str, label: str, cell: CellRecord) -> Row:
    if kind == "defence":
        version, source, parameters = cell.defense_version, cell.defense_source, _texts(cell.defense_params)
        timesteps = str(cell.timesteps or "")
    else:
        version, source, parameters = cell.attack_version, cell.attack_source, _texts(cell.attack_params)
        timesteps = ""
        parameters += (("public images", cell.public),) if cell.public else ()
    return Row(kind, label, parameters, timesteps, cell.preset, "" if version is None else str(version), source)


def _texts(parameters: dict[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value if isinstance(value, str) else json.dumps(value)) for key, value in parameters.items())


def _artifacts(cells: list[CellRecord]) -> list[Artifact]:
    artifacts: dict[tuple[str, str], Artifact] = {}
    for cell in cells:
        for role, key in cell.artifacts.items():
            # A shared artifact (the ANN, a victim) stands once, at the first cell that names it.
            artifacts.setdefault((role, key), Artifact(f"{label_of(cell)}, seed {cell.seed}", role, key))
    return list(artifacts.values())


def _statuses(cells: list[CellRecord]) -> str:
    counts = {status: sum(cell.status == status for cell in cells) for status in STATUSES}
    return ", ".join(f"{count} {STATUSES[status]}" for status, count in counts.items() if count or status == "ok")
