"""The verdicts as the run recorded them, one card a defence: nothing is concluded here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leakbench.bench.comparison import Comparison, compare
from leakbench.leakage.controls import UNTRAINED
from leakbench.records import AttackRow, Index, Verdict, VerdictOutcome
from leakbench.reports.controls import role
from leakbench.reports.flags import statistics_apart
from leakbench.reports.grid import why_missing, why_none
from leakbench.reports.report import Report
from leakbench.reports.summary import KES, Group
from leakbench.reports.threats import HEADING, ThreatRow, threat_rows
from leakbench.reports.vocabulary import index_text, interval, plain, value_of

CHIPS: dict[VerdictOutcome, tuple[str, str]] = {
    "leaks": ("leaks", "leaks"),
    "resists": ("resists these attacks", "quiet"),
    "inconclusive": ("inconclusive", "silent"),
}
"""outcome -> words, and how they are toned"""


@dataclass(frozen=True)
class Mark:
    """One value on the axis from 0 to 1 in percentages of its width, as SVG takes them."""

    centre: str
    low: str
    high: str


@dataclass(frozen=True)
class Level:
    """One row of a card's axis: the defence, or what it is to be read beside."""

    label: str
    role: str
    """"defense", "control" or "anchor" """
    text: str
    mark: Mark


@dataclass(frozen=True)
class Attempt:
    """One attack on the defence in a line."""

    attack: str
    worst: bool
    validity: str
    valid: bool
    leaks: str = "–"
    index: str = "–"
    p: str = "–"
    kes: str = "–"
    cost: tuple[str, str, str] = ("–", "–", "–")
    """gradient steps, queries, seconds"""


@dataclass(frozen=True)
class Card:
    """One defence's verdict and what it rests on."""

    defense: str
    chip: str
    tone: str
    """"leaks", "quiet" or "silent": for the eye only, the chip says it"""
    index: str
    """empty where there is none"""
    attack: str
    """the worst case; empty where there is none"""
    reason: str
    doubt: str
    """that other metrics see the worst case otherwise; empty where none does"""
    levels: tuple[Level, ...]
    attempts: tuple[Attempt, ...]
    threats: tuple[ThreatRow, ...] = ()


@dataclass(frozen=True)
class Verdicts:
    """The cards of one data set and model."""

    group: Group
    cards: list[Card]
    spared: int
    """defences that no attack was run on, where some were attacked"""


def section(report: Report) -> dict[str, Any]:
    from leakbench.reports.ranking import rankings  # which needs the marks of this module

    compared = compare({"": report.record})
    views = [
        Verdicts(group, cards(group), len(set(group.evaluated) - set(group.attacked) - set(group.verdicts)))
        for group in report.groups
    ]
    return {
        "views": views,
        "rankings": [ranking for ranking in rankings(compared) if ranking.attacked > 1],
        "links": _links(compared, views),
        "title": "Ranking",
        "heading": HEADING,
    }


def _links(compared: Comparison, views: list[Verdicts]) -> dict[str, str]:
    """Label of a defence in the ranking -> id of its card."""
    ids = {
        (view.group.dataset, view.group.model, card.defense): f"verdict-{view.group.number}-{number}"
        for view in views
        for number, card in enumerate(view.cards, start=1)
    }
    here = {one.label: ids.get((one.dataset, one.model, one.defense)) for one in compared.defenses}
    return {label: card for label, card in here.items() if card}


def cards(group: Group) -> list[Card]:
    """One card a defence that is no control and was attacked, in the order of the run."""
    attacked = [label for label in group.attacked if label not in group.controls]
    return [_card(group, label) for label in dict.fromkeys((*attacked, *group.verdicts))]


def _card(group: Group, defense: str) -> Card:
    verdict = group.verdicts.get(defense)
    attempts = tuple(_attempts(group, defense, verdict))
    if verdict is None:
        return Card(
            defense, "no verdict", "silent", "", "", "The run recorded none for this defence.", "", (), attempts
        )
    chip, tone = CHIPS[verdict.outcome]
    unbuilt = why_none(group.experiments.get((defense, "")))
    if unbuilt and not verdict.attack:
        return Card(defense, chip, tone, "", "", f"There was nothing to attack: {unbuilt}.", "", (), ())
    index = index_text(verdict.index) if value_of(verdict.index) else ""
    levels = tuple(_levels(group, verdict))
    doubt = statistics_apart(group, defense, verdict.attack)
    return Card(
        defense, chip, tone, index, verdict.attack, verdict.reason, doubt, levels, attempts, threat_rows(verdict)
    )


def _attempts(group: Group, defense: str, verdict: Verdict | None) -> list[Attempt]:
    attempts = []
    for attack in group.attacks:
        row, experiment = group.rows.get((defense, attack)), group.experiments.get((defense, attack))
        worst = bool(verdict and verdict.attack == attack)
        if row:
            index, kes = (index_text(group.index(defense, attack, metric)) for metric in (group.headline, KES))
            leaks = "yes" if row.leaks else "no"
            p = "–" if row.p is None else plain("p", row.p)
            valid = row.validity == "valid"
            attempts.append(Attempt(attack, worst, row.validity, valid, leaks, index, p, kes, _cost(row)))
        elif experiment:
            missing = {"n/a": "not applicable", "–": "not judged"}.get(why_missing(experiment), why_missing(experiment))
            attempts.append(Attempt(attack, worst, missing, False))
    return attempts


def _cost(row: AttackRow) -> tuple[str, str, str]:
    return plain("count", row.gradient_steps), plain("count", row.queries), plain("seconds", row.seconds)


def _levels(group: Group, verdict: Verdict) -> list[Level]:
    """The worst attack's index on the defence and on the controls between the ends of the scale, as drawn afresh."""
    if value_of(verdict.index) is None or verdict.index is None:
        return []
    metric = verdict.index.metric
    scale = group.scales.get(metric)
    controls: dict[bool, list[tuple[str, str, Index | None]]] = {False: [], True: []}
    for label in group.defenses:
        if label in group.controls:
            index = group.index(label, verdict.attack, metric)
            controls[group.plugin(label) == UNTRAINED].append((role(group, label), "control", index))
    rows = [
        ("real images", "anchor", scale.fresh_real if scale else None),
        # What should leak stands above the defence, what should not below.
        *controls[False],
        (verdict.defense, "defense", verdict.index),
        *controls[True],
        ("noise images", "anchor", scale.fresh_noise if scale else None),
    ]
    return [Level(label, kind, index_text(index), mark) for label, kind, index in rows if (mark := mark_of(index))]


def mark_of(index: Index | None) -> Mark | None:
    """The index on the axis; None where it has no value."""
    value = value_of(index)
    if value is None:
        return None
    low, high = interval(value) or (value.value, value.value)
    return Mark(percent(value.value), percent(low), percent(high))


def percent(share: float) -> str:
    """A share of the axis's width, cut to the axis."""
    # 1 % to 99 %: a dot at either end stays whole.
    return f"{1 + 98 * min(1.0, max(0.0, share)):.2f}%"
