"""A comparison as one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leakbench.bench.comparison import ComparedAttack, ComparedDefense, Comparison, Pair, Setting
from leakbench.bench.comparison.records import DROP, ENERGY, Quantity
from leakbench.leakage import leakage_kind
from leakbench.metrics.energy import ENERGY_RATIOS, PAPER_RATIO
from leakbench.metrics.metric import Unit
from leakbench.records import Value
from leakbench.reports.flags import Flag, Item
from leakbench.reports.grid import GAPS, GridCell, GridRow, Line, Table, cell_of, invalid, outlined
from leakbench.reports.page import fill
from leakbench.reports.ranking import (
    Ranking,
    Scope,
    apart_text,
    chip,
    difference_text,
    numbers,
    obstacles_of,
    p_text,
    rankings,
    scopes,
    sentence,
    unit_of,
    value_text,
)
from leakbench.reports.verdict import Mark, percent
from leakbench.reports.vocabulary import STATUSES, Vocabulary, plain, value_of

FEW = 12
"""pairs of one family up to which those that are not distinguishable stand unfolded"""
MOST = 200
"""pairs of one family that are not distinguishable, of which so many are on the page"""
BESIDE = ("accuracy", DROP, ENERGY, PAPER_RATIO, "training_images_read")
"""the defences' own values in the table of a first look; the rest is in a folded one"""
COST = ("gradient_steps", "queries", "seconds")
QUANTITIES = {
    "leakage": "Leakage, worst case",
    "area": "Leakage over the attacker's cost (area under the index)",
    "accuracy": "Accuracy",
    ENERGY: "Energy: E(ANN) / E(SNN), INT32",
}
_MISSING: Mapping[str, str] = {status: text for status, text in GAPS.items() if status != "ok"}


@dataclass(frozen=True)
class PairLine:
    """A pair of defences in one line."""

    sentence: str
    apart: bool
    """whether the two differ significantly"""
    difference: str
    mark: Mark | None
    """the same with no difference in the middle of the axis"""
    p: str
    basis: str
    obstacles: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """The pairs that are corrected for their number together."""

    title: str
    summary: str
    shown: list[PairLine]
    folded: list[PairLine]
    left_out: int
    """of those that are not distinguishable"""
    reach: str
    """the difference at either end of the axis; empty without an axis"""


@dataclass(frozen=True)
class Made:
    """With what a defence or an attack was made."""

    id: str
    label: str
    kind: str
    where: str
    timesteps: str
    preset: str
    version: str
    source: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Differing:
    """Something that is not the same everywhere: (value, the runs or rows that have it)."""

    what: str
    values: list[tuple[str, str]]


@dataclass(frozen=True)
class ScopeView:
    """Everything that the page shows of one data set."""

    dataset: str
    where: str
    """the same after a heading; empty where there is one data set"""
    ranking: Ranking
    beside: Table
    values: Table | None
    leaks: Table | None
    worst: list[Family]
    by_attack: list[Family]


def render(comparison: Comparison) -> str:
    """The page. Only ``comparison`` goes in: no time, no path of a machine."""
    views = [
        _view(comparison, scope, ranking)
        for scope, ranking in zip(scopes(comparison), rankings(comparison), strict=True)
    ]
    settings = _made(comparison)
    return fill(
        "comparison.html.j2",
        comparison,
        comparison=comparison,
        views=views,
        rankings=[view.ranking for view in views],
        links={row.label: row.id for row in settings if row.kind == "defence"},
        flags=_flags(comparison),
        made=settings,
        differs=[_differing(setting) for setting in comparison.differs],
        heading=_heading(comparison),
        title="",
        led=False,
    )


def _heading(comparison: Comparison) -> str:
    defenses, runs = len(comparison.defenses), len(comparison.runs)
    counted = f"{defenses} defence{'' if defenses == 1 else 's'}"
    among = f" of {runs} runs" if runs > 1 else ""
    return f"{counted}{among} side by side on {', '.join(comparison.datasets()) or 'no data'}"


def _view(comparison: Comparison, scope: Scope, ranking: Ranking) -> ScopeView:
    families: dict[tuple[Quantity, str], list[Pair]] = {}
    for pair in scope.pairs:
        families.setdefault((pair.quantity, pair.attack), []).append(pair)
    views = {key: _family(*key, pairs, comparison.obstacles, scope.vocabulary) for key, pairs in families.items()}
    return ScopeView(
        dataset=scope.dataset,
        where=f", {scope.dataset}" if scope.dataset != ", ".join(comparison.datasets()) else "",
        ranking=ranking,
        beside=_beside(comparison, scope),
        values=_values(comparison, scope),
        leaks=_leaks(comparison, scope),
        worst=[family for (_, attack), family in views.items() if not attack],
        by_attack=[family for (_, attack), family in views.items() if attack],
    )


# --- tables ----------------------------------------------------------------------------------------------------------


def _row(comparison: Comparison, scope: Scope, defense: ComparedDefense, cells: Sequence[GridCell]) -> GridRow:
    obstacles = obstacles_of(defense, scope.pairs, comparison.obstacles)
    tag = f"not comparable: {', '.join(map(str, obstacles))}" if obstacles else ""
    return GridRow(defense.label, False, tuple(cells), tag)


def _beside(comparison: Comparison, scope: Scope) -> Table:
    """What each defence leaks, is worth and costs, the worst attack's cost beside it."""
    several = len(comparison.runs) > 1
    models = list(dict.fromkeys(one.model for one in scope.defenses))
    names = [name for name in BESIDE if any(one.value(name) for one in scope.defenses)]
    costs = COST if any(one.attacks for one in scope.defenses) else ()
    # what attacks of the kinds that are not compared found: no defence looks better than it is
    others = list(dict.fromkeys(other.leakage for one in scope.defenses for other in one.other_leakage))
    columns = [
        *(["Run"] if several else []),
        *(["Model"] if len(models) > 1 else []),
        *("Verdict", "Leakage index, worst case", "By the attack"),
        *(f"Verdict, {leakage_kind(leakage).title}" for leakage in others),
        *(scope.vocabulary.describe(name).title for name in names),
        *(f"{scope.vocabulary.describe(name).title}, attack" for name in costs),
        "Seconds, defence",
    ]
    outcomes = list(dict.fromkeys(chip(one) for one in scope.defenses))
    attacks = list(comparison.attacks)
    runs = [run.name for run in comparison.runs]
    rows = []
    for one in scope.defenses:
        worst = next((compared_attack for compared_attack in one.attacks if compared_attack.attack == one.attack), None)
        cells = [
            *([_text(", ".join(one.runs), runs.index(one.runs[0]))] if several else []),
            *([_text(one.model, models.index(one.model))] if len(models) > 1 else []),
            _text(chip(one), outcomes.index(chip(one))),
            cell_of(one.index),
            _text(one.attack or "–", attacks.index(one.attack) if one.attack in attacks else None),
            *(_text(_outcome(one, leakage), None) for leakage in others),
            *(_value(one.value(name), scope.vocabulary) for name in names),
            *(_number(scope.vocabulary.unit(name), getattr(worst, name) if worst else None) for name in costs),
            _value(one.value("seconds"), scope.vocabulary),
        ]
        rows.append(_row(comparison, scope, one, cells))
    return Table(None, tuple(columns), tuple(rows), (), None)


def _values(comparison: Comparison, scope: Scope) -> Table | None:
    """The defences' other values; None where there are none."""
    metrics = dict.fromkeys(value.metric for one in scope.defenses for value in one.values)
    first = ("ann_accuracy", "reconverted_accuracy", "timesteps", *ENERGY_RATIOS)
    names = [name for name in (*first, *metrics) if name in metrics and name not in (*BESIDE, "seconds")]
    names = list(dict.fromkeys(names))
    if not names:
        return None
    rows = [
        _row(comparison, scope, one, [_value(one.value(name), scope.vocabulary) for name in names])
        for one in scope.defenses
    ]
    return Table(None, tuple(scope.vocabulary.describe(name).title for name in names), tuple(rows), (), None)


def _leaks(comparison: Comparison, scope: Scope) -> Table | None:
    """The leakage index of every attack on every defence; None where nothing was attacked."""
    attacked = [one for one in scope.defenses if one.attacks]
    columns = [name for name in comparison.attacks if any(name == a.attack for one in attacked for a in one.attacks)]
    rows = []
    for one in attacked:
        attacks = {attack.attack: attack for attack in one.attacks}
        rows.append(_row(comparison, scope, one, outlined([_leak(attacks.get(name)) for name in columns])))
    return Table(None, tuple(columns), tuple(rows), (), ("0", "1")) if rows else None


def _leak(attack: ComparedAttack | None) -> GridCell:
    if attack is None:
        return GridCell((), None, "", missing="–")
    if attack.validity is None or (value_of(attack.index) is None and attack.status != "ok"):
        return GridCell((), None, "", missing=_MISSING.get(attack.status, "–"), full=attack.reason)
    cell = cell_of(attack.index)
    full = "; ".join(part for part in (cell.full, attack.reason) if part)
    return GridCell(cell.lines, cell.level, cell.sort, missing=cell.missing, full=full, invalid=invalid(attack))


def _value(value: Value | None, vocabulary: Vocabulary) -> GridCell:
    if value is None:
        return GridCell((), None, "", missing="–")
    number, _, interval = value_text(value, vocabulary).partition(" ")
    return GridCell((Line("", number, interval, ""),), None, _sort(value.value))


def _number(unit: Unit, x: float | None) -> GridCell:
    if x is None:
        return GridCell((), None, "", missing="–")
    return GridCell((Line("", plain(unit, x), "", ""),), None, _sort(x))


def _outcome(defense: ComparedDefense, leakage: str) -> str:
    """Of a kind of leak that is not compared."""
    return next((other.outcome or "–" for other in defense.other_leakage if other.leakage == leakage), "–")


def _text(text: str, order: int | None) -> GridCell:
    """``order``: where the text stands when the column is sorted."""
    return GridCell((Line("", text, "", ""),), None, "" if order is None else str(order))


def _sort(x: float) -> str:
    return repr(x) if math.isfinite(x) else ""


# --- differences -----------------------------------------------------------------------------------------------------


def _family(
    quantity: Quantity, attack: str, pairs: Sequence[Pair], obstacles: Sequence[str], vocabulary: Vocabulary
) -> Family:
    unit = unit_of(quantity, vocabulary)
    ends = [abs(end) for pair in pairs for end in (pair.value, pair.low, pair.high) if end is not None]
    reach = max((end for end in ends if math.isfinite(end)), default=0.0)
    lines = [_line(pair, unit, reach, obstacles) for pair in pairs]
    lines.sort(key=lambda line: not line.apart)
    few = len(lines) <= FEW
    return Family(
        title=f"Leakage, {attack}" if attack else QUANTITIES[quantity],
        summary=apart_text(pairs),
        shown=lines if few else [line for line in lines if line.apart],
        folded=[] if few else [line for line in lines if not line.apart][:MOST],
        left_out=0 if few else max(0, sum(not line.apart for line in lines) - MOST),
        reach=plain(unit, reach) if reach else "",
    )


def _line(pair: Pair, unit: Unit, reach: float, obstacles: Sequence[str]) -> PairLine:
    return PairLine(
        sentence=sentence(pair),
        apart=pair.relation in ("less", "more"),
        difference=difference_text(pair, unit),
        mark=_mark(pair, reach),
        p=p_text(pair),
        basis=pair.basis,
        obstacles=numbers(pair.marks, obstacles),
    )


def _mark(pair: Pair, reach: float) -> Mark | None:
    if pair.value is None or not reach:
        return None
    low, high = (pair.value if end is None else end for end in (pair.low, pair.high))
    return Mark(*(percent((x / reach + 1) / 2) for x in (pair.value, low, high)))


# --- what else a reader must know ------------------------------------------------------------------------------------


def _flags(comparison: Comparison) -> list[Flag]:
    """Besides the obstacles, which stand at the top of the page."""
    flags = []
    partial = [run.name for run in comparison.runs if not run.complete]
    if partial:
        items = tuple(Item(name, "cells are missing: a worst case may be worse") for name in partial)
        flags.append(Flag(True, "Incomplete runs", "They were interrupted, or cells of them failed.", items))
    for status, title in STATUSES.items():
        items = tuple(
            Item(f"{attack.attack} on {one.label}", attack.reason or title)
            for one in comparison.defenses
            for attack in one.attacks
            if attack.status == status
        )
        if items and status != "ok":
            text = f"{len(items)} attack{'' if len(items) == 1 else 's'} on a defence, in some seed or in all."
            flags.append(Flag(status == "failed", title.capitalize(), text, items))
    items = tuple(
        Item(f"{attack.attack} on {one.label}", f"{attack.validity}: {attack.reason}")
        for one in comparison.defenses
        for attack in one.attacks
        if attack.status == "ok" and attack.validity not in (None, "valid")
    )
    if items:
        text = "These results say nothing about the defences: they are left out of every worst case."
        flags.append(Flag(False, "Not valid", text, items))
    return flags


def _made(comparison: Comparison) -> list[Made]:
    rows = [
        Made(
            id=f"made-{number}",
            label=one.label,
            kind="defence",
            where=", ".join(one.runs),
            timesteps=str(one.timesteps or "–"),
            preset=one.preset or "–",
            version="–" if one.version is None else str(one.version),
            source=one.source,
            parameters=_parameters(one.params),
        )
        for number, one in enumerate(comparison.defenses, start=1)
    ]
    for number, (label, settings) in enumerate(comparison.attacks.items(), start=1):
        rest = {
            key: value for key, value in settings.items() if key not in ("preset", "version", "source") and value != ""
        }
        runs = dict.fromkeys(
            run for one in comparison.defenses for attack in one.attacks if attack.attack == label for run in one.runs
        )
        rows.append(
            Made(
                id=f"attack-{number}",
                label=label,
                kind="attack",
                where=", ".join(runs),
                timesteps="–",
                preset=str(settings.get("preset") or "–"),
                version=str(settings.get("version") or "–"),
                source=str(settings.get("source") or ""),
                parameters=_parameters(rest),
            )
        )
    return rows


def _parameters(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (key.rpartition(".")[2], value if isinstance(value, str) else json.dumps(value, default=str))
        for key, value in params.items()
    )


def _differing(setting: Setting) -> Differing:
    values: dict[str, list[str]] = {}
    for name, value in setting.values.items():
        values.setdefault(value, []).append(name)
    return Differing(setting.name, [(value or "none", ", ".join(names)) for value, names in values.items()])
