"""The first screen of a run or a comparison in short: a sentence a verdict, and the ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leakbench.bench.comparison import Comparison, compare
from leakbench.leakage import compared_kind, leakage_kind
from leakbench.records import RunRecord, Verdict
from leakbench.reports.conclusion import summary
from leakbench.reports.page import environment
from leakbench.reports.ranking import Ranking, rankings
from leakbench.reports.summary import class_names


@dataclass(frozen=True)
class Sentence:
    """What a verdict says, in one line."""

    subject: str
    """the defence and the kind of leak, and where the run has several, data set and model"""
    outcome: str
    text: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.subject}: {self.outcome}. {self.text}"


def sentences(record: RunRecord) -> list[Sentence]:
    """One for each verdict, in the record's order."""
    several = len({(row.dataset, row.model) for row in record.rows}) > 1
    return [
        Sentence(
            f"{f'{one.dataset} {one.model} ' if several else ''}{one.defense}, {leakage_kind(one.leakage).title}",
            one.outcome,
            summary(one, class_names(record, one.dataset)),
            one,
        )
        for one in record.verdicts
    ]


def ranking_of(record: RunRecord) -> list[Ranking]:
    """The rankings of a run; none where there is no more than one defence to rank."""
    if sum(verdict.leakage == compared_kind().name for verdict in record.verdicts) < 2:
        return []
    return rankings(compare({"": record}))


def run_lines(record: RunRecord, page: Path) -> list[str]:
    """A few plain lines."""
    lines = [*status_lines(record), *map(str, sentences(record)), *_ranking_lines(ranking_of(record))]
    return [*lines, f"report: {page}"]


def comparison_lines(comparison: Comparison, page: Path) -> list[str]:
    """A few plain lines."""
    lines = [f"not comparable: {why}" for why in comparison.obstacles]
    return [*lines, *_ranking_lines(rankings(comparison)), f"comparison: {page}"]


def status_lines(record: RunRecord) -> list[str]:
    """What is missing of a run; none where it is whole."""
    failed = sum(cell.status == "failed" for cell in record.cells)
    lines = [] if record.complete else ["interrupted: some cells are missing"]
    return [*lines, f"{failed} of {len(record.cells)} cells failed: the report says why"] if failed else lines


def run_html(record: RunRecord, page: Path) -> str:
    """An element for a notebook; whatever the record holds is escaped in it."""
    return _fill(status_lines(record), sentences(record), ranking_of(record), page)


def comparison_html(comparison: Comparison, page: Path) -> str:
    """An element for a notebook; whatever the comparison holds is escaped in it."""
    why = [f"not comparable: {one}" for one in comparison.obstacles]
    return _fill(why, [], rankings(comparison), page)


def _fill(problems: Sequence[str], told: Sequence[Sentence], ranked: Sequence[Ranking], page: Path) -> str:
    template = environment().get_template("notebook.html.j2")
    return template.render(problems=problems, sentences=told, rankings=ranked, page=str(page))


def _ranking_lines(ranked: Sequence[Ranking]) -> list[str]:
    lines = []
    for ranking in ranked:
        if ranking.ranked:
            lines.append(f"ranking on {ranking.dataset} by the worst case (1 leaks least):")
            lines += [f"  {one.rank} {one.label}, index {one.index} by {one.attack}" for one in ranking.ranked]
        lines += [f"  without a rank: {one.label}, {one.why}" for one in ranking.unranked]
    return lines
