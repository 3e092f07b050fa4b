"""A ranking and what a gate found, in lines for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from leakbench.cli.terminal import echo, echo_table, wrapped
from leakbench.errors import printable

if TYPE_CHECKING:
    from leakbench.bench.comparison import Comparison
    from leakbench.bench.comparison.records import Quantity
    from leakbench.bench.conditions import Failure

MOST_PAIRS = 10
MOST_NAMES = 5
"""of defences that have no rank for one reason"""


def print_rankings(comparison: Comparison) -> None:
    """The defences of each data set by what they leak, a line each; below those without a rank, by the reason."""
    from leakbench.reports.ranking import rankings

    for ranking in rankings(comparison):
        if ranking.ranked:
            echo(f"ranking on {ranking.dataset} by the worst case (1 leaks least):", bold=True)
            echo_table(
                ("defense", "rank", "leakage index", "attack", "area", "rank by area"),
                [(one.label, one.rank, one.index, one.attack, one.area, one.area_rank) for one in ranking.ranked],
            )
            if ranking.note:  # of one there is nothing to say
                _say(ranking.note)
        if ranking.unranked:
            echo(f"without a rank on {ranking.dataset}:", bold=True)
            by_reason: dict[str, list[str]] = {}
            for one in ranking.unranked:
                by_reason.setdefault(one.why, []).append(one.label)
            for why, labels in by_reason.items():
                few = labels if len(labels) <= MOST_NAMES else labels[: MOST_NAMES - 1]
                more = f" and {len(labels) - len(few)} more" if len(labels) > len(few) else ""
                _say(f"{', '.join(few)}{more}{', each' if len(labels) > 1 else ''}: {why}", "  ")


def print_comparison(comparison: Comparison) -> None:
    """What keeps its runs from being compared, the rankings, the differences and the settings that differ."""
    for run in comparison.runs:
        if not run.complete:
            echo(f"incomplete: {run.name}: it was interrupted, or cells of it failed", bold=True)
    for why in comparison.obstacles:
        echo(f"not comparable: {why}", bold=True)
    print_rankings(comparison)
    _print_differences(comparison)
    if comparison.differs:
        echo(f"differs: {', '.join(dict.fromkeys(setting.name for setting in comparison.differs))}")


def _print_differences(comparison: Comparison) -> None:
    """The pairs of the worst case and of accuracy that differ significantly, the first few of each."""
    from leakbench.reports.ranking import apart_text, difference_text, p_text, sentence, unit_of
    from leakbench.reports.vocabulary import Vocabulary

    vocabulary = Vocabulary(comparison.metrics)
    names: dict[Quantity, str] = {"leakage": "leakage, worst case", "area": "leakage over cost", "accuracy": "accuracy"}
    for quantity, name in names.items():
        unit = unit_of(quantity, vocabulary)
        family = [pair for pair in comparison.pairs if pair.quantity == quantity and not pair.attack]
        apart = [pair for pair in family if pair.relation in ("less", "more")]
        if not family:
            continue
        echo(f"{name}: {apart_text(family)}")
        for pair in apart[:MOST_PAIRS]:
            mark = " (not comparable)" if pair.marks else ""
            _say(f"{sentence(pair)}: {difference_text(pair, unit)}, p {_equal(p_text(pair))}, {pair.basis}{mark}", "  ")
        if len(apart) > MOST_PAIRS:
            echo(f"  and {len(apart) - MOST_PAIRS} more, in the page")


def _equal(text: str) -> str:
    """A number behind its sign: "= .003", "<.001"."""
    return text if text.startswith("<") else f"= {text}"


def print_failures(failures: Iterable[Failure]) -> None:
    """What --fail-if found, on the error stream."""
    for failure in failures:
        echo(f"leakbench: {failure.line}", err=True)


def _say(text: str, first: str = "") -> None:
    for line in wrapped(printable(text), first, first + "  "):
        echo(line)
