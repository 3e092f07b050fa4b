"""Defences of one run, or of several runs, side by side, with the differences between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from leakbench.bench.comparison.differences import pairs_of, ranks_of
from leakbench.bench.comparison.entries import Entry, entries_of, name_attacks, name_defenses
from leakbench.bench.comparison.records import ComparedAttack, ComparedDefense, ComparedRun, Comparison, Pair, Setting
from leakbench.bench.comparison.settings import differing, obstacles_between
from leakbench.errors import UsageError
from leakbench.leakage import leakage_kind
from leakbench.metrics.metric import Declaration
from leakbench.records import RunRecord

__all__ = ["ComparedAttack", "ComparedDefense", "ComparedRun", "Comparison", "Pair", "Setting", "compare"]


_MEASURED = ("values", "findings", "motion", "energy", "classes", "pictures", "traceback", "warnings")
"""fields of a cell that follow from its settings and artifacts (or, as seconds do, from the day)"""

_OF_THE_DAY = {"attacks": {"__all__": {"seconds"}}}


def compare(runs: Mapping[str, RunRecord], anyway: bool = False) -> Comparison:
    """The defences of ``runs`` (name -> record) side by side.

    Raises UsageError, one line, where they can't be compared: other data, other images of each class, other
    evaluation models. With ``anyway`` they are, and each pair that should not be says why.
    """
    obstacles = obstacles_between(runs)
    if obstacles and not anyway:
        why = "; ".join(obstacle.why for obstacle in obstacles)
        raise UsageError(f"these runs can't be compared: {why}. --anyway compares them, and marks it")
    entries = _merged([entry for name, record in runs.items() for entry in entries_of(name, record)])
    attacks = name_attacks(entries)
    name_defenses(entries)
    newest = max(runs.values(), key=lambda record: record.created)
    pairs, defenses = [], []
    # across data sets only where there is no other way to have a pair
    across = bool(obstacles) and not set.intersection(*({c.dataset for c in r.cells} for r in runs.values()))
    for dataset in ("",) if across else dict.fromkeys(entry.first.dataset for entry in entries):
        here = [entry for entry in entries if across or entry.first.dataset == dataset]
        here.sort(key=_order)
        pairs_here = pairs_of(here, obstacles)
        pairs += pairs_here
        labels = [entry.label for entry in here if not entry.unranked]
        ranked, by_area = (ranks_of(labels, pairs_here, quantity) for quantity in ("leakage", "area"))
        # a rank is of pairs, over the attacks that both were put to: it may differ from the verdicts' order
        here.sort(key=lambda entry: ranked.get(entry.label, (len(here) + 1,))[0])
        defenses += [entry.compared(ranked.get(entry.label), by_area.get(entry.label)) for entry in here]
    return Comparison(
        leakbench=newest.leakbench,
        created=newest.created,
        runs=[_run(name, record) for name, record in runs.items()],
        metrics=_metrics(runs.values()),
        defenses=defenses,
        attacks=attacks,
        pairs=pairs,
        differs=differing(runs, entries, attacks),
        obstacles=list(
            dict.fromkeys([*(one.why for one in obstacles), *(why for pair in pairs for why in pair.marks)])
        ),
    )


def _run(name: str, record: RunRecord) -> ComparedRun:
    return ComparedRun(
        name=name,
        created=record.created,
        leakbench=record.leakbench,
        command=record.command,
        complete=record.complete,
        protocol=record.protocol,
        seeds=sorted({cell.seed for cell in record.cells}),
        environments=record.environments,
    )


def _metrics(records: Iterable[RunRecord]) -> list[Declaration]:
    """Those of all runs; where two say different things of one, what the newest says."""
    ordered = sorted(records, key=lambda record: record.created)
    return list({metric.name: metric for record in ordered for metric in record.metrics}.values())


def _order(entry: Entry) -> tuple[bool, bool, float]:
    """Those that leak least first, then those without a rank, then those that nothing attacked."""
    worst = None if entry.unranked else entry.worst(entry.attacks)
    index = entry.verdict.index.value if entry.verdict and entry.verdict.index else None
    # as the report shows it; the scores order what is cut to the same 0 or 1
    shown = index if index is not None else math.inf
    return worst is None, entry.verdict is None, shown + 1e-9 * (worst[1].mean or 0.0 if worst else 0.0)


def _merged(entries: list[Entry]) -> list[Entry]:
    """Two runs with the very same networks and images of a defence, and the same verdict, have one line for it."""
    kept: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        cells = (*entry.utility_cells.cells, *entry.cells)
        same = tuple(cell.model_dump_json(exclude=set(_MEASURED)) for cell in cells)
        # these depend on the run's controls, too
        nulls = {attack: leakage_kind(row.leakage).headline_of(row).null for attack, row in entry.rows.items()}
        same += tuple(f"{row.attack} {row.validity} {nulls[attack]}" for attack, row in entry.rows.items())
        same += (entry.verdict.outcome if entry.verdict else "",)
        same += tuple(other.model_dump_json(exclude=_OF_THE_DAY) for other in entry.other_leakage)
        if same in kept:
            kept[same].runs += entry.runs
        else:
            kept[same] = entry
    return list(kept.values())
