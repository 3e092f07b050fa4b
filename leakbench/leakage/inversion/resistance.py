"""What must hold before a defence is said to resist the attacks that were tried; see docs/verdicts.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from leakbench.leakage.inversion.class_evidence import (
    ENSEMBLE,
    FORCED,
    OPEN_SET,
    ClassEvidence,
    at_least,
    networks_to_detect,
    quoted_attacks,
)
from leakbench.metrics.accuracy import MOST_LOST, lost_too_much
from leakbench.metrics.class_leaks import CONTROLS
from leakbench.metrics.class_leaks import NETWORKS as NAMES
from leakbench.records import AttackRow, CellRecord

NETWORKS = 4
"""the fewest that can show that classes are not drawn"""
MORE_NETWORKS = 6
"""the fewest where images from networks that know nothing are accepted more often than ``RARE``, or none is known"""
RARE = 0.01
REJECTED_TEXT = 'recognised where a class must be answered, and rejected where "none of these" may be'
REJECTED = 0.5
"""of the scale, by which the index is lower where images may be rejected, so that it says nothing of their classes"""
_SUSPICIONS = ("gradient masking suspected", "decoys suspected")


@dataclass(frozen=True)
class Missing:
    """Something that "resists" needs and that is not there."""

    reason: str
    """in words, with the numbers"""
    settle: str = ""
    """options of a command that would settle it; empty where none would"""
    more: bool = False
    """whether it is only that more networks or attacks would tell more: what was measured is no less true"""


def missing_for_resistance(
    own: Sequence[CellRecord], rows: Sequence[AttackRow], evidence: ClassEvidence | None, telling: Sequence[str]
) -> list[Missing]:
    """What is missing of a defence whose attacks show no leak; nothing, and it resists.

    ``own``: its cells, the attacks' and those without; ``rows``: what all seeds together say of its attacks;
    ``telling``: the attacks whose images are recognised more often than by chance, few as they may be of each class.
    """
    if evidence is None:
        unbuilt = dict.fromkeys(cell.reason for cell in own if not cell.attack and cell.status == "not-applicable")
        nothing = "no attack on it gave images that could be judged"
        if unbuilt:
            nothing = f"there was nothing to attack: not applicable: {'; '.join(unbuilt)}"
        elif rows:  # those that fail G2 are no evidence
            nothing = "every attack on it draws classes from an untrained network as well: invalid"
        return [*_cells(own), Missing(nothing)]
    of_networks = [*_votes(evidence), *_accuracy(own, evidence.among)]
    return [*_cells(own), *_attacks(own, rows, telling), *of_networks, *_ensemble(own, rows)]


def nothing_known(own: Sequence[CellRecord], classes: int) -> Missing | None:
    """Why what is recognised of a defence can't come from what its networks know: they know less than one class.

    ``own``: its cells. What a network knows is the better of its accuracy and that of the ANN that is reconverted from
    it: at few steps a network may answer nothing and hold everything. Knowing one class and guessing the others makes
    an accuracy of 2 / classes; with few classes the middle between chance and the ANN's counts. None where more is
    known, or not measured on every network.
    """
    measured = _knowledge(own)
    if measured is None:
        return None
    accuracy, ann = measured
    one_class = min(2 / classes, (1 / classes + ann) / 2)
    if accuracy >= one_class:
        return None
    return Missing(
        f"its networks know no class (accuracy {accuracy:.2f}, one known class would make {one_class:.2f}): "
        "what is recognised is like a class by chance"
    )


def knows_classes(own: Sequence[CellRecord], classes: int) -> bool:
    """Whether a network that should know nothing knows most of what the ANN does, by the same measure."""
    measured = _knowledge(own)
    return measured is not None and measured[0] > (1 / classes + measured[1]) / 2


def _knowledge(own: Sequence[CellRecord]) -> tuple[float, float] | None:
    """Means over networks of the better accuracy of either reading, and of the ANN's; None where one is unknown."""
    alone = [{value.metric: value.value for value in cell.values} for cell in own if not cell.attack]
    known = [max(one["accuracy"], one.get("reconverted_accuracy", 0.0)) for one in alone if "accuracy" in one]
    anns = [one["ann_accuracy"] for one in alone if "ann_accuracy" in one]
    if not known or not anns or len(known) < len({cell.seed for cell in own}):
        return None
    return sum(known) / len(known), sum(anns) / len(anns)


def _cells(own: Sequence[CellRecord]) -> Iterator[Missing]:
    """An attack that failed or found no signal has tested nothing, whatever the others found."""
    attacked = [cell for cell in own if cell.attack and not cell.of]
    for status, words in (("failed", "failed"), ("no-signal", "found no signal")):
        bad = [cell for cell in own if cell.status == status and not cell.of]
        attacks = dict.fromkeys(cell.attack or "the defence itself" for cell in bad)
        reasons = dict.fromkeys(cell.reason for cell in bad)
        if bad:
            which = "every attack" if len(attacks) > 1 and bad == attacked else ", ".join(attacks)
            # a comparison leaves out what failed on one of two defences
            yield Missing(f"{which} {words}: {'; '.join(reasons)}", more=status == "failed")


def _accuracy(own: Sequence[CellRecord], classes: int) -> Iterator[Missing]:
    alone = [cell for cell in own if not cell.attack]
    known = [{value.metric: value.value for value in cell.values} for cell in alone]
    drops = [one["ann_accuracy"] - one["accuracy"] for one in known if {"accuracy", "ann_accuracy"} <= one.keys()]
    if len(drops) < max(1, len({cell.seed for cell in own})):
        yield Missing("its accuracy was not measured on every network", more=True)
    elif lost_too_much(drop := sum(drops) / len(drops)):
        # one that knows less would be the best of all
        yield Missing(f"its accuracy is {drop:.3g} below the ANN's, {MOST_LOST} is allowed: knowing less leaks less")
    else:  # networks above their ANNs make up for one that does not work
        for cell, one in zip(alone, known, strict=True):
            if one["accuracy"] <= (1 / classes + one["ann_accuracy"]) / 2:
                right = f"right on {one['accuracy']:.2f} of test images, its ANN on {one['ann_accuracy']:.2f}"
                yield Missing(f"its network of seed {cell.seed} does not work: {right}")


def _attacks(own: Sequence[CellRecord], rows: Sequence[AttackRow], telling: Sequence[str]) -> Iterator[Missing]:
    quoted = _quoted(own, rows)
    doubted = [row for row in rows if row.validity in _SUSPICIONS or (row in quoted and row.validity != "valid")]
    for row in doubted:
        yield Missing(f"{row.attack}: {row.validity} ({row.reason})")
    if rows and not any(row.validity == "valid" for row in rows):
        others = [f"{row.attack}: {row.validity} ({row.reason})" for row in rows if row not in doubted]
        yield Missing(": ".join(["no valid attack", *(["; ".join(others)] if others else [])]))
    rejected = [row.attack for row in rows if row.attack in telling and is_rejected(row)]
    few = [attack for attack in telling if attack not in rejected]
    if rejected:
        yield Missing(f"{', '.join(rejected)}: images are {REJECTED_TEXT}: how much they show is not known")
    if few:
        which = f"{', '.join(few)}: images are recognised more often than by chance"
        yield Missing(f"{which}, though too few of a class to count as drawn", more=True)


def is_rejected(row: AttackRow) -> bool:
    """Whether its index counts no images that are rejected, and would be far higher with them."""
    values = {index.metric: index.value for index in row.indices}
    counted, forced = values.get(OPEN_SET), values.get(FORCED)
    headline = next((index.metric for index in row.indices), "")
    return headline == OPEN_SET and forced is not None and forced - (counted or 0.0) > REJECTED


def _ensemble(own: Sequence[CellRecord], rows: Sequence[AttackRow]) -> Iterator[Missing]:
    run = {name: [cell for cell in own if cell.attack_name == name and not cell.of] for name in quoted_attacks()}
    if absent := [name for name, cells in run.items() if not cells]:
        were = "was" if len(absent) == 1 else "were"
        yield Missing(f"{', '.join(absent)} {were} not run on it", f"--attack {ENSEMBLE}", more=True)
    for name, cells in run.items():
        if cells and {cell.seed for cell in cells if cell.votes is not None} < {cell.seed for cell in own}:
            reasons = dict.fromkeys(cell.reason for cell in cells if cell.reason)
            yield Missing(": ".join([f"{name} did not work on every network", *reasons]))
    quoted = _quoted(own, rows)
    no_decoys = any(gate.name == "G7" and gate.passed for row in quoted for gate in row.gates)
    for row in quoted:
        open_gates = [gate for gate in row.gates if gate.name in ("G1", "G2", "G7") and gate.passed is None]
        for gate in open_gates if row.validity == "valid" else ():
            # what decoys may hide is no less open than what masking may
            yield Missing(f"{row.attack}, {gate.name}: {gate.reason}", more=gate.name != "G7" or no_decoys)


def _quoted(own: Sequence[CellRecord], rows: Sequence[AttackRow]) -> list[AttackRow]:
    """The rows of the recommended attacks."""
    names = {cell.attack: cell.attack_name for cell in own if cell.attack and not cell.of}
    return [row for row in rows if names.get(row.attack) in quoted_attacks()]


def _votes(evidence: ClassEvidence) -> Iterator[Missing]:
    classes, networks = len(evidence.classes), evidence.networks
    if evidence.not_attacked:
        which = f"{evidence.not_attacked} of {evidence.among} classes were not attacked"
        yield Missing(which, f"--classes {evidence.among}", more=True)
    needed = MORE_NETWORKS if _often(evidence) else NETWORKS
    least = networks_to_detect(classes)
    if least is None:
        yield Missing(f"with {classes} class{'es' * (classes > 1)} nothing can be told from chance")
    else:
        needed = max(needed, least)
    have = "one network" if networks == 1 else f"{networks} networks"
    if max(NETWORKS, least or 0) <= networks < needed and evidence.false_acceptance is None:
        why = f"{needed} are needed where no network that knows nothing was attacked"
        yield Missing(f"{have}: {why}", f"--null-networks {CONTROLS}", more=True)
    elif networks < needed:
        can = "no class can be named, nothing can resist" if networks < NAMES else "too few to exclude a leak"
        yield Missing(f"{have}: {can}", f"--seeds {needed}", more=True)
    elif evidence.open:
        which = f"{len(evidence.open)} of {classes} classes are not excluded: some attack draws each from some networks"
        yield Missing(which, f"--seeds {2 * networks}", more=True)
    elif evidence.untested:
        which = f"{len(evidence.untested)} of {classes} classes are not drawn from unprotected networks either"
        yield Missing(f"{which}: whether they are protected was not tested", more=True)


def _often(evidence: ClassEvidence) -> bool:
    """Whether nonsense is accepted often: for certain, as at .01 itself half of all studies would find more."""
    rate = evidence.false_acceptance
    if rate is None:  # with fewer seeds, networks that know nothing were not asked for
        return evidence.networks >= NAMES
    return at_least(rate) > RARE
