"""What a grid's votes say of a defence: whether classes leak, which, and which are excluded.

Pure functions of records, which turn cells into :class:`leakbench.metrics.class_votes.Votes` and ask
:mod:`leakbench.metrics.class_leaks`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leakbench import registry
from leakbench.metrics.class_leaks import ClassLeaks, leaking_classes
from leakbench.metrics.class_votes import Votes, excluded_classes, votes_to_detect, votes_to_exclude
from leakbench.metrics.estimate import Estimate, mean
from leakbench.records import CellRecord

OPEN_SET, FORCED = "open_set_accuracy", "judge_accuracy"
"""metrics of what the evaluation models see in images: where they may also answer "none of these", where not"""
ACCEPTED = 0.8
"""share of the images classified correctly from unprotected networks that must be accepted as showing a class: of fewer
the evaluation models reject the style of attacks and not what shows nothing"""
ENSEMBLE = "auto"
"""what has to be among the attacks tried, in its newest version and with all that is run together with it"""
_MOST_NETWORKS = 100


def quoted_attacks() -> tuple[str, ...]:
    """The names of :data:`ENSEMBLE` and of what is run together with it."""
    return registry.together("attack", ENSEMBLE)


def accepted_share(unprotected: Iterable[CellRecord]) -> float | None:
    """Of the images that the best attack drew from networks that protect nothing and that are classified correctly, the
    share that is accepted as showing a class; None where there are none. Below ``ACCEPTED``, "none of these" is not
    counted.

    The recommended ensemble is the best, else the attack of whose images most are classified correctly: with all
    attacks together, whoever adds useless ones would choose whether it is counted.
    """
    counts: dict[str, tuple[float, float, float]] = {}
    for cell in unprotected:
        values = {value.metric: value for value in cell.values}
        if OPEN_SET in values and FORCED in values:
            right, accepted, images = counts.get(cell.attack_name, (0.0, 0.0, 0.0))
            right += values[FORCED].value * values[FORCED].n
            accepted += values[OPEN_SET].value * values[OPEN_SET].n
            counts[cell.attack_name] = right, accepted, images + values[FORCED].n
    shares = {name: (right / images, accepted / right) for name, (right, accepted, images) in counts.items() if right}
    if (quoted := registry.newest("attack", ENSEMBLE)) in shares:
        return shares[quoted][1]
    return max(shares.values())[1] if shares else None


@dataclass(frozen=True)
class ClassEvidence:
    """What the votes of a defence's networks say."""

    classes: tuple[int, ...]
    """those that were attacked"""
    among: int
    """classes that there are"""
    networks: int
    leaks: ClassLeaks
    excluded: frozenset[int]
    """classes that no attack draws from 80 % of networks like these"""
    shown: frozenset[int] | None
    """classes that the recommended attacks do draw from the unprotected networks beside these, by the rule of
    ``excluded``; None where there are none"""
    false_acceptance: Estimate | None
    """how often images from networks that know nothing are accepted as some class, a class, by the attack of which most
    are; None without any"""

    @property
    def named(self) -> list[int]:
        """The classes that leak significantly."""
        return [self.classes[at] for at in self.leaks.named]

    @property
    def own(self) -> list[int]:
        """Of those named the ones that networks that know nothing don't show as often."""
        return [self.classes[at] for at in self.leaks.named if at not in self.leaks.as_often]

    @property
    def doubtful(self) -> list[int]:
        """Of those named the ones that networks that know nothing may show as often."""
        return [self.classes[at] for at in self.leaks.doubtful]

    @property
    def not_attacked(self) -> int:
        """How many were not attacked."""
        return self.among - len(self.classes)

    @property
    def untested(self) -> list[int]:
        """Those that are excluded, and would be as well of unprotected networks."""
        return [] if self.shown is None else [one for one in self.classes if one in self.excluded - self.shown]

    @property
    def open(self) -> list[int]:
        """Those that are not excluded."""
        return [one for one in self.classes if one not in self.excluded]


def class_evidence(
    own: Sequence[CellRecord],
    nulls: Sequence[CellRecord],
    attacks: Sequence[str],
    open_set: bool,
    unprotected: Sequence[CellRecord] = (),
) -> ClassEvidence | None:
    """Of the attacks with these labels on a defence (``own``), on networks that know nothing (``nulls``), and on those
    that protect nothing.

    None where no cell of them was judged. Every network of either counts, with the attacks that worked on it. What an
    attack drew at half its effort, too, is not excluded.
    """
    of_own, of_nulls = _by_network((cell for cell in own if not cell.of), attacks), _by_network(nulls, attacks)
    classes = _classes(of_own)
    if not classes:
        return None
    votes = _votes(of_own, attacks, classes, open_set)
    kept = [attack for column, attack in enumerate(attacks) if votes.run[:, column].any()]
    votes = _votes(of_own, kept, classes, open_set)
    controls = _votes(of_nulls, kept, classes, open_set) if of_nulls else None
    halves = [cell.model_copy(update={"attack": cell.of}) for cell in own if cell.of in kept]
    of_halves = _by_network(halves, kept)
    excluded = set(excluded_classes(votes))
    if of_halves:
        excluded -= _drawn(_votes(of_halves, kept, classes, open_set))
    shown = None
    # of the recommended attacks: others could draw from these networks alone, for a defence to look protected beside
    # them
    quoted = (cell for cell in unprotected if not cell.of and cell.attack_name in quoted_attacks())
    if of_unprotected := _by_network(quoted, kept):
        shown = frozenset(classes[at] for at in _drawn(_votes(of_unprotected, kept, classes, open_set)))
    return ClassEvidence(
        classes,
        known_classes(cell for cells in of_own.values() for cell in cells.values()) or len(classes),
        votes.networks,
        leaking_classes(votes, controls),
        frozenset(classes[at] for at in excluded),
        shown,
        _false_acceptance(controls),
    )


def _drawn(votes: Votes) -> set[int]:
    """The classes (indices) that some attack draws from as many of its networks as keep a class from being excluded."""
    least = np.array([max(1, votes_to_exclude(int(networks))) for networks in votes.run.sum(0)])
    return set(np.flatnonzero((votes.counts >= least[:, None]).any(0)).tolist())


def _by_network(cells: Iterable[CellRecord], attacks: Collection[str]) -> dict[tuple[str, int], dict[str, CellRecord]]:
    """(defence, seed) -> attack -> its cell that worked; of a null network ``of`` says the attack, too."""
    networks: dict[tuple[str, int], dict[str, CellRecord]] = {}
    for cell in cells:
        if cell.votes is not None and cell.status == "ok" and cell.attack in attacks:
            networks.setdefault((cell.defense, cell.seed), {})[cell.attack] = cell
    return networks


def _classes(networks: Mapping[tuple[str, int], Mapping[str, CellRecord]]) -> tuple[int, ...]:
    attacked = {c for cells in networks.values() for cell in cells.values() if cell.votes for c in cell.votes.classes}
    return tuple(sorted(attacked))


def known_classes(cells: Iterable[CellRecord]) -> int:
    """How many classes the networks know; 0 where no cell says it."""
    return max((cell.votes.known or cell.votes.among or 0 for cell in cells if cell.votes), default=0)


def _votes(
    networks: Mapping[tuple[str, int], Mapping[str, CellRecord]],
    attacks: Sequence[str],
    classes: Sequence[int],
    open_set: bool,
) -> Votes:
    """[networks, attacks, C, C] of cells that attacked all of the classes."""
    at = {one: index for index, one in enumerate(classes)}
    accepted = np.zeros((len(networks), len(attacks), len(classes), len(classes)), dtype=bool)
    run = np.zeros(accepted.shape[:2], dtype=bool)
    for row, cells in enumerate(networks.values()):
        for column, attack in enumerate(attacks):
            votes = cells[attack].votes if attack in cells else None
            if votes is None or not set(classes) <= set(votes.classes):
                continue
            run[row, column] = True
            for meant, seen in votes.accepted if open_set else votes.forced:
                if meant in at and seen in at:
                    accepted[row, column, at[meant], at[seen]] = True
    return Votes(accepted, run)


def _false_acceptance(nulls: Votes | None) -> Estimate | None:
    """Of the attack of which most is accepted, over the networks that it was run on: no other attack makes it less."""
    if nulls is None:
        return None
    shares = nulls.accepted.mean((2, 3))
    rates = [mean(of_attack[run].tolist()) for of_attack, run in zip(shares.T, nulls.run.T, strict=True) if run.any()]
    return max(rates, key=at_least, default=None)


def at_least(estimate: Estimate) -> float:
    """Its lower limit, or its value where it has none."""
    return estimate.value if math.isnan(estimate.low) else estimate.low


def networks_to_detect(classes: int) -> int | None:
    """The fewest networks from which a class can be told from chance; None for one class, and where 100 do not do."""
    return next((n for n in range(1, _MOST_NETWORKS + 1) if votes_to_detect(n, classes) is not None), None)
