"""What is said of attacks on members, in pages that draw no figure too: a row an attack, a card a defence."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leakbench.leakage.membership.kind import Membership
from leakbench.leakage.membership.verdict import ALPHA, HEADLINE, PLACEBO, recommended_of, tests_of
from leakbench.leakage.seed_group import distinct
from leakbench.metrics.metric import Declaration
from leakbench.records import AttackRow, CellRecord, RunRecord, Verdict
from leakbench.reports.controls import role_of
from leakbench.reports.grid import told
from leakbench.reports.summary import BOUNDS, Experiment
from leakbench.reports.verdict import CHIPS
from leakbench.reports.vocabulary import Vocabulary, bare, bounds, extremes, index_text, number, plain

NOT_ATTACKED = "–"
_PASSED = {True: "passes", False: "fails", None: "not checked"}


@dataclass(frozen=True)
class MembershipRow:
    """An attack on a network."""

    defense: str
    control: bool
    role: str
    """what the network is for, where it is a control"""
    attack: str
    auc: str
    index: str
    p: str
    leaks: str
    validity: str
    gates: str
    """the outcome and the reason of each gate, a line"""
    queries: str
    others: tuple[str, ...]
    """values of :attr:`MembershipView.metrics`"""
    order: Mapping[str, str]
    """numbers that columns are sorted by: "auc", "index", "p", "queries" and each of the metrics; "" for none"""


@dataclass(frozen=True)
class MembershipCard:
    """The verdict of a defence."""

    defense: str
    chip: str
    tone: str
    reason: str
    index: str
    attack: str
    """the worst case; empty where there is none"""


@dataclass(frozen=True)
class MembershipView:
    """One data set and model."""

    title: str
    cards: Sequence[MembershipCard]
    rows: Sequence[MembershipRow]
    """the defences in question first, then the controls"""
    metrics: Sequence[Declaration]
    """what was measured of the scores besides AUC and p: means over seeds, of bounds the lowest and the highest"""
    failed: Sequence[tuple[str, str, str]]
    """defence, attack and reason of what gave no scores"""
    cells: Sequence[CellRecord]
    """of the attacks, one a network"""
    levels: str
    """what p is compared with"""

    @property
    def attacks(self) -> Sequence[str]:
        """In the order in which they are sorted: by name."""
        return sorted({row.attack for row in self.rows}, reverse=True)

    @property
    def validities(self) -> Sequence[str]:
        """The same of what is said of the rows' validity: "valid" comes last, so that it stands at the top."""
        return sorted({row.validity for row in self.rows}, key="valid".__eq__)

    @property
    def alike(self) -> Sequence[tuple[MembershipCard, Sequence[str]]]:
        """A card for all defences of which the same is said, and which they are; those that leak first."""
        found: dict[tuple[str, str], list[MembershipCard]] = {}
        for card in sorted(self.cards, key=lambda card: card.tone != CHIPS["leaks"][1]):
            found.setdefault((card.chip, card.reason), []).append(card)
        return [(cards[0], [card.defense for card in cards]) for cards in found.values()]


def membership_view(record: RunRecord, dataset: str, model: str) -> MembershipView | None:
    """Of one data set and model; None where no attack was after members there."""
    every = [cell for cell in record.cells if (cell.dataset, cell.model) == (dataset, model)]
    here = [cell for cell in every if cell.leakage == Membership.name]
    one_each = distinct([cell for cell in every if cell.leakage in ("", Membership.name)])
    if not here:
        return None
    rows = [row for row in record.rows if (row.dataset, row.model, row.leakage) == (dataset, model, Membership.name)]
    verdicts = [
        one for one in record.verdicts if (one.dataset, one.model, one.leakage) == (dataset, model, Membership.name)
    ]
    plugins = {cell.defense: cell.defense_name for cell in here}
    vocabulary = Vocabulary(record.metrics)
    measured = dict.fromkeys(value.metric for cell in here for value in cell.values)
    metrics = [
        declared
        for name in measured
        if name not in (HEADLINE, PLACEBO)
        and (declared := vocabulary.describe(name)).leakage == Membership.name
        and declared.unit != "p"  # whose mean over networks is none
    ]
    return MembershipView(
        f"{dataset} · {model}",
        [_card(verdict) for verdict in verdicts],
        [
            _row(
                row,
                plugins[row.defense],
                [c for c in one_each if (c.defense, c.attack, c.of) == (row.defense, row.attack, "")],
                vocabulary,
                metrics,
            )
            for row in sorted(rows, key=lambda row: row.control)
        ],
        metrics,
        _without_scores([cell for cell in here if cell.status != "ok"]),
        [cell for cell in one_each if cell.leakage == Membership.name],
        _levels(rows),
    )


def small_p(p: float) -> str:
    """To two digits down to .00001: levels of many tests lie far below .001."""
    if p >= 0.001:
        return plain("p", p)
    return _two_digits(p) if p >= 0.00001 else "<.00001"


def _two_digits(p: float) -> str:
    return bare(p, 1 - math.floor(math.log10(p)))


def _levels(rows: Sequence[AttackRow]) -> str:
    """Below which p an attack finds members, by which and how many were tried on a network: as in ".0017 (auto_mia-v2),
    .00017 (10 other attacks)"."""
    tried: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        tried[row.defense].append(row.attack.partition("[")[0])
    levels: dict[str, None] = {}
    for names in sorted(tried.values(), key=len, reverse=True):
        recommended = recommended_of(names)
        own, others = ([name for name in names if (name == recommended) == same] for same in (True, False))
        for those, what in ((own, "attacks"), (others, "other attacks" if own else "attacks")):
            if those:
                title = those[0] if len(set(those)) == 1 else f"{len(those)} {what}"
                levels[f"{_two_digits(ALPHA / tests_of(names, those[0]))} ({title})"] = None
    return ", ".join(levels)


def _without_scores(cells: Sequence[CellRecord]) -> list[tuple[str, str, str]]:
    """Defence, attack and what is told of it, once for all seeds that tell the same."""
    seeds: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        seeds.setdefault((cell.defense, cell.attack, told(cell)), []).append(str(cell.seed))
    return [
        (defense, attack, f"{text} (seed{'s' if len(of) > 1 else ''} {', '.join(of)})")
        for (defense, attack, text), of in seeds.items()
    ]


def _card(verdict: Verdict) -> MembershipCard:
    chip, tone = CHIPS[verdict.outcome]
    return MembershipCard(
        verdict.defense, chip, tone, verdict.reason, index_text(verdict.index), verdict.attack or NOT_ATTACKED
    )


def _row(
    row: AttackRow,
    plugin: str,
    cells: Sequence[CellRecord],
    vocabulary: Vocabulary,
    metrics: Sequence[Declaration],
) -> MembershipRow:
    measured = Experiment(row.defense, row.attack, tuple(c for c in cells if c.status == "ok"), vocabulary)

    def mean(metric: str) -> str:
        value, reading, unit = measured.overall(metric), measured.reading(metric), vocabulary.unit(metric)
        if value is None or reading is None:
            return NOT_ATTACKED
        if metric in BOUNDS:
            return extremes(unit, (seed_value for _, seed_value in reading.values))
        return " ".join(part for part in (number(unit, value), bounds(unit, value)) if part)

    def order(metric: str) -> str:
        value = measured.overall(metric)
        return str(value.value) if value and math.isfinite(value.value) else ""

    return MembershipRow(
        row.defense,
        row.control,
        role_of(plugin) if row.control else "",
        row.attack,
        f"{mean(HEADLINE)}{', lower scores' if row.lower_scores else ''}",
        index_text(row.indices[0]) if row.indices else NOT_ATTACKED,
        NOT_ATTACKED if row.p is None else small_p(row.p),
        "yes" if row.leaks else "no",
        row.validity,
        "; ".join(f"{gate.name} {_PASSED[gate.passed]}: {gate.reason}" for gate in row.gates),
        plain("count", row.queries),
        tuple(mean(metric.name) for metric in metrics),
        {
            "auc": order(HEADLINE),
            "index": str(row.indices[0].value) if row.indices and row.indices[0].value is not None else "",
            "p": "" if row.p is None else str(row.p),
            "queries": str(row.queries),
            **{metric.name: order(metric.name) for metric in metrics},
        },
    )
