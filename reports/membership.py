"""Membership: how well attacks tell training images from others, and the controls that calibrate them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leakbench.leakage.membership.verdict import HEADLINE
from leakbench.leakage.seed_group import seed_group
from leakbench.records import AttackRow, CellRecord, RunRecord, Value, Verdict, fields
from leakbench.reports.controls import role_of
from leakbench.reports.report import Report
from leakbench.reports.verdict import CHIPS
from leakbench.reports.vocabulary import Vocabulary, bounds, index_text, number, plain

KIND = "membership"
NOT_ATTACKED = "–"


@dataclass(frozen=True)
class MembershipRow:
    """An attack on a network."""

    defense: str
    role: str
    """what the network is for, where it is a control"""
    attack: str
    auc: str
    index: str
    p: str
    validity: str
    gates: str
    """the reasons of the gates, a line"""
    queries: str


@dataclass(frozen=True)
class MembershipCard:
    """The verdict of a defence."""

    defense: str
    chip: str
    tone: str
    reason: str


@dataclass(frozen=True)
class MembershipView:
    """One data set and model."""

    title: str
    cards: Sequence[MembershipCard]
    rows: Sequence[MembershipRow]
    failed: Sequence[tuple[str, str, str]]
    """defence, attack and reason of what gave no scores"""


def section(report: Report) -> dict[str, Any] | None:
    """None where no attack was after members."""
    record = report.record
    places = dict.fromkeys((c.dataset, c.model) for c in record.cells if c.leakage == KIND)
    vocabulary = Vocabulary(record.metrics)
    views = [_view(record, vocabulary, dataset, model) for dataset, model in places]
    return {"membership": views, "declared": vocabulary.declared.get(HEADLINE)} if views else None


def _view(record: RunRecord, vocabulary: Vocabulary, dataset: str, model: str) -> MembershipView:
    here = [cell for cell in record.cells if (cell.dataset, cell.model, cell.leakage) == (dataset, model, KIND)]
    rows = [row for row in record.rows if (row.dataset, row.model, row.leakage) == (dataset, model, KIND)]
    verdicts = [one for one in record.verdicts if (one.dataset, one.model, one.leakage) == (dataset, model, KIND)]
    plugins = {cell.defense: cell.defense_name for cell in here}
    # what was asked for first, then the controls
    ordered = sorted(rows, key=lambda row: row.control)
    return MembershipView(
        f"{dataset} · {model}",
        [_card(verdict) for verdict in verdicts],
        [
            _row(
                row,
                plugins[row.defense],
                [c for c in here if (c.defense, c.attack, c.of) == (row.defense, row.attack, "")],
                vocabulary,
            )
            for row in ordered
        ],
        [(cell.defense, cell.attack, cell.reason) for cell in here if cell.status != "ok"],
    )


def _card(verdict: Verdict) -> MembershipCard:
    chip, tone = CHIPS[verdict.outcome]
    return MembershipCard(verdict.defense, chip, tone, verdict.reason)


def _row(row: AttackRow, plugin: str, cells: Sequence[CellRecord], vocabulary: Vocabulary) -> MembershipRow:
    estimate = seed_group(cells, vocabulary.declared).estimate(HEADLINE)
    unit = vocabulary.unit(HEADLINE)
    area = Value(metric=HEADLINE, **fields(estimate)) if estimate else None
    return MembershipRow(
        row.defense,
        role_of(plugin) if row.control else "",
        row.attack,
        f"{number(unit, area)} {bounds(unit, area)}" if area else NOT_ATTACKED,
        index_text(row.indices[0]) if row.indices else NOT_ATTACKED,
        NOT_ATTACKED if row.p is None else plain("p", row.p),
        row.validity,
        "; ".join(f"{gate.name}: {gate.reason}" for gate in row.gates),
        plain("count", row.queries),
    )
