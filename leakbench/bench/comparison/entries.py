"""The defences of a run, each with the cells behind it and a name that tells it from the others."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from leakbench.bench.comparison.records import (
    DROP,
    ComparedAttack,
    ComparedDefense,
    ComparedLeakage,
    ComparedThreat,
)
from leakbench.leakage import KINDS, compared_kind, leakage_kind
from leakbench.leakage.kind import Area, Scored
from leakbench.leakage.scaled_scores import ScaledScores
from leakbench.leakage.seed_group import SeedGroup, distinct, seed_group
from leakbench.metrics.accuracy import MOST_LOST, lost_too_much
from leakbench.metrics.estimate import Estimate, mean
from leakbench.metrics.intervals import newcombe
from leakbench.records import AttackRow, CellRecord, RunRecord, Value, Verdict, fields


@dataclass(eq=False)
class Entry:
    """A defence with the cells behind it."""

    runs: list[str]
    """several where they hold the very same networks and images"""
    group: Scored
    utility_cells: SeedGroup
    """one a network"""
    failed: Sequence[CellRecord]
    """its own cells that did not work"""
    cells: Sequence[CellRecord]
    """its attacks'"""
    rows: Mapping[str, AttackRow]
    verdict: Verdict | None
    other_leakage: list[ComparedLeakage]
    """of the kinds of leak that it is not compared in"""
    access: Mapping[str, str]
    """plugin name of an attack -> its access"""
    protocol: str = ""
    label: str = ""
    attack_labels: dict[str, str] = field(default_factory=dict)
    """an attack's label in the run -> in the comparison"""
    _scores: dict[str, ScaledScores | None] = field(default_factory=dict, repr=False)
    _areas: dict[tuple[str, ...], Area | None] = field(default_factory=dict, repr=False)

    @property
    def first(self) -> CellRecord:
        return (*self.utility_cells.cells, *self.cells, *self.failed)[0]

    @property
    def defense(self) -> str:
        return self.first.defense

    @cached_property
    def anns(self) -> dict[int, str]:
        return {cell.seed: key for cell in self.utility_cells.cells if (key := cell.artifacts.get("ann"))}

    @cached_property
    def networks(self) -> dict[int, str]:
        """Seed -> the key of its network; of records that have none every defence has networks of its own."""
        own = f"{self.defense} of {', '.join(self.runs)}"
        return {cell.seed: cell.artifacts.get("victim", own) for cell in self.utility_cells.cells}

    @property
    def seeds(self) -> list[int]:
        return sorted({cell.seed for cell in (*self.utility_cells.cells, *self.cells, *self.failed)})

    @cached_property
    def attacks(self) -> dict[str, CellRecord]:
        """Label in the comparison -> a cell of the attack, one that failed or found no signal if any did."""
        first = {"failed": 0, "no-signal": 1}
        cells: dict[str, CellRecord] = {}
        for cell in sorted(self.cells, key=lambda cell: first.get(cell.status, 2)):  # its status says so
            cells.setdefault(self.attack_labels.get(cell.attack, cell.attack), cell)
        return cells

    def row(self, attack: str) -> AttackRow | None:
        cell = self.attacks.get(attack)
        return self.rows.get(cell.attack) if cell else None

    def scores(self, attack: str) -> ScaledScores | None:
        """Of a valid attack by its label in the comparison."""
        if attack not in self._scores:
            row = self.row(attack)
            scores = self.group.scores(self.defense, row.attack) if row and row.validity == "valid" else None
            self._scores[attack] = scores if scores and scores.mean is not None else None
        return self._scores[attack]

    def measured(self, *metrics: str) -> bool:
        """Whether each of its networks has a value of its own of each, all of them numbers."""
        values = [self.utility_cells.values(metric) for metric in metrics]
        every = len(self.utility_cells.cells)
        return all(
            len(of_metric) == every > 0 and all(math.isfinite(value.value) for value in of_metric)
            for of_metric in values
        )

    def worst(self, attacks: Iterable[str]) -> tuple[str, ScaledScores] | None:
        """The valid attack of these with the highest index, and its scores."""
        scored = [(attack, scores) for attack in attacks if (scores := self.scores(attack)) is not None]
        return max(scored, key=lambda one: one[1].mean or 0.0, default=None)

    def area(self, attacks: Iterable[str]) -> Area | None:
        """Under the index over the attacker's cost, of the worst case over those of these attacks that are valid."""
        scored = {attack: scores for attack in attacks if (scores := self.scores(attack)) is not None}
        key = tuple(scored)
        if key not in self._areas:
            self._areas[key] = self.group.area(scored)
        return self._areas[key]

    @property
    def incomparable(self) -> str:
        """Why its leak is compared with no other; empty where it is."""
        if self.verdict is None:
            return f"no attack on {compared_kind().title} was run on it"
        if not self.verdict.comparable:
            return self.verdict.reason
        return "" if self.worst(self.attacks) else "its leakage index has no scale"

    @property
    def unranked(self) -> str:
        """Why it has no rank; empty where it has one. One that leaks is compared, and has none where it knows less."""
        drop = self._accuracy_drop()
        if self.incomparable or drop is None or not lost_too_much(drop.value):
            return self.incomparable
        return f"its accuracy is {drop.value:.3g} below the ANN's, {MOST_LOST} is allowed: knowing less leaks less"

    def compared(self, rank: tuple[int, int] | None, area_rank: tuple[int, int] | None) -> ComparedDefense:
        """As the record has it."""
        area = None if self.incomparable else self.area(self.attacks)
        cell, verdict = self.first, self.verdict
        headlines = {compared_kind().headline_of(row).metric for row in self.rows.values()}
        return ComparedDefense(
            label=self.label,
            runs=self.runs,
            dataset=cell.dataset,
            model=cell.model,
            defense=cell.defense,
            plugin=cell.defense_name,
            params=cell.defense_params,
            version=cell.defense_version,
            source=cell.defense_source,
            preset=cell.preset,
            protocol=self.protocol,
            timesteps=cell.timesteps,
            seeds=self.seeds,
            failed=sorted({cell.seed for cell in self.failed}),
            images=sorted({score.n for one in self.cells for score in one.classes if score.metric in headlines}),
            anns=self.anns,
            values=self._values(),
            outcome=verdict.outcome if verdict else None,
            reason=verdict.reason if verdict else "",
            attack=self.attack_labels.get(verdict.attack, verdict.attack) if verdict else "",
            index=verdict.index if verdict else None,
            threats=[
                ComparedThreat(
                    access=one.access, attack=self.attack_labels.get(one.attack, one.attack), index=one.index
                )
                for one in (verdict.threats if verdict else [])
                if one.index is not None
            ],
            attacks=[
                _compared_attack(label, cell, self.row(label), self.access) for label, cell in self.attacks.items()
            ],
            other_leakage=self.other_leakage,
            rank=rank,
            area=area.value if area else None,
            area_rank=area_rank,
            unranked=self.unranked,
        )

    def _values(self) -> list[Value]:
        estimates = {
            name: self.utility_cells.estimate(name) for name in self.utility_cells.metrics if self.measured(name)
        }
        drop = self._accuracy_drop()
        known = {**({DROP: drop} if drop else {}), **{name: one for name, one in estimates.items() if one}}
        return [Value(metric=name, **fields(one)) for name, one in known.items()]

    def _accuracy_drop(self) -> Estimate | None:
        before, after = self.utility_cells.values("ann_accuracy"), self.utility_cells.values("accuracy")
        if not self.measured("accuracy", "ann_accuracy") or len(before) != len(after):
            return None
        if len(after) > 1:
            return mean(one.value - other.value for one, other in zip(before, after, strict=True))
        difference = newcombe(before[0].estimate, after[0].estimate)
        return Estimate(difference.value, difference.low, difference.high, difference.n)


def _compared_attack(
    label: str, cell: CellRecord, row: AttackRow | None, access: Mapping[str, str], excused: Collection[str] = ()
) -> ComparedAttack:
    """``access``: plugin name of an attack -> its access; ``excused``: the gates on whose controls it can't be run."""
    named = {"attack": label, "plugin": cell.attack_name, "access": access.get(cell.attack_name, "")}
    if row is None:
        return ComparedAttack(**named, status=cell.status, reason=cell.reason)
    return ComparedAttack(
        **named,
        status=cell.status,
        reason=cell.reason or ("" if row.validity == "valid" else row.reason),
        validity=row.validity,
        unchecked=[gate.name for gate in row.gates if gate.passed is None and gate.name not in excused],
        leaks=row.leaks,
        index=leakage_kind(row.leakage).headline_of(row),
        limited=leakage_kind(row.leakage).limited_of(row),
        queries=row.queries,
        gradient_steps=row.gradient_steps,
        seconds=row.seconds,
    )


def entries_of(name: str, record: RunRecord) -> list[Entry]:
    """The defences of a run that are no controls, in the kind of leak that is compared."""
    access = {plugin.name: plugin.needs for plugin in record.plugins if plugin.kind == "attack"}
    kind = compared_kind()
    declared = {metric.name: metric for metric in record.metrics}
    entries = []
    for dataset, model in dict.fromkeys((c.dataset, c.model) for c in record.cells if c.defense):
        every = [c for c in record.cells if (c.dataset, c.model) == (dataset, model)]
        group = kind.scored([c for c in every if c.leakage in ("", kind.name)], access, declared)
        cells = [cell for cell in every if not cell.of]
        one_each = distinct([c for c in every if c.leakage in ("", kind.name)])  # as the group has them
        networks = [cell for cell in one_each if not cell.attack and not cell.of]
        for label in dict.fromkeys(cell.defense for cell in cells if cell.defense and not cell.control):
            here = [cell for cell in cells if cell.defense == label]
            key = (dataset, model, label)
            alone = [cell for cell in here if not cell.attack]
            others = (_other_leakage(record, key, other, here, access) for other in KINDS if other != kind.name)
            entries.append(
                Entry(
                    runs=[name],
                    group=group,
                    utility_cells=seed_group((c for c in networks if c.defense == label), declared),
                    failed=[cell for cell in alone if cell.status != "ok"],
                    cells=[cell for cell in here if cell.attack and cell.leakage in ("", kind.name)],
                    rows=_rows(record, key, kind.name),
                    verdict=_verdict(record, key, kind.name),
                    other_leakage=[other for other in others if other],
                    access=access,
                    protocol=record.protocol,
                )
            )
    return [entry for entry in entries if entry.utility_cells or entry.cells or entry.failed]


_DefenseKey = tuple[str, str, str]
"""data set, model, and a defence's label"""


def _rows(record: RunRecord, key: _DefenseKey, leakage: str) -> dict[str, AttackRow]:
    """Label of an attack -> its row."""
    return {
        row.attack: row
        for row in record.rows
        if (row.dataset, row.model, row.defense) == key and row.leakage == leakage
    }


def _verdict(record: RunRecord, key: _DefenseKey, leakage: str) -> Verdict | None:
    of_defense = (one for one in record.verdicts if (one.dataset, one.model, one.defense) == key)
    return next((one for one in of_defense if one.leakage == leakage), None)


def _other_leakage(
    record: RunRecord, key: _DefenseKey, leakage: str, cells: Sequence[CellRecord], access: Mapping[str, str]
) -> ComparedLeakage | None:
    """What attacks of that kind got out of a defence; None where none was run on it. ``cells`` are the defence's."""
    by_attack: dict[str, CellRecord] = {}
    worst = {status: number for number, status in enumerate(("failed", "no-signal"))}
    for cell in sorted((c for c in cells if c.leakage == leakage), key=lambda cell: worst.get(cell.status, len(worst))):
        by_attack.setdefault(cell.attack, cell)
    if not by_attack:
        return None
    rows, verdict = _rows(record, key, leakage), _verdict(record, key, leakage)
    gates = {gate.control: gate.name for gate in leakage_kind(leakage).gates if gate.control}
    states: dict[tuple[str, str], set[str]] = defaultdict(set)
    for cell in record.cells:
        if (cell.dataset, cell.model) == key[:2] and cell.defense_name in gates and not cell.of:
            states[cell.attack, gates[cell.defense_name]].add(cell.status)
    excused: dict[str, set[str]] = defaultdict(set)
    for (attack, gate), found in states.items():
        if found == {"not-applicable"}:  # on every network of the control
            excused[attack].add(gate)
    return ComparedLeakage(
        leakage=leakage,
        outcome=verdict.outcome if verdict else None,
        reason=verdict.reason if verdict else "",
        comparable=verdict is None or verdict.comparable,
        attacks=[
            _compared_attack(label, cell, rows.get(label), access, excused[label]) for label, cell in by_attack.items()
        ],
    )


# --- names -----------------------------------------------------------------------------------------------------------

_LENGTHS = (24, 80)
"""of a setting's value in a name, in characters"""


def name_attacks(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """One label for each attack with its settings, whatever the runs call it; the settings by label."""
    public: dict[str, str] = {}
    for entry in entries:
        for cell in entry.cells:
            if cell.public:
                public.setdefault(cell.attack_name, cell.public)

    def settings_of(cell: CellRecord) -> dict[str, Any]:
        """What did not run does not know its public images: they are taken for those of the others."""
        unknown = cell.status != "ok" and not cell.public
        return attack_settings(cell) | ({"public images": public.get(cell.attack_name, "")} if unknown else {})

    settings: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    in_runs: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for entry in entries:
        for cell in entry.cells:
            cell_settings = settings_of(cell)
            key = _text(cell_settings)
            settings[cell.attack_name].setdefault(key, cell_settings)
            in_runs[cell.attack_name].add((key, cell.attack))
    labels: dict[tuple[str, str], str] = {}
    for attack, variants in settings.items():
        names = dict(in_runs[attack])
        run_labels = {label for _, label in in_runs[attack]}
        if not len(in_runs[attack]) == len(run_labels) == len(variants):  # not one label for each in all runs
            label = run_labels.pop() if len(run_labels) == 1 else attack
            names = dict(zip(variants, _told_apart(label, list(variants.values())), strict=True))
        labels |= {(attack, key): name for key, name in names.items()}
    for entry in entries:
        for cell in entry.cells:
            entry.attack_labels[cell.attack] = labels[cell.attack_name, _text(settings_of(cell))]
    return {
        labels[attack, key]: cell_settings
        for attack, variants in settings.items()
        for key, cell_settings in variants.items()
    }


def attack_settings(cell: CellRecord) -> dict[str, Any]:
    """Everything that makes two attacks of one name two: name -> value."""
    return {
        "preset": cell.preset,
        "version": cell.attack_version,
        "source": cell.attack_source,
        "public images": cell.public,
        **{f"{cell.attack_name}.{name}": value for name, value in cell.attack_params.items()},
    }


def defense_settings(cell: CellRecord) -> dict[str, Any]:
    """Everything that makes two rows of one defence two: name -> value."""
    return {
        "preset": cell.preset,
        "T": cell.timesteps,
        "version": cell.defense_version,
        "source": cell.defense_source,
        **{f"{cell.defense_name}.{name}": value for name, value in cell.defense_params.items()},
    }


def name_defenses(entries: Sequence[Entry]) -> None:
    """Give each a label of its own: what tells it from others of its name, else its run, else a number."""
    several: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        several.setdefault((entry.first.dataset, entry.defense), []).append(entry)
    many = len({entry.first.dataset for entry in entries}) > 1
    for (dataset, label), same in several.items():
        models = len({entry.first.model for entry in same}) > 1
        settings = [
            {**({"model": entry.first.model} if models else {}), **defense_settings(entry.first)} for entry in same
        ]
        for entry, name in zip(same, _told_apart(label, settings), strict=True):
            entry.label = f"{name} on {dataset}" if many else name
    for label, alike in grouped_by(entries, lambda entry: entry.label).items():
        if len(alike) > 1:
            for entry in alike:
                entry.label = f"{label} ({', '.join(entry.runs)})"
    for label, alike in grouped_by(entries, lambda entry: entry.label).items():
        for entry in alike[1:]:
            taken = {one.label for one in entries}
            free = (f"{label} #{number}" for number in itertools.count(2))
            entry.label = next(name for name in free if name not in taken)


def _told_apart(label: str, settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The label once for each, with the fewest settings that differ, in their order, until all read differently.

    The same settings have the same name, others never: those whose texts are the same as far as they are shown have
    a number.
    """
    keys = [_text(dict(one)) for one in settings]
    names = [label] * len(settings)
    shown: list[dict[str, str]] = [{} for _ in settings]
    for name in dict.fromkeys(name for one in settings for name in one):
        values = [one.get(name) for one in settings]
        if len(set(names)) == len(set(keys)) or len({_text(value) for value in values}) < 2:
            continue
        shown = [{**before, name: text} for before, text in zip(shown, _short(values), strict=True)]
        names = [_bracketed(label, one) for one in shown]
    alike: dict[str, list[str]] = {}
    for name, key in dict.fromkeys(zip(names, keys, strict=True)):
        alike.setdefault(name, []).append(key)
    numbers = [alike[name].index(key) + 1 for name, key in zip(names, keys, strict=True)]
    return [name if number == 1 else f"{name} #{number}" for name, number in zip(names, numbers, strict=True)]


def _bracketed(label: str, settings: Mapping[str, str]) -> str:
    """``label[a=1]`` and T = 2 -> ``label[a=1,T=2]``."""
    texts = ",".join(f"{name.rpartition('.')[2]}={text}" for name, text in settings.items())
    return f"{label[:-1]},{texts}]" if label.endswith("]") else f"{label}[{texts}]"


def _short(values: Sequence[Any]) -> list[str]:
    """The values as texts, where they are long cut at the first of the lengths that keeps apart those that differ."""
    texts = ["none" if one in (None, "") else one if isinstance(one, str) else _text(one) for one in values]
    cuts = [[text if len(text) <= length else f"{text[: length - 1]}…" for text in texts] for length in _LENGTHS]
    return next((cut for cut in cuts if len(set(cut)) == len(set(texts))), cuts[-1])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def grouped_by(entries: Iterable[Entry], key: Callable[[Entry], str]) -> dict[str, list[Entry]]:
    """The entries in groups of one key, in their order."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return groups
