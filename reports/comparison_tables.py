"""A comparison as tables: comparison.csv (the differences), comparison.md for people, comparison.tex for papers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leakbench.bench.comparison import Comparison, Setting
from leakbench.reports.frames import as_csv, pairs_frame
from leakbench.reports.paper_table import Mark, PaperTable, paper_tables
from leakbench.reports.paper_table import latex_text as latex_of
from leakbench.reports.ranking import Ranking, Scope, difference_text, p_text, rankings, scopes, sentence, unit_of
from leakbench.reports.tables import markdown, markdown_table

_SIGNS: dict[Mark, str] = {"": "", "best": " (best)", "tie": " (not distinguishable)", "untested": " (not tested)"}


def csv_text(comparison: Comparison) -> str:
    """:func:`~leakbench.reports.frames.pairs_frame` as CSV: one row a pair and what of it is compared."""
    return as_csv(pairs_frame(comparison))


def latex_text(comparison: Comparison) -> str:
    """The one table that a paper prints, for each data set and model."""
    return latex_of(paper_tables(comparison))


def markdown_text(comparison: Comparison) -> str:
    """For each data set the ranking, the defences side by side and their differences; then what is not the same."""
    parts = [f"# LeakBench {markdown(comparison.leakbench)}, comparison, {markdown(comparison.created)}"]
    parts += [f"Not comparable: {markdown(why)}." for why in comparison.obstacles]
    tables = paper_tables(comparison)
    for scope, ranking in zip(scopes(comparison), rankings(comparison), strict=True):
        parts += [f"## {markdown(scope.dataset)}", *_ranking(ranking)]
        here = {one.dataset for one in scope.defenses}
        for table in tables:
            if table.dataset in here:
                parts += _side_by_side(table)
        parts += _differences(scope)
    parts += _differing(comparison.differs)
    return "\n\n".join(parts) + "\n"


def _ranking(ranking: Ranking) -> Iterator[str]:
    yield "### Ranking"
    if ranking.ranked:
        rows = [(one.rank, one.label, one.index, one.attack, one.area, one.area_rank) for one in ranking.ranked]
        yield _table(("Rank", "Defence", "Leakage index", "Worst case", "Area over cost", "Rank by area"), rows)
    if ranking.note:
        yield markdown(ranking.note)
    if ranking.unranked:
        yield _table(("Without a rank", "Why"), [(one.label, one.why) for one in ranking.unranked])


def _side_by_side(table: PaperTable) -> Iterator[str]:
    yield f"### Side by side, {markdown(table.title)}"
    rows = []
    for line in table.lines:
        texts = [
            " ".join(text for text in (cell.number, cell.interval, cell.attack and f"by {cell.attack}") if text)
            + _SIGNS[cell.mark]
            for cell in line.cells
        ]
        rows.append((line.label, *texts, line.rank))
    yield _table(("Defence", *table.columns, "Rank"), rows)
    yield markdown(f"{table.settings}.")


def _differences(scope: Scope) -> Iterator[str]:
    vocabulary = scope.vocabulary
    for quantity, attack in dict.fromkeys((pair.quantity, pair.attack) for pair in scope.pairs):
        leakage = f"leakage by {attack}" if attack else "leakage, worst case"
        titles = {"leakage": leakage, "area": "leakage over the attacker's cost (area under the index)"}
        yield f"### Differences: {markdown(titles.get(quantity, vocabulary.describe(quantity).title))}"
        unit = unit_of(quantity, vocabulary)
        rows = [
            (sentence(pair), difference_text(pair, unit), p_text(pair), "; ".join([pair.basis, *pair.marks]))
            for pair in scope.pairs
            if (pair.quantity, pair.attack) == (quantity, attack)
        ]
        yield _table(("Pair", "Difference [95 % interval]", "p (Holm)", "Rests on"), rows)


def _differing(settings: Sequence[Setting]) -> Iterator[str]:
    if settings:
        yield "## What is not the same"
        rows = [
            (one.name, "; ".join(f"{name}: {value or '–'}" for name, value in one.values.items())) for one in settings
        ]
        yield _table(("What", "Where"), rows)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table([markdown(text) for text in heading], [[markdown(text) for text in row] for row in rows])
