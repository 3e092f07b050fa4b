"""Simulated votes: networks that leak some classes or none, with all that makes false acceptances alike.

- Favourite classes: what is falsely accepted is accepted as some classes far more often than as others, whatever class
  it was made for; the favourites are the same for all networks and attacks, defended or control.
- Correlated attacks: attacks on a network draw the same classes, and are falsely accepted for the same classes and as
  the same ones more often than by chance.
- Overdispersed acceptance: some networks are falsely accepted far more often than others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from leakbench.metrics.class_votes import Answers, Votes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """Networks of which some classes are drawn, and null networks of which none is."""

    networks: int = 4
    controls: int = 20
    attacks: int = 6
    classes: int = 10
    expensive: int = 0
    """the last so many attacks are run on 6 of the controls only"""
    leaking: int = 0
    """the first so many classes are drawn"""
    drawn: float = 1.0
    """the chance that a leaking class is drawn from a network: by all attacks, or by none"""
    acceptance: float = 0.01
    """the chance that images of a class that was not drawn are accepted as it all the same, on average over networks
    and classes; that they are accepted as any of the C classes is C times as likely"""
    defended: float = 1.0
    """how many times as often the defended networks are falsely accepted as the controls"""
    agreement: float = 0.7
    """the correlation of two attacks' false acceptances on a network"""
    favourites: float = 0.5
    """concentration of the Dirichlet distribution that false acceptances take their classes from: the less, the more
    uneven"""
    dispersion: float = 2.0
    """shape of the gamma distribution of networks' acceptance: its variance is the square of its mean over this"""
    shared_starts: bool = False
    """all networks are attacked from the same starts: those accepted for a class are accepted as one and the same"""

    def votes(self, rng: np.random.Generator) -> tuple[Votes, Votes]:
        """Of the defended networks, and of the controls."""
        likely = rng.dirichlet(np.full(self.classes, self.favourites))
        starts = self._fates(rng, 1, likely) if self.shared_starts else None
        own = self._votes(rng, likely, self.networks, self.leaking, self.defended, starts)
        controls = self._votes(rng, likely, self.controls, 0, 1.0, starts)
        run = controls.run.copy()
        run[6:, self.attacks - self.expensive :] = False
        return own, Votes(controls.accepted & run[..., None, None], run)

    def _votes(
        self,
        rng: np.random.Generator,
        likely: Floats,
        networks: int,
        leaking: int,
        times: float,
        starts: tuple[Floats, NDArray[np.int64]] | None,
    ) -> Votes:
        rates = (
            times * self.acceptance * self.classes * rng.gamma(self.dispersion, 1 / self.dispersion, (networks, 1, 1))
        )
        luck, as_class = self._fates(rng, networks, likely) if starts is None else starts
        accepted = np.broadcast_to(luck < rates, (networks, self.attacks, self.classes)).copy()
        seen = np.broadcast_to(as_class, accepted.shape).copy()
        drawn = rng.random((networks, 1, leaking)) < self.drawn
        accepted[..., :leaking] |= drawn
        seen[..., :leaking] = np.where(drawn, np.arange(leaking), seen[..., :leaking])
        votes = accepted[..., None] & (seen[..., None] == np.arange(self.classes))
        return Votes(votes, np.ones(votes.shape[:2], dtype=bool))

    def _fates(self, rng: np.random.Generator, networks: int, likely: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Of the images for each class [networks, attacks, C]: below which rate accepted (uniform), and as what."""
        at = np.searchsorted(likely.cumsum()[:-1], self._uniform(rng, networks), side="right")
        return self._uniform(rng, networks), at

    def _uniform(self, rng: np.random.Generator, networks: int) -> Floats:
        """[networks, attacks, C] in (0, 1), correlated over attacks (Gaussian copula)."""
        common = rng.normal(size=(networks, 1, self.classes))
        own = rng.normal(size=(networks, self.attacks, self.classes))
        return np.asarray(ndtr(np.sqrt(self.agreement) * common + np.sqrt(1 - self.agreement) * own))


def answers(votes: Votes, images: int, rng: np.random.Generator) -> list[list[Answers | None]]:
    """Answers to ``images`` images of each class, in random order, that have these votes (one a class at the most).

    Half to all of the images are accepted where there is a vote, fewer than half, as any class, where there is none.
    """
    return [
        [_answers(cell, images, rng) if run else None for cell, run in zip(cells, runs, strict=True)]
        for cells, runs in zip(votes.accepted, votes.run, strict=True)
    ]


def _answers(cell: NDArray[np.bool_], images: int, rng: np.random.Generator) -> Answers:
    targets = np.repeat(np.arange(len(cell)), images)
    accepted = np.full((len(cell), images), -1)
    for target, row in enumerate(cell):
        half = (images + 1) // 2
        number = rng.integers(half, images + 1) if row.any() else rng.integers(half)
        accepted[target, :number] = row.argmax() if row.any() else rng.integers(len(cell))
    order = rng.permutation(len(targets))
    return Answers(targets[order], accepted.ravel()[order])
