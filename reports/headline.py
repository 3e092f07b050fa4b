"""The outcome of a run in a title and a sentence: what a stranger should have read after three seconds."""

from __future__ import annotations

from collections.abc import Sequence

from leakbench.leakage import leakage_kinds
from leakbench.records import RunRecord, Verdict
from leakbench.reports.ranking import Ranking
from leakbench.reports.summary import Group

_SHORT = 3
"""defences that a title names"""


def heading(record: RunRecord, groups: Sequence[Group]) -> str:
    """As in "3 of 4 defences leak classes of digits; 1 leaks members": of the kind by which defences are ranked, or of
    another, and whatever else leaks."""
    sets = ", ".join(dict.fromkeys(cell.dataset for cell in record.cells))
    by_kind = ((kind, [one for one in record.verdicts if one.leakage == kind.name]) for kind in leakage_kinds())
    concluded = sorted(((kind, found) for kind, found in by_kind if found), key=lambda pair: not pair[0].comparable)
    if not concluded:
        return _without_verdicts(record, groups, sets)
    (kind, verdicts), *others = concluded
    leaking = {other.title: [one.defense for one in those if one.outcome == "leaks"] for other, those in others}
    if len(verdicts) == 1:
        (verdict,) = verdicts
        said = _of_one(verdict, kind.title, sets, [what for what, names in leaking.items() if verdict.defense in names])
        leaking = {what: [name for name in names if name != verdict.defense] for what, names in leaking.items()}
    else:
        said = _of_several(verdicts, kind.title, sets)
    more = (f"; {len(names)} leak{'s' * (len(names) == 1)} {what}" for what, names in leaking.items() if names)
    return f"{said}{''.join(more)}"


def _of_several(verdicts: Sequence[Verdict], what: str, sets: str) -> str:
    total = len(verdicts)
    if len({(one.dataset, one.model) for one in verdicts}) > 1:
        return f"{sum(one.outcome == 'leaks' for one in verdicts)} of {total} verdicts on {sets}: {what} leak"
    counts = {outcome: sum(one.outcome == outcome for one in verdicts) for outcome in ("leaks", "resists")}
    if counts["leaks"]:
        share = f"All {total}" if counts["leaks"] == total else f"{counts['leaks']} of {total}"
        return f"{share} defences leak {what} of {sets}"
    if counts["resists"]:
        return f"{counts['resists']} of {total} defences resist these attacks on {sets}"
    return f"{total} defences on {sets}: no conclusion"


def _of_one(verdict: Verdict, what: str, sets: str, others: Sequence[str]) -> str:
    """``others``: what else leaks."""
    if others and verdict.outcome != "leaks":
        rest = f"its {what} resist these attacks" if verdict.outcome == "resists" else f"{what}: no conclusion"
        return f"{verdict.defense} leaks {' and '.join(others)} of {sets}; {rest}"
    more = "".join(f", and {title}" for title in others)
    if verdict.outcome == "resists":
        return f"{verdict.defense} resists these attacks on {sets}"
    if verdict.outcome == "inconclusive":
        return f"{verdict.defense} on {sets}: no conclusion"
    if not verdict.named:
        return f"{verdict.defense} leaks {what} of {sets}{more}"
    total = len(verdict.classes)
    attacked = "" if verdict.among is None else "attacked "
    share = f"all {total}" if len(verdict.named) == total else f"{len(verdict.named)} of {total}"
    return f"{verdict.defense} leaks {share} {attacked}{what} of {sets}{more}"


def _without_verdicts(record: RunRecord, groups: Sequence[Group], sets: str) -> str:
    attacked = {cell.defense for cell in record.cells if cell.defense and cell.attack}
    evaluated = list(dict.fromkeys(label for group in groups for label in group.evaluated))
    names = [label for label in evaluated if label in attacked] or evaluated
    if not names:
        return "Leakage report"
    more = f" and {len(names) - _SHORT} more" if len(names) > _SHORT else ""
    return f"{'Leakage' if attacked else 'Accuracy'} report: {', '.join(names[:_SHORT])}{more} on {sets}"


def lead(rankings: Sequence[Ranking]) -> str:
    """What the ranking says, and what stays open; empty where there is nothing to rank."""
    parts = []
    for ranking in rankings:
        where = f"On {ranking.dataset}: " if len(rankings) > 1 else ""
        parts.append(f"{where}{ranking.answer}")
        if ranking.open:
            names = ", ".join(one.label for one in ranking.open[:_SHORT])
            more = f" and {len(ranking.open) - _SHORT} more" if len(ranking.open) > _SHORT else ""
            parts.append(f"Without a rank: {names}{more}.")
    return " ".join(parts)
