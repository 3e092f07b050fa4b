"""What many attacks do to the verdict's joint test and to the comparison of two defences, simulated; a minute.

    python benchmarks/many_attacks.py

The joint test: four attacks draw one class from 80 % of four networks; beside them attacks whose images show a random
other class each. The comparison: two defences with the same true worst case, which one attack reaches on the first and
several, independent of each other, on the second.
"""

from __future__ import annotations

import numpy as np

from leakbench.metrics.class_leaks import leaking_classes
from leakbench.metrics.class_votes import Votes
from leakbench.metrics.intervals import paired_difference

NETWORKS, CLASSES, QUOTED = 4, 10, 4
ACCEPTED = 0.016
"""how often images of networks that know nothing are accepted as a given class (docs/results/false-positives.md)"""
STUDIES, PAIRS = 1000, 4000


def found(others: int, rng: np.random.Generator) -> float:
    """Share of studies in which some class leaks at .01, beside so many other attacks."""
    each, hits = np.arange(CLASSES), 0
    for study in range(STUDIES):
        votes = rng.random((NETWORKS, QUOTED, CLASSES, CLASSES)) < ACCEPTED
        leaking = rng.random(NETWORKS) < 0.8
        votes[:, :, 0, 0] |= leaking[:, None] & (rng.random((NETWORKS, QUOTED)) < 0.9)
        more = np.zeros((NETWORKS, others, CLASSES, CLASSES), dtype=bool)
        for network, attack in np.ndindex(NETWORKS, others):
            more[network, attack, each, rng.permutation(CLASSES)] = True
        run = np.ones((NETWORKS, QUOTED + others), dtype=bool)
        hits += leaking_classes(Votes(np.concatenate([votes, more], 1), run), draws=999, seed=study).p <= 0.01
    return hits / STUDIES


def called_less(attacks: int, rng: np.random.Generator) -> float:
    """Share of pairs in which the defence that one attack reaches is said to leak less than that of ``attacks``."""

    def worst(reached: int) -> np.ndarray:
        scores = []
        for mean in [0.5] * reached + [0.2] * (6 - reached):
            of_class, of_seed = 0.25 * rng.standard_normal((1, CLASSES)), 0.05 * rng.standard_normal((NETWORKS, 1))
            rest = 0.15 * rng.standard_normal((NETWORKS, CLASSES))
            scores.append(np.clip(mean + of_class + of_seed + rest, 0, 1))
        return max(scores, key=lambda one: float(one.mean()))

    pairs = [paired_difference(worst(1), worst(attacks)) for _ in range(PAIRS)]
    return sum(pair.p < 0.05 and pair.value < 0 for pair in pairs) / PAIRS


def main() -> None:
    rng = np.random.default_rng(0)
    for others in (0, 5, 20):
        print(f"{QUOTED} attacks and {others} that show other classes: a leak is found in {found(others, rng):.0%}")
    for attacks in (1, 6):
        share = called_less(attacks, rng)
        print(
            f"one attack reaches the worst case against {attacks}: it leaks less in {share:.1%}, at most 2.5 % should"
        )


if __name__ == "__main__":
    main()
