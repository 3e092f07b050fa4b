"""Gates: what must hold before an attack's result says anything about a defence (docs/verdicts.md, Gates and verdicts).

Each gate is one function with its reason in words. G6, the worst case over valid attacks, is the verdict's own rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from leakbench.contracts import Access
from leakbench.leakage.inversion.class_evidence import FORCED
from leakbench.leakage.inversion.index import paired
from leakbench.leakage.kind import GateRule, p_text
from leakbench.leakage.seed_group import SeedGroup
from leakbench.metrics.intervals import Difference
from leakbench.records import CellRecord, Gate

ALPHA = 0.01
"""level of every test of a gate"""
LEAST_ABILITY = 0.7
"""accuracy of the evaluation models on real images, from chance (0) to 1, below which they can't carry a verdict: two
small ones of .63 on CIFAR-10 took a flower for its target class more often than real images"""
NEIGHBOUR = "pixel_neighbour_accuracy"
CONFIDENT = 0.9
"""mean confidence of the victim in its own class pictures from which on the optimiser did its job"""
AGREEMENT = "student_agreement"
"""on which share of test images the student that an attack draws from answers as the victim"""
AGREES = 0.95
BLIND = 0.5
"""share of what the evaluation models see in the unprotected network's images, below which the victim's certainty is
not explained by what its own images show"""
NEARLY = 0.9
"""share of what an attack shows of the unprotected network, from which on there is little more that it could show"""

CHANCE = "1 / attacked classes"
GATES = (
    GateRule(
        "G1",
        "On the unprotected conversion, or on this network, its images are classified as the target class more often "
        f"than by chance ({CHANCE}): p < {ALPHA:g}, and the interval of judge accuracy lies above chance; else "
        "the attack is invalid.",
    ),
    GateRule(
        "G2", "On an untrained network they are not, by the same test; else the attack is invalid.", voids_leaks=True
    ),
    GateRule(
        "G3",
        f"The victim's mean confidence in its images' classes is above {CONFIDENT:g}; else the optimisation failed.",
    ),
    GateRule("G4", "With its full effort it does no worse than with half of it; else gradient masking is suspected."),
    GateRule("G5", "More access does no worse: WEIGHTS ≥ SCORES ≥ LABELS; else gradient masking is suspected."),
    GateRule("G6", "The verdict is of all attacks together, the worst case among them.", of_row=False),
    GateRule(
        "G7",
        f"The evaluation models see at least {BLIND:g} of what they see in the unprotected conversion's images, above "
        "chance where they have to name a class; else, "
        f"where the victim is certain (mean confidence above {CONFIDENT:g}), decoys are suspected, unless a student, "
        f"which learns no decoys, was attacked and answers {AGREES:g} of test images as the victim does.",
    ),
)


def tells_classes(group: SeedGroup, attacks: int = 1) -> bool:
    """Whether the images are recognised: p times the attacks tried is below ALPHA, and judge accuracy above chance.

    Above means the lower limit of its interval; chance is 1 / attacked classes.
    """
    # p alone also finds effects too small to name an image by: .002 where the accuracy was chance to two digits
    return group.p is not None and group.p * attacks < ALPHA and _at_least(group) > _chance(group)


def works_unprotected(attack: SeedGroup, control: SeedGroup, control_name: str) -> Gate:
    """G1: on the unprotected network the images must be recognised, or the attack's failures mean nothing."""
    if not control_name:
        return _gate("G1", None, "no unprotected network was attacked")
    if control.p is None:
        return _gate("G1", None, f"no judged images from {control_name}")
    if (attack.p is None or attack.p >= ALPHA) and (too_few := _too_few(control)):
        return _gate("G1", False, too_few)
    outcome = _recognised(control, control.p, f"on the unprotected {control_name}")
    if tells_classes(control):
        return _gate("G1", True, f"works: {outcome}")
    if attack.p is not None and tells_classes(attack):
        return _gate("G1", True, f"works on this very network, {p_text(attack.p)}, though not clearly with {outcome}")
    level = f" (p must be below {ALPHA:g})" if control.p >= ALPHA else ""
    return _gate("G1", False, f"not better than chance{level}: {outcome}")


def _too_few(group: SeedGroup) -> str:
    """Why no test of so few classes on so few networks can be passed; empty where one can."""
    from scipy.stats import combine_pvalues  # scipy.stats takes half a second to load

    classes, networks = len(group.classes(FORCED)), len(group.values("p_value"))
    least = 1 / math.factorial(classes)  # of one network: there are no more orders of the classes
    together = float(combine_pvalues([least] * networks, method="fisher").pvalue) if networks > 1 else least
    if together < ALPHA:
        return ""
    of = "one network" if networks == 1 else f"{networks} networks"
    return f"{classes} classes of {of} can't give p < {ALPHA:g}: it takes more classes or networks"


def draws_nothing_untrained(random: SeedGroup) -> Gate:
    """G2: an untrained network knows no class; what is recognised from it does not come from the training data."""
    if random.p is None:
        return _gate("G2", None, "no judged images from a network that knows nothing")
    outcome = _recognised(random, random.p, "on the untrained network")
    return _gate("G2", False, f"better than chance: {outcome}") if tells_classes(random) else _gate("G2", True, outcome)


def reached_target(attack: SeedGroup) -> Gate:
    """G3: the victim itself must see its class in the images, else the optimiser failed and not the attacker's idea."""
    confidence = attack.mean("victim_confidence")
    if confidence is None:
        return _gate("G3", None, "the victim was not asked")
    return _gate("G3", confidence > CONFIDENT, f"the victim's mean confidence in the target class is {confidence:.2f}")


def more_is_not_worse(attack: SeedGroup, half: SeedGroup, half_name: str) -> Gate:
    """G4: more steps, restarts or samples must not make an attack worse; where they do, gradients mislead it."""
    if not half:
        return _gate("G4", None, "half the effort was not tried on this row")
    difference = paired(half, attack)
    if difference is None:
        return _gate("G4", None, "too few classes or seeds to compare with half the effort")
    worse = _above(difference)
    how = "significantly" if worse else "not significantly"
    text = f"{_accuracy(half)} with half the effort ({half_name}) against {_accuracy(attack)}: {how} better"
    return _gate("G4", not worse, text)


def access_helps(access: Access, attacks: Mapping[str, tuple[Access, SeedGroup]]) -> Gate:
    """G5: who holds the weights must do at least as well as who only asks; else the weights' gradients are masked.

    ``attacks``: every attack on the same victim, by label.
    """
    richer = {name: group for name, (level, group) in attacks.items() if level >= access and group}
    poorer = {name: group for name, (level, group) in attacks.items() if level < access and group}
    if not poorer:
        return _gate("G5", None, "no attack with less access was run on this victim")
    best = _best(richer)
    for name, group in poorer.items():
        difference = paired(group, richer[best])
        if difference is not None and _above(difference):
            text = f"{name} needs less access and does better: {_accuracy(group)} against {best} with "
            return _gate("G5", False, text + _accuracy(richer[best]))
    return _gate("G5", True, "no attack with less access does better")


def decoys_excluded(student: SeedGroup, control: SeedGroup) -> str:
    """Why nothing that a defence shows is a decoy, by an attack that draws from a student; empty where it is not known.

    Decoys are not learnt by a student of the network on natural images, which wear none. So where on every network it
    answers test images as the network does, and the attack works on the unprotected network (``control``), it would
    have shown what decoys hide. To agree on natural images would prove nothing: a network may answer these by a rule of
    their own.
    """
    agreements = [one.value for one in student.values(AGREEMENT)]
    known = len(agreements) == len(student.cells) and min(agreements, default=0.0) >= AGREES
    if not known or not tells_classes(control):
        return ""
    return f"no decoys: a student answers at least {min(agreements):.2f} of the test images as it does"


def sees_what_the_victim_sees(attack: SeedGroup, control: SeedGroup, metric: str, cleared: str) -> Gate:
    """G7: images that satisfy the victim must also satisfy the evaluation models, if those of the unprotected network
    satisfy both. Else decoys are suspected: patterns without content that the network was taught to be certain of.

    A victim that is not certain is not cleared by it: the scale of its logits is its own, and passing is not known.
    ``metric``: the one that carries the verdict; ``cleared``: :func:`decoys_excluded`.
    """
    confidence, seen = attack.mean("victim_confidence"), attack.mean(metric)
    there, elsewhere = control.mean("victim_confidence"), control.mean(metric)
    if confidence is None or seen is None or there is None or elsewhere is None:
        return _gate("G7", None, "no victim and unprotected network to compare")
    if there <= CONFIDENT:
        on = f"on the unprotected network the victim's mean confidence is {there:.2f}"
        return _gate("G7", None, f"{on}, and it takes more than {CONFIDENT:g} there to compare")
    if not tells_classes(control):
        return _gate("G7", None, "the evaluation models recognise nothing on the unprotected network to compare with")
    chance = by_chance(metric, control)
    if elsewhere <= chance:
        return _gate("G7", None, "the evaluation models accept no image of the unprotected network's to compare with")
    text = (
        f"the victim's mean confidence is {confidence:.2f}, {seen:.2f} of its images are classified as their class; "
        f"{there:.2f} and {elsewhere:.2f} on the unprotected network{f'; by chance {chance:.2g}' if chance else ''}"
    )
    if seen - chance >= BLIND * (elsewhere - chance):
        return _gate("G7", True, text)
    if cleared:
        return _gate("G7", True, f"{text}; {cleared}")
    return _gate("G7", False if confidence > CONFIDENT else None, text)


def weak_models(real: SeedGroup, among: int = 0) -> str:
    """Why the evaluation models can't carry a verdict, by what they make of real images; empty where they can.

    They must be far above chance, and not significantly below a nearest neighbour on raw pixels. ``among``: the classes
    that they chose from, where more than the real images are of.
    """
    accuracy, neighbour = real.estimate(FORCED), real.estimate(NEIGHBOUR)
    if accuracy is None:
        return "the evaluation models were not tested on real images"
    if why := below_floor(accuracy.value, min(_chance(real), 1 / max(1, among))):
        return why
    ability = _ability(accuracy.value)
    if neighbour is not None and accuracy.high < neighbour.low:
        return f"{ability}, less than a nearest neighbour on raw pixels ({neighbour.value:.2f})"
    return ""


def below_floor(accuracy: float, chance: float) -> str:
    """Why evaluation models with this accuracy on real images can't carry a verdict; empty where they may."""
    floor = chance + LEAST_ABILITY * (1 - chance)
    return f"{_ability(accuracy)}, below their floor of {floor:.2f}" if accuracy < floor else ""


def _ability(accuracy: float) -> str:
    return f"the evaluation models classify {accuracy:.2f} of real images correctly"


def _best(groups: Mapping[str, SeedGroup]) -> str:
    return max(groups, key=lambda name: groups[name].mean(FORCED) or 0.0)


def _above(difference: Difference) -> bool:
    """Whether the first of two is clearly better; by the sign test where all differences are the same one."""
    p = 0.5 ** (difference.n - 1) if math.isnan(difference.p) else difference.p
    return difference.value > 0 and p < ALPHA


def _at_least(group: SeedGroup) -> float:
    """Lower limit of the judge accuracy, or the value itself where a seed has no interval; 0 without a value."""
    estimates = [value.estimate for value in group.values(FORCED)]
    if not estimates:
        return 0.0
    # errors in quadrature: like p it is of these very networks, where a t interval would ask about others
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in estimates)) / len(estimates)
    return math.fsum(one.value for one in estimates) / len(estimates) - (0.0 if math.isnan(below) else below)


def _chance(group: SeedGroup) -> float:
    """Evaluation models answer with one of the attacked classes; a cell may say that it was one of all."""
    return 1 / max(1, len(group.classes(FORCED)), classes_among(group.cells))


def by_chance(metric: str, group: SeedGroup) -> float:
    """What is seen by chance in images of no class: nothing where the answer may be "none of these"."""
    return _chance(group) if metric == FORCED else 0.0


def classes_among(cells: Iterable[CellRecord]) -> int:
    """How many classes evaluation models chose from; 0 where no cell says it."""
    return max((cell.votes.among or 0 for cell in cells if cell.votes), default=0)


def _recognised(group: SeedGroup, p: float, where: str) -> str:
    """Judge accuracy and p; where p alone is not enough, what is missing."""
    if p < ALPHA and not tells_classes(group):
        missing = f"at least {_at_least(group):.2g}, is not above chance ({_chance(group):.2g})"
        return f"{p_text(p)}, but {_accuracy(group)} {where}, {missing}"
    return f"{_accuracy(group)} {where}, {p_text(p)}"


def _accuracy(group: SeedGroup) -> str:
    accuracy = group.mean(FORCED)
    return "no judge accuracy" if accuracy is None else f"judge accuracy {accuracy:.2f}"


def _gate(name: str, passed: bool | None, reason: str) -> Gate:
    return Gate.model_validate({"name": name, "passed": passed, "reason": reason})


def failed(gates: Sequence[Gate], *names: str) -> list[Gate]:
    """The gates of these names that did not pass; one that can't be told has not failed."""
    return [gate for gate in gates if gate.name in names and gate.passed is False]
