"""The verdicts as the run recorded them, one card a defence: nothing is concluded here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from leakbench.bench.comparison import Comparison
from leakbench.bench.comparison.records import ENERGY
from leakbench.leakage import compared_kind, leakage_kind
from leakbench.leakage.controls import UNTRAINED
from leakbench.records import AttackRow, Index, RunRecord, Verdict, VerdictOutcome
from leakbench.reports.conclusion import (
    conclusion,
    detectable_text,
    missing_lines,
    networks_text,
    notes_of,
    p_text,
    settling,
    settling_options,
)
from leakbench.reports.controls import role
from leakbench.reports.disagreement import statistics_apart
from leakbench.reports.grid import why_missing, why_none
from leakbench.reports.report import Report
from leakbench.reports.strips import Strip, strips
from leakbench.reports.summary import JUDGED, KES, Group, class_names
from leakbench.reports.threats import Curve, ThreatRow, curve, threat_rows
from leakbench.reports.vocabulary import index_text, interval, plain, value_of

CHIPS: dict[VerdictOutcome, tuple[str, str]] = {
    "leaks": ("leaks", "leaks"),
    "resists": ("resists these attacks", "quiet"),
    "inconclusive": ("inconclusive", "silent"),
}
"""outcome -> words, and how they are toned"""


ACCURACY, ANN_ACCURACY, READ = "accuracy", "ann_accuracy", "training_images_read"
MEMORY = "energy_ratio_memory"
_FACTS = (ACCURACY, ANN_ACCURACY, ENERGY, MEMORY, READ)


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
    """all of it, with the numbers"""
    conclusion: str = ""
    """the outcome in a sentence"""
    evidence: str = ""
    """p, and what so many networks can show"""
    doubt: str = ""
    """that other metrics see the worst case otherwise; empty where none does"""
    missing: tuple[str, ...] = ()
    """what the verdict lacks besides what its conclusion says"""
    reasons: tuple[str, ...] = ()
    """all that it lacks, in full"""
    settle: str = ""
    """the command that would settle it"""
    options: str = ""
    """what that command has besides the run's own"""
    notes: tuple[str, ...] = ()
    """what limits the names of classes"""
    settles: bool = True
    """whether the command would settle it, and not only tell more"""
    p: str = "–"
    """that no class leaks"""
    networks: int = 0
    levels: tuple[Level, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    threats: tuple[ThreatRow, ...] = ()
    curve: Curve | None = None
    rank: str = ""
    """empty where nothing is ranked"""
    facts: tuple[str, ...] = ()
    """of the defence itself: accuracy, energy, what it read"""
    strips: tuple[Strip, ...] = ()
    members: str = ""
    """the verdict on members; empty without one"""
    others: tuple[tuple[str, str], ...] = ()
    """chip and tone of the verdicts on other kinds of leak"""


@dataclass(frozen=True)
class Verdicts:
    """The cards of one data set and model."""

    group: Group
    cards: list[Card]
    spared: int
    """defences that no attack was run on, where some were attacked"""


def section(report: Report) -> dict[str, Any]:
    from leakbench.reports.ranking import rankings  # which needs the marks of this module

    record, compared = report.record, report.compared
    shown = [ranking for ranking in rankings(compared) if ranking.attacked > 1]
    views = [
        Verdicts(
            group,
            [_completed(card, group, report, ranked=bool(shown)) for card in cards(group, record)],
            len(set(group.evaluated) - set(group.attacked) - set(group.verdicts)),
        )
        for group in report.groups
    ]
    return {
        "views": views,
        "rankings": shown,
        "links": _links(compared, views),
        "title": "Ranking",
        "led": True,
        "forced": [group.title for group in report.groups if group.rows and group.headline == JUDGED],
        "only_forced": all(group.headline == JUDGED for group in report.groups if group.rows),
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


def cards(group: Group, record: RunRecord) -> list[Card]:
    """One card a defence that is no control and was attacked, in the order of the run."""
    attacked = [label for label in group.attacked if label not in group.controls]
    return [_card(group, label, record) for label in dict.fromkeys((*attacked, *group.verdicts))]


def _card(group: Group, defense: str, record: RunRecord) -> Card:
    verdict = group.verdicts.get(defense)
    attempts = tuple(_attempts(group, defense, verdict))
    if verdict is None:
        reason = "The run recorded none for this defence."
        return Card(defense, "no verdict", "silent", "", "", reason, reason, attempts=attempts)
    chip, tone = CHIPS[verdict.outcome]
    unbuilt = why_none(group.experiments.get((defense, "")))
    if unbuilt and not verdict.attack:
        reason = f"There was nothing to attack: {unbuilt}."
        return Card(defense, chip, tone, "", "", reason, reason)
    missing = missing_lines(verdict)
    return Card(
        defense,
        chip,
        tone,
        index_text(verdict.index) if value_of(verdict.index) else "",
        verdict.attack,
        verdict.reason,
        conclusion(verdict, class_names(record, group.dataset)) or verdict.reason,
        _evidence(verdict),
        statistics_apart(group, defense, verdict.attack),
        tuple(missing[1:]),
        tuple(verdict.missing),
        settling(record, verdict),
        settling_options(record, verdict),
        tuple(notes_of(verdict, class_names(record, group.dataset))),
        verdict.comparable,
        "–" if verdict.p is None else plain("p", verdict.p),
        verdict.networks,
        tuple(_levels(group, verdict)),
        attempts,
        threat_rows(verdict, group.rows),
        curve(verdict),
    )


def _completed(card: Card, group: Group, report: Report, ranked: bool) -> Card:
    """The card with what stands around its verdict."""
    from leakbench.reports.ranking import rank_text, value_text

    record = report.record
    where = (group.dataset, group.model, card.defense)
    compared = next((one for one in report.compared.defenses if (one.dataset, one.model, one.defense) == where), None)
    facts: list[str] = []
    if compared:
        known = {name: value for name in _FACTS if (value := compared.value(name))}
        texts = {name: value_text(value, group.vocabulary).partition(" [")[0] for name, value in known.items()}
        if ACCURACY in texts:
            beside = f" (ANN {texts[ANN_ACCURACY]})" if ANN_ACCURACY in texts else ""
            facts.append(f"accuracy {texts[ACCURACY]}{beside}")
        if ENERGY in texts:
            memory = f", {texts[MEMORY]} with memory access" if MEMORY in texts else ""
            facts.append(f"energy ANN / SNN {texts[ENERGY]} (INT32 arithmetic){memory}")
        if READ in texts:
            facts.append(f"{texts[READ]} training images read")
    here = [one for one in record.verdicts if (one.dataset, one.model, one.defense) == where]
    members = [one for one in here if one.leakage != compared_kind().name]
    names = class_names(record, group.dataset)
    return replace(
        card,
        rank=("–" if not compared or not compared.rank else rank_text(compared.rank)) if ranked else "",
        facts=tuple(facts),
        strips=strips(group, card.defense, card.attack, names, report.run),
        members="; ".join(f"{one.outcome}: {one.reason}" for one in members),
        chip=f"{compared_kind().title}: {card.chip}" if members else card.chip,
        others=tuple(
            (f"{leakage_kind(one.leakage).title}: {CHIPS[one.outcome][0]}", CHIPS[one.outcome][1]) for one in members
        ),
    )


def _evidence(verdict: Verdict) -> str:
    """As in "p = .003 that no class leaks, all attacks on 4 networks together. 4 networks show a leak of ..."."""
    sentences = []
    if verdict.p is not None:
        networks = networks_text(verdict.networks)
        sentences.append(f"{p_text(verdict.p)} that no class leaks, all attacks on {networks} together.")
    if detectable := detectable_text(verdict):
        sentences.append(f"{detectable[0].upper()}{detectable[1:]}.")
    return " ".join(sentences)


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
