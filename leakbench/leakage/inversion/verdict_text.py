"""What a verdict says in words: why, what limits it, and which command would tell more."""

from __future__ import annotations

from collections.abc import Sequence

from leakbench.leakage.inversion import gates
from leakbench.leakage.inversion.class_evidence import FORCED, OPEN_SET, ClassEvidence
from leakbench.leakage.inversion.resistance import NETWORKS, Missing
from leakbench.leakage.kind import index_line, p_text
from leakbench.metrics.class_leaks import CONTROLS
from leakbench.metrics.class_leaks import NETWORKS as NAMES
from leakbench.metrics.class_votes import DRAWN
from leakbench.records import AttackRow, Index, VerdictOutcome


def worst_of(rows: Sequence[AttackRow]) -> AttackRow:
    """The attack with the highest index; one whose index has no scale where none has one."""

    def known(row: AttackRow) -> float:
        value = headline(row).value
        return -1.0 if value is None else value

    return max(rows, key=known)


def reason_of(
    outcome: VerdictOutcome,
    missing: Sequence[Missing],
    evidence: ClassEvidence | None,
    shown: ClassEvidence | None,
    rows: Sequence[AttackRow],
    larger: Sequence[str],
) -> str:
    if evidence is None or outcome == "inconclusive":
        return "; ".join(one.reason for one in missing)
    named = len(shown.named) if shown is not None else 0
    return _leak_text(evidence, named, rows, larger) if outcome == "leaks" else _resist_text(evidence, rows)


def _leak_text(evidence: ClassEvidence, named: int, rows: Sequence[AttackRow], larger: Sequence[str]) -> str:
    classes = len(evidence.classes)
    alone = [row for row in rows if row.leaks]
    attacked = f"attacked classes (of {evidence.among})" if evidence.not_attacked else "classes"
    if named:
        which = f"{named} of {classes} {attacked} {'leaks' if named == 1 else 'leak'} significantly"
    else:
        some = f"some of {classes} {attacked}" if evidence.not_attacked else "some classes"
        which = f"{some} leak" + (", and which is not known" if classes > 1 else "")
    by = f"{len(alone)} of {len(rows)} attacks show it alone"
    if alone:
        worst = worst_of(alone)
        # without its own interval: that of the worst case allows for its choice, and stands beside this text
        most = headline(worst).model_copy(update={"low": None, "high": None})
        by += f", {worst.attack} the most: index {index_line(most)} at {_cost(worst)}"
    why = [f"decoys are suspected by {', '.join(decoys_of(rows))}"] if decoys_of(rows) else []
    if not any(gate.name == "G2" and gate.passed is not None for row in rows for gate in row.gates):
        by += "; whether they show the same of an untrained network is not known"
    how_much = f"; how much is open, as {'; '.join([*why, *larger])}" if why or larger else ""
    return f"{which} ({p_text(evidence.leaks.p)}, all attacks together); {by}{how_much}"


def decoys_of(rows: Sequence[AttackRow]) -> list[str]:
    """The attacks that may have fallen for decoys."""
    return [row.attack for row in rows if gates.failed(row.gates, "G7")]


def settle(missing: Sequence[Missing], evidence: ClassEvidence | None) -> str:
    """Options that would tell more: what resists, or which classes leak."""
    wanted = [one.settle for one in missing if one.settle]
    if evidence is not None and not missing and not evidence.named:
        if evidence.networks >= NAMES and len(evidence.leaks.uncontrolled) == len(evidence.leaks.tails):
            wanted.append(f"--null-networks {CONTROLS}")
        elif evidence.networks < NETWORKS:
            wanted.append(f"--seeds {NAMES if evidence.networks < NAMES else NETWORKS}")
    return " ".join(dict.fromkeys(wanted))


def _resist_text(evidence: ClassEvidence, rows: Sequence[AttackRow]) -> str:
    valid = [row for row in rows if row.validity == "valid"]
    each = "; ".join(f"{row.attack} {index_line(headline(row))} at {_cost(row)}" for row in valid)
    return (
        f"no class is drawn from {DRAWN:.0%} of networks like these {evidence.networks} by any attack tried "
        f"({p_text(evidence.leaks.p)} that none leaks): {each}. Others may do better."
    )


def _cost(row: AttackRow) -> str:
    return f"{row.gradient_steps:,.0f} gradient steps an image, {row.queries:,.0f} queries and {row.seconds:.1f} s"


def headline(row: AttackRow) -> Index:
    """The index that carries the verdict."""
    return headline_of(row.indices)


def headline_of(indices: Sequence[Index]) -> Index:
    """The index that carries the verdict: the first, where it is of one of the metrics that can."""
    first = next(iter(indices), None)
    return first if first is not None and first.metric in (OPEN_SET, FORCED) else Index(metric=OPEN_SET)
