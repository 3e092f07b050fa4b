"""Votes: which classes of a network an attack's images show, counted from accepted answers.

The evaluation models accept an image as one class or as none. An attack's images of one class are near-copies, so
they have one vote together: h[s, a, j, k] says whether at least half of the images that attack a made for class j on
network s were accepted as class k. A vote h[s, a, k, k] is for the target class, any other is a false acceptance, and
says how easily class k is seen where it was not meant. :mod:`leakbench.metrics.class_leaks` tests the former against
the latter; here is what follows from the counts T[a, k] of votes for the target class alone: which classes are
excluded, and what leak so few networks can show at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leakbench.errors import UsageError

Bools = NDArray[np.bool_]

DRAWN = 0.8
"""share of networks that an excluded class is not drawn from"""
MISSED = 0.034
"""how often a class drawn from ``DRAWN`` of the networks may be excluded all the same"""
SIGNIFICANT = 0.01
POWER = 0.8


class Answers(NamedTuple):
    """What the evaluation models say of the images of one attack on one network."""

    targets: ArrayLike
    """integers [N]: the class that each image was made for"""
    accepted: ArrayLike
    """integers [N]: the class that each is accepted as, -1 for none"""


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes of some networks under the same attacks and classes.

    Not every attack has to be run on every network (an expensive one may be run on fewer controls): ``run`` says where
    it was. A cell that was not run has no votes, which is no evidence: it counts neither for nor against a class.
    Raises UsageError for shapes that don't fit and for votes where nothing was run.
    """

    accepted: Bools
    """[networks, attacks, C, C]: whether the images made for the third index are accepted as the fourth"""
    run: Bools
    """[networks, attacks]"""

    def __post_init__(self) -> None:
        shape = self.accepted.shape
        if len(shape) != 4 or shape[2] != shape[3] or self.run.shape != shape[:2] or not all(shape):
            raise UsageError(
                "votes must be [networks, attacks, C, C], and where attacks were run [networks, attacks], "
                f"at least one of each, got {shape} and {self.run.shape}"
            )
        if self.accepted.dtype != np.bool_ or self.run.dtype != np.bool_:
            raise UsageError(f"votes must be bool, got {self.accepted.dtype} and {self.run.dtype}")
        if self.accepted[~self.run].any():
            raise UsageError("votes of an attack on a network that it was not run on")

    @property
    def networks(self) -> int:
        return len(self.accepted)

    @property
    def attacks(self) -> int:
        return int(self.accepted.shape[1])

    @property
    def classes(self) -> int:
        return int(self.accepted.shape[2])

    @property
    def of_target(self) -> Bools:
        """[networks, attacks, C]: whether a class's images are accepted as it."""
        return np.diagonal(self.accepted, axis1=2, axis2=3)

    @property
    def counts(self) -> NDArray[np.int64]:
        """T [attacks, C]: on how many networks a class's images are accepted as it."""
        return np.asarray(self.of_target.sum(0, dtype=np.int64))


def count_votes(cells: Sequence[Sequence[Answers | None]], classes: ArrayLike) -> Votes:
    """The votes of ``cells[network][attack]``, None where the attack was not run on the network.

    ``classes``: the C classes that were attacked, distinct integers; the order is that of the votes' last two indices.
    An image accepted as a class that was not attacked has no vote, like one accepted as none. Half of the images
    suffice, so two images accepted as different classes are a vote for both. A class without an image has no vote to
    give and could pass for excluded: UsageError, as for classes and shapes that don't fit.
    """
    numbers = _integers("classes", classes)
    if not numbers.size or len(np.unique(numbers)) < len(numbers) or numbers.min() < 0:
        raise UsageError(f"classes must be distinct integers from 0, at least one, got {numbers.tolist()}")
    if not cells or not cells[0] or len({len(row) for row in cells}) != 1:
        raise UsageError("votes need at least one network, and the same attacks, at least one, of each")
    accepted = np.zeros((len(cells), len(cells[0]), len(numbers), len(numbers)), dtype=bool)
    for network, row in enumerate(cells):
        for attack, answers in enumerate(row):
            if answers is not None:
                accepted[network, attack] = _cell_votes(answers, numbers)
    return Votes(accepted, np.array([[answers is not None for answers in row] for row in cells]))


def _cell_votes(answers: Answers, classes: NDArray[np.int64]) -> Bools:
    targets, accepted = _integers("targets", answers.targets), _integers("accepted", answers.accepted)
    if targets.shape != accepted.shape:
        raise UsageError(f"each image has a target and an answer, got {targets.shape} and {accepted.shape}")
    if not np.isin(targets, classes).all() or accepted.min(initial=-1) < -1:
        raise UsageError("targets must be among the classes, and answers classes or -1 for none")
    made = targets == classes[:, None]
    images = made.sum(1)
    if not images.all():
        raise UsageError(f"no image was made for class {classes[images == 0][0]}; a cell that failed is None")
    shown = made.astype(np.int64) @ (accepted[:, None] == classes)
    return np.asarray(2 * shown >= images[:, None])


def _integers(name: str, given: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(given)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"{name} must be integers in one dimension, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def votes_to_exclude(networks: int) -> int:
    """A class with fewer votes than this is excluded as drawn from 80 % of networks; 0: none can be, votes or not.

    The most c with P(Binomial(networks, .8) < c) <= .034: 1, 2, 2, 3, 4, 4, 5, 6 for 3 to 10 networks, 0 below 3. The
    binomial takes an attack to draw the class from each network independently.
    """
    if networks < 0:
        raise UsageError(f"a number of networks can't be {networks}")
    from scipy.special import bdtr  # takes a third as long to load as torch

    fewer = bdtr(np.arange(networks + 1), networks, DRAWN)  # P(at most c), c = 0, ..., networks
    return int((fewer <= MISSED).sum())


def excluded_classes(own: Votes) -> tuple[int, ...]:
    """The classes (indices) that are excluded as drawn from 80 % of networks like these, under every attack.

    Each attack is held to :func:`votes_to_exclude` of the networks that it was run on: one that was run on fewer than
    3 of them excludes nothing, so no class is excluded then.
    """
    least = np.array([votes_to_exclude(int(networks)) for networks in own.run.sum(0)])
    return tuple(np.flatnonzero((own.counts < least[:, None]).all(0)).tolist())


def votes_to_detect(networks: int, classes: int) -> int | None:
    """c*: the fewest votes for a class that one attack can reach significance with; None where no number does.

    The least c with binom(networks, c) / classes^c <= .01: the chance that the class's images fall on it in c networks
    where nothing else is accepted as it.
    """
    if networks < 1 or classes < 1:
        raise UsageError(f"detection needs at least 1 network and 1 class, got {networks} and {classes}")
    return next((c for c in range(1, networks + 1) if math.comb(networks, c) / classes**c <= SIGNIFICANT), None)


def detection_power(networks: int, classes: int, drawn: int, probability: float) -> float:
    """The chance that at least one of ``drawn`` classes has c* votes, each drawn from a network with ``probability``.

    1 - [1 - P(Binomial(networks, probability) >= c*)]^drawn, 0 where no number of votes is enough. Raises UsageError
    for ``probability`` outside [0, 1] or ``drawn`` outside 0..classes.
    """
    if not 0 <= probability <= 1 or not 0 <= drawn <= classes:
        raise UsageError(f"{drawn} of {classes} classes can't be drawn with probability {probability}")
    least = votes_to_detect(networks, classes)
    if least is None:
        return 0.0
    from scipy.special import bdtr  # takes a third as long to load as torch

    return float(1 - bdtr(least - 1, networks, probability) ** drawn)


def smallest_detectable_leak(networks: int, classes: int, probability: float) -> int | None:
    """The fewest classes, each drawn from a network with ``probability``, of which one is detected in 80 % of studies.

    None where not even a leak of all classes is.
    """
    drawn = range(1, classes + 1)
    return next((k for k in drawn if detection_power(networks, classes, k, probability) >= POWER), None)
